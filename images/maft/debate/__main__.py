"""`python -m maft.debate`: problems in, transcripts and 2N datasets out."""

from collections.abc import Iterable, Sequence

from maft import program, records
from maft.answers import voting
from maft.debate import datasets, shards, society
from maft.debate.journal import clear
from maft.debate.session import debate_part
from maft.program import Assignment
from maft.records import Commit, DatasetCounts, Transcript
from maft.scores import Tally, left_out, rounded, usage
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, publish
from maft.store.lines import Files, fetch_lines, iterate_lines
from maft.store.timing import write_seconds
from maft.summaries import DebateSummary, ProbeScore, ShardSummary, Usage


def main(assignment: Assignment) -> DebateSummary | ShardSummary:
    """Publishes transcripts, then datasets; each is kept if it is committed already. The probe is in no dataset.

    Of several programs each debates its share, and the last one publishes."""
    store, spec = assignment.store, assignment.spec
    prefix = layout.debate(assignment.run, assignment.iteration)
    if (commit := committed(store, prefix)) is None:
        own = _debate(assignment, prefix)
        if (commit := committed(store, prefix)) is None:
            return ShardSummary(questions=own)
    clear(store, prefix)
    shards.clear(store, prefix)
    transcripts = fetch_lines(store, commit, layout.TRANSCRIPTS, Transcript)
    counts = datasets.write(store, assignment.run, assignment.iteration, spec, transcripts, parent=commit)
    return summary(spec, transcripts, counts, probe=probe_score(store, commit), spent=commit)


def _debate(assignment: Assignment, prefix: str) -> int:
    """Debates the training questions by last iteration's models, and commits the transcripts once all of them are there; returns
    how many questions were this program's."""
    store, spec, iteration = assignment.store, assignment.spec, assignment.iteration
    rules = society.training_rules(spec, iteration)
    players = society.load(store, assignment.run, spec, iteration - 1, spec.agents, tuple(assignment.servers))
    debated = debate_part(assignment, rules, players, prefix, "train")
    if debated.transcripts:
        meta = {"seed": spec.seed, "usage": records.plain(usage(debated.all))}
        with Files(debated.transcripts) as files:
            publish(store, prefix, files, meta=meta)
        write_seconds(store, prefix, debated.seconds)
    return debated.own


def summary(
    spec: Spec, transcripts: Iterable[Transcript], counts: Sequence[DatasetCounts], *, probe: ProbeScore | None, spent: Commit
) -> DebateSummary:
    """Sums the debate up. spent: the commit that knows what was asked of the servers."""
    tally, undecided = Tally(), 0
    for transcript in transcripts:
        tally.add(transcript)
        undecided += not voting.trains(transcript.vote, spec.debate.min_agreement)
    return DebateSummary(
        questions=tally.questions,
        agreement=rounded(tally.agreement).mean,
        margins=tuple(tally.margins),
        kept={role: tuple(c.kept for c in counts if c.role == role) for role in records.ROLES},
        abstained=None if spec.examples == "hinted" else undecided,
        left_out=left_out(counts),
        probe=probe,
        answers=tally.whole,
        usage=records.described(spent, "usage", Usage),
    )


def probe_score(store: Store, commit: Commit) -> ProbeScore | None:
    """Scores how often the majority was right on the probe; None without one."""
    if not commit.has(layout.PROBE):
        return None
    tally = Tally.of(iterate_lines(store, commit, layout.PROBE, Transcript))
    right = rounded(tally.accuracy)
    return ProbeScore(right.mean, right.stderr, tally.questions)


PARSER = program.parser(
    "debate",
    "Debates the training questions and makes the datasets of every agent.",
    takes=("spec", "iteration", "servers", "group", "shard"),
)

if __name__ == "__main__":
    program.without_torch()
    program.run(main, PARSER)
