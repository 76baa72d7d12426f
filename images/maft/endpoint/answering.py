"""Answers requests: a debate of all, a vote of all, or one agent, each by the code and the prompts of the run."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from dataclasses import replace as changed

from msgspec.structs import replace

from maft.answers.likeness import drowned
from maft.chat_template import ChatTemplate
from maft.debate.prompts import Prompts
from maft.debate.question import Listener, Question
from maft.debate.setup import Setup
from maft.debate.society import Rules
from maft.endpoint import answer
from maft.endpoint.answer import Answer
from maft.endpoint.refused import Refused
from maft.endpoint.request import Asked
from maft.endpoint.served import MAJORITY, Served
from maft.endpoint.upstream import Piece, Upstream
from maft.errors import BadInput
from maft.records import Call, Problem, Transcript
from maft.spec import Spec

_LONGEST = 100  # characters of a token, more than any has on the average: longer chats are refused uncounted


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
            known = ", ".join(self.served.models)
            raise Refused(404, f"model: {asked.model!r} is not served; there are {known}", param="model", code="model_not_found")
        return asked.model in self.served.agents

    def prompt(self, asked: Asked) -> list[int]:
        """Makes the first prompt; Refused where it leaves no room for an answer."""
        problem, rules = self.problem(asked), self.rules(asked)
        context = min(self.setup.contexts.values())
        if len(problem.text) > _LONGEST * context:
            raise _too_long(f"more than {context}", context)
        try:
            ways = [template.prompt(rules.opening(problem)) for template in self._templates(asked)]
        except BadInput as error:
            raise Refused(400, f"messages: {error}", param="messages") from None
        longest = max(ways, key=len)
        if len(longest) >= context:
            raise _too_long(str(len(longest)), context)
        return longest

    def _templates(self, asked: Asked) -> list[ChatTemplate]:
        """Lists those by which the agents that are asked are: one's own, or all."""
        if asked.model in self.served.agents:
            return [self.setup.template_of(self.served.agents[asked.model][0])]
        return [self.setup.template, *self.setup.own.values()]

    def hearing(self, asked: Asked) -> "Hearing":
        """Makes the ears for the one agent that is asked."""
        return Hearing(self._templates(asked)[0])

    def rules(self, asked: Asked) -> Rules:
        """Makes the rules of a request: the run's, where it says nothing."""
        rules, one = self.served.rules, asked.model in self.served.agents
        limit = {} if asked.most is None else {"max_tokens": asked.most, "thinking_tokens": 0}
        sampling = {"temperature": asked.temperature, "top_p": asked.top_p}
        given = {name: value for name, value in {**sampling, **limit}.items() if value is not None}
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
        """Debates the question, once `prompt` has taken it; Refused where the servers say no."""
        try:
            return await Question(changed(self.setup, rules=self.rules(asked)), 0, self.problem(asked), listener).run()
        except BadInput as error:
            raise Refused(502, f"the debate cannot go on: {error}") from None

    def answer(self, asked: Asked, transcript: Transcript) -> Answer:
        """Makes the answer of a debate."""
        by_vectors = self.served.rules.answer == "semantic"
        warning = drowned(len(transcript.problem.text.split())) if by_vectors else ""
        minimum, whole = self.spec.debate.min_agreement, asked.maft.transcript
        return answer.of_debate(transcript, minimum, asked.ends, whole=whole, warning=warning)

    async def one(self, asked: Asked, prompt: Sequence[int]) -> AsyncGenerator[Piece, None]:
        """Yields what one agent says, as it says it. prompt: as `prompt` made it."""
        rules, (agent, model) = self.rules(asked), self.served.agents[asked.model]
        server, seed = self.setup.society.servers[agent], rules.key(self.problem(asked).id, agent, 1, "answer")
        setup, room = changed(self.setup, rules=rules), self.setup.contexts[server] - len(prompt)
        request = setup.request(model, prompt, room, seed, asked=agent)
        async with aclosing(self.upstream.stream(server, request, asked.ends)) as pieces:
            async for piece in pieces:
                yield piece


def _too_long(tokens: str, context: int) -> Refused:
    text = f"messages: the prompt has {tokens} tokens, and the context has {context}; ask with less"
    return Refused(400, text, param="messages", code="context_length_exceeded")


@dataclass(slots=True)
class Hearing:
    """What one agent has said so far, as whoever asked hears it: the reply, once what it thinks first has ended."""

    template: ChatTemplate
    _text: str = ""
    _told: str = ""
    _end: Piece = field(default_factory=lambda: Piece(""))

    def hear(self, piece: Piece) -> str:
        """Takes in a piece; returns what is new for those who listen."""
        self._text += piece.text
        if piece.tokens is not None:
            self._end = piece
        if not self.template.thinks:
            return piece.text
        reply = self.template.split(self._text).reply if self._is_reply else ""
        new = reply[len(self._told) :] if reply.startswith(self._told) else ""
        self._told += new
        return new

    @property
    def _is_reply(self) -> bool:
        """A thought that has ended, or none at the end: before that, words may turn out to be a thought."""
        parts = self.template.split(self._text)
        return bool(parts.reply) and (bool(parts.thought) or self._end.tokens is not None)

    def answer(self) -> Answer:
        """Makes the answer of all that was heard."""
        prompt, completion = self._end.tokens or (0, 0)
        parts = self.template.split(self._text)
        call = Call("", 0, prompt, completion, self._end.finish_reason or "stop", parts.reply, parts.thought)
        return answer.of_call(call, ())
