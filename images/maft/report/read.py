"""What `maft.report` reads: the commits of a run, with its debates as cards for the page (cards.py).

Comes in: a store and a run, finished or not. Goes out: frozen records, nothing of the page. Called by `maft.report` alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maft import committed_run, stopping
from maft.committed_run import IterationCommits, TrainedIteration
from maft.errors import BadInput
from maft.records import Commit, Diversity, Evaluation, Transcript
from maft.report.cards import EMBEDDED, Card, Cards, card, categories, fit
from maft.scores import Tally, accuracy
from maft.spec import Spec
from maft.stopping import Decision
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import fetch
from maft.store.lines import iterate_lines
from maft.store.timing import read_seconds
from maft.summaries import Answers, Score, Usage, Validation

Part = Literal["held-out", "training", "validation"]


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
class Iteration:
    """The same of an iteration; 0 has nothing but an evaluation."""

    number: int
    debate: Stage | None
    training: TrainedIteration
    evaluation: Stage | None
    numbers: Evaluation | None
    diversity: Diversity | None = None
    validation: Stage | None = None
    validated: Validation | None = None


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """What a run has committed (committed_run.RunCommits), with its debates read."""

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
        return tuple(stage for i in self.iterations for stage in (i.debate, i.validation, i.evaluation) if stage)

    @property
    def validations(self) -> dict[int, Validation]:
        """Lists what validation questions said, by iteration."""
        return {i.number: i.validated for i in self.iterations if i.validated}

    @property
    def decision(self) -> Decision | None:
        """Returns what they have decided; None without them, and while it is not decided."""
        return stopping.decision(self.spec, self.validations) if self.spec else None

    @property
    def best(self) -> int | None:
        """Names the iteration that they have chosen by now."""
        return stopping.chosen(self.spec, self.validations)

    @property
    def trained(self) -> int:
        """Counts iterations that have all their adapters."""
        return sum(i.training.complete for i in self.iterations)

    def still_base(self, iteration: int) -> bool:
        """Tells whether the agents after that iteration are the base model, since no iteration up to it trained anything."""
        training = next((i.training for i in self.iterations if i.number == iteration), TrainedIteration())
        return training.all_base

    @property
    def planned(self) -> int:
        """Counts the iterations that the spec asks for; without a spec, those that are there."""
        return max(self.spec.iterations if self.spec else 0, self.iterations[-1].number if self.iterations else 0)

    @property
    def model(self) -> str:
        """Names the base model, and those that agents have beside it; empty where nothing says it."""
        spec = self.spec if self.spec and self.spec.bases_differ else None
        own = [spec.model_of(n).source for n in range(spec.agents)] if spec else []
        return ", ".join(dict.fromkeys([str(self.meta.get("model", "")), *own]))

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


def read(store: Store, run: str) -> ReportedRun:
    """Reads everything committed; BadInput if that is nothing."""
    there = committed_run.read(store, run)
    problems = there.problems
    names = [entry.name for entry in problems.files] if problems else []
    questions = {name: len(fetch(store, problems, name).splitlines()) for name in names} if problems else {}
    iterations = tuple(_with_debates(store, iteration) for iteration in there.iterations)
    return ReportedRun(run, there.meta, there.spec, questions, iterations)


def _with_debates(store: Store, iteration: IterationCommits) -> Iteration:
    held_out, debate, number = iteration.evaluation, iteration.debate, iteration.number
    chosen_by = iteration.validation
    return Iteration(
        number,
        _stage(store, debate, "training", number) if debate else None,
        iteration.training,
        _stage(store, held_out, "held-out", number) if held_out else None,
        iteration.numbers,
        iteration.diversity,
        _stage(store, chosen_by, "validation", number) if chosen_by else None,
        iteration.validated,
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
        learnt=iteration - 1 if part == "training" else iteration,
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
