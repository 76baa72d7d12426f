"""Debates of validation questions as they are committed: what each has gained over the best iteration before it.

The gain is computed once, question by question, by the program that debates them, and stands in the commit: readers need no
transcripts.
"""

from collections.abc import Iterable, Mapping

from maft import records, stopping
from maft.records import Commit, Transcript
from maft.scores import score
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, required
from maft.store.lines import iterate_lines
from maft.summaries import Gain, Score, Validation

META = "validation"  # of the commit


def known(store: Store, run: str, iterations: Iterable[int]) -> dict[int, Validation]:
    """Reads those of these iterations that are committed."""
    commits = {i: committed(store, layout.validation(run, i)) for i in iterations}
    return {i: read(commit) for i, commit in commits.items() if commit}


def read(commit: Commit) -> Validation:
    """Reads what the commit of one debate says of its iteration."""
    return records.described(commit, META, Validation)


def measured(store: Store, run: str, iteration: int, accuracy: Score, right: Mapping[str, float]) -> Validation:
    """Compares an iteration with the best before it. right: by question id, 1 where the majority is right."""
    before = next((one for i in range(iteration - 1, 0, -1) if (one := known(store, run, (i,)))), {})
    over = stopping.best(before)
    if over is None:
        return Validation(accuracy=accuracy)
    commit = required(store, layout.validation(run, over), f"the debate of validation questions of iteration {over}")
    others = {t.problem.id: float(t.vote.right) for t in iterate_lines(store, commit, layout.TRANSCRIPTS, Transcript)}
    change = score([value - others[question] for question, value in right.items()])
    return Validation(accuracy=accuracy, gain=Gain(round(change.mean, 6), round(change.stderr, 6), over))
