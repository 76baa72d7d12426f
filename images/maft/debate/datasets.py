"""Transcripts to per-agent training sets (paper, sections 2.2 and 2.3; equations for D_G, C- and C+). Pure but for `write`.

Every agent learns from its own outputs only, unless the method pools them. Samples are chosen by the run's seed, so equal
transcripts give equal bytes.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from maft import records, scores
from maft.answers import voting
from maft.records import Commit, DatasetCounts, Example, Role, Transcript, Turn, trained_roles
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

Lesson = Example | str  # what an agent learns from a debate, or the reason for which it is nothing


@dataclass(frozen=True, slots=True)
class Dataset:
    """One role of one agent."""

    examples: tuple[Example, ...]
    counts: DatasetCounts


def generator_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes D_G[n]: the question and the first answer, where that answer equals the majority of the debate."""

    def lesson(transcript: Transcript) -> Lesson:
        reason = _no_label(transcript, spec) or _disagrees(transcript.turns[agent][0], OUTVOTED)
        return reason or Example(transcript.problem.id, transcript.dialogue(agent, 1, system=spec.debate.system))

    return _collected(agent, map(lesson, transcripts))


def critic_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes D_C[n]: whole dialogues that end with the majority: a share w of those whose first answer was another one (C-, it
    was corrected), the rest of those that held it from the start (C+). As many as the share allows."""
    corrected: list[Example] = []
    kept_right: list[Example] = []
    left_out: Counter[str] = Counter()
    for transcript in transcripts:
        turns = transcript.turns[agent]
        if reason := _no_label(transcript, spec) or _no_lesson(transcript, agent):
            left_out[reason] += 1
        else:
            side = kept_right if turns[0].agrees else corrected
            side.append(Example(transcript.problem.id, transcript.dialogue(agent, system=spec.debate.system)))
    mixed = mix(corrected, kept_right, spec.training.critic_mix, spec.seed + agent)
    if dropped := len(corrected) + len(kept_right) - len(mixed):
        left_out[MIX] = dropped
    return _dataset("critic", agent, mixed, left_out)


def last_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes the data of distillation: the question alone, and the last answer of the debate where it equals the majority."""

    def lesson(transcript: Transcript) -> Lesson:
        last = transcript.turns[agent][-1]
        return _no_label(transcript, spec) or _disagrees(last, STAYED_WRONG) or _answered(transcript, agent, last, spec)

    return _collected(agent, map(lesson, transcripts))


def hinted_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes the data of STaR (arXiv 2203.14465): the question alone, and the right answer, which may have been given after a
    hint. Reads labels."""

    def lesson(transcript: Transcript) -> Lesson:
        right = [turn for turn in transcript.turns[agent] if turn.right]
        whole = next((turn for turn in right if not turn.call.cut), None)
        return _answered(transcript, agent, whole, spec) if whole else CUT if right else WRONG

    return _collected(agent, map(lesson, transcripts))


def pair_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    """Makes preferences (MACA, arXiv 2509.15172): of the first answers to one question, one that equals the majority over one
    that does not. The agent's own answer is one side; the other is drawn from all agents' answers."""

    def lesson(transcript: Transcript) -> Lesson:
        firsts = [turns[0] for turns in transcript.turns]
        own = firsts[agent]
        others = [turn for turn in firsts if turn.agrees != own.agrees and not turn.call.cut]
        if reason := _no_label(transcript, spec) or (CUT if own.call.cut else "" if others else UNANIMOUS):
            return reason
        other = random.Random(f"{spec.seed}/{agent}/{transcript.problem.id}/pair").choice(others)
        chosen, rejected = (own, other) if own.agrees else (other, own)
        return replace(_answered(transcript, agent, chosen, spec), rejected=rejected.said)

    return _collected(agent, map(lesson, transcripts))


def _collected(agent: int, lessons: Iterable[Lesson]) -> Dataset:
    """A generator's dataset: the examples, and how often which reason left one out."""
    several = list(lessons)
    left_out = Counter(lesson for lesson in several if isinstance(lesson, str))
    return _dataset("generator", agent, [lesson for lesson in several if isinstance(lesson, Example)], left_out)


def _answered(transcript: Transcript, agent: int, answer: Turn, spec: Spec) -> Example:
    """The question as it was first asked, with that answer."""
    *question, _ = transcript.dialogue(agent, 1, system=spec.debate.system)
    return Example(transcript.problem.id, (*question, answer.said))


def mix(corrected: Sequence[Example], kept: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Draws the largest seeded sample in which `share` (w) comes from `corrected` and the rest from `kept`, by problem id."""
    size = min(
        len(corrected) / share if share > 0 else float("inf"),
        len(kept) / (1 - share) if share < 1 else float("inf"),
    )
    generator = random.Random(f"{seed}/mix")
    from_corrected = generator.sample(range(len(corrected)), min(len(corrected), round(size * share)))
    from_kept = generator.sample(range(len(kept)), min(len(kept), round(size * (1 - share))))
    chosen = [corrected[i] for i in from_corrected] + [kept[i] for i in from_kept]
    return sorted(chosen, key=lambda example: example.problem)


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


def _dataset(role: Role, agent: int, kept: Sequence[Example], left_out: Counter[str]) -> Dataset:
    return Dataset(tuple(kept), DatasetCounts(role, agent, len(kept), dict(sorted(left_out.items()))))


_GENERATOR: dict[Examples, Callable[[Sequence[Transcript], int, Spec], Dataset]] = {
    "first": generator_set,
    "last": last_set,
    "hinted": hinted_set,
    "pairs": pair_set,
}


def build(transcripts: Sequence[Transcript], spec: Spec) -> list[Dataset]:
    """Makes all datasets of an iteration, generators first; no critic sets where no critic is trained."""
    agents = range(len(transcripts[0].turns))
    makers = {"generator": _GENERATOR[spec.recipe.examples], "critic": critic_set}
    roles = trained_roles(spec.debate)
    sets = {role: [makers[role](transcripts, agent, spec) for agent in agents] for role in roles}
    return [made for role in roles for made in ([pool(sets[role])] if spec.recipe.one_model else sets[role])]


def pool(sets: Sequence[Dataset]) -> Dataset:
    """Pools all agents' examples as agent 0's, by question; equal ones once."""
    examples = {example: None for made in sets for example in made.examples}
    left_out = Counter(scores.left_out(made.counts for made in sets))
    if same := sum(len(made.examples) for made in sets) - len(examples):
        left_out[SAME] = same
    return _dataset(sets[0].counts.role, 0, sorted(examples, key=lambda e: e.problem), left_out)


def write(
    store: Store, run: str, iteration: int, spec: Spec, transcripts: Sequence[Transcript], *, parent: Commit
) -> list[DatasetCounts]:
    """Publishes the datasets and returns their counts."""
    made = build(transcripts, spec)
    files = {layout.dataset_file(d.counts.role, d.counts.agent): records.encode_lines(d.examples) for d in made}
    counts = [d.counts for d in made]
    meta = {"counts": records.plain(counts), "examples": spec.recipe.examples, "pooled": spec.recipe.one_model}
    publish(store, layout.datasets(run, iteration), files, parents=[parent.prefix], meta=meta)
    return counts
