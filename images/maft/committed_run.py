"""What a run has committed, without its debates: read once, for the report and for whatever is exported.

Comes in: a store and a run, finished or not. Goes out: frozen records with the commits that they were read from.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from maft import adapters, records, stopping, validation
from maft.errors import BadInput
from maft.records import BASE, Adapter, Commit, DatasetCounts, Diversity, Evaluation
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch_record
from maft.store.timing import read_seconds
from maft.summaries import Validation


def check_is_run(store: Store, run: str, seed: int) -> None:
    """Raises BadInput where only a comparison lies there: what its runs share is no run's. seed: of the first of them."""
    of_run = any(True for _ in store.list(f"{run}/iterations/"))
    if not of_run and any(True for part in (layout.CALLS, layout.COMPARE) for _ in store.list(f"{run}/{part}")):
        example, page = f"{run.rpartition('/')[2]}-multiagent-{seed}", f"{layout.COMPARE}index.html"
        raise BadInput(f"{store.url}/{run}: is a comparison; name one of its runs, such as {example} (its own page is {page})")


@dataclass(frozen=True, slots=True)
class TrainedIteration:
    """What an iteration trained: nothing in iteration 0, nor before its datasets are committed."""

    counts: tuple[DatasetCounts, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    seconds: float | None = None  # summed over adapters; None if no adapter has a timing
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that trained them
    commits: tuple[Commit, ...] = ()  # of the adapters, in their order

    @property
    def complete(self) -> bool:
        """Tells whether every dataset has become an adapter."""
        return bool(self.counts) and len(self.adapters) == len(self.counts)

    @property
    def trained(self) -> int:
        """Counts adapters that were trained; the others stayed what they were."""
        return sum(adapter.trained for adapter in self.adapters)

    @property
    def untrained(self) -> bool:
        """Tells whether all is done, and that was nothing."""
        return self.complete and not self.trained

    @property
    def all_base(self) -> bool:
        """Tells whether every agent is the base model, since no iteration up to this one trained anything."""
        return self.complete and all(adapter.name == BASE for adapter in self.adapters)


@dataclass(frozen=True, slots=True)
class IterationCommits:
    """Whatever is there of an iteration; 0 has nothing but an evaluation."""

    number: int
    debate: Commit | None
    training: TrainedIteration
    evaluation: Commit | None
    numbers: Evaluation | None
    diversity: Diversity | None
    validation: Commit | None = None
    validated: Validation | None = None
    diversity_commit: Commit | None = None

    @property
    def empty(self) -> bool:
        """Tells whether nothing is committed."""
        return not (self.debate or self.evaluation or self.training.counts or self.training.adapters)


@dataclass(frozen=True, slots=True)
class RunCommits:
    """Whatever a run has committed."""

    key: str  # NAMESPACE/NAME
    problems: Commit | None
    iterations: tuple[IterationCommits, ...]

    @property
    def meta(self) -> Mapping[str, Any]:
        """Returns what the commit of the problems says of the run."""
        return self.problems.meta if self.problems else {}

    @property
    def spec(self) -> Spec | None:
        """Returns the spec; None where no `prepare` has ended, and for runs of comparisons by releases up to 0.1."""
        return records.described(self.problems, "spec", Spec) if self.problems and "spec" in self.meta else None

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Lists evaluations by iteration, the untrained one first."""
        return tuple(i.numbers for i in self.iterations if i.numbers)

    @property
    def validations(self) -> dict[int, Validation]:
        """Lists what validation questions said, by iteration."""
        return {i.number: i.validated for i in self.iterations if i.validated}

    @property
    def final(self) -> Commit | None:
        """Returns the held-out debate that a run ends with: of the iteration that validation questions have chosen, and where there
        are none of the last. None: it is not there yet."""
        spec = self.spec
        if spec is None:
            return None
        decided = stopping.decision(spec, self.validations)
        if decided is None and stopping.validated(spec):
            return None
        number = decided.best if decided else max([spec.iterations, *(i.number for i in self.iterations)])
        return next((i.evaluation for i in self.iterations if i.number == number), None)


def read(store: Store, run: str) -> RunCommits:
    """Reads everything committed; BadInput if that is nothing."""
    problems = committed(store, f"{run}/{layout.PROBLEMS}")
    iterations = tuple(i for i in _iterations(store, run) if not i.empty)
    if problems is None and not iterations:
        raise BadInput(f"{store.url}/{run}/: nothing committed there; check store, namespace and name, or start the run first")
    return RunCommits(run, problems, iterations)


def _iterations(store: Store, run: str) -> Iterator[IterationCommits]:
    """From 0 (evaluation only) up to the first that has nothing."""
    for number in itertools.count():
        iteration = _iteration(store, run, number)
        if number and iteration.empty:
            return
        yield iteration


def _iteration(store: Store, run: str, number: int) -> IterationCommits:
    held_out = committed(store, layout.evaluation(run, number))
    diversity = committed(store, layout.diversity(run, number))
    chosen_by = committed(store, layout.validation(run, number)) if number else None
    return IterationCommits(
        number,
        committed(store, layout.debate(run, number)) if number else None,
        _training(store, run, number),
        held_out,
        fetch_record(store, held_out, layout.EVALUATION, Evaluation) if held_out else None,
        fetch_record(store, diversity, layout.DIVERSITY, Diversity) if diversity else None,
        chosen_by,
        validation.read(chosen_by) if chosen_by else None,
        diversity,
    )


def _training(store: Store, run: str, number: int) -> TrainedIteration:
    data = committed(store, layout.datasets(run, number)) if number else None
    if data is None:
        return TrainedIteration()
    commits = [commit for prefix in adapters.prefixes(store, run, number) if (commit := committed(store, prefix))]
    seconds = [s for s in (read_seconds(store, commit.prefix) for commit in commits) if s is not None]
    return TrainedIteration(
        counts=records.described(data, "counts", tuple[DatasetCounts, ...]),
        adapters=tuple(records.described(commit, "adapter", Adapter) for commit in commits),
        seconds=sum(seconds) if seconds else None,
        versions={k: v for commit in commits for k, v in commit.meta.get("versions", {}).items()},
        commits=tuple(commits),
    )
