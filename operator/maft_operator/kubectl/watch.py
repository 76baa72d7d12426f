"""`kubectl maft list` and `watch`."""

import sys

from maft_operator.cluster import kinds
from maft_operator.cluster.comparison.held import held
from maft_operator.cluster.fields import text
from maft_operator.ended import is_over
from maft_operator.kubectl import stored, tables
from maft_operator.kubectl.asked import Where, failure
from maft_operator.kubectl.tables import Printed, Row, Table
from maft_operator.printable import on_one_line, printable
from maft_operator.spec.schema import BadSpec, Json

FAILED = 2  # exit code, as of `maft run`


async def show(where: Where, *, wide: bool, selector: str, names: bool) -> int:
    """Prints what there is. names: only those, one a line."""
    printed, rows = Printed(wide, not where.namespace), 0
    async for page in where.pages(selector):
        table = tables.read(page)
        rows += len(table.rows)
        _print(table, printed, "maft" if where.kind == kinds.RUN else where.kind.plural, names=names)
    if not rows:
        print(f"No resources found{f' in {where.namespace} namespace' if where.namespace else ''}.", file=sys.stderr)
    return 0


def _print(table: Table, printed: Printed, prefix: str, *, names: bool) -> None:
    lines = [f"{prefix}/{row.name}" for row in table.rows] if names else printed.lines(table) if table.rows else ()
    for line in lines:
        print(line, flush=True)


async def follow(where: Where, name: str, *, wide: bool, selector: str) -> int:
    """Prints what there is, then a row for each that changes; of one until it has ended. name: empty for all."""
    if name:
        await where.run(name)
    query = {"includeObject": "Object"} if name else {}
    query |= {"fieldSelector": f"metadata.name={name}"} if name else {"labelSelector": selector} if selector else {}
    printed = Printed(wide, not where.namespace)
    last: dict[str, tuple[str, ...]] = {}
    printed_reasons: set[str] = set()
    async for kind, answer in where.changes(query):
        table = tables.read(answer)
        if kind == "DELETED" and name:
            raise BadSpec(f"{where.word} {where.namespace}/{name}: was deleted")
        fresh = tuple(row for row in table.rows if kind == "DELETED" or _news(row, last))
        for line in printed.lines(Table(table.columns, fresh)) if fresh else ():
            print(line, flush=True)
        for line in _fresh_reasons(table, printed_reasons) if name else ():
            print(f"  {line}", flush=True)
        if name and (over := next((row.thing for row in table.rows if is_over(row.thing)), None)):
            return _ending(over)
    return 0


def _news(row: Row, last: dict[str, tuple[str, ...]]) -> bool:
    """Tells whether the row differs from the one before, its age apart."""
    key, now = f"{row.namespace}/{row.name}", row.cells[:-1]
    before, last[key] = last.get(key), now
    return now != before


def _fresh_reasons(table: Table, before: set[str]) -> list[str]:
    """Lists which runs of a comparison wait or failed, each once; one that went on and waits again is told again."""
    lines = [on_one_line(line) for row in table.rows for line in held(row.thing)]
    fresh = [line for line in lines if line not in before]
    before.clear()
    before.update(lines)
    return fresh


def _ending(run: Json) -> int:
    if why := failure(run):
        print(f"error: {why}", file=sys.stderr)
        return FAILED
    if table := text(run, "status", "table"):  # of a comparison
        print(printable(table))
    if report := stored.reported(run):
        print(f"Report: {report}")
    return 0
