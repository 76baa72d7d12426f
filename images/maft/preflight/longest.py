"""How long prompts get: counted before the debate from what its rules allow, so that people hear what will be clipped.

Pure: texts of models are their limits, in tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maft.debate.prompts import MAX_OTHERS
from maft.debate.society import Rules
from maft.errors import BadInput
from maft.records import Message, Problem

ANSWER = Message("assistant", ".")  # a token, in place of an answer
Count = Callable[[Sequence[Message]], int]  # of a prompt's tokens


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the prompts about one question, at most."""

    first: int
    """The question alone."""
    own: int
    """The last round without what the others said: the question, the turns' own words and the agent's answers."""
    longest: int
    """The longest of all, summaries included."""
    turns: int = 0
    """The last round without any answer: the question and the turns' own words; 0: as long as the question."""


def lengths(rules: Rules, agents: int, problem: Problem, count: Count, *, thinks: bool) -> Lengths:
    """Counts the prompts of a debate over the question in which every answer is as long as it may be."""
    debate, prompts, later = rules.debate, rules.prompts, rules.debate.rounds - 1
    opening = rules.opening(problem)
    first = count(opening)
    others = min(MAX_OTHERS, agents if rules.fast else agents - 1)
    if later < 1 or rules.hinted:
        return Lengths(first, first, first)
    reply = debate.max_tokens if thinks else rules.new_tokens
    shown = rules.new_tokens if debate.show_thoughts else reply
    summary, texts = ("", ()) if debate.summarize else (None, ("",) * others)
    again = prompts.again(problem.question, summary=summary, others=texts, cooperative=debate.cooperative)
    turn = count([*opening, ANSWER, Message("user", again)]) - first
    own = first + later * (turn + reply)
    summarized = count([Message("user", prompts.summary(("",) * others))]) + others * shown if debate.summarize else 0
    heard = reply if debate.summarize else others * shown
    return Lengths(first, own, max(own + later * heard, summarized), first + later * turn)


def warnings(rules: Rules, lengths: Lengths, context: int, part: str) -> list[str]:
    """Says what will not fit into the context; BadInput where a question leaves no room for an answer."""
    if not context:
        return []
    debate = rules.debate
    if max(lengths.first, lengths.turns) + debate.max_tokens > context:
        field, fixed = "debate.maxTokens", f"the longest of the {part} questions takes {lengths.first} tokens"
        if lengths.first + debate.max_tokens <= context:
            field = "debate.prompts" if lengths.turns >= context else field
            fixed += f", {lengths.turns} with what debate.prompts says in round {debate.rounds}"
        raise BadInput(
            f"{field}: {fixed}, an answer {debate.max_tokens}; the model's context holds {context}:"
            f" {_shorter(rules, lengths, context)}, or set model.maxLength higher where the model allows it"
        )
    room, left = rules.room(context), context - lengths.first
    cut = (
        f"debate.thinkingTokens: thought and answer may take {rules.new_tokens} tokens, {left} of {context} are left"
        f" after the longest of the {part} questions: what is longer is cut off, and counts as no answer"
    )
    return ([cut] if rules.new_tokens > left else []) + _clipped(rules, lengths, context, room, part)


def _shorter(rules: Rules, lengths: Lengths, context: int) -> str:
    """Says which answers fit all rounds, or that none do. Thoughts, which may go again, have what answers leave."""
    rounds = 1 if not lengths.turns else rules.debate.rounds
    fits = (context - max(lengths.turns, lengths.first)) // rounds
    return f"set debate.maxTokens to {fits} or less" if fits > 0 else "take shorter questions or prompts, or fewer rounds"


def _clipped(rules: Rules, lengths: Lengths, context: int, room: int, part: str) -> list[str]:
    debate = rules.debate
    if lengths.own > room:
        own = "answer" if debate.rounds == 2 else f"{debate.rounds - 1} answers"
        return [
            f"debate.rounds: in the last round an agent's own {own} can fill the context of {context} tokens,"
            f" and the {part} questions get cut answers or none; lower debate.maxTokens or debate.rounds"
        ]
    if lengths.longest > room:
        return [
            f"debate.maxTokens: prompts about the {part} questions can have {lengths.longest} tokens, the context of {context}"
            f" leaves {room} for them; up to {lengths.longest - room} tokens of what others said are clipped;"
            " lower debate.maxTokens, or debate.rounds"
        ]
    return []
