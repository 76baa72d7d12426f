"""What `maft.report` reads: the commits of a run, with its debates as cards for the page (cards.py).

Comes in: a store and a run, finished or not. Goes out: frozen records, nothing of the page. Called by `maft.report` alone.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from maft import adapters, records
from maft.errors import BadInput
from maft.records import BASE, Adapter, Commit, DatasetCounts, Diversity, Evaluation, Transcript
from maft.report.cards import EMBEDDED, Card, Cards, card, categories, fit
from maft.scores import Tally, accuracy
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch, fetch_record
from maft.store.lines import iterate_lines
from maft.store.timing import read_seconds
from maft.summaries import Answers, Score, Usage

Part = Literal["held-out", "training"]


@dataclass(frozen=True, slots=True)
class Stage:
    """The debate over one part of the questions."""

    part: Part
    iteration: int
    learnt: int  # finetuning iterations behind the agents
    questions: int
    agents: int
    rounds: int
    seed: int | None
    agreement: Score  # share of agents with the final majority
    usage: Usage
    seconds: float | None  # None: no timing was written
    right: Mapping[str, bool]  # by id of the problem, whether the majority is
    counts: Mapping[str, int]  # debates by category, all of them
    cards: Sequence[Card]  # those that may become part of the page
    prefix: str  # of the commit in the store
    probe: Score | None  # how often the majority is right on the probe questions debated beside them
    whole: Answers


@dataclass(frozen=True, slots=True)
class TrainedIteration:
    """What an iteration trained: nothing in iteration 0, nor before its datasets are committed."""

    counts: tuple[DatasetCounts, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    seconds: float | None = None  # summed over adapters; None if no adapter has a timing
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that trained them

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


@dataclass(frozen=True, slots=True)
class Iteration:
    """Whatever is there of an iteration; 0 has nothing but an evaluation."""

    number: int
    debate: Stage | None
    training: TrainedIteration
    evaluation: Stage | None
    numbers: Evaluation | None
    diversity: Diversity | None = None

    @property
    def empty(self) -> bool:
        """Tells whether nothing is committed."""
        return not (self.debate or self.evaluation or self.training.counts or self.training.adapters)


@dataclass(frozen=True, slots=True)
class CommittedRun:
    """Whatever a run has committed."""

    key: str  # NAMESPACE/NAME
    meta: Mapping[str, Any]  # of the problems' commit
    spec: Spec | None  # None for the runs of a comparison, which have none of their own
    questions: Mapping[str, int]  # how many, by file of problems
    iterations: tuple[Iteration, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Lists evaluations by iteration, the untrained one first."""
        return tuple(i.numbers for i in self.iterations if i.numbers)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Lists debates in the order in which they were held."""
        return tuple(stage for i in self.iterations for stage in (i.debate, i.evaluation) if stage)

    @property
    def trained(self) -> int:
        """Counts iterations that have all their adapters."""
        return sum(i.training.complete for i in self.iterations)

    def still_base(self, iteration: int) -> bool:
        """Tells whether the agents after that iteration are the base model, since no iteration up to it trained anything."""
        training = next((i.training for i in self.iterations if i.number == iteration), TrainedIteration())
        return training.complete and all(adapter.name == BASE for adapter in training.adapters)

    @property
    def planned(self) -> int:
        """Counts the iterations that the spec asks for; without a spec, those that are there."""
        return max(self.spec.iterations if self.spec else 0, self.iterations[-1].number if self.iterations else 0)

    @property
    def model(self) -> str:
        """Names the base model; empty where nothing says it."""
        return str(self.meta.get("model", ""))

    @property
    def agents(self) -> int | None:
        """Counts the agents; None where nothing says it."""
        return self.spec.agents if self.spec else next((stage.agents for stage in self.stages), None)

    @property
    def rounds(self) -> int | None:
        """Counts the rounds of a debate; None where nothing says it."""
        return self.spec.debate.rounds if self.spec else max((stage.rounds for stage in self.stages), default=None)

    @property
    def seed(self) -> int | None:
        """Returns the seed of the run; None where nothing says it."""
        return self.spec.seed if self.spec else next((stage.seed for stage in self.stages), None)

    @property
    def versions(self) -> dict[str, str]:
        """Lists the versions of the libraries that trained the adapters, and of maft when the run began."""
        began = {"maft": str(self.meta["version"])} if "version" in self.meta else {}
        return {k: v for i in self.iterations for k, v in i.training.versions.items()} | began

    @property
    def method(self) -> str:
        """Names the method of the spec; empty where there is none."""
        return self.spec.method if self.spec else ""

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names the reference rows that are asked for: where there is no spec, all."""
        return self.spec.evaluation.baselines if self.spec else ("base", "majority", "debate")


def read(store: Store, run: str) -> CommittedRun:
    """Reads everything committed; BadInput if that is nothing."""
    problems = committed(store, f"{run}/{layout.PROBLEMS}")
    iterations = tuple(i for i in _iterations(store, run) if not i.empty)
    if problems is None and not iterations:
        raise BadInput(f"{store.url}/{run}/: nothing committed there; check --store and --run, or start the run first")
    meta = problems.meta if problems else {}
    spec = records.described(problems, "spec", Spec) if problems and "spec" in meta else None
    names = [entry.name for entry in problems.files] if problems else []
    questions = {name: len(fetch(store, problems, name).splitlines()) for name in names} if problems else {}
    return CommittedRun(run, meta, spec, questions, iterations)


def _iterations(store: Store, run: str) -> Iterator[Iteration]:
    """From 0 (evaluation only) up to the first that has nothing."""
    for number in itertools.count():
        iteration = _iteration(store, run, number)
        if number and iteration.empty:
            return
        yield iteration


def _iteration(store: Store, run: str, number: int) -> Iteration:
    held_out = committed(store, layout.evaluation(run, number))
    debate = committed(store, layout.debate(run, number)) if number else None
    diversity = committed(store, layout.diversity(run, number))
    return Iteration(
        number,
        _stage(store, debate, "training", number) if debate else None,
        _training(store, run, number),
        _stage(store, held_out, "held-out", number) if held_out else None,
        fetch_record(store, held_out, layout.EVALUATION, Evaluation) if held_out else None,
        fetch_record(store, diversity, layout.DIVERSITY, Diversity) if diversity else None,
    )


def _stage(store: Store, commit: Commit, part: Part, iteration: int) -> Stage:
    tally, right, counts, cards = Tally(), dict[str, bool](), Counter[str](), Cards()
    agents = rounds = 0
    for transcript in iterate_lines(store, commit, layout.TRANSCRIPTS, Transcript):
        tally.add(transcript)
        agents, rounds = agents or len(transcript.turns), max(rounds, len(transcript.votes))
        right[transcript.problem.id] = transcript.vote.right
        counts.update(categories(transcript))
        cards.append(card(transcript))
    if not tally.questions:
        raise BadInput(f"{store.url}/{commit.prefix}{layout.TRANSCRIPTS}: holds no debates")
    return Stage(
        part=part,
        iteration=iteration,
        learnt=iteration if part == "held-out" else iteration - 1,
        questions=tally.questions,
        agents=agents,
        rounds=rounds,
        seed=commit.meta.get("seed"),
        agreement=tally.agreement,
        usage=tally.usage,
        seconds=read_seconds(store, commit.prefix),
        right=right,
        counts=counts,
        cards=fit([cards], EMBEDDED)[0],
        prefix=commit.prefix,
        whole=tally.whole,
        probe=_probe(store, commit),
    )


def _probe(store: Store, commit: Commit) -> Score | None:
    """How often the majority was right on the probe."""
    return accuracy(iterate_lines(store, commit, layout.PROBE, Transcript)) if commit.has(layout.PROBE) else None


def _training(store: Store, run: str, number: int) -> TrainedIteration:
    data = committed(store, layout.datasets(run, number)) if number else None
    if data is None:
        return TrainedIteration()
    counts = records.described(data, "counts", tuple[DatasetCounts, ...])
    commits = [commit for prefix in adapters.prefixes(store, run, number) if (commit := committed(store, prefix))]
    seconds = [s for s in (read_seconds(store, commit.prefix) for commit in commits) if s is not None]
    versions = {k: v for commit in commits for k, v in commit.meta.get("versions", {}).items()}
    return TrainedIteration(
        counts=counts,
        adapters=tuple(records.described(commit, "adapter", Adapter) for commit in commits),
        seconds=sum(seconds) if seconds else None,
        versions=versions,
    )
