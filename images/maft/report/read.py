"""What `maft.report` reads: the commits of a run, with its debates as cards for the page.

Comes in: a store and a run, finished or not. Goes out: frozen records, nothing of the page. Called by `maft.report` alone.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from maft import records
from maft.errors import BadInput
from maft.records import Adapter, Call, Commit, DatasetCounts, Diversity, Evaluation, Transcript, Turn
from maft.scores import accuracy, agreement, usage
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch, fetch_record, fetch_records
from maft.store.timing import read_seconds
from maft.summaries import Score, Usage

Part = Literal["held-out", "training"]
CORRECTED, TALKED_OUT, NO_CONSENSUS = "corrected", "talked-out", "no-consensus"
CATEGORIES = (CORRECTED, TALKED_OUT, NO_CONSENSUS)
EMBEDDED = 8_000_000  # bytes of debates in a page: a browser still opens it at once


# --- what a run has committed ---


@dataclass(frozen=True, slots=True)
class Card:
    """One debate as the page has it. data: JSON that may stand inside a script element."""

    tags: tuple[str, ...]
    data: bytes


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

    @property
    def planned(self) -> int:
        """Counts the iterations that the spec asks for; without a spec, those that are there."""
        return max(self.spec.iterations if self.spec else 0, self.iterations[-1].number if self.iterations else 0)

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
    transcripts = fetch_records(store, commit, layout.TRANSCRIPTS, Transcript)
    if not transcripts:
        raise BadInput(f"{store.url}/{commit.prefix}{layout.TRANSCRIPTS}: holds no debates")
    return Stage(
        part=part,
        iteration=iteration,
        learnt=iteration if part == "held-out" else iteration - 1,
        questions=len(transcripts),
        agents=len(transcripts[0].turns),
        rounds=max(len(t.votes) for t in transcripts),
        seed=commit.meta.get("seed"),
        agreement=agreement(transcripts),
        usage=usage(transcripts),
        seconds=read_seconds(store, commit.prefix),
        right={t.problem.id: t.vote.right for t in transcripts},
        counts=Counter(tag for t in transcripts for tag in categories(t)),
        cards=fit([[card(t) for t in transcripts]], EMBEDDED)[0],
        prefix=commit.prefix,
        probe=accuracy(fetch_records(store, commit, layout.PROBE, Transcript)) if commit.has(layout.PROBE) else None,
    )


def _training(store: Store, run: str, number: int) -> TrainedIteration:
    data = committed(store, layout.datasets(run, number)) if number else None
    if data is None:
        return TrainedIteration()
    counts = records.described(data, "counts", tuple[DatasetCounts, ...])
    prefixes = [layout.adapter(run, number, c.role, c.agent) for c in counts]
    commits = [commit for prefix in prefixes if (commit := committed(store, prefix))]
    seconds = [s for s in (read_seconds(store, commit.prefix) for commit in commits) if s is not None]
    versions = {k: v for commit in commits for k, v in commit.meta.get("versions", {}).items()}
    return TrainedIteration(
        counts=counts,
        adapters=tuple(records.described(commit, "adapter", Adapter) for commit in commits),
        seconds=sum(seconds) if seconds else None,
        versions=versions,
    )


# --- debates as cards ---


def categories(transcript: Transcript) -> tuple[str, ...]:
    """Lists the filters that let a debate pass. An answer after a hint (STaR) is no flip: nobody else was heard."""
    last = len(transcript.votes) - 1
    ends = [(turns[0].right, turns[min(last, len(turns) - 1)].right) for turns in transcript.turns]
    member = {
        CORRECTED: (False, True) in ends,
        TALKED_OUT: (True, False) in ends,
        NO_CONSENSUS: transcript.vote.tied or transcript.vote.answer is None,
    }
    return tuple(tag for tag in CATEGORIES if member[tag])


def card(transcript: Transcript) -> Card:
    """Makes a debate's card, without what nobody reads: seeds, token counts, prompts."""
    agents = range(len(transcript.turns))
    shown = {
        "number": transcript.index + 1,
        "question": transcript.problem.question,
        "answer": transcript.problem.answer,
        "vote": transcript.vote,
        "tags": (tags := categories(transcript)),
        "agents": [[_turn(transcript, n, m) for m in range(len(transcript.turns[n]))] for n in agents],
    }
    return Card(tags, embeddable(records.encode(shown)).encode())


def _turn(transcript: Transcript, agent: int, m: int) -> dict[str, Any]:
    turn: Turn = transcript.turns[agent][m]
    heard = (s.call for s in transcript.summaries if s.round == m + 1 and s.agent in (agent, None))
    summary: Call | None = next(heard, None)
    return {
        "text": turn.call.text,
        "model": turn.call.model,
        "end": turn.call.finish_reason,
        "parsed": turn.parsed,
        "agrees": turn.agrees,
        "right": turn.right,
        "summary": summary.text if summary else None,
        "hinted": m >= len(transcript.votes),
    }


def fit(stages: Sequence[Sequence[Card]], limit: int) -> list[list[Card]]:
    """Chooses as many cards as `limit` bytes hold, in their order.

    Those of a category first: of every stage and category as many, so that a rare one is not crowded out by a common one."""
    ranked = sorted((rank, k, s) for s, cards in enumerate(stages) for k, rank in enumerate(_ranks(cards)))
    chosen: set[tuple[int, int]] = set()
    for _, k, s in ranked:
        size = len(stages[s][k].data) + 1
        if size <= limit:
            limit -= size
            chosen.add((s, k))
    return [[c for k, c in enumerate(cards) if (s, k) in chosen] for s, cards in enumerate(stages)]


def _ranks(cards: Sequence[Card]) -> list[tuple[bool, int]]:
    """When each card's turn is: by its best place in one of its categories, after all of those the cards without one."""
    seen: Counter[str] = Counter()
    ranks: list[tuple[bool, int]] = []
    for card_ in cards:
        tags = card_.tags or ("",)
        ranks.append((not card_.tags, min(seen[tag] for tag in tags)))
        seen.update(tags)
    return ranks


def embeddable(json_: bytes) -> Markup:
    """Makes JSON that may stand inside a script element: it cannot end the element nor open a comment."""
    return Markup(json_.replace(b"<", b"\\u003c").decode())
