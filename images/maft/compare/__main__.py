"""`python -m maft.compare`: the paper's table over finished runs of many methods and seeds, with errors, tests and costs.

In: the evaluation commits of the runs. Out: below `compare/` of the group a table as text, Markdown, CSV, JSON, a chart, a page.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from importlib import resources

from msgspec.structs import replace

from maft import __version__, begun, program, records, scores
from maft.compare.read import RunResult, read
from maft.compare.table import EXPLAINED, WORDS, MethodRow, Origin, as_csv, grid, markdown, notes, rows, text
from maft.program import Assignment
from maft.spec import FORMAT, Compared
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed
from maft.summaries import CompareSummary, first_that_fits

CHOSEN = "Of each run its best iteration counts, chosen by validation questions that were neither trained on nor held out."


def main(assignment: Assignment) -> CompareSummary:
    """Reads, compares, writes."""
    store, group, compared = assignment.store, assignment.run, assignment.compared
    namespace = group.partition("/")[0]
    results = {(one.method, one.seed): read(store, namespace, one) for one in compared}
    methods = rows(results, list(dict.fromkeys(one.method for one in compared)))
    origin = _origin(store, group, compared, results.values())
    chosen = CHOSEN if any(result.chosen for result in results.values()) else ""
    footer = "\n\n".join(part for part in (notes(methods).strip(), chosen, EXPLAINED, origin.text()) if part)
    runs = [replace(one, iteration=results[one.method, one.seed].iteration) for one in compared]
    data = {"format": FORMAT, "rows": methods, "runs": runs, "origin": origin}
    outputs = {
        "table.txt": text(methods) + "\n" + footer + "\n",
        "table.md": markdown(methods, footer),
        "table.csv": as_csv(methods),
        "compare.json": json.dumps(records.plain(data), indent=1, ensure_ascii=False, sort_keys=True),
        "index.html": _page(methods, footer),
    }
    prefix = f"{group}/{layout.COMPARE}"
    for name, content in outputs.items():
        store.write(prefix + name, content.encode())
    _named(store, group)
    return summary(methods, store.url, f"{prefix}index.html")


def _named(store: Store, group: str) -> None:
    """Leaves the group a run.json, where none of its runs has: by it `maft clean` finds what lies there once nobody needs it."""
    store.create(f"{group}/{layout.RUN}", begun.run_json(committed(store, f"{group}/{layout.PROBLEMS}")))


def summary(methods: Sequence[MethodRow], store: str, key: str) -> CompareSummary:
    """Picks what a terminal shows. Where the store's URL takes the table's room, the page's key alone; then without notes, then
    without the accuracy beside it."""
    table, footnotes, best = text(methods), f"\n{notes(methods)}".rstrip("\n"), scores.rounded(methods[0].accuracy)
    shown = [(table + footnotes, f"{store}/{key}"), (table + footnotes, key), (table, f"{store}/{key}"), (table, key)]
    made = [CompareSummary(table=whole, report=place, methods=len(methods), accuracy=best) for whole, place in shown]
    # Of a large grid the best rows alone: the page and the files have all of them.
    tops = (f"{text(methods[:most])}… and {len(methods) - most} more\n" for most in range(len(methods) - 1, 0, -1))
    most_of_it = (replace(made[-1], table=top) for top in tops)
    return first_that_fits(itertools.chain(made, [replace(made[-1], accuracy=None)], most_of_it))


def _origin(store: Store, group: str, compared: Sequence[Compared], results: Iterable[RunResult]) -> Origin:
    commit = committed(store, f"{group}/{layout.PROBLEMS}")
    return Origin(
        group=group,
        model=str(commit.meta.get("model", "")) if commit else "",
        seeds=tuple(sorted({one.seed for one in compared})),
        problems=begun.hashes(commit),
        versions={"maft": __version__} | {name: number for result in results for name, number in result.versions.items()},
    )


def _page(methods: Sequence[MethodRow], footer: str) -> str:
    from jinja2 import Environment

    from maft import charts

    chart = charts.compared([(row.name, row.accuracy) for row in methods])
    template = Environment(autoescape=True).from_string(resources.files("maft.compare").joinpath("page.html.j2").read_text("utf-8"))
    heads, *lines = grid(methods)
    return template.render(heads=[(head, head in WORDS) for head in heads], rows=lines, chart=chart, footer=footer)


PARSER = program.parser("compare", "Makes the table of many methods and seeds.", takes=("compared",))

if __name__ == "__main__":
    program.run(main, PARSER)
