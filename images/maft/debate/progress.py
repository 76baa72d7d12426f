"""How far a debate is, and how it goes."""

from maft import program
from maft.records import Transcript
from maft.scores import whole
from maft.summaries import Answers


class DebateProgress:
    """Questions, tokens, agreement and lack of it in a debate, for Prometheus."""

    def __init__(self, progress: program.Progress) -> None:
        self._progress = progress
        self._tokens = progress.counter("completion_tokens", "Tokens written by the models")
        self._agreement = progress.gauge("agreement_ratio", "Share of agents that agree with the majority, over questions so far")
        self._undecided = progress.gauge("no_consensus_ratio", "Share of questions so far whose last vote was tied or empty")
        self._cut = progress.gauge("cut_ratio", "Share of answers so far that a limit of tokens cut off")
        self._clipped = progress.gauge("clipped_ratio", "Share of answers so far to a prompt into which not all fitted")
        for share in (self._agreement, self._undecided, self._cut, self._clipped):
            share.set(float("nan"))  # of no question
        self._agreeing, self._answers, self._tied, self._questions = 0, 0, 0, 0
        self._under_way: dict[int, float] = {}  # by question: the share of its answers that have come
        self._whole = Answers()

    def start(self, total: int) -> None:
        """Sets the number of questions."""
        self._progress.total.set(total)

    def said(self, index: int, answers: int) -> None:
        """Counts one more answer of a question, which has so many at most. Many questions are debated at once and end together, so
        finished ones alone would tell of little until late."""
        self._under_way[index] = min(1.0, self._under_way.get(index, 0.0) + 1 / answers)
        self._show()

    def add(self, transcript: Transcript) -> None:
        """Counts one more finished question."""
        self._under_way.pop(transcript.index, None)
        self._tokens.inc(sum(c.completion_tokens for c in transcript.calls()))
        self._agreeing += transcript.agreeing
        self._answers += len(transcript.turns)
        self._agreement.set(self._agreeing / self._answers)
        self._tied += transcript.vote.tied or transcript.vote.answer is None
        self._questions += 1
        self._show()
        self._undecided.set(self._tied / self._questions)
        self._whole += whole([transcript])
        self._cut.set(self._whole.cut / self._whole.asked)
        self._clipped.set(self._whole.clipped / self._whole.asked)

    def _show(self) -> None:
        self._progress.done.set(self._questions + sum(self._under_way.values()))
