"""One debate by several programs at a time: each has a share of the questions, and whoever ends last puts all of them together.

No program waits for another one. Each commits its share below a prefix of its own, then looks whether all are there: at least the
one that was last sees them all, and it has not succeeded before the whole is committed. So the whole is there once all programs
have succeeded, in whatever order they end, are killed and start again; two that see all at once commit the same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maft.debate import journal
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Commit, Transcript
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, publish
from maft.store.lines import Files, Lines, fetch_lines
from maft.store.timing import read_seconds, write_seconds

Gathered = tuple[Lines[Transcript], float]  # by number, and how many seconds it took


@dataclass(frozen=True, slots=True)
class Share:
    """The questions of one program: dealt out in turn, so that no share has more than one above another's."""

    number: int = 0
    of: int = 1

    @classmethod
    def assigned(cls, assignment: Assignment) -> "Share":
        """Reads which share this program has; all questions where it was told of none."""
        of, number = assignment.spec.debate.shards, assignment.shard
        if of == 1 or number is None:
            return cls()
        if number >= of:
            raise BadInput(f"--shard {number}: debate.shards is {of}, so they are 0 to {of - 1}")
        return cls(number, of)

    @property
    def whole(self) -> bool:
        """Tells whether there are no others."""
        return self.of == 1

    def numbers(self, questions: int) -> range:
        """Lists the share of so many questions; BadInput where there are fewer than programs."""
        if questions < self.of:
            raise BadInput(f"debate.shards: {self.of} of only {questions} questions; set it to at most {questions}")
        return range(self.number, questions, self.of)

    def prefix(self, stage: str) -> str:
        """Names where its journal lies: below the stage's prefix."""
        return stage if self.whole else layout.debate_shard(stage, self.number, self.of)

    def all(self) -> Iterator["Share"]:
        """Lists the shares of all programs."""
        return (Share(number, self.of) for number in range(self.of))


def debated(store: Store, stage: str, share: Share, questions: int, work: Callable[[], Gathered]) -> Gathered | None:
    """Has `work` debate this program's share and commits it, unless that is done. Returns the transcripts of all programs, by
    number; None while some are missing, and where they are gone because the whole is committed."""
    own = share.prefix(stage)
    kept = committed(store, own)
    if committed(store, stage):  # looked up in this order: shares are removed after the whole is committed
        return None
    try:
        if kept is None:
            transcripts, seconds = work()
            _keep(store, own, transcripts.chosen(share.numbers(questions)), seconds)
        journal.clear(store, own)
        return _gathered(store, stage, share, questions)
    except BadInput:
        if committed(store, stage):  # another program saw all of them there, was faster, and has tidied up
            return None
        raise


def _keep(store: Store, prefix: str, transcripts: Lines[Transcript], seconds: float) -> None:
    with Files({layout.TRANSCRIPTS: transcripts}) as files:
        publish(store, prefix, files)
    write_seconds(store, prefix, seconds)


def _gathered(store: Store, stage: str, share: Share, questions: int) -> Gathered | None:
    """The transcripts of all programs in the order of the questions, with the seconds of the slowest."""
    prefixes = {each: each.prefix(stage) for each in share.all()}
    commits = {each: commit for each, prefix in prefixes.items() if (commit := committed(store, prefix))}
    if len(commits) < share.of:
        return None
    lines = Lines(Transcript)
    for each, commit in commits.items():
        _put(lines, each.numbers(questions), fetch_lines(store, commit, layout.TRANSCRIPTS, Transcript), commit)
    return lines, max(read_seconds(store, prefix) or 0.0 for prefix in prefixes.values())


def _put(lines: Lines[Transcript], numbers: range, own: Lines[Transcript], commit: Commit) -> None:
    if len(own) != len(numbers):
        raise BadInput(f"{commit.prefix}: {len(own)} transcripts, {len(numbers)} were expected; remove that prefix")
    for place, number in enumerate(numbers):
        lines.put(number, own.raw(place))


def clear(store: Store, stage: str) -> None:
    """Removes what the programs left below the prefix of a stage that is committed as a whole."""
    store.delete(list(store.list(layout.shards(stage))))
