"""`python -m maft.debate`: problems in, transcripts and 2N data sets out.

A debate is a coroutine per question; rounds are synchronous within a question and unrelated between questions, so the
engine always has work. Also holds what `maft.evaluate` shares: the same debate over held-out questions.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from maft import adapters, flags, program, records
from maft.answers import voting
from maft.answers.equality import Checker
from maft.answers.extract import extract
from maft.chat_template import MAX_OTHERS, ChatTemplate
from maft.debate import datasets
from maft.debate.cache import RememberingEngine
from maft.debate.engine import Engine, HttpEngine, Request, parse_servers
from maft.debate.journal import Journal
from maft.debate.society import Rules, Society
from maft.debate.window import Window
from maft.errors import BadInput
from maft.records import BASE, Call, Commit, Message, Problem, Summary, Timing, Transcript, Turn, Vote
from maft.scores import accuracy, margins, usage
from maft.store import layout
from maft.store.base import Store, open_store
from maft.store.commits import committed, fetch_records, publish, required

T = TypeVar("T")

EARLY = 20  # finished questions after which "no answer parses" ends the program


@dataclass(frozen=True, slots=True)
class Table:
    """What all debates of one program share."""

    rules: Rules
    society: Society
    engine: Engine
    template: ChatTemplate
    checker: Checker
    contexts: Mapping[str, int]  # tokens per server
    judge: ThreadPoolExecutor  # one thread: comparing answers may block, the event loop may not


class Debate:
    """One question: asks, listens, asks again, votes."""

    def __init__(self, table: Table, index: int, problem: Problem) -> None:
        self._table = table
        self._rules = table.rules
        self._index = index
        self._problem = problem
        self._turns: list[list[Turn]] = [[] for _ in range(table.society.size)]
        self._summaries: list[Summary] = []

    async def hold(self) -> Transcript:
        """All rounds, then the votes."""
        agents = range(self._table.society.size)
        question = self._rules.prompts.ask(self._problem.question)
        await asyncio.gather(*(self._answer(n, question) for n in agents))
        if self._rules.hinted:
            await asyncio.gather(*(self._hint(n) for n in agents))
        for round_ in range(2, self._rules.rounds + 1):
            if self._rules.fast and await self._judged(self._unanimous):
                break
            await self._round(round_)
        return await self._judged(self._finish)

    async def _hint(self, agent: int) -> None:
        """Labels are read here, for this baseline alone: a wrong answer is followed by one that was told the right one."""
        parsed = self._turns[agent][0].parsed
        right = parsed is not None and await self._judged(lambda: self._table.checker.equal(self._problem.answer, parsed))
        if not right:
            await self._answer(agent, self._rules.prompts.hinted(self._problem.question, self._problem.answer), afresh=True)

    async def _round(self, round_: int) -> None:
        previous = [turns[-1].call.text for turns in self._turns]
        shared = None
        if self._rules.fast and self._rules.summarize:
            shared = await self._summarize(None, round_, previous[:MAX_OTHERS])
        await asyncio.gather(*(self._revise(n, round_, previous, shared) for n in range(len(previous))))

    async def _revise(self, agent: int, round_: int, previous: Sequence[str], shared: str | None) -> None:
        others = self._others(agent, round_, previous)
        summary = shared
        if summary is None and self._rules.summarize:
            summary = await self._summarize(agent, round_, others)
        prompt = self._rules.prompts.again(
            self._problem.question, summary=summary, others=others, cooperative=self._rules.cooperative
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
        seat = seed % self._table.society.size if agent is None else agent
        call = await self._call(seat, BASE, [Message("user", prompt)], seed)
        self._summaries.append(Summary(agent, round_, prompt, call))
        return call.text

    async def _answer(self, agent: int, prompt: str, *, afresh: bool = False) -> None:
        turns = self._turns[agent]
        round_ = len(turns) + 1
        said = [m for t in ([] if afresh else turns) for m in (Message("user", t.prompt), Message("assistant", t.call.text))]
        model = self._table.society.model(agent, round_, self._rules)
        seed = self._rules.key(self._problem.id, agent, round_, "answer")
        call = await self._call(agent, model, [*said, Message("user", prompt)], seed)
        parsed = extract(call.text, self._table.checker.kind, complete=call.finish_reason == "stop")
        turns.append(Turn(prompt, call, parsed, agrees=False, right=False))  # judged when the debate is over

    async def _call(self, seat: int, model: str, messages: Sequence[Message], seed: int) -> Call:
        server = self._table.society.servers[seat]
        prompt = self._table.template.prompt(messages)
        room = self._table.contexts[server] - len(prompt)
        if room < 1:  # said nothing: such an answer does not parse, and the question still counts
            return Call(model, seed, len(prompt), 0, "context", "")
        rules = self._rules
        tokens = min(rules.max_tokens, room)
        request = Request(model, prompt, seed, rules.temperature, rules.top_p, tokens)
        return await self._table.engine.complete(server, request)

    async def _judged(self, judge: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._table.judge, judge)

    def _unanimous(self) -> bool:
        return voting.unanimous([turns[-1].parsed for turns in self._turns], self._table.checker.equal)

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
        return voting.vote(parsed, self._problem.answer, equal=self._table.checker.equal, seed=seed)

    def _judge_turn(self, turn: Turn, final: Vote) -> Turn:
        if turn.parsed is None:
            return turn
        equal = self._table.checker.equal
        agrees = final.answer is not None and equal(final.answer, turn.parsed)
        return replace(turn, agrees=agrees, right=equal(self._problem.answer, turn.parsed))


async def debate_all(table: Table, problems: Sequence[Problem], journal: Journal, progress: "DebateProgress") -> list[Transcript]:
    """Debates every problem that the journal does not have yet. Transcripts by index; BadInput if no answer parses."""
    known = table.society.models()
    done = {i: t for i, t in journal.read().items() if {c.model for c in t.calls()} <= known}
    progress.start(len(problems), done.values())
    window = Window(table.engine.load)

    async def one(index: int) -> None:
        try:
            transcript = await Debate(table, index, problems[index]).hold()
        finally:
            await window.leave()
        done[index] = transcript
        journal.add(transcript)
        progress.add(transcript)
        _some_parse(done, len(problems), table)

    # One group: a question, the journal or the window that fails ends the others at once.
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(window.watch()), group.create_task(journal.keep())]
        questions = []
        for index in range(len(problems)):
            if index not in done:
                await window.enter()
                questions.append(group.create_task(one(index)))
        if questions:
            await asyncio.wait(questions)
        for task in beside:
            task.cancel()
    await journal.flush()
    return [done[i] for i in range(len(problems))]


def _some_parse(done: Mapping[int, Transcript], total: int, table: Table) -> None:
    if len(done) != min(EARLY, total) or any(turn.parsed for t in done.values() for turns in t.turns for turn in turns):
        return
    answer = " ".join(next(iter(done.values())).turns[0][0].call.text.split())[:120]
    raise BadInput(
        f"task.answer: none of the answers to the first {len(done)} questions holds a {table.checker.kind}, e.g. {answer!r}; "
        "change task.prompt, task.answer or debate.maxTokens"
    )


class DebateProgress:
    """Questions, tokens, agreement and lack of it in a debate, for Prometheus."""

    def __init__(self, progress: program.Progress) -> None:
        self._progress = progress
        self._tokens = progress.counter("completion_tokens", "Tokens written by the models")
        self._agreement = progress.gauge("agreement_ratio", "Share of agents that agree with the majority, over questions so far")
        self._undecided = progress.gauge("no_consensus_ratio", "Share of questions so far whose last vote was tied or empty")
        for share in (self._agreement, self._undecided):
            share.set(float("nan"))  # of no question
        self._agreeing, self._answers, self._tied, self._questions = 0, 0, 0, 0

    def start(self, total: int, done: Iterable[Transcript]) -> None:
        """The number of questions, and those that an earlier process finished."""
        self._progress.total.set(total)
        for transcript in done:
            self.add(transcript)

    def add(self, transcript: Transcript) -> None:
        """One more finished question."""
        self._progress.done.inc()
        self._tokens.inc(sum(c.completion_tokens for c in transcript.calls()))
        self._agreeing += transcript.agreeing
        self._answers += len(transcript.turns)
        self._agreement.set(self._agreeing / self._answers)
        self._tied += transcript.vote.tied or transcript.vote.answer is None
        self._questions += 1
        self._undecided.set(self._tied / self._questions)


async def hold(arguments: argparse.Namespace, store: Store, prefix: str, problems: Sequence[Problem]) -> list[Transcript]:
    """Debates the problems with the society that the flags name. The journal below `prefix` is left for `clear`."""
    rules = flags.rules(arguments)
    servers = parse_servers(arguments.server)
    society = adapters.society(
        store,
        arguments.run,
        arguments.models_from,
        arguments.agents,
        tuple(servers),
        critics=rules.critics,
        one_model=arguments.one_model,
    )
    template = flags.chat_template(arguments)
    progress = DebateProgress(program.Progress(arguments.metrics_port, arguments.metrics_host))
    owner = arguments.run.partition("/")[2] if arguments.group else ""
    async with HttpEngine(servers, owner=owner) as server_engine:
        engine: Engine = server_engine
        if arguments.group:
            engine = remembering = RememberingEngine(server_engine, store, arguments.group)
        contexts = {name: await engine.ready(name, society.on(name)) for name in dict.fromkeys(society.servers)}
        with Checker(arguments.answer) as checker, ThreadPoolExecutor(1) as judge:
            table = Table(rules, society, engine, template, checker, contexts, judge)
            transcripts = await debate_all(table, problems, Journal(store, prefix), progress)
        if arguments.group:
            remembering.leave(prefix.strip("/").replace("/", "-"))
        return transcripts


def run_debate(arguments: argparse.Namespace, store: Store, prefix: str, part: str) -> tuple[dict[str, list[Transcript]], float]:
    """The transcripts of `problems/<part>.jsonl` and of the probe beside the training questions; and the seconds they took."""
    started = time.monotonic()
    commit = required(store, f"{arguments.group or arguments.run}/{layout.PROBLEMS}", "the task `prepare`")
    problems = fetch_records(store, commit, f"{part}.jsonl", Problem)
    probed = part == "train" and any(entry.name == layout.PROBE for entry in commit.files)
    probe = fetch_records(store, commit, layout.PROBE, Problem) if probed else []
    try:
        transcripts = asyncio.run(hold(arguments, store, prefix, [*problems, *probe]))
    except ExceptionGroup as group:  # a task group wraps what ended it; one cause is enough for the reader
        raise group.exceptions[0] from None
    found = {layout.TRANSCRIPTS: transcripts[: len(problems)], layout.PROBE: transcripts[len(problems) :]}
    return {name: several for name, several in found.items() if several}, time.monotonic() - started


def settle(store: Store, prefix: str, seconds: float) -> None:
    """After the commit: the time it took lies beside it."""
    store.write(prefix + layout.TIMING, records.encode(Timing(round(seconds, 1))))


def clear(store: Store, prefix: str) -> None:
    """Removes the journal of what is committed, also what an earlier process did not come to remove."""
    journal = Journal(store, prefix)
    journal.read()
    journal.remove()


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Transcripts first, data sets after them; each is kept if it is committed already. The probe is in no data set."""
    store = open_store(arguments.store)
    prefix = layout.debate(arguments.run, arguments.iteration)
    if committed(store, prefix) is None:
        found, seconds = run_debate(arguments, store, prefix, "train")
        files = {name: records.encode_lines(several) for name, several in found.items()}
        asked = usage([t for several in found.values() for t in several])
        publish(store, prefix, files, meta={"seed": arguments.seed, "usage": records.plain(asked)})
        settle(store, prefix, seconds)
    commit = required(store, prefix, "this task")
    clear(store, prefix)
    transcripts = fetch_records(store, commit, layout.TRANSCRIPTS, Transcript)
    counts = datasets.write(store, arguments, transcripts, parent=commit)
    guards = {} if arguments.examples == "hinted" else {"abstained": abstained(transcripts, arguments.min_agreement)}
    return {**_summary(transcripts, counts), **guards, **probed(store, commit), "usage": commit.meta["usage"]}


def _summary(transcripts: Sequence[Transcript], counts: Sequence[records.DatasetCounts]) -> dict[str, Any]:
    agents = len(transcripts[0].turns)
    agreeing = sum(t.agreeing for t in transcripts)
    return {
        "questions": len(transcripts),
        "agreement": round(agreeing / (agents * len(transcripts)), 4),
        "margins": margins(transcripts),
        "kept": {role: [c.kept for c in counts if c.role == role] for role in records.ROLES},
    }


def abstained(transcripts: Iterable[Transcript], minimum: int) -> int:
    """Questions whose vote is no label, so that they train nothing."""
    return sum(not voting.trains(t.vote, minimum) for t in transcripts)


def probed(store: Store, commit: Commit) -> dict[str, Any]:
    """How often the majority was right on the probe: mean, standard error, questions."""
    if all(entry.name != layout.PROBE for entry in commit.files):
        return {}
    transcripts = fetch_records(store, commit, layout.PROBE, Transcript)
    right = accuracy(transcripts)
    return {"probe": [round(right.mean, 4), round(right.stderr, 4), len(transcripts)]}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser_ = program.parser("debate", "Debates the training questions and makes the data sets of every agent.")
    flags.add_debate(parser_)
    flags.add_datasets(parser_)
    return parser_
