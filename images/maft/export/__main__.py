"""`python -m maft.export`: hands on what a run has committed: to servers, trackers, registries and folders.

Reads commits and nothing else, so an unfinished run gives what is there. What was sent is not sent again.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from maft import committed_run, program
from maft.errors import BadInput, one_line
from maft.export import targets
from maft.export.target import Request, Sent
from maft.program import Assignment
from maft.summaries import Exported, ExportSummary, first_that_fits

_SPDX = re.compile(r"\(*[\w.+-]+\)*( (OR|AND|WITH) \(*[\w.+-]+\)*)*", re.ASCII)


def main(assignment: Assignment, given: argparse.Namespace) -> ExportSummary:
    """Hands it on to every target that is asked for, also where one of them fails."""
    asked = [targets.parse(text) for text in given.to]
    _is_license(given.license)
    if given.check:
        for kind, where in asked:
            targets.check(kind, where)
            targets.check_installed(kind)
        return ExportSummary(targets=())
    run = committed_run.read(assignment.store, assignment.run)
    request = Request(
        assignment.store,
        run,
        "",
        iteration=assignment.iteration or None,
        only=tuple(given.only),
        license=given.license,
        report=given.report,
        group=assignment.group,
    )
    sent, failures = [], []
    for kind, where in asked:
        try:
            sent.append((kind, targets.send(kind, replace(request, to=where))))
        except (BadInput, OSError) as error:
            failures.append((kind, error))
    for kind, made in sent:
        _say(kind, made)
    _raise(failures, several=len(asked) > 1)
    return summary(sent)


def _is_license(text: str) -> None:
    if text and not _SPDX.fullmatch(text):
        raise BadInput(f"--license {text!r}: expected an SPDX name, such as apache-2.0, or several with OR, AND or WITH between")


def _say(kind: str, sent: Sent) -> None:
    news = f"{sent.new} new" if sent.new else "all there before"
    print("\n".join([f"{kind}: {sent.place} ({news})", *(f"  {line}" for line in sent.lines)]), flush=True)


def _raise(failures: Sequence[tuple[str, BadInput | OSError]], *, several: bool) -> None:
    """Raises all of them as one: wrong input only if trying again helps none."""
    if not failures:
        return
    if not several:
        raise failures[0][1]
    lines = ((kind, one_line(error)) for kind, error in failures)
    line = "; ".join(text if text.startswith("--to ") else f"{kind}: {text}" for kind, text in lines)
    raise BadInput(line) if all(isinstance(error, BadInput) for _, error in failures) else OSError(line)


def summary(sent: Sequence[tuple[str, Sent]]) -> ExportSummary:
    """Picks what a status shows: of many targets the first."""
    every = tuple(Exported(to=kind, place=made.place, new=made.new) for kind, made in sent)

    def shorter() -> Iterator[ExportSummary]:
        for most in range(len(every), -1, -1):
            yield ExportSummary(targets=every[:most])

    return first_that_fits(shorter())


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    flags = program.parser("export", "Hands on what a run has committed.", takes=("group",))
    flags.add_argument(
        "--to", action="append", required=True, metavar="KIND[=WHERE]", help="may be repeated: " + ", ".join(targets.TARGETS)
    )
    flags.add_argument("--iteration", default="0", help="whose adapters; 0: the best, or the last that has all")
    flags.add_argument("--only", action="append", default=[], metavar="NAME", help="an adapter, such as generator-1 [all]")
    flags.add_argument("--check", action="store_true", help="refuse targets that there are not, and do nothing else")
    flags.add_argument("--license", default="", metavar="SPDX", help="of the adapters, for their cards [none is stated]")
    whether = "whether the report, which holds questions and debates, goes along [to mlflow and wandb, not to hub and oci]"
    flags.add_argument("--report", action=argparse.BooleanOptionalAction, help=whether)
    return flags


if __name__ == "__main__":
    FLAGS = parser()
    program.run(partial(main, given=FLAGS.parse_args()), FLAGS)
