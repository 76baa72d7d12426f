"""Questions of kind code, tried before anything starts: programs can be confined here, and the right ones give their outputs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from maft.answers import programs
from maft.errors import BadInput, shown
from maft.pod import processors
from maft.prepare.tasks import Split
from maft.records import Problem


def worked(split: Split) -> Split:
    """Puts the outputs of each question's own program in the place of its answer. BadInput where one fails, or nothing can run."""
    if not any(problem.cases for part in _parts(split) for problem in part):
        return split
    programs.check()
    with ThreadPoolExecutor(processors()) as threads:

        def of_part(problems: Iterable[Problem]) -> tuple[Problem, ...]:
            return tuple(threads.map(_worked, problems))

        return Split(*map(of_part, _parts(split)))


def _parts(split: Split) -> tuple[tuple[Problem, ...], ...]:
    return split.train, split.held_out, split.probe, split.validation


def _worked(problem: Problem) -> Problem:
    cases = problem.cases
    if not (cases and cases.solution):
        return problem
    result = programs.run(cases, cases.solution)
    if not result.outputs:
        raise BadInput(
            f"task.source: the program that answers {shown(problem.question)} gives no output for each input ({result.fault}); "
            "correct it, or give the outputs as a list"
        )
    return msgspec.structs.replace(problem, answer=programs.joined(result.outputs))
