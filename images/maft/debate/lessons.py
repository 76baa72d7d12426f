"""What an agent learns from one debate: an example, or the reason for which it is none (paper, sections 2.2 and 2.3). Pure."""

import random
from collections.abc import Callable

from msgspec.structs import replace

from maft.answers import voting
from maft.records import Example, Message, Transcript, Turn
from maft.shortage import CUT, NO_CONSENSUS, ONE_ROUND, OUTVOTED, STAYED_WRONG, UNANIMOUS, UNPARSED, WRONG
from maft.spec import Examples, Spec

Lesson = Example | str  # what an agent learns from a debate, or the reason for which it is nothing
Learn = Callable[[Transcript, int, Spec], Lesson]


def first_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what D_G[n] has: the question and the first answer, where that answer equals the majority of the debate."""
    reason = _no_label(transcript, spec) or _disagrees(transcript.turns[agent][0], OUTVOTED)
    return reason or Example(transcript.problem.id, transcript.dialogue(agent, 1, system=spec.debate_of(agent).system))


def last_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what distillation learns: the question alone, and the last answer of the debate where it equals the majority."""
    last = transcript.turns[agent][-1]
    return _no_label(transcript, spec) or _disagrees(last, STAYED_WRONG) or _answered(transcript, agent, last, spec)


def hinted_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what STaR learns (arXiv 2203.14465): the question alone, and the right answer, which may have been given after a
    hint. Reads labels."""
    right = [turn for turn in transcript.turns[agent] if turn.right]
    whole = next((turn for turn in right if not turn.call.cut), None)
    return _answered(transcript, agent, whole, spec) if whole else CUT if right else WRONG


def reworked_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what distillation learns where last answers are short: the question alone, and the first answer, or the one that was
    given with the vote as a hint, whichever equals the majority."""
    first, *later = transcript.turns[agent]
    answers = [first, *later[len(transcript.votes) - 1 :]]
    whole = next((turn for turn in answers if turn.agrees and not turn.call.cut), None)
    reason = _no_label(transcript, spec) or ("" if whole else _disagrees(answers[-1], OUTVOTED))
    return reason or _answered(transcript, agent, whole or first, spec)


def pair(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes a preference (MACA, arXiv 2509.15172): of the first answers to one question, one that equals the majority over one
    that does not. The agent's own answer is one side; the other is drawn from all agents' answers."""
    firsts = [turns[0] for turns in transcript.turns]
    own = firsts[agent]
    others = [turn for turn in firsts if turn.agrees != own.agrees and not turn.call.cut]
    if reason := _no_label(transcript, spec) or (CUT if own.call.cut else "" if others else UNANIMOUS):
        return reason
    other = random.Random(f"{spec.seed}/{agent}/{transcript.problem.id}/pair").choice(others)
    chosen, rejected = (own, other) if own.agrees else (other, own)
    return replace(_answered(transcript, agent, chosen, spec), rejected=_as_of(agent, rejected, transcript, spec))


def graded_answer(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes a grade: the first answer, and whether it equals the majority, which one that does not parse does not."""
    first = transcript.turns[agent][0]
    reason = _no_label(transcript, spec) or (CUT if first.call.cut else "")
    return reason or replace(_answered(transcript, agent, first, spec), desirable=first.agrees)


def whole_dialogue(transcript: Transcript, agent: int, spec: Spec) -> Lesson:
    """Makes what D_C[n] is drawn from: a whole dialogue that ends with the majority."""
    reason = _no_label(transcript, spec) or _no_lesson(transcript, agent)
    return reason or Example(transcript.problem.id, transcript.dialogue(agent, system=spec.debate_of(agent).system))


def _answered(transcript: Transcript, agent: int, answer: Turn, spec: Spec) -> Example:
    """The question as it was first asked, with that answer."""
    *question, _ = transcript.dialogue(agent, 1, system=spec.debate_of(agent).system)
    return Example(transcript.problem.id, (*question, _as_of(agent, answer, transcript, spec)))


def _as_of(agent: int, answer: Turn, transcript: Transcript, spec: Spec) -> Message:
    """An answer as the agent learns it: by its text alone where the tokens are of another agent's model."""
    if not spec.bases_differ:
        return answer.message
    whose = next(n for n, turns in enumerate(transcript.turns) if any(turn is answer for turn in turns))
    return answer.message if spec.model_of(whose) == spec.model_of(agent) else replace(answer.message, ids=())


def _no_label(transcript: Transcript, spec: Spec) -> str:
    return "" if voting.trains(transcript.vote, spec.debate.min_agreement) else NO_CONSENSUS


def _no_lesson(transcript: Transcript, agent: int) -> str:
    turns = transcript.turns[agent]
    return ONE_ROUND if len(turns) < 2 else _disagrees(turns[-1], STAYED_WRONG)


def _disagrees(turn: Turn, otherwise: str) -> str:
    """Why the turn is no example of the majority; `otherwise`: the reason where it is whole and parsed."""
    if turn.call.cut:
        return CUT
    return "" if turn.agrees else UNPARSED if turn.parsed is None else otherwise


OF_GENERATORS: dict[Examples, Learn] = {
    "first": first_answer,
    "last": last_answer,
    "hinted": hinted_answer,
    "pairs": pair,
    "graded": graded_answer,
    "reworked": reworked_answer,
}
