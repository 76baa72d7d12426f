"""What a program says at its end, as frozen records: read by `maft run`, the status of a resource and the metrics.

One JSON object of at most 4 KiB (`LIMIT`): on a cluster it is the container's termination message, locally a file. Numbers are
numbers: means are fractions, not percent. The field `program` tells whose it is.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

LIMIT = 4096  # bytes that the kubelet keeps of a termination message


class Numbers(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A part of a summary. camelCase in JSON, empty fields left out."""


class Score(msgspec.Struct, frozen=True, rename="camel"):
    """A mean over questions with its standard error, both as fractions."""

    mean: float
    stderr: float


class ProbeScore(Score, frozen=True):
    """How often the majority was right on the probe questions, and how many there were."""

    questions: int


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """What a stage asked of the servers: requests, tokens read and tokens written."""

    calls: int
    prompt_tokens: int
    completion_tokens: int


class ProgramSummary(Numbers, frozen=True, kw_only=True, tag_field="program"):
    """Any program's. version: of the release that wrote it."""

    version: str = ""


class PrepareSummary(ProgramSummary, frozen=True, kw_only=True, tag="prepare"):
    """Questions drawn: for training, held out, for the probe."""

    train: int
    held_out: int
    probe: int = 0


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
    probe: ProbeScore | None = None
    usage: Usage


class AdapterSummary(Numbers, frozen=True, kw_only=True):
    """One adapter. loss_first, loss_last: mean of the first and the last tenth of the steps, nats per token; None: not trained."""

    role: str
    agent: int
    name: str
    examples: int
    steps: int
    loss_first: float | None = None
    loss_last: float | None = None


class TrainSummary(ProgramSummary, frozen=True, kw_only=True, tag="train"):
    """Adapters made. kept: of agents with too few examples, which keep what they had."""

    adapters: tuple[AdapterSummary, ...]
    trained: int
    kept: int = 0


class EvaluateSummary(ProgramSummary, frozen=True, kw_only=True, tag="evaluate"):
    """The held-out debate: accuracy of one first answer, of the majority of first answers, of the debate; share of agents behind
    the final majority; answers that the debate mended and spoilt; answers that did not parse."""

    questions: int
    agents: int
    rounds: int
    answer: Score
    majority: Score
    debate: Score
    consensus: Score
    wrong_to_right: int
    right_to_wrong: int
    unparsed: int
    usage: Usage


class DiversitySummary(ProgramSummary, frozen=True, kw_only=True, tag="diversity"):
    """How far the agents are from each other: nll, kl in nats per token, entropy in bits, dissimilarity as 1 - cosine."""

    questions: int
    nll: float
    kl: float
    distinct: float
    entropy: float
    dissimilarity: float | None = None


class ResultRow(Numbers, frozen=True, kw_only=True):
    """A row of the paper's table. answer, consensus: None where the row is only a part of another one's debate."""

    name: str
    accuracy: Score
    answer: Score | None = None
    consensus: Score | None = None


class ReportSummary(ProgramSummary, frozen=True, kw_only=True, tag="report"):
    """The page's URL, the paper's table, and how many debates there are and stand in the page."""

    report: str
    results: tuple[ResultRow, ...]
    debates: int
    in_page: int


class CompareSummary(ProgramSummary, frozen=True, kw_only=True, tag="compare"):
    """The table as text, the page's URL, and how many methods were compared."""

    table: str
    report: str
    methods: int


class Failure(ProgramSummary, frozen=True, kw_only=True, tag="failure"):
    """Why a program ended without its output, in one line."""

    error: str


AnySummary = (
    PrepareSummary | DebateSummary | TrainSummary | EvaluateSummary | DiversitySummary | ReportSummary | CompareSummary | Failure
)


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
        found: AnySummary = msgspec.json.decode(data, type=AnySummary)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # anybody may write there: no UTF-8, nesting without an end
        return None
    return found
