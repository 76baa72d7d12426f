"""Questions of kind code, tried before anything starts: programs can be confined here, and the right ones give their outputs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import msgspec

from maft.answers import programs
from maft.errors import BadInput, shown
from maft.pod import memory, processors
from maft.prepare.tasks import Split
from maft.records import Problem


def worked(split: Split) -> Split:
    """Puts the outputs of each question's own program in the place of its answer. BadInput where one fails, or nothing can run."""
    parts: dict[str, tuple[Problem, ...]] = {field.name: getattr(split, field.name) for field in fields(split)}
    if not any(problem.cases for problems in parts.values() for problem in problems):
        return split
    programs.check()
    with ThreadPoolExecutor(programs.at_once(processors(), memory()[0])) as threads:
        return Split(**{name: tuple(threads.map(_worked, problems)) for name, problems in parts.items()})


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
