"""One debate over one question: asks, listens, asks again, votes (paper, section 2.1; method of the rounds in section 2.2)."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from maft.answers import voting
from maft.answers.equality import Checker
from maft.answers.extract import extract
from maft.chat_template import ChatTemplate
from maft.debate.engine import Engine, Request
from maft.debate.prompts import MAX_OTHERS
from maft.debate.society import Rules, Society
from maft.records import BASE, Call, Message, Problem, Summary, Transcript, Turn, Vote

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setup:
    """What all debates of one program share."""

    rules: Rules
    society: Society
    engine: Engine
    template: ChatTemplate
    checker: Checker
    contexts: Mapping[str, int]
    """Tokens, by server."""
    judge: ThreadPoolExecutor
    """Of one thread: comparing answers may block, the event loop may not."""


class Question:
    """The debate over one problem. `run` it once."""

    def __init__(self, setup: Setup, index: int, problem: Problem) -> None:
        self._setup = setup
        self._rules = setup.rules
        self._index = index
        self._problem = problem
        self._turns: list[list[Turn]] = [[] for _ in range(setup.society.size)]
        self._summaries: list[Summary] = []

    async def run(self) -> Transcript:
        """Plays all rounds, then votes."""
        agents = range(self._setup.society.size)
        question = self._rules.prompts.ask(self._problem.question)
        await asyncio.gather(*(self._answer(n, question) for n in agents))
        if self._rules.hinted:
            await asyncio.gather(*(self._hint(n) for n in agents))
        for round_ in range(2, self._rules.debate.rounds + 1):
            if self._rules.fast and await self._judged(self._unanimous):
                break
            await self._round(round_)
        return await self._judged(self._finish)

    async def _hint(self, agent: int) -> None:
        """Labels are read here, for this baseline alone: a wrong answer is followed by one that was told the right one."""
        parsed = self._turns[agent][0].parsed
        right = parsed is not None and await self._judged(lambda: self._setup.checker.equal(self._problem.answer, parsed))
        if not right:
            await self._answer(agent, self._rules.prompts.hinted(self._problem.question, self._problem.answer), afresh=True)

    async def _round(self, round_: int) -> None:
        previous = [turns[-1].call.text for turns in self._turns]
        shared = None
        if self._rules.fast and self._rules.debate.summarize:
            shared = await self._summarize(None, round_, previous[:MAX_OTHERS])
        await asyncio.gather(*(self._revise(n, round_, previous, shared) for n in range(len(previous))))

    async def _revise(self, agent: int, round_: int, previous: Sequence[str], shared: str | None) -> None:
        others = self._others(agent, round_, previous)
        summary = shared
        if summary is None and self._rules.debate.summarize:
            summary = await self._summarize(agent, round_, others)
        prompt = self._rules.prompts.again(
            self._problem.question, summary=summary, others=others, cooperative=self._rules.debate.cooperative
        )
        await self._answer(agent, prompt)

    def _others(self, agent: int, round_: int, previous: Sequence[str]) -> list[str]:
        others = [text for n, text in enumerate(previous) if n != agent]
        if not self._rules.fast:  # fast mode keeps the order, so that prompts share prefixes
            random.Random(self._rules.key(self._problem.id, agent, round_, "order")).shuffle(others)
        return others[:MAX_OTHERS]

    async def _summarize(self, agent: int | None, round_: int, answers: Sequence[str]) -> str:
        prompt = self._rules.prompts.summary(answers)
        seed = self._rules.key(self._problem.id, agent, round_, "summary")
        # A shared summary may come from any server; the question decides, so that all have their part.
        host = seed % self._setup.society.size if agent is None else agent
        call = await self._call(host, BASE, [Message("user", prompt)], seed)
        self._summaries.append(Summary(agent, round_, prompt, call))
        return call.text

    async def _answer(self, agent: int, prompt: str, *, afresh: bool = False) -> None:
        turns = self._turns[agent]
        round_ = len(turns) + 1
        history = [m for t in ([] if afresh else turns) for m in (Message("user", t.prompt), Message("assistant", t.call.text))]
        model = self._setup.society.model(agent, round_, self._rules)
        seed = self._rules.key(self._problem.id, agent, round_, "answer")
        call = await self._call(agent, model, [*history, Message("user", prompt)], seed)
        parsed = extract(call.text, self._setup.checker.kind, complete=call.finish_reason == "stop")
        turns.append(Turn(prompt, call, parsed, agrees=False, right=False))  # judged when the debate is over

    async def _call(self, agent: int, model: str, messages: Sequence[Message], seed: int) -> Call:
        server = self._setup.society.servers[agent]
        prompt = self._setup.template.prompt(messages)
        room = self._setup.contexts[server] - len(prompt)
        if room < 1:  # said nothing: such an answer does not parse, and the question still counts
            return Call(model, seed, len(prompt), 0, "context", "")
        debate = self._rules.debate
        request = Request(model, prompt, seed, debate.temperature, debate.top_p, min(debate.max_tokens, room))
        return await self._setup.engine.complete(server, request)

    async def _judged(self, judge: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._setup.judge, judge)

    def _unanimous(self) -> bool:
        return voting.unanimous([turns[-1].parsed for turns in self._turns], self._setup.checker.equal)

    def _finish(self) -> Transcript:
        # Hinted answers are no round: they know the label, and do not vote.
        votes = tuple(self._vote(m) for m in range(1 if self._rules.hinted else len(self._turns[0])))
        turns = tuple(tuple(self._judge_turn(turn, votes[-1]) for turn in agent) for agent in self._turns)
        # By round and agent: the order of arrival would differ from run to run.
        summaries = sorted(self._summaries, key=lambda s: (s.round, -1 if s.agent is None else s.agent))
        return Transcript(self._index, self._problem, turns, tuple(summaries), votes)

    def _vote(self, m: int) -> Vote:
        seed = self._rules.key(self._problem.id, m + 1, "tie")
        parsed = [turns[m].parsed for turns in self._turns]
        return voting.vote(parsed, self._problem.answer, equal=self._setup.checker.equal, seed=seed)

    def _judge_turn(self, turn: Turn, final: Vote) -> Turn:
        if turn.parsed is None:
            return turn
        equal = self._setup.checker.equal
        agrees = final.answer is not None and equal(final.answer, turn.parsed)
        return replace(turn, agrees=agrees, right=equal(self._problem.answer, turn.parsed))
