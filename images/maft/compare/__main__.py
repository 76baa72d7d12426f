"""`python -m maft.compare`: the paper's table over finished runs of many methods and seeds, with errors, tests and costs.

In: the evaluation commits of the runs. Out: below `compare/` of the group a table as text, Markdown, CSV, JSON, a chart, a page.
"""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import numpy as np

from maft import __version__, program, records, scores
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Diversity, Transcript
from maft.spec import FORMAT, Compared
from maft.store import layout
from maft.store.base import Missing, Store
from maft.store.commits import committed, fetch_record, fetch_records, required
from maft.summaries import CompareSummary, Score, Usage

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


@dataclass(frozen=True, slots=True)
class Held:
    """What a run's last held-out debate was like. right: by question id; usage, seconds: of everything that the method needs;
    diversity: where it was measured (evaluation.diversity); versions: of what trained its adapters."""

    right: Mapping[str, float]
    first: Score
    consensus: Score
    distinct: Score
    entropy: Score
    usage: Usage
    seconds: float
    adapters: int
    diversity: Diversity | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A method over all seeds. accuracy: mean over questions (each the mean over seeds) with its standard error; spread: standard
    deviation over seeds; p, p_best: of the differences to the next better row and to the best, by paired permutation tests over
    questions; nll, kl, dissimilarity: as in Diversity, mean over seeds, None where no seed has it."""

    method: str
    seeds: int
    accuracy: Score
    spread: float | None
    better: str
    p: float | None
    p_best: float | None
    first: float
    consensus: float
    distinct: float
    entropy: float
    nll: float | None
    kl: float | None
    dissimilarity: float | None
    tokens: int
    seconds: float
    adapters: int


def read(store: Store, namespace: str, one: Compared) -> Held:
    """What the store has of a run; BadInput if its evaluation is not committed."""
    run = f"{namespace}/{one.run}"
    commit = required(store, layout.evaluation(run, one.iteration), f"the evaluation of {one.run}")
    transcripts = fetch_records(store, commit, layout.TRANSCRIPTS, Transcript)
    debates = [layout.debate(run, i) for i in range(1, one.iteration + 1)]
    trained_files = [key for i in range(1, one.iteration + 1) for key in store.list(f"{run}/iterations/{i}/adapters/")]
    used = [scores.usage(transcripts), *(_usage(store, prefix) for prefix in debates)]
    trained = {t.call.model for transcript in transcripts for turns in transcript.turns for t in turns} - {records.BASE}
    return Held(
        right={t.problem.id: float(t.vote.right) for t in transcripts},
        first=scores.score([statistics.fmean(float(turns[0].right) for turns in t.turns) for t in transcripts]),
        consensus=scores.agreement(transcripts),
        distinct=scores.distinct(transcripts),
        entropy=scores.entropy(transcripts),
        usage=Usage(*(sum(getattr(u, f) for u in used) for f in ("calls", "prompt_tokens", "completion_tokens"))),
        seconds=_seconds(store, [prefix + layout.TIMING for prefix in (commit.prefix, *debates)] + trained_files),
        adapters=len(trained),
        diversity=_diversity(store, run, one.iteration),
        versions=_versions(store, trained_files),
    )


def _versions(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Of the libraries that trained the adapters whose files these are."""
    places = {key.rpartition("/")[0] for key in keys}
    commits = [commit for place in sorted(places) if (commit := committed(store, f"{place}/"))]
    return {name: number for commit in commits for name, number in commit.meta.get("versions", {}).items()}


def _diversity(store: Store, run: str, iteration: int) -> Diversity | None:
    """Of a society; one agent is as diverse as nobody."""
    commit = committed(store, layout.diversity(run, iteration))
    if commit is None:
        return None
    found = fetch_record(store, commit, layout.DIVERSITY, Diversity)
    return found if len(found.nll) > 1 else None


def _usage(store: Store, prefix: str) -> Usage:
    commit = required(store, prefix, "the debate")
    return records.usage_of(commit)


def _seconds(store: Store, keys: Iterable[str]) -> float:
    """Of the timings among these objects, as they lie beside the commits of debates, adapters and evaluations."""
    total = 0.0
    for key in [key for key in keys if key.endswith(layout.TIMING)]:
        try:
            total += float(json.loads(store.read(key))["seconds"])
        except Missing:
            continue
    return total


def rows(held: Mapping[tuple[str, int], Held], methods: Sequence[str]) -> list[Row]:
    """Best first. BadInput if the runs did not answer the same questions."""
    by_method = {method: [h for (m, _), h in held.items() if m == method] for method in methods}
    questions = {frozenset(h.right) for h in held.values()}
    if len(questions) != 1:
        raise BadInput("compare: the runs were evaluated on different questions; compare runs of one group")
    order = sorted(methods, key=lambda m: statistics.fmean(_per_question(by_method[m]).values()), reverse=True)
    return [_row(method, by_method, order[i - 1] if i else "", order[0]) for i, method in enumerate(order)]


def _row(method: str, by_method: Mapping[str, Sequence[Held]], better: str, best: str) -> Row:
    several = by_method[method]
    measured = [h.diversity for h in several if h.diversity]
    own = _per_question(several)
    seeds = [statistics.fmean(h.right.values()) for h in several]
    return Row(
        method=method,
        seeds=len(several),
        accuracy=scores.score([own[q] for q in sorted(own)]),
        spread=statistics.stdev(seeds) if len(seeds) > 1 else None,
        better=better,
        p=_p(_per_question(by_method[better]), own) if better else None,
        p_best=_p(_per_question(by_method[best]), own) if better else None,
        first=statistics.fmean(h.first.mean for h in several),
        consensus=statistics.fmean(h.consensus.mean for h in several),
        distinct=statistics.fmean(h.distinct.mean for h in several),
        entropy=statistics.fmean(h.entropy.mean for h in several),
        nll=_mean(d.cross for d in measured),
        kl=_mean(d.kl for d in measured),
        dissimilarity=_mean(d.dissimilarity.mean for d in measured if d.dissimilarity),
        tokens=round(statistics.fmean(h.usage.prompt_tokens + h.usage.completion_tokens for h in several)),
        seconds=statistics.fmean(h.seconds for h in several),
        adapters=max(h.adapters for h in several),
    )


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def _per_question(several: Sequence[Held]) -> dict[str, float]:
    """Share of seeds that got each question right."""
    return {q: statistics.fmean(h.right[q] for h in several) for q in several[0].right}


def _p(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Two-sided, paired by question, by random sign changes; with one seed this is McNemar's question."""
    from scipy.stats import permutation_test

    first, second = (np.array([each[q] for q in sorted(one)]) for each in (one, other))
    differ = first != second  # the others are equal whatever their signs; without them small tests are exact
    if differ.sum() < 2:  # either sign is as far from zero
        return 1.0
    found = permutation_test(
        (first[differ], second[differ]),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


# --- shown ---


def cells(row: Row) -> tuple[str, ...]:
    """As tables show it: percent, thousands of tokens."""
    return (
        row.method,
        f"{100 * row.accuracy.mean:.1f} ± {100 * row.accuracy.stderr:.1f}",
        "" if row.spread is None else f"{100 * row.spread:.1f}",
        row.better,
        *("" if p is None else f"{p:.3f}" if p >= 0.0005 else "<0.001" for p in (row.p, row.p_best)),
        f"{100 * row.first:.1f}",
        f"{100 * row.consensus:.1f}",
        f"{row.distinct:.2f}",
        f"{row.entropy:.2f}",
        *("" if value is None else f"{value:.3f}" for value in (row.nll, row.kl, row.dissimilarity)),
        f"{row.tokens / 1000:.0f}k",
        f"{row.seconds:.0f}",
        str(row.adapters),
    )


def table(found: Sequence[Row]) -> list[tuple[str, ...]]:
    """The heads and a line per row, without columns that are empty everywhere (one seed, diversity not measured)."""
    lines = [COLUMNS, *map(cells, found)]
    filled = [column for column in zip(*lines, strict=True) if any(column[1:])]
    return list(zip(*filled, strict=True))


def text(found: Sequence[Row]) -> str:
    """Aligned columns."""
    lines = table(found)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [head in WORDS for head in lines[0]]

    def aligned(line: Sequence[str]) -> str:
        padded = (c.ljust(w) if words else c.rjust(w) for c, w, words in zip(line, widths, left, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(aligned, lines)) + "\n"


def markdown(found: Sequence[Row], footer: str) -> str:
    """With what the numbers mean, and where they come from."""
    heads, *lines = table(found)
    rule = "".join("|---" if head in WORDS else "|---:" for head in heads)
    written = ["| " + " | ".join(line) + " |" for line in (heads, *lines)]
    return "\n".join([written[0], rule + "|", *written[1:]]) + f"\n\n{footer}\n"


def as_csv(found: Sequence[Row]) -> str:
    """Raw numbers, not rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    plain = [records.plain(row) for row in found]
    writer.writerow(["method", "seeds", "accuracy", "stderr", *list(plain[0])[3:]])
    for row in plain:
        score = row["accuracy"]
        writer.writerow([row["method"], row["seeds"], score["mean"], score["stderr"], *list(row.values())[3:]])
    return out.getvalue()


EXPLAINED = (
    "accuracy: held-out, % ± standard error over questions; spread: standard deviation over seeds, points; p, p to best: of the"
    " difference to the next better and to the best method (paired permutation test over questions); first answers: accuracy of"
    " one of them; consensus: share of agents behind the last vote; distinct, entropy: of a question's first answers (bits); "
    "NLL, KL: of agents' first answers under the others' models (nats per token); dissimilarity: of the embeddings of answers "
    "that equal the vote; tokens: per run, of all that the method needs alone; seconds: per run, as measured here, where "
    "answers that an earlier run had asked for took none; adapters: served at the end."
)


def main(assignment: Assignment) -> CompareSummary:
    """Reads, compares, writes."""
    store, group, compared = assignment.store, assignment.run, assignment.compared
    namespace = group.partition("/")[0]
    held = {(one.method, one.seed): read(store, namespace, one) for one in compared}
    found = rows(held, list(dict.fromkeys(one.method for one in compared)))
    origin = _origin(store, group, compared, held.values())
    footer = f"{EXPLAINED}\n\n{origin}"
    data = {"format": FORMAT, "rows": records.plain(found), "runs": records.plain(compared), "origin": origin}
    outputs = {
        "table.txt": text(found) + "\n" + footer + "\n",
        "table.md": markdown(found, footer),
        "table.csv": as_csv(found),
        "compare.json": json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True),
        "index.html": _page(found, footer),
    }
    prefix = f"{group}/compare/"
    for name, content in outputs.items():
        store.write(prefix + name, content.encode())
    return CompareSummary(table=text(found), report=f"{store.url}/{prefix}index.html", methods=len(found))


def _origin(store: Store, group: str, compared: Sequence[Compared], held: Iterable[Held]) -> str:
    """What the table was made from and with."""
    commit = committed(store, f"{group}/{layout.PROBLEMS}")
    hashes = ", ".join(f"{f.name} {f.sha256[:12]}" for f in commit.files) if commit else "none"
    versions = {"maft": __version__} | {name: number for one in held for name, number in one.versions.items()}
    parts = [
        ", ".join(f"{name} {number}" for name, number in sorted(versions.items())),
        *([f"model {commit.meta['model']}"] if commit and "model" in commit.meta else []),
        f"seeds {', '.join(map(str, sorted({one.seed for one in compared})))}",
        f"questions: {hashes}",
        f"group {group}",
    ]
    return "; ".join(parts) + "."


def _page(found: Sequence[Row], footer: str) -> str:
    from jinja2 import Environment

    from maft import charts as report_plots

    chart = report_plots.compared([(row.method, row.accuracy) for row in found])
    template = Environment(autoescape=True).from_string(resources.files("maft.compare").joinpath("page.html.j2").read_text("utf-8"))
    heads, *lines = table(found)
    return template.render(heads=[(head, head in WORDS) for head in heads], rows=lines, chart=chart, footer=footer)


PARSER = program.parser("compare", "Makes the table of many methods and seeds.", takes=("compared",))

if __name__ == "__main__":
    program.run(main, PARSER)
