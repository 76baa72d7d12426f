"""Answers requests: a debate of all, a vote of all, or one agent, each by the code and the prompts of the run."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from dataclasses import replace as changed

from msgspec.structs import replace

from maft.answers.likeness import drowned
from maft.chat_template import ChatTemplate
from maft.debate.clipping import MARK
from maft.debate.prompts import NOTHING, Prompts
from maft.debate.question import Listener, Question
from maft.debate.setup import Setup
from maft.debate.society import Rules
from maft.endpoint import answer
from maft.endpoint.answer import Answer
from maft.endpoint.hearing import Hearing
from maft.endpoint.refused import Refused
from maft.endpoint.request import Asked
from maft.endpoint.served import MAJORITY, Served
from maft.endpoint.upstream import Piece, Upstream
from maft.errors import BadInput, shown
from maft.records import Message, Problem, Transcript
from maft.spec import Spec

_LONGEST = 16  # characters of a token, more than any text has on the average: longer chats are refused uncounted
_BY_TEXT = (
    "programs are compared by their text, since questions bring no inputs to run them on: one written in two ways is two answers"
)
_Way = tuple[ChatTemplate, int]  # by which an agent is asked, and the tokens that its context has


@dataclass(frozen=True, slots=True)
class Society:
    """The agents, ready to be asked."""

    spec: Spec
    served: Served
    setup: Setup
    upstream: Upstream

    def problem(self, asked: Asked) -> Problem:
        """Makes the question of a request."""
        return asked.problem(self.spec.task.generator if self.spec.task.kind == "reasoning-gym" else None)

    def is_of_one_agent(self, asked: Asked) -> bool:
        """Tells whether one agent is asked; Refused where the model is none of ours."""
        if asked.model not in self.served.models:
            raise unknown(asked.model, self.served.models)
        return asked.model in self.served.agents

    def prompt(self, asked: Asked) -> list[int]:
        """Makes the first prompt, which takes a while for a long one; Refused where it, or the least that a debate adds to it,
        leaves no room for an answer."""
        problem, rules, ways = self.problem(asked), self.rules(asked), self._ways(asked)
        context = min(context for _, context in ways)
        if len(problem.text) > _LONGEST * context:
            raise _too_long(f"more than {context}", context)
        later = [] if asked.model in self.served.agents else list(_later(rules, problem, self.setup.society.size))
        try:
            return max((_fitting(rules.opening(problem), later, way) for way in ways), key=len)
        except BadInput as error:
            raise Refused(400, f"messages: {error}", param="messages") from None

    def _ways(self, asked: Asked) -> list[_Way]:
        """Lists how those are asked who are: one agent, or all."""
        players = self.setup.society
        agents = [self.served.agents[asked.model][0]] if asked.model in self.served.agents else range(players.size)
        ways = [(self.setup.template_of(n), self.setup.contexts[players.servers[n]]) for n in agents]
        return list({(id(template), context): (template, context) for template, context in ways}.values())

    def hearing(self, asked: Asked) -> Hearing:
        """Makes the ears for the one agent that is asked."""
        return Hearing(self._ways(asked)[0][0], asked.ends)

    def rules(self, asked: Asked) -> Rules:
        """Makes the rules of a request: the run's, where it says nothing."""
        rules, one = self.served.rules, asked.model in self.served.agents
        limit = {} if asked.most is None else {"max_tokens": asked.most, "thinking_tokens": 0}
        sampling = {"temperature": asked.temperature, "top_p": asked.top_p}
        given = {name: value for name, value in {**sampling, **limit, "mode": asked.maft.mode}.items() if value is not None}
        debate = replace(rules.debate, **given)
        # What a request says is for all agents.
        overrides = tuple(replace(each, **dict.fromkeys(sampling.keys() & given.keys())) for each in rules.overrides)
        if asked.model == MAJORITY:
            debate = replace(debate, rounds=1)
        in_its_words = asked.maft.prompt if asked.maft.prompt is not None else not one
        prompts = rules.prompts if in_its_words else Prompts("{question}", rules.prompts.later)
        seed = rules.seed if asked.seed is None else asked.seed
        whole = changed(rules, debate=debate, prompts=prompts, overrides=overrides, seed=seed)
        return whole.of(self.served.agents[asked.model][0]) if one else whole

    async def debate(self, asked: Asked, listener: Listener = lambda agent, turn: None) -> Transcript:
        """Debates the question, once `prompt` has taken it; Refused where the servers say no, or what was said has left nobody room
        for a last answer."""
        try:
            debated = await Question(changed(self.setup, rules=self.rules(asked)), 0, self.problem(asked), listener).run()
        except BadInput as error:
            raise Refused(502, f"the debate cannot go on: {error}") from None
        if all(turns[-1].call.finish_reason == "context" for turns in debated.turns):
            least = min(turns[-1].call.prompt_tokens for turns in debated.turns)
            raise _too_long(str(least), min(context for _, context in self._ways(asked)), _IN_THE_END)
        return debated

    def answer(self, asked: Asked, transcript: Transcript) -> Answer:
        """Makes the answer of a debate."""
        minimum, whole = self.spec.debate.min_agreement, asked.maft.transcript
        return answer.of_debate(transcript, minimum, asked.ends, whole=whole, warning=self._warning(transcript))

    def _warning(self, transcript: Transcript) -> str:
        """Says why a vote says little, where it does."""
        match self.served.rules.answer:
            case "semantic":
                return drowned(len(transcript.problem.text.split()))
            case "code":
                return _BY_TEXT
        return ""

    async def one(self, asked: Asked, prompt: Sequence[int]) -> AsyncGenerator[Piece, None]:
        """Yields what one agent says, as it says it. prompt: as `prompt` made it."""
        rules, (agent, model) = self.rules(asked), self.served.agents[asked.model]
        server, seed = self.setup.society.servers[agent], rules.key(self.problem(asked).id, agent, 1, "answer")
        setup, room = changed(self.setup, rules=rules), self.setup.contexts[server] - len(prompt)
        request = setup.request(model, prompt, room, seed, asked=agent)
        ends = () if setup.template_of(agent).thinks else asked.ends  # a thought may have them, too: `Hearing` cuts
        async with aclosing(self.upstream.stream(server, request, ends)) as pieces:
            async for piece in pieces:
                yield piece


_IN_THE_END = "the last prompt of the debate, in which the question stands again,"


def _later(rules: Rules, problem: Problem, agents: int) -> Iterator[Message]:
    """Writes the turns after the first answer, with as little in them as there can be."""
    summarized = rules.debate.summarize and agents > 1
    others = [] if summarized else [MARK] * (agents - 1)
    again = rules.prompts.again(
        problem.question, summary=MARK if summarized else None, others=others, cooperative=rules.debate.cooperative
    )
    for _ in range(1, rules.debate.rounds):
        yield from (Message("assistant", NOTHING), Message("user", again))


def _fitting(first: Sequence[Message], later: Sequence[Message], way: _Way) -> list[int]:
    """Makes the first prompt; Refused where it, or the last one, is too long."""
    template, context = way
    made = template.prompt(first)
    if len(made) >= context:
        raise _too_long(str(len(made)), context)
    if later and not _is_short(len(made), context, later) and (least := len(template.prompt([*first, *later]))) >= context:
        raise _too_long(f"at least {least}", context, _IN_THE_END)
    return made


def _is_short(tokens: int, context: int, later: Sequence[Message]) -> bool:
    """Tells whether nothing has to be counted: later turns that have the question again are about as long as the first."""
    return tokens * (1 + len(later)) < context // 2


def unknown(model: str, models: Sequence[str]) -> Refused:
    """Says that a model is none of ours."""
    text = f"model: {shown(model)} is not served; there are {', '.join(models)}"
    return Refused(404, text, param="model", code="model_not_found")


def _too_long(tokens: str, context: int, what: str = "the prompt") -> Refused:
    text = f"messages: {what} has {tokens} tokens, and the context has {context}; ask with less"
    return Refused(400, text, param="messages", code="context_length_exceeded")
