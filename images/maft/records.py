"""What passes between the programs: problems, transcripts, examples, commits. Frozen, camelCase JSON on the wire.

`encode` and `decode` are the only way to and from JSON; `decode` refuses records of another shape, and files of a format that this
release does not know (docs/formats.md).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec

from maft.errors import BadInput
from maft.spec import FORMAT, UNREADABLE, DebateSpec, Head, foreign_format
from maft.summaries import Answers, Score, Usage

T = TypeVar("T")

Role = Literal["generator", "critic"]
ROLES: tuple[Role, ...] = ("generator", "critic")
VOTE = "vote"  # a column of rows whose answer a society gave, and nobody has checked
BASE = "base"  # the name under which every server serves the base model


def trained_roles(debate: DebateSpec) -> tuple[Role, ...]:
    """Lists the roles that learn: no critics where none are asked."""
    return ROLES if debate.critics else ROLES[:1]


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """Anything that is written."""


class Formatted(Record, frozen=True, kw_only=True):
    """A record that says of which format it is: readers refuse others before they look at its fields."""

    format: int = FORMAT


class Message(Record, frozen=True, omit_defaults=True):
    """One turn of a chat, as chat templates take it; what a model said with what it takes to train on it."""

    role: Literal["system", "user", "assistant"]
    content: str
    thought: str = ""
    """What an assistant thought before it."""
    ids: tuple[int, ...] = ()
    """The tokens as they were sampled, thought and end of turn included; empty where the server did not tell."""
    cut: bool = False
    """Ended by a limit and not by the model; such a turn never trains."""
    given: bool = False
    """A part of the question that no model said."""


class Entry(Record, frozen=True):
    """Where a generated question comes from: it is made again for its scorer."""

    generator: str
    config: str
    """Its configuration as JSON."""
    seed: int
    index: int
    """Which of the questions of that seed."""


class Cases(Record, frozen=True, omit_defaults=True):
    """Of a question whose answer is a program: how programs are compared."""

    function: str
    """That the program defines."""
    inputs: str
    """A JSON list with a list of arguments for each call."""
    solution: str = ""
    """A program that is right, where the source has one."""


class Alike(Record, frozen=True):
    """Labels of a question whose answers are compared by vectors: what says the same as the reference, and what does not."""

    same: tuple[str, ...]
    different: tuple[str, ...]


class Problem(Record, frozen=True, omit_defaults=True):
    """One question."""

    id: str
    """A hash of its normalised text, without worked examples before it: equal questions have equal ids."""
    question: str
    answer: str
    """The reference, in canonical form."""
    history: tuple[Message, ...] = ()
    """Turns before the question, where it is asked in the middle of a chat."""
    entry: Entry | None = None
    """Of reasoning-gym: how the question is made, for the generator's own scorer."""
    cases: Cases | None = None
    """Of kind code: what programs are run on. The answer is the outputs."""
    alike: Alike | None = None
    """Of kind semantic, on the probe alone: what the threshold is fitted on."""

    @property
    def solved(self) -> str:
        """Returns the reference as an agent would give it."""
        return fenced(self.cases.solution) if self.cases and self.cases.solution else self.answer

    @property
    def text(self) -> str:
        """Joins the question and what stands before it."""
        return "\n".join((*(message.content for message in self.history), self.question))

    def opening(self, system: str) -> tuple[Message, ...]:
        """Returns what stands before the first user turn of a debate: its own chat, after the run's system turn if it has none."""
        given = tuple(Message(m.role, m.content, given=True) for m in self.history)
        own = bool(given) and given[0].role == "system"
        return given if own or not system else (Message("system", system), *given)


class Call(Record, frozen=True, omit_defaults=True):
    """One request to a model: what was asked for and what came back."""

    model: str
    seed: int
    prompt_tokens: int
    completion_tokens: int
    """With the end token."""
    finish_reason: str
    """stop: the model ended it; length: the limit of tokens did; context: the prompt left no room."""
    text: str
    """The reply, without what was thought before it."""
    thought: str = ""
    ids: tuple[int, ...] = ()
    """Tokens as they were sampled; empty where the server does not tell."""

    @property
    def cut(self) -> bool:
        """Tells whether a limit ended it."""
        return self.finish_reason != "stop"


class CachedCall(Record, frozen=True):
    """A call of the base model."""

    key: str
    """A hash of everything that decided it."""
    call: Call


class Turn(Record, frozen=True, omit_defaults=True):
    """One answer of one agent in one round."""

    prompt: str
    """The user turn that it saw."""
    call: Call
    parsed: str | None
    """The answer in the text; None: did not parse."""
    agrees: bool
    """Equals the final majority."""
    right: bool
    """Equals the reference answer: for evaluation and the report; training never reads it."""
    clipped: int = 0
    """Texts of others in the prompt that did not fit whole."""

    @property
    def message(self) -> Message:
        """Returns the answer as a turn of a chat."""
        call = self.call
        return Message("assistant", call.text, call.thought, call.ids, call.cut)


class Summary(Record, frozen=True, omit_defaults=True):
    """A summary of answers, by the base model or the agent that the spec names."""

    agent: int | None
    """For whom; None: for all of them (fast mode)."""
    round: int
    """Before which one: 2 to M."""
    prompt: str
    call: Call
    clipped: int = 0
    """Answers in the prompt that did not fit whole."""


Place = tuple[int, int]  # where an answer was said: agent, from 0, and round, from 1


class Judgement(Record, frozen=True, omit_defaults=True):
    """Whether two answers mean the same, as the base model was asked or their vectors tell."""

    one: Place | None
    """None: the reference."""
    other: Place | None
    same: bool
    calls: tuple[Call, ...]
    """One for each order of the two; of vectors none."""
    clipped: int = 0
    """Texts in the prompts that did not fit whole."""
    cosine: float | None = None
    """Of their vectors, where these tell."""


class Vote(Record, frozen=True):
    """Majority over the parsed answers of one round."""

    answer: str | None
    """None where nothing parsed."""
    votes: int
    """Agents behind `answer`."""
    runner_up: int
    """Agents behind the next answer."""
    tied: bool
    """Drawn by the seed among equals."""
    right: bool
    """Equals the reference answer."""

    @property
    def margin(self) -> int:
        """Counts how many more agents are behind the answer than behind the next one."""
        return self.votes - self.runner_up


class Transcript(Formatted, frozen=True):
    """One debate over one question."""

    index: int
    problem: Problem
    turns: tuple[tuple[Turn, ...], ...]
    """turns[n][m]: the answer of agent n in round m + 1."""
    summaries: tuple[Summary, ...]
    votes: tuple[Vote, ...]
    """votes[m]: the majority in round m + 1."""
    judgements: tuple[Judgement, ...] | msgspec.UnsetType = msgspec.UNSET
    """Where a model or vectors decide which answers are the same."""

    @property
    def vote(self) -> Vote:
        """Returns the final majority: the label of the method."""
        return self.votes[-1]

    @property
    def agreeing(self) -> int:
        """Counts agents whose answer in the last round equals the final majority."""
        return sum(turns[len(self.votes) - 1].agrees for turns in self.turns)

    def dialogue(self, agent: int, rounds: int | None = None, *, system: str = "") -> tuple[Message, ...]:
        """Returns the chat of one agent, over its first `rounds` rounds (default: all). system: debate.system."""
        turns = self.turns[agent][:rounds]
        pairs = ((Message("user", t.prompt), t.message) for t in turns)
        return (*self.problem.opening(system), *(m for pair in pairs for m in pair))

    def calls(self) -> Iterator[Call]:
        """Yields every request made for this question, answers first."""
        yield from (turn.call for agent in self.turns for turn in agent)
        yield from (summary.call for summary in self.summaries)
        yield from (call for judgement in self.judgements or () for call in judgement.calls)


class Example(Record, frozen=True):
    """One training sample."""

    problem: str
    """The id of the problem that it came from."""
    messages: tuple[Message, ...]
    """A chat that ends with the assistant."""
    rejected: Message | None = None
    """For preferences: the last answer that should have been less likely."""
    desirable: bool | msgspec.UnsetType = msgspec.UNSET
    """For grades: whether the last answer should have been more likely, or less."""


class Timing(Record, frozen=True):
    """What a stage took."""

    seconds: float
    """Of the wall clock, for its last uninterrupted stretch."""


class Evaluation(Record, frozen=True):
    """A held-out debate in numbers; every question counts, answers that do not parse are wrong."""

    iteration: int
    questions: int
    answers: tuple[Score, ...]
    """answers[m]: single answers of round m + 1, mean over agents."""
    agents: tuple[tuple[Score, ...], ...]
    """agents[n][m]: answers of agent n in round m + 1."""
    votes: tuple[Score, ...]
    """votes[m]: the majority of round m + 1, so votes[0] is plain majority voting and votes[-1] the debate."""
    consensus: Score
    """Share of agents that agree with the final majority."""
    wrong_to_right: int
    """Over agents and questions, first to last round; the next one, too."""
    right_to_wrong: int
    unparsed: int
    """Answers of all rounds."""
    ties: int
    """Final votes that the seed drew."""
    usage: Usage
    whole: Answers = Answers()
    """How whole the answers are."""


class Diversity(Record, frozen=True):
    """How far the agents of one iteration are from each other; first answers, natural logarithms."""

    iteration: int
    questions: int
    nll: tuple[tuple[float, ...], ...]
    """nll[i][j]: mean negative log-likelihood of agent i's answers under agent j's model, nats per token; where agents have several
    base models, nats per byte."""
    cross: float
    """Mean of nll over i ≠ j, the paper's measure; higher: more diverse."""
    kl: float | None
    """Mean over i ≠ j of KL(i ‖ j) at every token of agent i's answers, in nats, among agents of one base model; None: no two have
    the same."""
    dissimilarity: Score | None
    """1 - cosine of the embeddings of two agents' answers to a question, among those that equal the vote; None: no such pair."""
    distinct: Score
    """Different answers to a question."""
    entropy: Score
    """Of the values of the answers to a question, in bits."""
    consensus: Score
    """Share of agents behind the last vote."""
    per: Literal["byte"] | msgspec.UnsetType = msgspec.UNSET
    """What nll and cross are per, where that is no token."""


class DatasetCounts(Record, frozen=True):
    """One dataset of one agent."""

    role: Role
    agent: int
    kept: int
    """Examples."""
    left_out: dict[str, int]
    """Questions that gave none, by reason (shortage.py)."""


class Adapter(Record, frozen=True):
    """One role of one agent in one iteration."""

    role: Role
    agent: int
    iteration: int
    name: str
    """As the servers know it; `base` where there is none yet."""
    trained: bool
    """False where there were too few examples and the agent kept what it had."""
    examples: int
    steps: int
    loss_first: float | None
    """Mean of the first tenth of the steps, in nats per token (dpo, kto: per example)."""
    loss_last: float | None
    """The same of the last tenth."""
    turns_left_out: int = 0
    """Turns that do not count with training.lossOn all: what was said there is not what the model would see."""
    batch_tokens: int = 0
    """What memory that ran out lowered training.batchTokens to; 0: it did not."""


class StoredFile(Record, frozen=True):
    """One object of a commit."""

    name: str
    """Below the commit's prefix."""
    size: int
    """Bytes."""
    sha256: str
    """In hex."""


class Commit(Formatted, frozen=True):
    """The last object of a publication. Readers follow it and never a listing."""

    prefix: str
    files: tuple[StoredFile, ...]
    parents: tuple[str, ...]
    """Prefixes of the commits that it was made from."""
    meta: dict[str, Any]
    """What its publisher says of it."""

    def has(self, name: str) -> bool:
        """Tells whether the commit has a file of that name."""
        return any(entry.name == name for entry in self.files)

    def file(self, name: str) -> StoredFile:
        """Finds the entry of that name; BadInput if the commit has none."""
        for entry in self.files:
            if entry.name == name:
                return entry
        raise BadInput(f"{self.prefix}: its commit names no file {name!r}")


def described(commit: Commit, key: str, kind: type[T]) -> T:
    """Reads what the commit's publisher says of it under that key; BadInput if it says nothing, or something else."""
    try:
        return msgspec.convert(commit.meta[key], kind)
    except (KeyError, msgspec.ValidationError) as error:
        raise BadInput(f"{commit.prefix}: its commit does not describe its {key}: {error}") from None


def fenced(program: str) -> str:
    """Writes a program as a block of Markdown."""
    return f"```python\n{program}\n```"


def encode(record: Any) -> bytes:
    """Writes compact JSON with sorted keys inside plain dicts, so that equal records give equal bytes."""
    return msgspec.json.encode(record, order="deterministic")


def decode(data: bytes, kind: type[T], where: str) -> T:
    """Reads a record of that kind; BadInput naming `where` if the JSON has another shape or format."""
    try:
        if issubclass(kind, Formatted):
            _check_format(msgspec.json.decode(data, type=Head).format, where)
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise BadInput(f"{where}: not a {kind.__name__} record: {error}") from None


def _check_format(number: int, where: str) -> None:
    if foreign := foreign_format(number):
        hint = "use the release that made it, or a newer one" if number else "use another name or prefix for this run"
        raise BadInput(f"{where}: {foreign}; {hint}")


def encode_lines(records: Iterable[Any]) -> bytes:
    """Writes JSON lines, each ended by a newline."""
    return b"".join(encode(record) + b"\n" for record in records)


def decode_lines(data: bytes, kind: type[T], where: str) -> list[T]:
    """Reads the records of a JSON lines object; BadInput names the first bad line."""
    lines = data.splitlines()
    return [decode(line, kind, f"{where} line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def plain(record: Any) -> Any:
    """Makes dicts, lists and plain values of a record: what a reader of its JSON gets, so that both compare equal."""
    return msgspec.json.decode(msgspec.json.encode(record))
