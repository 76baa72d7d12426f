"""`python -m maft.debate`: problems in, transcripts and 2N datasets out."""

from collections.abc import Iterable, Sequence

from maft import program, records
from maft.answers import voting
from maft.debate import datasets, society
from maft.debate.session import clear, debate_part
from maft.program import Assignment
from maft.records import Commit, DatasetCounts, Transcript
from maft.scores import accuracy, agreement, left_out, margins, rounded, usage, whole
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch_records, publish, required
from maft.store.timing import write_seconds
from maft.summaries import DebateSummary, ProbeScore, Usage


def main(assignment: Assignment) -> DebateSummary:
    """Publishes transcripts, then datasets; each is kept if it is committed already. The probe is in no dataset."""
    store, spec = assignment.store, assignment.spec
    prefix = layout.debate(assignment.run, assignment.iteration)
    if committed(store, prefix) is None:
        _debate(assignment, prefix)
    commit = required(store, prefix, "this task")
    clear(store, prefix)
    transcripts = fetch_records(store, commit, layout.TRANSCRIPTS, Transcript)
    counts = datasets.write(store, assignment.run, assignment.iteration, spec, transcripts, parent=commit)
    return summary(spec, transcripts, counts, probe=probe_score(store, commit), spent=commit)


def _debate(assignment: Assignment, prefix: str) -> None:
    """Debates the training questions by last iteration's models, and commits the transcripts."""
    store, spec, iteration = assignment.store, assignment.spec, assignment.iteration
    rules = society.training_rules(spec, iteration)
    players = society.load(store, assignment.run, spec, iteration - 1, spec.agents, tuple(assignment.servers))
    debated = debate_part(assignment, rules, players, prefix, "train")
    files = {name: records.encode_lines(several) for name, several in debated.transcripts.items()}
    asked = usage([t for several in debated.transcripts.values() for t in several])
    publish(store, prefix, files, meta={"seed": spec.seed, "usage": records.plain(asked)})
    write_seconds(store, prefix, debated.seconds)


def summary(
    spec: Spec, transcripts: Sequence[Transcript], counts: Sequence[DatasetCounts], *, probe: ProbeScore | None, spent: Commit
) -> DebateSummary:
    """Sums the debate up. spent: the commit that knows what was asked of the servers."""
    return DebateSummary(
        questions=len(transcripts),
        agreement=rounded(agreement(transcripts)).mean,
        margins=tuple(margins(transcripts)),
        kept={role: tuple(c.kept for c in counts if c.role == role) for role in records.ROLES},
        abstained=None if spec.recipe.examples == "hinted" else abstained(transcripts, spec.debate.min_agreement),
        left_out=left_out(counts),
        probe=probe,
        answers=whole(transcripts),
        usage=records.described(spent, "usage", Usage),
    )


def abstained(transcripts: Iterable[Transcript], minimum: int) -> int:
    """Counts questions whose vote is no label, so that they train nothing."""
    return sum(not voting.trains(t.vote, minimum) for t in transcripts)


def probe_score(store: Store, commit: Commit) -> ProbeScore | None:
    """Scores how often the majority was right on the probe; None without one."""
    if not commit.has(layout.PROBE):
        return None
    transcripts = fetch_records(store, commit, layout.PROBE, Transcript)
    right = rounded(accuracy(transcripts))
    return ProbeScore(right.mean, right.stderr, len(transcripts))


PARSER = program.parser(
    "debate",
    "Debates the training questions and makes the datasets of every agent.",
    takes=("spec", "iteration", "servers", "group"),
)

if __name__ == "__main__":
    program.without_torch()
    program.run(main, PARSER)
