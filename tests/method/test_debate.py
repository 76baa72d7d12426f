"""Debates against an engine in memory: who is asked what, when, with which seed; and what ends a program early."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as change

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from small import a_spec

from maft import program
from maft.answers.equality import Checker
from maft.chat_template import load_chat_template
from maft.debate.cache import CachingEngine
from maft.debate.clipping import MARK, shares
from maft.debate.engine import Request
from maft.debate.journal import Journal
from maft.debate.lessons import first_answer
from maft.debate.progress import DebateProgress
from maft.debate.prompts import NOTHING, Prompts
from maft.debate.question import Question
from maft.debate.replica import Load
from maft.debate.session import debate_all
from maft.debate.setup import Setup
from maft.debate.society import Rules, Society
from maft.errors import BadInput
from maft.records import Call, Message, Problem
from maft.spec import AgentOverride, SummarizerSpec
from maft.store.files import FileStore

DEBATE = a_spec().debate
PROMPTS = Prompts("{question}", replace(DEBATE.prompts, cooperate="Together with {summary}: {question}"))
SOCIETY = Society(("g0", "g1", "g2"), ("c0", "c1", "c2"), ("s", "s", "s"))
PROBLEM = Problem("id", "What is 2+3*4?", "14")


class MemoryEngine:
    """Answers from a function of the request's model and text; keeps what it was asked."""

    def __init__(self, template, say=lambda model, text: "Answer: 14"):
        self._template, self._say = template, say
        self.asked: list[tuple[Request, str]] = []
        self.servers: list[str] = []

    async def complete(self, server: str, request: Request) -> Call:
        text = self._template._tokenizer.decode(request.prompt)
        self.asked.append((request, text))
        self.servers.append(server)
        await asyncio.sleep(0)
        said = self._say(request.model, text)
        if asyncio.iscoroutine(said):
            said = await said
        return Call(request.model, request.seed, len(request.prompt), 5, "stop", said)

    async def load(self) -> Load:
        return Load(0, 0)


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


def rules(*, seed=0, iteration=1, **debate) -> Rules:
    """Two rounds of the paper's mode, with some fields of the debate changed."""
    values = {"rounds": 2, "max_tokens": 80, "temperature": 1.0, "top_p": 0.9, **debate}
    return Rules(replace(DEBATE, **values), PROMPTS, "number", seed, iteration)


def hold(template, engine, rules_, society=SOCIETY, context=512, problem=PROBLEM):
    async def one():
        with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
            contexts = dict.fromkeys(society.servers, context)
            table = Setup(rules_, society, engine, template, checker, contexts, judge)
            return await Question(table, 0, problem).run()

    return asyncio.run(one())


def test_agents_that_differ_do_so_in_their_own_answers_alone(template):
    engine = MemoryEngine(template)
    overrides = (AgentOverride(agent=1, temperature=0.1, system="Be brief."), AgentOverride(agent=2, top_p=0.4))
    transcript = hold(template, engine, change(rules(system="Be exact."), overrides=overrides))
    asked = {
        (model, request.temperature, request.top_p, "Be brief." in text, "Be exact." in text)
        for request, text in engine.asked
        for model in (request.model,)
    }
    assert asked == {
        ("base", 1.0, 0.9, False, False),  # summaries
        *((f"{role}0", 1.0, 0.9, False, True) for role in "gc"),
        *((f"{role}1", 0.1, 0.9, True, False) for role in "gc"),
        *((f"{role}2", 1.0, 0.4, False, True) for role in "gc"),
    }
    spec = a_spec(agents=3, debate={"system": "Be exact.", "minAgreement": 1}, agentOverrides=[{"agent": 1, "system": "Be brief."}])
    examples = [first_answer(transcript, agent, spec) for agent in range(3)]
    assert [e.messages[0].content for e in examples] == ["Be exact.", "Be brief.", "Be exact."]


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_the_agent_that_is_named_summarizes_for_all(mode, template):
    """By the debate's own sampling, and nothing else that is asked is changed."""

    def say(model, text):
        return "They disagree." if "Summarize" in text else f"Answer: {model[-1]}"

    society = Society(SOCIETY.generators, SOCIETY.critics, ("s0", "s1", "s2"))
    plain = change(rules(mode=mode), overrides=(AgentOverride(agent=1, temperature=0.1),))
    engines = MemoryEngine(template, say), MemoryEngine(template, say)
    base = hold(template, engines[0], plain, society)
    named = hold(template, engines[1], change(plain, debate=replace(plain.debate, summarizer=SummarizerSpec(agent=1))), society)
    assert len(named.summaries) == (1 if mode == "fast" else 3)
    assert {summary.call.model for summary in named.summaries} == {"g1"}
    asked = zip(engines[1].servers, engines[1].asked, strict=True)
    assert {(server, request.temperature) for server, (request, text) in asked if "Summarize" in text} == {("s1", 1.0)}
    assert named.turns == base.turns and [s.call.seed for s in named.summaries] == [s.call.seed for s in base.summaries]


@pytest.mark.parametrize(("thinking", "tokens"), [("Enabled", 180), ("Disabled", 80)])
def test_a_summarizer_that_thinks_has_room_for_its_thought(thinking, tokens, template):
    """Whether it does is its own, and not the debate's."""

    def say(model, text):
        return "They disagree." if "Summarize" in text else f"Answer: {model[-1]}"

    others = "Disabled" if thinking == "Enabled" else "Enabled"
    asked = rules(summarizer=SummarizerSpec(agent=1), thinking=others, thinking_tokens=100)
    engine = MemoryEngine(template, say)
    hold(template, engine, change(asked, overrides=(AgentOverride(agent=1, thinking=thinking),)))
    assert {request.max_tokens for request, text in engine.asked if "Summarize" in text} == {tokens}


def test_without_overrides_no_seed_and_no_request_changes(template):
    one, other = MemoryEngine(template), MemoryEngine(template)
    hold(template, one, rules())
    hold(template, other, change(rules(), overrides=(AgentOverride(agent=0), AgentOverride(agent=7, temperature=0.0))))
    assert one.asked == other.asked


# --- answers reworked with the vote as a hint, for distillation ---


def telling(*firsts: str, told: str = "2+12=14. Answer: 14"):
    """First answers by agent; what all say after the hint; else 14."""

    def say(model: str, text: str) -> str:
        if "Hint" in text:
            return told
        return firsts[int(model[1])] if model != "base" and "Other agents" not in text else "Answer: 14"

    return say


def rework(template, say, **debate):
    engine = MemoryEngine(template, say)
    revise = replace(DEBATE.prompts, revise="Other agents said: {summary} {question}")
    made = change(rules(critics=False, **debate), reworked=True, prompts=Prompts("{question}", revise))
    return engine, hold(template, engine, made)


def test_whose_first_answer_differs_from_the_vote_is_told_it(template):
    engine, made = rework(template, telling("Answer: 14", "Answer: 9", "I do not know"))
    assert [len(turns) for turns in made.turns] == [2, 3, 3]
    assert len(made.votes) == 2 and (made.vote.answer, made.vote.votes) == ("14", 3)
    hints = [(request.model, text) for request, text in engine.asked if "Hint" in text]
    assert sorted(model for model, _ in hints) == ["g1", "g2"]  # whoever gave the first answer
    assert all("the right answer is 14" in text and "Answer: 9" not in text for _, text in hints)  # the question afresh
    assert all(turns[2].agrees and turns[2].call.text == "2+12=14. Answer: 14" for turns in made.turns[1:])


def test_what_was_said_after_the_hint_does_not_vote(template):
    _, made = rework(template, telling("Answer: 14", "Answer: 9", "Answer: 9", told="Answer: 3"))
    assert (made.vote.answer, made.vote.votes) == ("14", 3) and made.agreeing == 3
    assert [turns[-1].agrees for turns in made.turns] == [True, False, False]


@pytest.mark.parametrize(
    ("firsts", "debate"),
    [
        (("Answer: 14",) * 3, {}),
        (("Answer: 1", "Answer: 2", "Answer: 3"), {"rounds": 1}),  # no label
        (("Answer: 1", "Answer: 1", "Answer: 3"), {"rounds": 1, "min_agreement": 3}),
        (("Answer: 14",) * 3, {"mode": "fast"}),
    ],
)
def test_without_a_label_or_a_difference_nobody_is_told(template, firsts, debate):
    engine, made = rework(template, telling(*firsts), **debate)
    assert not [text for _, text in engine.asked if "Hint" in text]
    assert {len(turns) for turns in made.turns} == {len(made.votes)}


def test_the_debate_before_the_hints_is_as_without_them(template):
    engine, _ = rework(template, telling("Answer: 14", "Answer: 9", "Answer: 9"))
    plain = MemoryEngine(template, telling("Answer: 14", "Answer: 9", "Answer: 9"))
    revise = replace(DEBATE.prompts, revise="Other agents said: {summary} {question}")
    hold(template, plain, change(rules(critics=False), prompts=Prompts("{question}", revise)))
    assert engine.asked[: len(plain.asked)] == plain.asked and len(engine.asked) == len(plain.asked) + 2


def test_calls_of_the_paper(template):
    engine = MemoryEngine(template)
    transcript = hold(template, engine, rules())
    assert len(engine.asked) == 9  # N + 2 N (M - 1), method section 2
    models = [request.model for request, _ in engine.asked]
    assert sorted(models) == ["base"] * 3 + ["c0", "c1", "c2", "g0", "g1", "g2"]
    assert [len(turns) for turns in transcript.turns] == [2, 2, 2]
    assert len({request.seed for request, _ in engine.asked}) == 9
    assert sum(1 for _ in transcript.calls()) == 9


def test_a_summary_sees_the_others_answers_and_not_the_question(template):
    engine = MemoryEngine(template, lambda model, text: f"{model} works. Answer: 14")
    transcript = hold(template, engine, rules())
    for summary in transcript.summaries:
        assert f"g{summary.agent} works" not in summary.prompt
        assert all(f"g{n} works" in summary.prompt for n in range(3) if n != summary.agent)
        assert "2+3*4" not in summary.prompt


def test_a_critic_sees_its_own_dialogue_then_summary_and_question(template):
    engine = MemoryEngine(template, lambda model, text: f"{model} says. Answer: 14")
    transcript = hold(template, engine, rules())
    seen = next(text for request, text in engine.asked if request.model == "c1")
    parts = [seen.index(p) for p in ("<|user|>What is 2+3*4?", "g1 says. Answer: 14", "Other agents said: base says.")]
    assert parts == sorted(parts)
    assert seen.rstrip().endswith("What is 2+3*4?<|end|><|assistant|>")
    assert [m.role for m in transcript.dialogue(1)] == ["user", "assistant", "user", "assistant"]


def test_later_rounds_go_on_in_the_same_dialogue(template):
    engine = MemoryEngine(template)
    transcript = hold(template, engine, rules(rounds=3))
    assert len(engine.asked) == 3 + 2 * 3 * 2
    assert [len(turns) for turns in transcript.turns] == [3, 3, 3]
    assert len(transcript.votes) == 3


@pytest.mark.parametrize(
    ("changes", "calls", "models"),
    [
        ({"critics": False}, 9, {"base", "g0", "g1", "g2"}),
        ({"summarize": False}, 6, {"g0", "g1", "g2", "c0", "c1", "c2"}),
        ({"rounds": 1, "critics": False}, 3, {"g0", "g1", "g2"}),
    ],
)
def test_variants(template, changes, calls, models):
    engine = MemoryEngine(template)
    hold(template, engine, rules(**changes))
    assert len(engine.asked) == calls
    assert {request.model for request, _ in engine.asked} == models


def test_without_summaries_agents_see_the_answers_themselves(template):
    engine = MemoryEngine(template, lambda model, text: f"{model} says. Answer: 14")
    transcript = hold(template, engine, rules(summarize=False))
    prompt = transcript.turns[0][1].prompt
    assert "g1 says" in prompt and "g2 says" in prompt and "g0 says" not in prompt


def test_cooperative_mode_has_its_own_words(template):
    transcript = hold(template, MemoryEngine(template), rules(cooperative=True))
    assert transcript.turns[0][1].prompt == "Together with Answer: 14: What is 2+3*4?"


def test_fast_mode_stops_on_unanimity(template):
    engine = MemoryEngine(template)
    transcript = hold(template, engine, rules(mode="fast"))
    assert len(engine.asked) == 3
    assert len(transcript.votes) == 1 and transcript.vote.votes == 3


def test_fast_mode_shares_one_summary_in_canonical_order(template):
    engine = MemoryEngine(template, lambda model, text: f"{model} says. Answer: {14 + (model == 'g2')}")
    transcript = hold(template, engine, rules(mode="fast"))
    assert len(engine.asked) == 3 + 1 + 3
    (summary,) = transcript.summaries
    assert summary.agent is None
    order = [summary.prompt.index(f"g{n} says") for n in range(3)]
    assert order == sorted(order)


def test_order_of_the_others_is_shuffled_by_the_seed(template):
    def orders(seed):
        engine = MemoryEngine(template, lambda model, text: f"{model} says. Answer: 14")
        society = Society(tuple(f"g{n}" for n in range(6)), tuple(f"c{n}" for n in range(6)), ("s",) * 6)
        return [s.prompt for s in hold(template, engine, rules(seed=seed), society).summaries]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)


def test_a_summary_sees_at_most_five_others(template):
    society = Society(tuple(f"g{n}" for n in range(8)), tuple(f"c{n}" for n in range(8)), ("s",) * 8)
    transcript = hold(template, MemoryEngine(template), rules(), society)
    assert all(s.prompt.count("Agent ") == 5 for s in transcript.summaries)


def test_answers_that_do_not_parse_stay_in_the_transcript_and_do_not_vote(template):
    say = {"g0": "no idea", "c0": "no idea", "g1": "Answer: 14", "c1": "Answer: 14", "g2": "Answer: 5", "c2": "Answer: 14"}
    transcript = hold(template, MemoryEngine(template, lambda model, text: say.get(model, "summary")), rules())
    assert transcript.turns[0][1].parsed is None and not transcript.turns[0][1].agrees
    assert transcript.vote.answer == "14" and transcript.vote.votes == 2 and transcript.vote.right
    assert [t[0].agrees for t in transcript.turns] == [False, True, False]
    assert [t[0].right for t in transcript.turns] == [False, True, False]


def test_a_prompt_longer_than_the_context_is_an_empty_answer_not_an_error(template):
    engine = MemoryEngine(template, lambda model, text: "word " * 60 + "Answer: 14")
    transcript = hold(template, engine, rules(), context=80)
    assert {turns[1].call.finish_reason for turns in transcript.turns} == {"context"}
    assert transcript.vote.answer is None


def test_max_tokens_shrink_to_what_the_context_leaves(template):
    engine = MemoryEngine(template)
    hold(template, engine, rules(max_tokens=500))
    assert all(len(request.prompt) + request.max_tokens <= 512 for request, _ in engine.asked)


# --- what did not fit, what was thought, what stands before ---

LONG = "I count. " * 60


def test_others_answers_that_do_not_fit_are_clipped_and_counted(template):
    """They keep their ends, where the answers stand; what is short stays whole, and room for the answer is left."""
    say = {"g0": "Answer: 14", "g1": LONG + "Answer: 14", "g2": LONG + "Answer: 14"}
    engine = MemoryEngine(template, lambda model, text: say.get(model, "Answer: 14"))
    transcript = hold(template, engine, rules(summarize=False, max_tokens=100), context=512)
    heard = transcript.turns[0][1]
    assert heard.clipped == 2 and heard.prompt.count(MARK) == 2 and heard.prompt.count("Answer: 14") == 2
    asked = [len(request.prompt) for request, _ in engine.asked if request.model == "c0"]
    assert 400 <= asked[0] <= 412
    assert [turns[0].clipped for turns in transcript.turns] == [0, 0, 0]


def test_a_short_answer_stays_whole_beside_a_long_one(template):
    say = {"g1": LONG + "Answer: 14", "g2": "It is short. Answer: 14"}
    engine = MemoryEngine(template, lambda model, text: say.get(model, "Answer: 14"))
    heard = hold(template, engine, rules(summarize=False, max_tokens=200), context=512).turns[0][1]
    assert heard.clipped == 1 and "It is short. Answer: 14" in heard.prompt and heard.prompt.count(MARK) == 1


def test_what_a_summary_did_not_see_whole_counts_for_the_answer_too(template):
    engine = MemoryEngine(template, lambda model, text: LONG + "Answer: 14" if model[0] == "g" else "Answer: 14")
    transcript = hold(template, engine, rules(), context=512)
    assert {s.clipped for s in transcript.summaries} == {2}
    assert {turns[1].clipped for turns in transcript.turns} == {2}
    assert all(MARK in s.prompt for s in transcript.summaries)


@pytest.mark.parametrize("summarize", [True, False])
@pytest.mark.parametrize("length", [10, 30, 100])
def test_a_round_leaves_room_for_those_after_it(template, summarize, length):
    """Six agents, three rounds, a small context: what the others said in round 2 stands in the dialogue of round 3 as well."""
    society = Society(tuple(f"g{n}" for n in range(6)), tuple(f"c{n}" for n in range(6)), ("s",) * 6)
    engine = MemoryEngine(template, lambda model, text: "12 " * length + "Answer: 14")
    rules_ = rules(rounds=3, summarize=summarize, max_tokens=100)
    transcript = hold(template, engine, rules_, society, context=1024 if length == 100 else 512)
    calls = [turn.call for turns in transcript.turns for turn in turns]
    assert {call.finish_reason for call in calls} == {"stop"} and all(call.text for call in calls)
    assert transcript.votes[-1].answer == "14"
    assert all(MARK in turn.prompt for turns in transcript.turns for turn in turns if turn.clipped and not summarize)
    assert min(request.max_tokens for request, _ in engine.asked) > 40


def test_a_round_uses_the_room_that_it_has(template):
    """Nothing is clipped because of rounds that would fit."""
    engine = MemoryEngine(template, lambda model, text: "12 " * 10 + "Answer: 14")
    transcript = hold(template, engine, rules(rounds=3, summarize=False, max_tokens=40), context=512)
    assert not any(turn.clipped for turns in transcript.turns for turn in turns)


def test_an_empty_summary_is_no_summary(template):
    """The answers themselves are shown in its place."""
    engine = MemoryEngine(template, lambda model, text: " \n" if model == "base" else f"{model} says. Answer: 14")
    transcript = hold(template, engine, rules())
    assert "g1 says. Answer: 14" in transcript.turns[0][1].prompt
    assert len(transcript.summaries) == 3


@pytest.mark.parametrize("thoughts", [True, False])
def test_thoughts_are_recorded_and_shown_only_where_asked_for(template, thoughts):
    def say(model, text):
        return f"<think>{model} guesses 7. Answer: 7</think>\n\n{model} says. Answer: 14"

    transcript = hold(template, MemoryEngine(template, say), rules(summarize=False, show_thoughts=thoughts))
    first, second = transcript.turns[0]
    assert first.call.thought == "g0 guesses 7. Answer: 7" and first.call.text == "g0 says. Answer: 14"
    assert first.parsed == "14" and transcript.vote.answer == "14"
    assert ("g1 guesses" in second.prompt) == thoughts and "g1 says. Answer: 14" in second.prompt


def test_an_open_thought_is_no_answer(template):
    said = {"g0": "<think>So far the answer is 41, but I have to", "c0": "<think>\nthe answer is 14"}
    transcript = hold(template, MemoryEngine(template, lambda model, text: said.get(model, "Answer: 14")), rules(summarize=False))
    assert [turn.parsed for turn in transcript.turns[0]] == [None, None]
    assert [turn.call.text for turn in transcript.turns[0]] == ["", ""]
    assert NOTHING in transcript.turns[1][1].prompt and "41" not in transcript.turns[1][1].prompt


def test_a_thought_has_tokens_of_its_own(template):
    for thinking, most in (("Auto", 120), ("Enabled", 120), ("Disabled", 80)):
        engine = MemoryEngine(template)
        hold(template, engine, rules(thinking=thinking, thinking_tokens=40))
        assert {request.max_tokens for request, _ in engine.asked} == {most}


def test_a_system_turn_and_a_chat_of_its_own_stand_before_each_question(template):
    engine = MemoryEngine(template)
    chat = (Message("user", "Hello."), Message("assistant", "Hello, what shall I compute?"))
    asked = replace(PROBLEM, history=chat)
    transcript = hold(template, engine, rules(system="Be brief."), problem=asked)
    seen = [text for request, text in engine.asked if request.model[0] in "gc"]
    order = ("Be brief.", "Hello.", "Hello, what shall I compute?", "What is 2+3*4?")
    assert all([text.index(part) for part in order] == sorted(text.index(part) for part in order) for text in seen)
    assert all("Be brief." not in text for request, text in engine.asked if request.model == "base")
    roles = [message.role for message in transcript.dialogue(0, 1, system="Be brief.")]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    tokens = template.tokens(transcript.dialogue(0, system="Be brief."), every_turn=True)
    counted = template._tokenizer.decode([i for i, c in zip(tokens.ids, tokens.completion, strict=True) if c])
    assert "what shall I compute" not in counted and counted.count("Answer: 14") == 2


def test_servers_are_told_where_a_turn_ends(template):
    engine = MemoryEngine(template)
    hold(template, engine, rules())
    assert {tuple(request.stop_token_ids) for request, _ in engine.asked} == {template.stops}
    assert template.turn_end[0] in template.stops


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6), st.integers(0, 2000))
def test_room_is_shared_and_used(lengths, allowed):
    given_ = shares(lengths, allowed)
    assert all(part <= length for part, length in zip(given_, lengths, strict=True))
    assert sum(given_) == min(allowed, sum(lengths)) or sum(lengths) > allowed >= sum(given_) > allowed - len(lengths)
    cut = [part for part, length in zip(given_, lengths, strict=True) if part < length]
    assert not cut or max(given_) - min(cut) <= 1


def test_seeds_differ_between_iterations_questions_and_agents():
    one, two = rules(), rules(iteration=2)
    keys = {r.key(q, n, m, "answer") for r in (one, two) for q in ("a", "b") for n in range(3) for m in (1, 2)}
    assert len(keys) == 24
    assert all(0 <= key < 2**53 for key in keys)
    assert rules().key("a") == rules().key("a")


def run_all(template, engine, tmp_path, problems, progress=None):
    async def all_():
        with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
            table = Setup(rules(), SOCIETY, engine, template, checker, {"s": 512}, judge)
            journal = Journal(FileStore(tmp_path), "debate/")
            shown = DebateProgress(progress or program.Progress(("", 0)))
            return list(await debate_all(table, problems, journal, shown))

    return asyncio.run(all_())


def problems(count):
    return [Problem(str(i), f"What is {i}+1?", str(i + 1)) for i in range(count)]


def test_progress_moves_before_the_first_question_has_ended(template, tmp_path):
    """Questions are debated side by side: all may be in their second round before one has ended."""
    progress, seen = program.Progress(("", 0)), []

    def reply(model, text):
        seen.append(progress.registry.get_sample_value("maft_progress_done"))
        return "Answer: 1"

    run_all(template, MemoryEngine(template, reply), tmp_path, problems(2), progress)
    assert any(0 < done < 1 for done in seen) and seen == sorted(seen)
    assert progress.registry.get_sample_value("maft_progress_done") == 2.0


def test_a_slow_question_holds_nobody_up(template, tmp_path):
    finished = []
    release = None

    async def slow():
        await release.wait()
        return "Answer: 1"

    def say(model, text):
        nonlocal release
        release = release or asyncio.Event()
        if "What is 0+1?" in text:
            return slow()
        finished.append(text)
        if sum("<|user|>Other agents said" in t for t in finished) == 3 * 9:
            release.set()  # only when all nine other questions are through both rounds
        return "Answer: 1"

    transcripts = run_all(template, MemoryEngine(template, say), tmp_path, problems(10))
    assert [t.index for t in transcripts] == list(range(10))


def test_finished_questions_are_not_asked_again(template, tmp_path):
    first = MemoryEngine(template)
    before = run_all(template, first, tmp_path, problems(6))
    second = MemoryEngine(template)
    after = run_all(template, second, tmp_path, problems(8))
    assert after[:6] == before
    assert len(second.asked) == 2 * 9


def test_of_a_debate_that_is_killed_the_group_knows_what_its_journal_rests_on(template, tmp_path):
    """What was answered by then is asked again neither by the same debate nor by another run's."""
    store, society = FileStore(tmp_path), Society(("base",) * 3, ("base",) * 3, ("s",) * 3)
    journalled = asyncio.Event()

    class Killed(Exception):
        pass

    def debated(task, engine):
        async def all_():
            caching = CachingEngine(engine, store, "ns/group", task)

            async def flushed():
                await caching.flush()
                journalled.set()

            with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
                table = Setup(rules(), society, caching, template, checker, {"s": 512}, judge)
                progress = DebateProgress(program.Progress(("", 0)))
                transcripts = list(await debate_all(table, problems(6), Journal(store, f"{task}/", flushed), progress))
            caching.save()
            return transcripts

        return asyncio.run(all_())

    async def killed():
        await journalled.wait()
        raise Killed

    first = MemoryEngine(template, lambda model, text: killed() if "What is 0+1?" in text else "Answer: 1")
    with pytest.raises(ExceptionGroup):
        debated("one", first)
    kept = {transcript.index for transcript in Journal(store, "one/").read()}
    second, third = MemoryEngine(template), MemoryEngine(template)
    transcripts = debated("one", second)
    assert kept <= set(range(1, 6)) and [t.index for t in transcripts] == list(range(6))
    assert not [text for _, text in second.asked if any(f"What is {index}+1?" in text for index in kept)]
    assert debated("two", third) == transcripts and third.asked == []


def test_what_other_models_said_is_not_taken_over(template, tmp_path):
    run_all(template, MemoryEngine(template), tmp_path, problems(4))
    other = MemoryEngine(template)
    society = Society(("h0", "h1", "h2"), SOCIETY.critics, SOCIETY.servers)

    async def again():
        with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
            table = Setup(rules(), society, other, template, checker, {"s": 512}, judge)
            return await debate_all(
                table, problems(4), Journal(FileStore(tmp_path), "debate/"), DebateProgress(program.Progress(("", 0)))
            )

    asyncio.run(again())
    assert len(other.asked) == 4 * 9


def test_nothing_parses_ends_early_and_shows_an_answer(template, tmp_path):
    engine = MemoryEngine(template, lambda model, text: "I would rather not say.")
    with pytest.raises(ExceptionGroup) as caught:
        run_all(template, engine, tmp_path, problems(400))
    (error,) = caught.value.exceptions
    assert isinstance(error, BadInput)
    assert str(error).startswith(
        "task.answer: none of the answers to the first 20 questions holds a number, e.g. 'I would rather not say.'"
    )
    assert len(engine.asked) < 400 * 9 / 2
