"""Makes the table: a row per method over its seeds, with errors, tests and costs; as text, Markdown and CSV. Pure."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from maft import records, scores
from maft.compare.read import RunResult
from maft.errors import BadInput
from maft.records import Record
from maft.summaries import Score

RESAMPLES = 9999  # of the permutation test
COLUMNS = (
    "method",
    "accuracy",
    "spread",
    "next",
    "p",
    "p to best",
    "first answers",
    "consensus",
    "distinct",
    "entropy",
    "NLL",
    "KL",
    "dissimilarity",
    "tokens",
    "seconds",
    "adapters",
)
WORDS = ("method", "next")  # columns of words; the others are numbers
EXPLAINED = (
    "accuracy: held-out, % ± standard error over questions; spread: standard deviation over seeds, points; p, p to best: of the"
    " difference to the next better and to the best method (paired permutation test over questions); first answers: accuracy of"
    " one of them; consensus: share of agents behind the last vote; distinct, entropy: of a question's first answers (bits); "
    "NLL, KL: of agents' first answers under the others' models (nats per token); dissimilarity: of the embeddings of answers "
    "that equal the vote; tokens: per run, of all that the method needs alone; seconds: per run, as measured here, where "
    "answers that an earlier run had asked for took none; adapters: served at the end."
)


class Origin(Record, frozen=True, kw_only=True):
    """What a table was made from and with."""

    group: str
    model: str
    seeds: tuple[int, ...]
    problems: dict[str, str]
    """Hex sha256 of the files of questions."""
    versions: dict[str, str]
    """Of maft, and of the libraries that trained the adapters."""

    def text(self) -> str:
        """Writes the last lines below a table."""
        hashes = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in self.problems.items())
        parts = [
            ", ".join(f"{name} {number}" for name, number in sorted(self.versions.items())),
            *([f"model {self.model}"] if self.model else []),
            f"seeds {', '.join(map(str, self.seeds))}",
            f"questions: {hashes or 'none'}",
            f"group {self.group}",
        ]
        return "; ".join(parts) + "."


class MethodRow(Record, frozen=True):
    """A method over all seeds. Its p-values are of paired permutation tests over questions."""

    method: str
    seeds: int
    accuracy: Score  # over questions, each the mean over seeds
    spread: float | None  # standard deviation over seeds; None of one seed
    better: str  # the method of the next better row; empty in the best one
    p: float | None  # of the difference to the next better row; None in the best one
    p_best: float | None  # of the difference to the best row
    first: float  # accuracy of single first answers
    consensus: float
    distinct: float
    entropy: float  # bits
    nll: float | None  # this and the next two as in Diversity, mean over the seeds that have it
    kl: float | None
    dissimilarity: float | None
    tokens: int  # read and written, per run
    seconds: float  # per run
    adapters: int  # served at the end
    untrained: int = 0  # seeds in which nothing was trained, though the method trains
    why: str = ""  # that was so in the first of them, and what to change
    per_byte: bool = False  # what nll is per: agents have several base models; else per token, which no other unit compares with

    @property
    def name(self) -> str:
        """Names the row: untrained agents are not called what the method would have made of them."""
        seeds = f" in {self.untrained} of {self.seeds} seeds" if self.untrained < self.seeds else ""
        return f"{self.method}, nothing was trained{seeds}" if self.untrained else self.method


def rows(results: Mapping[tuple[str, int], RunResult], methods: Sequence[str]) -> list[MethodRow]:
    """Makes the rows, best first. results: by method and seed. BadInput if the runs did not answer the same questions."""
    by_method = {method: [r for (m, _), r in results.items() if m == method] for method in methods}
    questions = {frozenset(result.right) for result in results.values()}
    if len(questions) != 1:
        raise BadInput("compare: the runs were evaluated on different questions; compare runs of one group")
    order = sorted(methods, key=lambda m: statistics.fmean(_per_question(by_method[m]).values()), reverse=True)
    return [_row(method, by_method, order[i - 1] if i else "", order[0]) for i, method in enumerate(order)]


def _row(method: str, by_method: Mapping[str, Sequence[RunResult]], better: str, best: str) -> MethodRow:
    results = by_method[method]
    measured = [result.diversity for result in results if result.diversity]
    untrained = [result.shortage for result in results if result.shortage]
    own = _per_question(results)
    seeds = [statistics.fmean(result.right.values()) for result in results]
    return MethodRow(
        method=method,
        seeds=len(results),
        accuracy=scores.score([own[q] for q in sorted(own)]),
        spread=statistics.stdev(seeds) if len(seeds) > 1 else None,
        better=better,
        p=_p(_per_question(by_method[better]), own) if better else None,
        p_best=_p(_per_question(by_method[best]), own) if better else None,
        first=statistics.fmean(result.first.mean for result in results),
        consensus=statistics.fmean(result.consensus.mean for result in results),
        distinct=statistics.fmean(result.distinct.mean for result in results),
        entropy=statistics.fmean(result.entropy.mean for result in results),
        nll=_mean(d.cross for d in measured),
        kl=_mean(d.kl for d in measured if d.kl is not None),
        dissimilarity=_mean(d.dissimilarity.mean for d in measured if d.dissimilarity),
        tokens=round(statistics.fmean(result.usage.prompt_tokens + result.usage.completion_tokens for result in results)),
        seconds=statistics.fmean(result.seconds for result in results),
        adapters=max(result.adapters for result in results),
        untrained=len(untrained),
        why=f"{untrained[0].why}. To change that, {untrained[0].change}." if untrained else "",
        per_byte=any(d.per == "byte" for d in measured),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _per_question(results: Sequence[RunResult]) -> dict[str, float]:
    """Share of seeds that got each question right."""
    return {q: statistics.fmean(result.right[q] for result in results) for q in results[0].right}


def _p(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The p-value of the difference, two-sided, paired by question, by random sign changes.

    With one seed this is McNemar's question."""
    from scipy.stats import permutation_test

    first, second = (np.array([each[q] for q in sorted(one)]) for each in (one, other))
    differ = first != second  # the others are equal whatever their signs; without them small tests are exact
    if differ.sum() < 2:  # either sign is as far from zero
        return 1.0
    test = permutation_test(
        (first[differ], second[differ]),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


# --- shown ---


def cells(row: MethodRow) -> tuple[str, ...]:
    """Writes a row as tables show it: percent, thousands of tokens."""
    return (
        row.name,
        row.accuracy.percent,
        "" if row.spread is None else f"{100 * row.spread:.1f}",
        row.better,
        *("" if p is None else f"{p:.3f}" if p >= 0.0005 else "<0.001" for p in (row.p, row.p_best)),
        f"{100 * row.first:.1f}",
        f"{100 * row.consensus:.1f}",
        f"{row.distinct:.2f}",
        f"{row.entropy:.2f}",
        "" if row.nll is None else f"{row.nll:.3f}{' per byte' if row.per_byte else ''}",
        *("" if value is None else f"{value:.3f}" for value in (row.kl, row.dissimilarity)),
        f"{row.tokens / 1000:.0f}k",
        f"{row.seconds:.0f}",
        str(row.adapters),
    )


def grid(methods: Sequence[MethodRow]) -> list[tuple[str, ...]]:
    """Makes the heads and a line per row, without columns that are empty everywhere (one seed, diversity not measured)."""
    lines = [COLUMNS, *map(cells, methods)]
    filled = [column for column in zip(*lines, strict=True) if any(column[1:])]
    return list(zip(*filled, strict=True))


def notes(methods: Sequence[MethodRow]) -> str:
    """Says of rows in which nothing was trained why, and what to change; a line each."""
    return "".join(f"{row.name}: these agents are the base model; {row.why}\n" for row in methods if row.untrained)


def text(methods: Sequence[MethodRow]) -> str:
    """Writes aligned columns."""
    lines = grid(methods)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [head in WORDS for head in lines[0]]

    def aligned(line: Sequence[str]) -> str:
        padded = (c.ljust(w) if words else c.rjust(w) for c, w, words in zip(line, widths, left, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(aligned, lines)) + "\n"


def markdown(methods: Sequence[MethodRow], footer: str) -> str:
    """Writes Markdown. footer: what the numbers mean, and where they come from."""
    heads, *lines = grid(methods)
    rule = "".join("|---" if head in WORDS else "|---:" for head in heads)
    written = ["| " + " | ".join(line) + " |" for line in (heads, *lines)]
    return "\n".join([written[0], rule + "|", *written[1:]]) + f"\n\n{footer}\n"


def as_csv(methods: Sequence[MethodRow]) -> str:
    """Writes the raw numbers, not rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    plain = [records.plain(row) for row in methods]
    writer.writerow(["method", "seeds", "accuracy", "stderr", *list(plain[0])[3:]])
    for row in plain:
        score = row["accuracy"]
        writer.writerow([row["method"], row["seeds"], score["mean"], score["stderr"], *list(row.values())[3:]])
    return out.getvalue()
