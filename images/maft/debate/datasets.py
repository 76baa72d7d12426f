"""Transcripts to per-agent training sets (paper, sections 2.2 and 2.3; equations for D_G, C- and C+). Pure but for `write`.

Every agent learns from its own outputs only, unless the method pools them. Samples are chosen by the run's seed, so equal
transcripts give equal bytes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from maft import records, scores
from maft.debate.lessons import OF_GENERATORS, whole_dialogue
from maft.debate.mixing import mix
from maft.records import Commit, DatasetCounts, Example, Role, Transcript, trained_roles
from maft.shortage import MIX, ONLY_WRONG, SAME
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.lines import Files, Lines


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


class Pupil:
    """A role of an agent. It hears the debates one by one; what it keeps is on disk."""

    def __init__(self, role: Role, agent: int, spec: Spec) -> None:
        self._role = role
        self._agent = agent
        self._spec = spec
        self._learn = whole_dialogue if role == "critic" else OF_GENERATORS[spec.examples]
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


def taught(transcripts: Iterable[Transcript], pupils: Sequence[Pupil]) -> list[Dataset]:
    """Has each pupil hear all debates, which are read once; returns their datasets."""
    for transcript in transcripts:
        for pupil in pupils:
            pupil.hear(transcript)
    return [pupil.learnt() for pupil in pupils]


def _dataset(role: Role, agent: int, kept: Lines[Example], left_out: Counter[str]) -> Dataset:
    return Dataset(kept, DatasetCounts(role, agent, len(kept), dict(sorted(left_out.items()))))


def build(transcripts: Sequence[Transcript], spec: Spec) -> list[Dataset]:
    """Makes all datasets of an iteration, generators first; no critic sets where no critic is trained. Reads debates once."""
    agents, roles = range(len(transcripts[0].turns)), trained_roles(spec.debate)
    sets = taught(transcripts, [Pupil(role, agent, spec) for role in roles for agent in agents])
    if spec.recipe.one_model:
        sets = [pool([one for one in sets if one.counts.role == role]) for role in roles]
    return [without_wrong_alone(one) for one in sets]


def without_wrong_alone(made: Dataset) -> Dataset:
    """Leaves out undesirable answers where no desirable one is among them: to learn what not to say, and nothing to say, only takes
    the model away from what it was. Other datasets stay as they are."""
    numbers = range(len(made.examples))
    if not numbers or not all(made.examples[number].desirable is False for number in numbers):  # the first other one ends it
        return made
    left_out = Counter(made.counts.left_out) + Counter({ONLY_WRONG: len(made.examples)})
    return _dataset(made.counts.role, made.counts.agent, made.examples.chosen(()), left_out)


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
    meta = {"counts": records.plain(counts), "examples": spec.examples, "pooled": spec.recipe.one_model}
    with Files({layout.dataset_file(d.counts.role, d.counts.agent): d.examples for d in made}) as files:
        publish(store, layout.datasets(run, iteration), files, parents=[parent.prefix], meta=meta)
    return counts
