"""Transcripts to per-agent training sets (paper, sections 2.2 and 2.3; equations for D_G, C- and C+). Pure but for `write`.

Every agent learns from its own outputs only, unless the method pools them. Samples are chosen by the run's seed, so equal
transcripts give equal bytes.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from msgspec.structs import replace

from maft import records, scores
from maft.answers import voting
from maft.debate.mixing import mix
from maft.records import Commit, DatasetCounts, Example, Message, Role, Transcript, Turn, trained_roles
from maft.shortage import (
    CUT,
    MIX,
    NO_CONSENSUS,
    ONE_ROUND,
    OUTVOTED,
    SAME,
    STAYED_WRONG,
    UNANIMOUS,
    UNPARSED,
    WRONG,
)
from maft.spec import Examples, Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.lines import Files, Lines

Lesson = Example | str  # what an agent learns from a debate, or the reason for which it is nothing
Learn = Callable[[Transcript, int, Spec], Lesson]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One role of one agent."""

    examples: Lines[Example]
    counts: DatasetCounts


@dataclass(frozen=True, slots=True)
class Place:
    """Where an example lies among others, and the id of its problem."""

    problem: str
    number: int


def first_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what D_G[n] has: the question and the first answer, where that answer equals the majority of the debate."""
    reason = _no_label(transcript, spec) or _disagrees(transcript.turns[agent][0], OUTVOTED)
    return reason or Example(transcript.problem.id, transcript.dialogue(agent, 1, system=spec.debate_of(agent).system))


def last_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what distillation learns: the question alone, and the last answer of the debate where it equals the majority."""
    last = transcript.turns[agent][-1]
    return _no_label(transcript, spec) or _disagrees(last, STAYED_WRONG) or _answered(transcript, agent, last, spec)


def hinted_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what STaR learns (arXiv 2203.14465): the question alone, and the right answer, which may have been given after a
    hint. Reads labels."""
    right = [turn for turn in transcript.turns[agent] if turn.right]
    whole = next((turn for turn in right if not turn.call.cut), None)
    return _answered(transcript, agent, whole, spec) if whole else CUT if right else WRONG


def pair(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes a preference (MACA, arXiv 2509.15172): of the first answers to one question, one that equals the majority over one
    that does not. The agent's own answer is one side; the other is drawn from all agents' answers."""
    firsts = [turns[0] for turns in transcript.turns]
    own = firsts[agent]
    others = [turn for turn in firsts if turn.agrees != own.agrees and not turn.call.cut]
    if reason := _no_label(transcript, spec) or (CUT if own.call.cut else "" if others else UNANIMOUS):
        return reason
    other = random.Random(f"{spec.seed}/{agent}/{transcript.problem.id}/pair").choice(others)
    chosen, rejected = (own, other) if own.agrees else (other, own)
    return replace(_answered(transcript, agent, chosen, spec), rejected=_as_of(agent, rejected, transcript, spec))


def graded_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes a grade: the first answer, and whether it equals the majority, which one that does not parse does not."""
    first = transcript.turns[agent][0]
    reason = _no_label(transcript, spec) or (CUT if first.call.cut else "")
    return reason or replace(_answered(transcript, agent, first, spec), desirable=first.agrees)


def whole_dialogue(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what D_C[n] is drawn from: a whole dialogue that ends with the majority."""
    reason = _no_label(transcript, spec) or _no_lesson(transcript, agent)
    return reason or Example(transcript.problem.id, transcript.dialogue(agent, system=spec.debate_of(agent).system))


class Pupil:
    """A role of an agent. It hears the debates one by one; what it keeps is on disk."""

    def __init__(self, role: Role, agent: int, spec: Spec) -> None:
        self._role = role
        self._agent = agent
        self._spec = spec
        self._learn = whole_dialogue if role == "critic" else _GENERATOR[spec.recipe.examples]
        self._examples = Lines(Example)
        self._sides: tuple[list[Place], list[Place]] = ([], [])  # of a critic: corrected on the way, right from the start
        self._left_out: Counter[str] = Counter()

    def hear(self, transcript: Transcript) -> None:
        """Keeps the lesson of a debate, or counts why there is none."""
        lesson = self._learn(transcript, self._agent, self._spec)
        if isinstance(lesson, str):
            self._left_out[lesson] += 1
            return
        if self._role == "critic":
            side = self._sides[transcript.turns[self._agent][0].agrees]
            side.append(Place(transcript.problem.id, len(self._examples)))
        self._examples.append(records.encode(lesson))

    def learnt(self) -> Dataset:
        """Returns the dataset: a critic's has a share w of dialogues that were corrected (C-), the rest of those that held the
        majority from the start (C+), and as many as the share allows."""
        if self._role != "critic":
            return _dataset(self._role, self._agent, self._examples, self._left_out)
        spec = self._spec
        chosen = mix(*self._sides, spec.training.critic_mix, spec.seed + self._agent)
        if dropped := len(self._examples) - len(chosen):
            self._left_out[MIX] = dropped
        return _dataset(self._role, self._agent, self._examples.chosen(p.number for p in chosen), self._left_out)


def generator_set(transcripts: Iterable[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes a generator's dataset."""
    return _taught(transcripts, [Pupil("generator", agent, spec)])[0]


def critic_set(transcripts: Iterable[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes a critic's dataset."""
    return _taught(transcripts, [Pupil("critic", agent, spec)])[0]


def _taught(transcripts: Iterable[Transcript], pupils: Sequence[Pupil]) -> list[Dataset]:
    for transcript in transcripts:
        for pupil in pupils:
            pupil.hear(transcript)
    return [pupil.learnt() for pupil in pupils]


def _answered(transcript: Transcript, agent: int, answer: Turn, spec: Spec) -> Example:
    """The question as it was first asked, with that answer."""
    *question, _ = transcript.dialogue(agent, 1, system=spec.debate_of(agent).system)
    return Example(transcript.problem.id, (*question, _as_of(agent, answer, transcript, spec)))


def _as_of(agent: int, answer: Turn, transcript: Transcript, spec: Spec) -> Message:
    """An answer as the agent learns it: by its text alone where the tokens are of another agent's model."""
    if not spec.bases_differ:
        return answer.message
    whose = next(n for n, turns in enumerate(transcript.turns) if any(turn is answer for turn in turns))
    return answer.message if spec.model_of(whose) == spec.model_of(agent) else replace(answer.message, ids=())


def _no_label(transcript: Transcript, spec: Spec) -> str:
    return "" if voting.trains(transcript.vote, spec.debate.min_agreement) else NO_CONSENSUS


def _no_lesson(transcript: Transcript, agent: int) -> str:
    turns = transcript.turns[agent]
    return ONE_ROUND if len(turns) < 2 else _disagrees(turns[-1], STAYED_WRONG)


def _disagrees(turn: Turn, otherwise: str) -> str:
    """Why the turn is no example of the majority; `otherwise`: the reason where it is whole and parsed."""
    if turn.call.cut:
        return CUT
    return "" if turn.agrees else UNPARSED if turn.parsed is None else otherwise


def _dataset(role: Role, agent: int, kept: Lines[Example], left_out: Counter[str]) -> Dataset:
    return Dataset(kept, DatasetCounts(role, agent, len(kept), dict(sorted(left_out.items()))))


_GENERATOR: dict[Examples, Learn] = {
    "first": first_answer,
    "last": last_answer,
    "hinted": hinted_answer,
    "pairs": pair,
    "graded": graded_answer,
}


def build(transcripts: Sequence[Transcript], spec: Spec) -> list[Dataset]:
    """Makes all datasets of an iteration, generators first; no critic sets where no critic is trained. Reads debates once."""
    agents, roles = range(len(transcripts[0].turns)), trained_roles(spec.debate)
    sets = _taught(transcripts, [Pupil(role, agent, spec) for role in roles for agent in agents])
    if not spec.recipe.one_model:
        return sets
    return [pool([one for one in sets if one.counts.role == role]) for role in roles]


def pool(sets: Sequence[Dataset]) -> Dataset:
    """Pools all agents' examples as agent 0's, by question; equal ones once."""
    examples = Lines(Example)
    unique: dict[bytes, Place] = {}
    for made in sets:
        for number in range(len(made.examples)):
            line = made.examples.raw(number)
            if (key := sha256(line).digest()) not in unique:
                unique[key] = Place(records.decode(line, Example, "an example").problem, len(examples))
                examples.append(line)
    left_out = Counter(scores.left_out(made.counts for made in sets))
    if same := sum(len(made.examples) for made in sets) - len(examples):
        left_out[SAME] = same
    ranked = sorted(unique.values(), key=lambda place: place.problem)
    return _dataset(sets[0].counts.role, 0, examples.chosen(place.number for place in ranked), left_out)


def write(
    store: Store, run: str, iteration: int, spec: Spec, transcripts: Sequence[Transcript], *, parent: Commit
) -> list[DatasetCounts]:
    """Publishes the datasets and returns their counts."""
    made = build(transcripts, spec)
    counts = [d.counts for d in made]
    meta = {"counts": records.plain(counts), "examples": spec.recipe.examples, "pooled": spec.recipe.one_model}
    with Files({layout.dataset_file(d.counts.role, d.counts.agent): d.examples for d in made}) as files:
        publish(store, layout.datasets(run, iteration), files, parents=[parent.prefix], meta=meta)
    return counts
