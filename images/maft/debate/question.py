"""One debate over one question: asks, listens, asks again, votes (paper, section 2.1; method of the rounds in section 2.2)."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from maft.answers import voting
from maft.chat_template import ChatTemplate
from maft.debate.clipping import LAST, Ahead, Heard, fit
from maft.debate.judge import Judge
from maft.debate.meaning import Meaning
from maft.debate.prompts import MAX_OTHERS, shown
from maft.debate.setup import Setup
from maft.debate.vectors import Vectors
from maft.records import BASE, Call, Message, Problem, Summary, Transcript, Turn, Vote

T = TypeVar("T")

Listener = Callable[[int, Turn], None]
"""Gets an agent and its turn as it comes; who agrees is not known before the vote."""


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """Does them at the same time. The first that fails ends the others: nobody would hear their answers."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


class Question:
    """The debate over one problem. `run` it once."""

    def __init__(self, setup: Setup, index: int, problem: Problem, listener: Listener = lambda agent, turn: None) -> None:
        self._setup = setup
        self._listener = listener
        self._rules = setup.rules
        self._index = index
        self._problem = problem
        self._turns: list[list[Turn]] = [[] for _ in range(setup.society.size)]
        self._summaries: list[Summary] = []
        self._voted = 0  # rounds whose answers vote: hinted ones know the label, and do not
        self._judge = self._make_judge()
        self._meaning = Meaning(self._judge.same, problem.answer) if self._judge else None

    async def run(self) -> Transcript:
        """Plays all rounds, then votes."""
        agents = range(self._setup.society.size)
        question = self._rules.prompts.ask(self._problem.question)
        await _together(*(self._answer(n, Heard(lambda _: question)) for n in agents))
        if self._rules.hinted:
            await self._settle()
            await _together(*(self._hint(n) for n in agents))
        for round_ in range(2, self._rules.debate.rounds + 1):
            # One agent always agrees with itself.
            if self._rules.fast and len(self._turns) > 1 and await self._agreed():
                break
            await self._round(round_)
        await self._settle()
        self._voted = 1 if self._rules.hinted else len(self._turns[0])
        if self._rules.reworked:
            await self._rework()
        return await self._judged(self._finish)

    async def _agreed(self) -> bool:
        await self._settle()
        return await self._judged(self._unanimous)

    async def _settle(self) -> None:
        """Before answers are compared: where texts do not tell which mean the same, somebody is asked."""
        if self._meaning:
            await self._meaning.settle(self._turns)

    def _make_judge(self) -> Judge | Vectors | None:
        """Whoever tells which answers mean the same; None where texts tell."""
        if self._setup.likeness:
            return Vectors(self._setup.likeness, self._problem.text, self._setup.judge)
        if self._rules.answer != "judge":
            return None
        return Judge(
            prompts=self._rules.prompts,
            question=self._problem.text,
            fit=lambda heard, host: fit(self._setup.template, (), heard, self._room(host)),
            call=lambda host, ids, seed: self._call(host, BASE, ids, seed, greedy=True),
            seed=partial(self._rules.key, self._problem.id),
            host=self._setup.society.host,
        )

    async def _hint(self, agent: int) -> None:
        """Labels are read here, for this baseline alone: a wrong answer is followed by one that was told the right one."""
        parsed = self._turns[agent][0].parsed
        if parsed is None or not await self._judged(lambda: self._right(parsed)):
            hinted = self._rules.prompts.hinted(self._problem.question, self._problem.solved)
            await self._answer(agent, Heard(lambda _: hinted), afresh=True)

    async def _rework(self) -> None:
        """Whose first answer is no example of the vote is told the vote's, and gives the work that leads there."""
        vote = await self._judged(lambda: self._vote(self._voted - 1))
        if (label := vote.answer) is None or not voting.trains(vote, self._rules.debate.min_agreement):
            return
        hinted = self._rules.prompts.hinted(self._problem.question, label)
        others = [n for n, turns in enumerate(self._turns) if not await self._judged(partial(self._teaches, turns[0], label))]
        await _together(*(self._answer(n, Heard(lambda _: hinted), afresh=True) for n in others))
        await self._settle()

    def _teaches(self, turn: Turn, label: str) -> bool:
        return turn.parsed is not None and not turn.call.cut and self._setup.checker.equal(label, turn.parsed)

    async def _round(self, round_: int) -> None:
        previous = [shown(turns[-1].call, thoughts=self._rules.debate.show_thoughts) for turns in self._turns]
        shared = None
        if self._rules.fast and self._rules.debate.summarize:
            shared = await self._summarize(None, round_, previous[:MAX_OTHERS])
        await _together(*(self._revise(n, round_, previous, shared) for n in range(len(previous))))

    async def _revise(self, agent: int, round_: int, previous: Sequence[str], shared: Summary | None) -> None:
        others = self._others(agent, round_, previous)
        summary = shared
        if summary is None and self._rules.debate.summarize:
            summary = await self._summarize(agent, round_, others)
        again = partial(self._rules.prompts.again, self._problem.question, cooperative=self._rules.debate.cooperative)
        if summary is not None and summary.call.text.strip():
            heard = Heard(lambda texts: again(summary=texts[0], others=()), [summary.call.text], summary.clipped)
        else:  # no summary was asked for, or it is empty: the answers themselves
            heard = Heard(lambda texts: again(summary=None, others=texts), others)
        await self._answer(agent, heard)

    def _others(self, agent: int, round_: int, previous: Sequence[str]) -> list[str]:
        others = [text for n, text in enumerate(previous) if n != agent]
        if not self._rules.fast:  # fast mode keeps the order, so that prompts share prefixes
            random.Random(self._rules.key(self._problem.id, agent, round_, "order")).shuffle(others)
        return others[:MAX_OTHERS]

    async def _summarize(self, agent: int | None, round_: int, answers: Sequence[str]) -> Summary:
        seed = self._rules.key(self._problem.id, agent, round_, "summary")
        named, society = self._rules.debate.summarizer, self._setup.society
        asked = named.agent if named else None
        host, model = (asked, society.generators[asked]) if asked is not None else (society.host(seed, agent), BASE)
        template, heard = self._setup.template_of(asked), Heard(self._rules.prompts.summary, answers)
        fitted = fit(template, (), heard, self._room(host, asked))
        call = await self._call(host, model, fitted.ids, seed, asked=asked)
        self._summaries.append(Summary(agent, round_, fitted.turn, call, fitted.clipped))
        return self._summaries[-1]

    async def _answer(self, agent: int, heard: Heard, *, afresh: bool = False) -> None:
        turns = self._turns[agent]
        round_ = len(turns) + 1
        dialogue = [m for t in ([] if afresh else turns) for m in (Message("user", t.prompt), t.message)]
        before = [*self._problem.opening(self._rules.of(agent).debate.system), *dialogue]
        template = self._setup.template_of(agent)
        fitted = fit(template, before, heard, self._room(agent, agent), self._ahead(turns, template))
        seed = self._rules.key(self._problem.id, agent, round_, "answer")
        model = self._setup.society.model(agent, round_, self._rules)
        call = await self._call(agent, model, fitted.ids, seed, speaker=agent)
        find = partial(self._setup.checker.find, self._problem, call.text, complete=not call.cut)
        parsed = await self._judged(find) if self._setup.checker.runs_programs else find()
        # judged when the debate is over
        turns.append(Turn(fitted.turn, call, parsed, agrees=False, right=False, clipped=fitted.clipped))
        self._listener(agent, turns[-1])

    def _ahead(self, turns: Sequence[Turn], template: ChatTemplate) -> Ahead:
        """What the dialogue has to hold after this round, if the agent goes on to answer at such length."""
        rounds = self._rules.debate.rounds - len(turns) - 1
        if rounds < 1 or not turns:
            return LAST
        return Ahead(rounds, max(template.count(turn.call.text) for turn in turns))

    def _room(self, host: int, speaker: int | None = None) -> int:
        return self._setup.rules_of(speaker).room(self._setup.contexts[self._setup.society.servers[host]])

    async def _call(
        self,
        host: int,
        model: str,
        prompt: Sequence[int],
        seed: int,
        *,
        speaker: int | None = None,
        asked: int | None = None,
        greedy: bool = False,
    ) -> Call:
        """Asks a model at the server of agent `host`. speaker: whose answer it is; None: nobody's, as a summary or a verdict;
        asked: whose model it is then, None: the base."""
        server, template = self._setup.society.servers[host], self._setup.template_of(asked if speaker is None else speaker)
        room = self._setup.contexts[server] - len(prompt)
        if room < 1:  # said nothing: such an answer does not parse, and the question still counts
            return Call(model, seed, len(prompt), 0, "context", "")
        request = self._setup.request(model, prompt, room, seed, speaker, asked=asked, greedy=greedy)
        call = await self._setup.engine.complete(server, request)
        parts = template.split(call.text)
        return replace(call, text=parts.reply, thought=parts.thought)

    async def _judged(self, judge: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._setup.judge, judge)

    def _unanimous(self) -> bool:
        return voting.unanimous([turns[-1].parsed for turns in self._turns], self._setup.checker.equal)

    def _finish(self) -> Transcript:
        votes = tuple(self._vote(m) for m in range(self._voted))
        turns = tuple(tuple(self._judge_turn(turn, votes[-1]) for turn in agent) for agent in self._turns)
        # By round and agent: the order of arrival would differ from run to run.
        summaries = sorted(self._summaries, key=lambda s: (s.round, -1 if s.agent is None else s.agent))
        judgements = tuple(self._judge.judgements) if self._judge else UNSET
        return Transcript(self._index, self._problem, turns, tuple(summaries), votes, judgements)

    def _vote(self, m: int) -> Vote:
        seed = self._rules.key(self._problem.id, m + 1, "tie")
        parsed = [turns[m].parsed for turns in self._turns]
        return voting.vote(parsed, self._right, equal=self._setup.checker.equal, seed=seed)

    def _judge_turn(self, turn: Turn, final: Vote) -> Turn:
        if turn.parsed is None:
            return turn
        equal = self._setup.checker.equal
        agrees = final.answer is not None and equal(final.answer, turn.parsed)
        return replace(turn, agrees=agrees, right=self._right(turn.parsed))

    def _right(self, answer: str) -> bool:
        return self._meaning.right(answer) if self._meaning else self._setup.checker.right(self._problem, answer)
