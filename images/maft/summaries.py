"""What a program says at its end, as frozen records: read by `maft run`, the status of a resource and the metrics.

One JSON object of at most 4 KiB (`LIMIT`): on a cluster it is the container's termination message, locally a file. Numbers are
numbers: means are fractions, not percent. The field `program` tells whose it is.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Literal, TypeVar

import msgspec

MANY_CUT = 0.1  # share of answers that end at the limit of tokens over which people are warned
HARMFUL = 0.5  # share of right majorities on the probe under which training reinforces wrong answers
LIMIT = 4096  # bytes that the kubelet keeps of a termination message
# Exit codes beside 0. Another one is a fault that may pass.
BAD_INPUT = 2  # of a program that will fail again
PEER_LOST = 75  # of one that ends because another pod of its task is gone, and begins again with it
PEERS_MISSING = 69  # of the first pod of a task that waited in vain for the others
_MOST = 1000  # numbers that are read of a text, the greatest is one less: iterations and agents are far fewer


class Numbers(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A part of a summary. camelCase in JSON, empty fields left out."""


class Score(msgspec.Struct, frozen=True, rename="camel"):
    """A mean over questions with its standard error, both as fractions."""

    mean: float
    stderr: float

    @property
    def percent(self) -> str:
        """Writes `58.0 ± 2.2`: percent, where a column or a sign beside it says so."""
        return f"{100 * self.mean:.1f} ± {100 * self.stderr:.1f}"


class ProbeScore(Score, frozen=True):
    """How often the majority was right on the probe questions."""

    questions: int
    """How many there were."""


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """What a stage asked of the servers."""

    calls: int
    """Requests."""
    prompt_tokens: int
    """Tokens read."""
    completion_tokens: int
    """Tokens written."""


class Gain(Score, frozen=True):
    """A paired difference of accuracies on the validation questions."""

    over: int
    """The iteration that was the best before."""


class Validation(Numbers, frozen=True, kw_only=True):
    """The validation questions, debated after an iteration."""

    accuracy: Score
    """Of the debate."""
    gain: Gain | None = None
    """None: the first iteration that was validated."""


class ProgramSummary(Numbers, frozen=True, kw_only=True, tag_field="program"):
    """Any program's."""

    version: str = ""
    """Of the release that wrote it."""


class Earlier(Numbers, frozen=True, kw_only=True):
    """What was committed before this start, by iteration, as `1-57,60`."""

    debates: str = ""
    """With their datasets."""
    evaluations: str = ""
    diversities: str = ""
    adapters: dict[str, str] = {}
    """Agents whose adapters are all there, by iterations: {"1-56": "0-2", "57": "0"}."""
    scores: dict[str, tuple[float, ...]] = {}
    """By iteration, of held-out questions: accuracy of the debate and its standard error; where there is room, the same of one
    first answer and of the majority of first answers."""
    validated: str = ""
    validations: dict[str, Validation] = {}
    """By iteration; of many the last ones."""


class Threshold(Numbers, frozen=True, kw_only=True):
    """From which cosine on two answers are the same (task.answer semantic)."""

    cosine: float
    source: Literal["fitted", "given", "default"]
    """fitted: on labelled pairs of the probe; given: by task.semantic.threshold; default: there were too few pairs."""
    pairs: int = 0
    """Labelled ones of the probe."""
    error: Score | None = None
    """Share of pairs that it puts wrongly, mean over questions; where it was fitted, each question by the threshold that the others
    give. None: no pairs of both kinds."""
    joined: float = 0.0
    """Of pairs labelled different, the share taken for the same."""
    parted: float = 0.0
    """Of pairs labelled the same, the share taken for different."""

    @property
    def text(self) -> str:
        """Says it: `answers the same from a cosine of 0.62 on, fitted; 8.3 ± 2.1 % of 90 labelled pairs wrong`."""
        begins = f"answers the same from a cosine of {self.cosine:g} on, {self.source}"
        return f"{begins}; {self.error.percent} % of {self.pairs} labelled pairs wrong" if self.error else begins


class PrepareSummary(ProgramSummary, frozen=True, kw_only=True, tag="prepare"):
    """Questions drawn, by what they are for."""

    train: int
    held_out: int
    probe: int = 0
    validation: int = 0
    model_bytes: int = 0
    """Of the base model's weights as they are stored; 0: not known."""
    revision: str = ""
    """The commit of a hub's model that the run uses."""
    semantic: Threshold | None = None
    """None: answers are compared otherwise."""
    warnings: tuple[str, ...] = ()
    """What works and may surprise, a line each."""
    earlier: Earlier = Earlier()


class Answers(Numbers, frozen=True, kw_only=True):
    """How whole the answers of a debate are, all rounds and agents."""

    asked: int = 0
    cut: int = 0
    """Ended by the limit of tokens or of the context; they never train."""
    clipped: int = 0
    """Answered a prompt into which what the others said did not fit whole."""

    @property
    def too_many_cut(self) -> bool:
        """Tells whether people have to be warned."""
        return self.cut > MANY_CUT * self.asked

    def __add__(self, other: "Answers") -> "Answers":
        """Counts those of two debates."""
        return Answers(asked=self.asked + other.asked, cut=self.cut + other.cut, clipped=self.clipped + other.clipped)

    @property
    def text(self) -> str:
        """Says what is not whole: `12 of 96 answers cut off, 3 to a clipped prompt`; nothing where all is."""
        cut = f"{self.cut:,} of {self.asked:,} answers cut off" if self.cut else ""
        clipped = f"{self.clipped:,} of {self.asked:,} to a clipped prompt" if self.clipped else ""
        return ", ".join(part for part in (cut, clipped) if part)


class PreflightSummary(ProgramSummary, frozen=True, kw_only=True, tag="preflight"):
    """What was found out about the model before any server started."""

    architecture: str
    """The model's class."""
    modules: int
    """Layers that get an adapter."""
    context: int
    """Tokens, as the configuration has it or model.maxLength sets it; 0: not known."""
    longest_prompt: int
    """Tokens of the longest prompt that the spec can make."""
    thinks: bool
    """The chat template has thoughts, and they are on."""
    training_bytes: int = 0
    """Most memory that training is predicted to need at once, on each GPU or in its process; 0: not known."""
    requests: int = 0
    """Most that all debates of the run ask of the servers."""
    tokens: int = 0
    """Most that they write."""
    stored_bytes: int = 0
    """About what the run keeps in the store, if all of them are written; 0: not known."""
    warnings: tuple[str, ...] = ()
    """What works and may surprise, a line each."""


class DebateSummary(ProgramSummary, frozen=True, kw_only=True, tag="debate"):
    """The debate over the training questions, and the datasets made of it."""

    questions: int
    agreement: float
    """Share of agents behind the final majority, mean over questions."""
    margins: tuple[int, ...]
    """Questions by margin: how many had 0, 1, ... more agents behind the majority than behind the next answer."""
    kept: dict[str, tuple[int, ...]]
    """Examples per agent, by role."""
    abstained: int | None = None
    """Questions whose vote is no label; None where labels are read instead (STaR)."""
    left_out: dict[str, int] = {}
    """Questions that gave no example, by reason, over all datasets (shortage.py)."""
    probe: ProbeScore | None = None
    answers: Answers = Answers()
    usage: Usage


class ShardSummary(ProgramSummary, frozen=True, kw_only=True, tag="shard"):
    """Of a program that debated its shard of the questions, and left the rest to those that still debate theirs."""

    questions: int
    """Its own."""


class AdapterSummary(Numbers, frozen=True, kw_only=True):
    """One adapter."""

    role: str
    agent: int
    name: str
    """As the servers know it."""
    examples: int
    steps: int
    loss_first: float | None = None
    """Mean of the first tenth of the steps, in nats per token (dpo, kto: per example); None: not trained."""
    loss_last: float | None = None
    """The same of the last tenth."""


class TrainSummary(ProgramSummary, frozen=True, kw_only=True, tag="train"):
    """Adapters made."""

    adapters: tuple[AdapterSummary, ...]
    """Of many the first ones."""
    trained: int
    kept: int = 0
    """Of agents with too few examples, which keep what they had."""
    turns_left_out: int = 0
    """Turns that do not count with training.lossOn all: what was said there is not what the model would see."""
    batch_tokens: int = 0
    """The fewest that memory that ran out lowered training.batchTokens to; 0: it did not."""


class EvaluateSummary(ProgramSummary, frozen=True, kw_only=True, tag="evaluate"):
    """The debate of the held-out questions, or of the validation questions."""

    questions: int
    agents: int
    rounds: int
    answer: Score
    """Accuracy of one first answer."""
    majority: Score
    """Accuracy of the majority of first answers."""
    debate: Score
    """Accuracy of the majority of last answers."""
    consensus: Score
    """Share of agents behind the final majority."""
    wrong_to_right: int
    """Answers that the debate mended."""
    right_to_wrong: int
    """Answers that the debate spoilt."""
    unparsed: int
    """Answers that did not parse."""
    answers: Answers = Answers()
    usage: Usage
    validation: Validation | None = None
    """None: they are held-out questions."""


class DiversitySummary(ProgramSummary, frozen=True, kw_only=True, tag="diversity"):
    """How far the agents are from each other."""

    questions: int
    nll: float
    """Of an agent's answers under the others' models, in nats per token, or per byte where agents have several base models."""
    kl: float | None
    """Between two agents of one base, in nats per token; None: no two have the same."""
    distinct: float
    """Different first answers to a question."""
    entropy: float
    """Of the first answers to a question, in bits."""
    dissimilarity: float | None = None
    """1 - cosine of the embeddings of answers; None: not measured."""
    per_byte: bool = False
    """What nll is per."""


class ResultRow(Numbers, frozen=True, kw_only=True):
    """A row of the paper's table."""

    name: str
    accuracy: Score
    answer: Score | None = None
    """None, as the next one, where the row is only a part of another one's debate."""
    consensus: Score | None = None


class ReportSummary(ProgramSummary, frozen=True, kw_only=True, tag="report"):
    """The page about a run."""

    report: str
    """Its URL."""
    results: tuple[ResultRow, ...]
    """The paper's table."""
    debates: int
    in_page: int
    """Debates that stand in the page."""
    remarks: tuple[str, ...] = ()
    """What has to be known to read the table: that nothing was trained, and why."""


class CompareSummary(ProgramSummary, frozen=True, kw_only=True, tag="compare"):
    """The table of many methods."""

    table: str
    """As text."""
    report: str
    """The URL of its page."""
    methods: int
    """How many were compared."""
    accuracy: Score | None = None
    """Of the best, over questions, each the mean over seeds."""


class Exported(Numbers, frozen=True, kw_only=True):
    """What one target has now."""

    to: str
    """Its kind."""
    place: str
    """Where it is, for people; no secrets."""
    new: int = 0
    """Parts that were sent this time."""


class ExportSummary(ProgramSummary, frozen=True, kw_only=True, tag="export"):
    """What was handed on."""

    targets: tuple[Exported, ...]


class Failure(ProgramSummary, frozen=True, kw_only=True, tag="failure"):
    """Why a program ended without its output."""

    error: str
    """One line."""


AnySummary = (
    PrepareSummary
    | PreflightSummary
    | DebateSummary
    | ShardSummary
    | TrainSummary
    | EvaluateSummary
    | DiversitySummary
    | ReportSummary
    | CompareSummary
    | ExportSummary
    | Failure
)


def ranges(numbers: Iterable[int]) -> str:
    """Writes numbers as ranges: 1-57,60."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def numbers_in(text: str) -> frozenset[int]:
    """Reads what `ranges` wrote; what is none of it, or too large, counts for nothing: anybody may have written it."""
    matches = (re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", part) for part in text.split(","))
    return frozenset(islice((n for m in matches if m for n in range(int(m[1]), int(m[2] or m[1]) + 1)), _MOST))


ROOM = 100  # bytes for the version, which is set last
SummaryT = TypeVar("SummaryT", bound=ProgramSummary)


def first_that_fits(summaries: Iterable[SummaryT]) -> SummaryT:
    """Chooses among summaries that say less and less; the last one where none fits."""
    for summary in summaries:
        if len(msgspec.json.encode(summary)) <= LIMIT - ROOM:
            break
    return summary


def encode_summary(summary: ProgramSummary) -> bytes:
    """Writes the summary as one JSON object; ValueError if it is longer than a termination message."""
    data = msgspec.json.encode(summary)
    if len(data) > LIMIT:
        raise ValueError(f"summary of {len(data)} bytes; a termination message holds {LIMIT}")
    return data


def decode_summary(data: bytes | str) -> AnySummary | None:
    """Reads a summary; None for what is none of this release's, such as the log of a program that was killed."""
    try:
        summary: AnySummary = msgspec.json.decode(data, type=AnySummary)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # anybody may write there: no UTF-8, nesting without an end
        return None
    return summary
