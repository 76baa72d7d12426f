"""What `maft.compare` reads: the held-out debate of each run's last or best iteration, and what the run took to get there.

Comes in: a store and a run whose evaluation is committed. Goes out: one frozen record a run, nothing of the table.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from maft import adapters, records, scores, stopping, validation
from maft.records import BASE, Adapter, DatasetCounts, Diversity, Evaluation, Transcript
from maft.shortage import Shortage, shortage
from maft.spec import Compared
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch_record, required
from maft.store.lines import fetch_lines
from maft.store.timing import read_seconds
from maft.summaries import Score, Usage


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the held-out debate of a run's last or best iteration was like, and what the whole run took."""

    right: Mapping[str, float]  # by question id: 1 where the majority was right
    first: Score  # accuracy of single first answers
    consensus: Score
    distinct: Score
    entropy: Score  # bits
    usage: Usage  # of everything that the method needs
    seconds: float  # the same
    adapters: int  # that the agents used
    diversity: Diversity | None = None  # where it was measured (evaluation.diversity)
    versions: Mapping[str, str] = field(default_factory=dict)  # of what trained its adapters
    shortage: Shortage | None = None  # why nothing was trained, where that was asked for
    iteration: int = 0  # whose agents held that debate
    chosen: bool = False  # by validation questions


def read(store: Store, namespace: str, compared: Compared) -> RunResult:
    """Reads the result of one run; BadInput if its evaluation is not committed."""
    run = f"{namespace}/{compared.run}"
    validated = validation.known(store, run, range(1, compared.iteration + 1))
    best = stopping.best(validated)
    iteration = compared.iteration if best is None else best
    evaluation = required(store, layout.evaluation(run, iteration), f"the evaluation of {compared.run}")
    transcripts = fetch_lines(store, evaluation, layout.TRANSCRIPTS, Transcript)
    iterations = range(1, max(validated, default=compared.iteration) + 1)  # all that it took to know which is the best
    debates = [layout.debate(run, i) for i in iterations]
    choosing = [layout.validation(run, i) for i in validated]
    usages = [*(_usage(store, prefix) for prefix in debates), *(_choosing(store, prefix) for prefix in choosing)]
    trained = [prefix for i in iterations for prefix in adapters.prefixes(store, run, i)]
    return RunResult(
        right={t.problem.id: float(t.vote.right) for t in transcripts},
        first=_first_answers(transcripts),
        consensus=scores.agreement(transcripts),
        distinct=scores.distinct(transcripts),
        entropy=scores.entropy(transcripts),
        usage=_sum([scores.usage(transcripts), *usages]),
        seconds=_seconds(store, [evaluation.prefix, *debates, *choosing, *trained]),
        adapters=_adapters_used(transcripts),
        diversity=_diversity(store, run, iteration),
        versions=_versions(store, trained),
        shortage=_shortage(store, run, iterations),
        iteration=iteration,
        chosen=best is not None,
    )


def _first_answers(transcripts: Sequence[Transcript]) -> Score:
    """Accuracy of single first answers, mean over agents and then over questions."""
    return scores.score([statistics.fmean(float(turns[0].right) for turns in t.turns) for t in transcripts])


def _adapters_used(transcripts: Sequence[Transcript]) -> int:
    turns = (turn for transcript in transcripts for agent in transcript.turns for turn in agent)
    return len({turn.call.model for turn in turns} - {BASE})


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        calls=sum(usage.calls for usage in usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )


def _usage(store: Store, prefix: str) -> Usage:
    return records.described(required(store, prefix, "the debate"), "usage", Usage)


def _choosing(store: Store, prefix: str) -> Usage:
    """What a debate of validation questions asked."""
    return fetch_record(store, required(store, prefix, "the debate"), layout.EVALUATION, Evaluation).usage


def _seconds(store: Store, prefixes: Iterable[str]) -> float:
    """The sum of the timings that lie beside these commits; one may be missing."""
    return sum(read_seconds(store, prefix) or 0.0 for prefix in prefixes)


def _diversity(store: Store, run: str, iteration: int) -> Diversity | None:
    """None where it was not measured, and of one agent, which is as diverse as nobody."""
    commit = committed(store, layout.diversity(run, iteration))
    if commit is None:
        return None
    diversity = fetch_record(store, commit, layout.DIVERSITY, Diversity)
    return diversity if len(diversity.nll) > 1 else None


def _shortage(store: Store, run: str, iterations: Sequence[int]) -> Shortage | None:
    """Why none of the iterations trained anything; None where one did, or where the method trains nothing."""
    data = [commit for i in iterations if (commit := committed(store, layout.datasets(run, i)))]
    counts = [count for commit in data for count in records.described(commit, "counts", tuple[DatasetCounts, ...])]
    made = [commit for i in iterations for prefix in adapters.prefixes(store, run, i) if (commit := committed(store, prefix))]
    described = [records.described(commit, "adapter", Adapter) for commit in made if "adapter" in commit.meta]
    if not described or any(adapter.trained for adapter in described):
        return None
    return shortage(max(count.kept for count in counts), scores.left_out(counts))


def _versions(store: Store, prefixes: Iterable[str]) -> dict[str, str]:
    """Of the libraries that trained these adapters."""
    commits = [commit for prefix in sorted(prefixes) if (commit := committed(store, prefix))]
    return {name: number for commit in commits for name, number in commit.meta.get("versions", {}).items()}
