"""What an earlier start of the same run committed: so a run whose status or Jobs were lost does nothing twice.

Here alone, before any server, somebody looks into the store; the control plane passes over the stages that are named.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

from maft import validation
from maft.program import Assignment
from maft.records import Evaluation, trained_roles
from maft.scores import rounded
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import COMMIT, fetch_record, required
from maft.summaries import Earlier, ranges

_COMMITTED = re.compile(r"([0-9]+)/(datasets|evaluation|validation|diversity|adapters)/(?:([a-z]+)-([0-9]+)/)?" + re.escape(COMMIT))
FEW, FEWER = 4, 2  # numbers of an evaluation where there is no room for all


def found(assignment: Assignment) -> Earlier:
    """Reads which stages are committed, and the scores of those that have some."""
    commits = list(_commits(assignment.store, assignment.run))
    done = {
        stage: {iteration for iteration, kind, _ in commits if kind == stage}
        for stage in ("datasets", "evaluation", "validation", "diversity")
    }
    validations = validation.known(assignment.store, assignment.run, sorted(done["validation"]))
    return Earlier(
        debates=ranges(done["datasets"]),
        evaluations=ranges(done["evaluation"]),
        diversities=ranges(done["diversity"]),
        adapters=_adapters(assignment, commits),
        scores={str(i): _scores(assignment.store, assignment.run, i) for i in sorted(done["evaluation"])},
        validated=ranges(done["validation"]),
        validations={str(i): numbers for i, numbers in validations.items()},
    )


def shorter(earlier: Earlier) -> Iterator[Earlier]:
    """Yields the same with fewer and fewer numbers; the stages are in each."""
    yield earlier
    for others in (FEW, FEWER):
        yield msgspec.structs.replace(earlier, scores={i: s[: FEW if i == "0" else others] for i, s in earlier.scores.items()})
    ends = list(earlier.scores)[:1] + list(earlier.scores)[1:][-9:]
    few = msgspec.structs.replace(earlier, scores={i: earlier.scores[i][:FEW] for i in ends})
    for first in range(len(earlier.validations)):  # what is decided from them needs the last ones
        yield msgspec.structs.replace(few, validations=dict(list(earlier.validations.items())[first:]))
    yield msgspec.structs.replace(few, validations={})
    yield msgspec.structs.replace(earlier, scores={}, validations={})


def _commits(store: Store, run: str) -> Iterator[tuple[int, str, tuple[str, int] | None]]:
    """Iteration and stage of each commit; of an adapter its role and agent."""
    top = f"{run}/{layout.ITERATIONS}"
    for key in store.list(top):
        if match := _COMMITTED.fullmatch(key.removeprefix(top)):
            iteration, stage, role, agent = match.groups()
            if (stage == "adapters") == (role is not None):
                yield int(iteration), stage, (role, int(agent)) if role else None


def _adapters(assignment: Assignment, commits: Iterable[tuple[int, str, tuple[str, int] | None]]) -> dict[str, str]:
    """Agents all of whose roles are there, by the iterations that have the same ones."""
    roles, there = trained_roles(assignment.spec.debate), dict[int, set[tuple[str, int]]]()
    for iteration, _, adapter in commits:
        if adapter:
            there.setdefault(iteration, set()).add(adapter)
    agents = {i: ranges(n for _, n in a if all((role, n) in a for role in roles)) for i, a in sorted(there.items())}
    return {ranges(i for i in agents if agents[i] == text): text for text in dict.fromkeys(agents.values()) if text}


def _scores(store: Store, run: str, iteration: int) -> tuple[float, ...]:
    commit = required(store, layout.evaluation(run, iteration), "this run")
    numbers = fetch_record(store, commit, layout.EVALUATION, Evaluation)
    scores = map(rounded, (numbers.votes[-1], numbers.answers[0], numbers.votes[0]))
    return tuple(number for score in scores for number in (score.mean, score.stderr))
