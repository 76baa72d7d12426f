"""What passes between the programs: problems, transcripts, examples, commits. Frozen, camelCase JSON on the wire.

`encode` and `decode` are the only way to and from JSON; `decode` refuses records of another shape, and files of a format that this
release does not know (docs/formats.md).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec

from maft.errors import BadInput
from maft.spec import FORMAT, UNREADABLE, Head, foreign_format
from maft.summaries import Score, Usage

T = TypeVar("T")

Role = Literal["generator", "critic"]
ROLES: tuple[Role, ...] = ("generator", "critic")
BASE = "base"  # the name under which every server serves the base model


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """Anything that is written."""


class Formatted(Record, frozen=True, kw_only=True):
    """A record that says of which format it is: readers refuse others before they look at its fields."""

    format: int = FORMAT


class Problem(Record, frozen=True):
    """One question. `id` is a hash of its normalised text (without worked examples before it): equal questions have equal ids."""

    id: str
    question: str
    answer: str


class Message(Record, frozen=True):
    """One turn of a chat, as chat templates take it."""

    role: Literal["user", "assistant"]
    content: str


class Call(Record, frozen=True):
    """One request to a model: what was asked for and what came back. Token counts include the end token."""

    model: str
    seed: int
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    text: str


class CachedCall(Record, frozen=True):
    """A call of the base model under a hash of everything that decided it."""

    key: str
    call: Call


class Turn(Record, frozen=True):
    """One answer of one agent in one round.

    prompt: the user turn it saw; parsed: the answer found in the text (None: did not parse); agrees: equals the final
    majority; right: equals the reference answer (for evaluation and the report; training never reads it).
    """

    prompt: str
    call: Call
    parsed: str | None
    agrees: bool
    right: bool


class Summary(Record, frozen=True):
    """A summary by the base model, for one agent (None: shared by all, fast mode) before the given round (2..M)."""

    agent: int | None
    round: int
    prompt: str
    call: Call


class Vote(Record, frozen=True):
    """Majority over the parsed answers of one round; `answer` is None where nothing parsed.

    votes: agents behind `answer`; runner_up: agents behind the next answer; tied: drawn by the seed among equals;
    right: equals the reference answer.
    """

    answer: str | None
    votes: int
    runner_up: int
    tied: bool
    right: bool


class Transcript(Formatted, frozen=True):
    """One debate over one question: `turns[n][m]` is agent n's answer and `votes[m]` the majority in round m + 1."""

    index: int
    problem: Problem
    turns: tuple[tuple[Turn, ...], ...]
    summaries: tuple[Summary, ...]
    votes: tuple[Vote, ...]

    @property
    def vote(self) -> Vote:
        """The final majority: the label of the method."""
        return self.votes[-1]

    @property
    def agreeing(self) -> int:
        """Agents whose answer in the last round equals the final majority."""
        return sum(turns[len(self.votes) - 1].agrees for turns in self.turns)

    def dialogue(self, agent: int, rounds: int | None = None) -> tuple[Message, ...]:
        """The chat of one agent, over its first `rounds` rounds (default: all)."""
        turns = self.turns[agent][:rounds]
        pairs = ((Message("user", t.prompt), Message("assistant", t.call.text)) for t in turns)
        return tuple(m for pair in pairs for m in pair)

    def calls(self) -> Iterator[Call]:
        """Every request made for this question, answers first."""
        yield from (turn.call for agent in self.turns for turn in agent)
        yield from (summary.call for summary in self.summaries)


class Example(Record, frozen=True):
    """One training sample: a chat that ends with the assistant, and the problem it came from. rejected: for preferences, the last
    answer that should have been less likely."""

    problem: str
    messages: tuple[Message, ...]
    rejected: str | None = None


class Timing(Record, frozen=True):
    """Wall-clock seconds of a stage's last uninterrupted stretch. Lies beside the commit: equal work may take any time."""

    seconds: float


class Evaluation(Record, frozen=True):
    """A held-out debate in numbers; every question counts, answers that do not parse are wrong.

    answers[m]: single answers of round m + 1, mean over agents; agents[n][m]: the same per agent; votes[m]: the majority
    of round m + 1, so votes[0] is plain majority voting and votes[-1] the debate; consensus: share of agents that agree
    with the final majority; wrong_to_right and right_to_wrong: counts over agents and questions, first to last round.
    """

    iteration: int
    questions: int
    answers: tuple[Score, ...]
    agents: tuple[tuple[Score, ...], ...]
    votes: tuple[Score, ...]
    consensus: Score
    wrong_to_right: int
    right_to_wrong: int
    unparsed: int
    ties: int
    usage: Usage


class Diversity(Record, frozen=True):
    """How far the agents of one iteration are from each other; first answers, natural logarithms.

    nll[i][j]: mean negative log-likelihood of agent i's answers under agent j's model, nats per token; cross: mean over i ≠ j,
    the paper's measure (higher: more diverse); kl: mean over i ≠ j of KL(i ‖ j) at every token of agent i's answers, in nats;
    dissimilarity: 1 - cosine of the embeddings of two agents' answers to a question, among those that equal the vote (None: no
    such pair); distinct, entropy: different answers to a question, and the entropy of their values in bits; consensus: share of
    agents behind the last vote.
    """

    iteration: int
    questions: int
    nll: tuple[tuple[float, ...], ...]
    cross: float
    kl: float
    dissimilarity: Score | None
    distinct: Score
    entropy: Score
    consensus: Score


class DatasetCounts(Record, frozen=True):
    """One dataset of one agent: examples kept, and what was left out under which reason."""

    role: Role
    agent: int
    kept: int
    left_out: dict[str, int]


class Adapter(Record, frozen=True):
    """One role of one agent in one iteration. name: as the servers know it (`base` where there is none yet);
    trained: False where there were too few examples and the agent kept what it had; loss_first, loss_last: mean of the first
    and of the last tenth of the steps, in nats per token."""

    role: Role
    agent: int
    iteration: int
    name: str
    trained: bool
    examples: int
    steps: int
    loss_first: float | None
    loss_last: float | None


class StoredFile(Record, frozen=True):
    """One object of a commit: its name below the commit's prefix, bytes and hex sha256."""

    name: str
    size: int
    sha256: str


class Commit(Formatted, frozen=True):
    """The last object of a publication. Readers follow it and never a listing."""

    prefix: str
    files: tuple[StoredFile, ...]
    parents: tuple[str, ...]
    meta: dict[str, Any]

    def file(self, name: str) -> StoredFile:
        """The entry of that name; BadInput if the commit has none."""
        for entry in self.files:
            if entry.name == name:
                return entry
        raise BadInput(f"{self.prefix}: its commit names no file {name!r}")


def usage_of(commit: Commit) -> Usage:
    """What a debate's commit says that its stage asked of the servers; BadInput if it says nothing of it."""
    try:
        return msgspec.convert(commit.meta["usage"], Usage)
    except (KeyError, msgspec.ValidationError) as error:
        raise BadInput(f"{commit.prefix}: its commit does not say what was asked of the servers: {error}") from None


def encode(record: Any) -> bytes:
    """Compact JSON with sorted keys inside plain dicts, so that equal records give equal bytes."""
    return msgspec.json.encode(record, order="deterministic")


def decode(data: bytes, kind: type[T], where: str) -> T:
    """The record of that kind; BadInput naming `where` if the JSON has another shape or format."""
    try:
        if issubclass(kind, Formatted):
            check_format(msgspec.json.decode(data, type=Head).format, where)
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise BadInput(f"{where}: not a {kind.__name__} record: {error}") from None


def check_format(found: int, where: str) -> None:
    """BadInput unless this release reads that format. 0: the file names none."""
    if foreign := foreign_format(found):
        hint = "use the release that made it, or a newer one" if found else "use another name or prefix for this run"
        raise BadInput(f"{where}: {foreign}; {hint}")


def encode_lines(records: Iterable[Any]) -> bytes:
    """JSON lines, each ended by a newline."""
    return b"".join(encode(record) + b"\n" for record in records)


def decode_lines(data: bytes, kind: type[T], where: str) -> list[T]:
    """The records of a JSON lines object; BadInput names the first bad line."""
    lines = data.splitlines()
    return [decode(line, kind, f"{where} line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def plain(record: Any) -> Any:
    """The record as dicts, lists and plain values: what a reader of its JSON gets, so that both compare equal."""
    return msgspec.json.decode(msgspec.json.encode(record))
