"""Debates over many questions: what `maft.debate` and `maft.evaluate` share.

A debate is a coroutine per question; rounds are synchronous within a question and unrelated between questions, so the engine
always has work. In: problems, a society, servers. Out: transcripts, and a journal that survives a kill.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

from maft import begun, models, program, records
from maft.answers.equality import Checker
from maft.chat_template import ChatTemplate
from maft.debate import limits, shards, vectors
from maft.debate.cache import CachingEngine
from maft.debate.engine import PATIENCE, Engine, HttpEngine
from maft.debate.journal import Journal
from maft.debate.progress import DebateProgress
from maft.debate.prompts import longest
from maft.debate.question import Question
from maft.debate.setup import Setup
from maft.debate.shards import Share
from maft.debate.society import Rules, Society
from maft.debate.window import Window
from maft.errors import BadInput, one_line
from maft.program import Assignment
from maft.records import Problem, Transcript
from maft.spec import Spec
from maft.store import layout
from maft.store.commits import required
from maft.store.lines import Lines, fetch_lines

EARLY = 20  # finished questions after which "no answer parses" ends the program


@dataclass(frozen=True, slots=True)
class Debated:
    """A part of the questions, debated."""

    transcripts: Mapping[str, Lines[Transcript]]
    """By the name of their file; none while other programs still debate their share, or where they have committed all."""
    seconds: float
    own: int
    """Questions of this program."""

    @property
    def all(self) -> Iterator[Transcript]:
        """Yields every transcript."""
        return chain.from_iterable(self.transcripts.values())


def debate_part(assignment: Assignment, rules: Rules, society: Society, prefix: str, part: str) -> Debated:
    """Debates `problems/<part>.jsonl` and, beside the training questions, the probe: this program's share of them.

    The journal below `prefix` is `clear`'s."""
    store, share = assignment.store, Share.assigned(assignment)
    commit = required(store, f"{assignment.questions}/{layout.PROBLEMS}", "the task `prepare`")
    if assignment.group:
        begun.adopt(store, assignment.run, assignment.spec, commit)
    problems = fetch_lines(store, commit, layout.questions(part), Problem)
    trained = len(problems)
    if part == "train" and commit.has(layout.PROBE):
        for problem in fetch_lines(store, commit, layout.PROBE, Problem):
            problems.append(records.encode(problem))
    numbers = share.numbers(len(problems))
    work = partial(_timed, assignment, rules, society, share.prefix(prefix), problems, numbers)
    result = work() if share.whole else shards.debated(store, prefix, share, len(problems), work)
    if result is None:
        return Debated({}, 0.0, len(numbers))
    transcripts, seconds = result
    files = {layout.TRANSCRIPTS: transcripts.part(0, trained), layout.PROBE: transcripts.part(trained, len(problems))}
    return Debated({name: several for name, several in files.items() if several}, seconds, len(numbers))


def _timed(
    assignment: Assignment, rules: Rules, society: Society, prefix: str, problems: Sequence[Problem], numbers: range
) -> tuple[Lines[Transcript], float]:
    """Debates the problems of these numbers; returns transcripts by number, and seconds."""
    started = time.monotonic()
    try:
        transcripts = asyncio.run(_with_servers(assignment, rules, society, prefix, problems, numbers))
    except ExceptionGroup as group:  # a task group wraps what ended it; one cause is enough for the reader
        raise group.exceptions[0] from None
    return transcripts, time.monotonic() - started


async def _with_servers(
    assignment: Assignment, rules: Rules, society: Society, prefix: str, problems: Sequence[Problem], numbers: range
) -> Lines[Transcript]:
    """Debates once every server has answered for every model that it is asked for."""
    spec = assignment.spec
    template = models.chat_template(spec.model, spec.debate.thinking)
    own = models.own_templates(spec, society.size)
    progress = DebateProgress(program.Progress(assignment.metrics))
    owner = assignment.run.partition("/")[2] if assignment.group else ""
    checker = Checker(rules.answer)
    connections = limits.connections(limits.open_files(), society.size, Share.assigned(assignment).of, checker.workers)
    patience = PATIENCE + spec.inference.startup_seconds
    async with HttpEngine(assignment.servers, patience, owner, key=assignment.key, connections=connections) as server_engine:
        caching = _cache(server_engine, assignment, prefix, _own_bases(spec, society)) if assignment.group else None
        engine: Engine = caching or server_engine
        contexts = {name: await engine.ready(name, society.on(name)) for name in dict.fromkeys(society.servers)}
        for each, agents in _written_alike(society, template, own):
            _room_for_questions(rules, each, min(contexts[society.servers[n]] for n in agents), problems)
        with checker, ThreadPoolExecutor(checker.workers) as judge:
            alike = vectors.likeness(assignment, rules.answer)
            setup = Setup(rules, society, engine, template, checker, contexts, judge, own, alike)
            window = Window(engine.load, most=limits.questions(connections, society.size))
            journal = Journal(assignment.store, prefix, caching.flush if caching else None)
            transcripts = await debate_all(setup, problems, journal, progress, window, numbers)
        if caching:
            caching.save()
        return transcripts


def _cache(engine: Engine, assignment: Assignment, prefix: str, bases: Mapping[str, str]) -> CachingEngine:
    return CachingEngine(engine, assignment.store, assignment.group, prefix.strip("/").replace("/", "-"), bases)


def _own_bases(spec: Spec, society: Society) -> dict[str, str]:
    """By server: the base of those that have another one than the spec's."""
    own = {society.servers[n]: spec.model_of(n) for n in range(society.size) if spec.has_own_model(n)}
    return {server: f"{model.source} {model.revision}" for server, model in own.items()}


def _written_alike(
    society: Society, template: ChatTemplate, own: Mapping[int, ChatTemplate]
) -> list[tuple[ChatTemplate, list[int]]]:
    """The templates, and the agents of each."""
    common = [n for n in range(society.size) if n not in own]
    return [*([(template, common)] if common else []), *((each, [n]) for n, each in own.items())]


def _room_for_questions(rules: Rules, template: ChatTemplate, context: int, problems: Sequence[Problem]) -> None:
    """BadInput where a question leaves no room for an answer: the context is known only when the servers are ready."""

    def tokens(problem: Problem) -> int:
        return len(template.prompt(rules.opening(problem)))

    question = longest(problems, tokens)
    if question is not None and (count := tokens(question)) >= context:
        raise BadInput(
            f"model.maxLength: the prompt of question {question.id} has {count} tokens, and the servers' context has {context};"
            " raise it, or leave long questions out"
        )


async def debate_all(
    setup: Setup,
    problems: Sequence[Problem],
    journal: Journal,
    progress: DebateProgress,
    window: Window | None = None,
    numbers: range | None = None,
) -> Lines[Transcript]:
    """Debates every problem that the journal does not have yet, or those of these numbers. Transcripts by index; BadInput if no
    answer parses."""
    numbers = range(len(problems)) if numbers is None else numbers
    progress.start(len(numbers))
    finished = _Finished(progress, _First(setup, min(EARLY, len(numbers))))
    finished.recover(journal.read(), numbers, setup.society.models())
    window = window or Window(setup.engine.load)
    answers = setup.society.size * setup.rules.debate.rounds

    async def one(index: int) -> None:
        try:
            question = Question(setup, index, problems[index], lambda *_: progress.said(index, answers))
            journal.add(finished.add(await question.run()))
        finally:
            await window.release()

    # One group: a question, the journal or the window that fails ends the others at once.
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(window.watch()), group.create_task(journal.keep())]
        for index in numbers:
            if not finished.lines.has(index):
                await window.acquire()
                group.create_task(one(index))
        await window.empty()
        for task in beside:
            task.cancel()
    await journal.flush()
    return finished.lines


class _Finished:
    """Finished debates, on disk, by index."""

    def __init__(self, progress: DebateProgress, first: "_First") -> None:
        self.lines = Lines(Transcript)
        self._progress = progress
        self._first = first

    def add(self, transcript: Transcript) -> bytes:
        """Keeps one; returns its line."""
        line, new = records.encode(transcript), not self.lines.has(transcript.index)
        self.lines.put(transcript.index, line)
        if new:
            self._progress.add(transcript)
            self._first.add(transcript)
        return line

    def recover(self, journal: Iterable[Transcript], numbers: range, models: set[str]) -> None:
        """Keeps those that an earlier process finished, but not what other models said."""
        for transcript in journal:
            if transcript.index in numbers and {c.model for c in transcript.calls()} <= models:
                self.add(transcript)


class _First:
    """The first finished questions: BadInput if none of their answers parses."""

    def __init__(self, setup: Setup, size: int) -> None:
        self._setup = setup
        self._left = size
        self._shown = size
        self._example: Transcript | None = None
        self._parsed = False

    def add(self, transcript: Transcript) -> None:
        """Looks at one more."""
        if self._left <= 0:
            return
        self._left -= 1
        self._example = self._example or transcript
        self._parsed = self._parsed or any(turn.parsed for turns in transcript.turns for turn in turns)
        if not (self._left or self._parsed):
            raise BadInput(self._fault(self._example))

    def _fault(self, example: Transcript) -> str:
        answer, wanted = one_line(example.turns[0][0].call.text, 120), self._setup.checker.wanted(example.problem)
        return (
            f"task.answer: none of the answers to the first {self._shown} questions holds {wanted}, e.g. {answer!r}; "
            "change task.prompt, task.answer or debate.maxTokens"
        )
