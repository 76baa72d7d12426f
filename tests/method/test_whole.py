"""Answers that are not whole, and iterations that train nothing: counted, and told wherever numbers are shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import generate_latest
from test_probe import RUN, World
from test_report import MIXED, RIGHT, WRONG, Page, make, numbers, put_adapters, put_debate, put_evaluation, put_problems
from test_report import RUN as REPORTED

from maft import program, records, scores
from maft.debate.progress import DebateProgress
from maft.records import (
    BASE,
    ROLES,
    Adapter,
    Call,
    DatasetCounts,
    Evaluation,
    Example,
    Problem,
    Role,
    Summary,
    Transcript,
    Turn,
    Vote,
)
from maft.report import cards, remarks, sentences
from maft.report import read as report_read
from maft.shortage import LEFT_OUT, MORE_TOKENS, shortage
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import fetch_record, publish, required
from maft.store.urls import open_store
from maft.summaries import Answers

# --- counted ---


def said(finish: str = "stop", clipped: int = 0, **more: Any) -> Turn:
    return Turn("prompt", Call(BASE, 1, 9, 3, finish, "4", **more), "4", agrees=True, right=True, clipped=clipped)


def summarized(agent: int | None, round_: int, clipped: int = 0, text: str = "they say") -> Summary:
    return Summary(agent, round_, "the others [...] said", Call(BASE, 1, 9, 3, "length", text), clipped)


def debated(*agents: tuple[Turn, ...], summaries: tuple[Summary, ...] = ()) -> Transcript:
    votes = (Vote("4", len(agents), 0, tied=False, right=True),) * len(agents[0])
    return Transcript(0, Problem("p", "2+2?", "4"), agents, summaries, votes)


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        (debated((said(),), (said(),)), Answers(asked=2)),
        (debated((said("length"), said()), (said("context"), said("stop"))), Answers(asked=4, cut=2)),
        (debated((said("abort"),)), Answers(asked=1, cut=1)),  # whatever ended it, it was not the model
        (debated((said(), said(clipped=3)), (said(), said())), Answers(asked=4, clipped=1)),
        (debated((said(), said("length", clipped=1))), Answers(asked=2, cut=1, clipped=1)),
        # a summary's prompt: of one agent's, of all agents', and both count an answer once; cut summaries are no answers
        (debated((said(), said()), (said(), said()), summaries=(summarized(1, 2, 2),)), Answers(asked=4, clipped=1)),
        (debated((said(), said()), (said(), said()), summaries=(summarized(None, 2, 2),)), Answers(asked=4, clipped=2)),
        (debated((said(), said(clipped=1)), summaries=(summarized(0, 2, 1),)), Answers(asked=2, clipped=1)),
        (debated((said(), said()), summaries=(summarized(0, 2),)), Answers(asked=2)),
        (debated((said(), said(), said()), summaries=(summarized(0, 3, 1),)), Answers(asked=3, clipped=1)),
        # an empty summary is shown to nobody
        (debated((said(), said()), summaries=(summarized(0, 2, 1, text=" \n"),)), Answers(asked=2)),
    ],
)
def test_which_answers_are_not_whole(transcript: Transcript, expected: Answers) -> None:
    assert scores.whole([transcript]) == expected
    assert scores.whole([transcript] * 3) == expected + expected + expected
    assert scores.whole([]) == Answers()


@pytest.mark.parametrize(
    ("answers", "many"), [(Answers(), False), (Answers(asked=10, cut=1), False), (Answers(asked=9, cut=1), True)]
)
def test_when_people_are_warned(answers: Answers, many: bool) -> None:
    assert answers.too_many_cut == many


CUT_WORLD = {"debate": {"maxTokens": 19}}  # the mock's answers of two digits have a token more


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory, mock_url: str) -> World:
    world = World(tmp_path_factory.mktemp("store"), mock_url, **CUT_WORLD)
    world.run("prepare")
    return world


def counted(transcripts: list[Transcript]) -> tuple[int, int]:
    reasons = [turn.call.finish_reason for t in transcripts for turns in t.turns for turn in turns]
    return len(reasons), reasons.count("length")


def test_a_debate_says_how_many_answers_were_cut_and_what_was_left_out(cut: World) -> None:
    summary = cut.run("debate", 1)
    asked, short = counted(cut.lines(layout.debate(RUN, 1), layout.TRANSCRIPTS, Transcript))
    assert 0 < short < asked == 24 * 3 * 2
    assert (summary.answers.asked, summary.answers.cut) == (asked, short)
    meta = required(cut.store, layout.datasets(RUN, 1), "the test").meta
    each = [count["leftOut"] for count in meta["counts"]]
    assert summary.left_out == {
        reason: sum(left.get(reason, 0) for left in each) for reason in sorted({r for e in each for r in e})
    }
    assert summary.left_out["cut"] > 0
    assert cut.run("debate", 1) == summary


def test_what_was_cut_off_is_in_no_dataset(cut: World) -> None:
    cut.run("debate", 1)
    for role in ROLES:
        for agent in range(3):
            for example in cut.lines(layout.datasets(RUN, 1), layout.dataset_file(role, agent), Example):
                assert not example.messages[-1].cut


def test_an_evaluation_says_it_too(cut: World) -> None:
    summary = cut.run("evaluate", 0)
    commit = required(cut.store, layout.evaluation(RUN, 0), "the test")
    asked, short = counted(cut.lines(layout.evaluation(RUN, 0), layout.TRANSCRIPTS, Transcript))
    whole = fetch_record(cut.store, commit, layout.EVALUATION, Evaluation).whole
    assert 0 < short < asked == 16 * 3 * 2
    assert summary.answers == whole
    assert (whole.asked, whole.cut) == (asked, short)


def test_an_evaluation_of_an_older_file_has_no_counts() -> None:
    old = records.plain(numbers(0))
    del old["whole"]
    assert records.decode(records.encode(old), Evaluation, "here").whole == Answers()


def test_a_running_debate_shows_the_share_that_was_cut_or_clipped() -> None:
    progress = program.Progress(("", 0))
    shown = DebateProgress(progress)
    assert b"maft_cut_ratio NaN" in generate_latest(progress.registry)
    shown.start(3)
    shown.add(debated((said("length"), said(clipped=1))))
    shown.add(debated((said(), said())))
    text = generate_latest(progress.registry)
    assert b"maft_cut_ratio 0.25" in text and b"maft_clipped_ratio 0.25" in text


# --- why nothing was trained ---


@pytest.mark.parametrize(
    ("most", "left_out", "minimum", "why", "change"),
    [
        (
            3,
            {"noConsensus": 40, "cut": 12},
            8,
            "too few examples (the largest dataset has 3, training.minExamples is 8); mostly left out: no consensus (40 of 52)",
            f"{LEFT_OUT['noConsensus'].change}, or lower training.minExamples",
        ),
        (
            0,
            {"noConsensus": 12, "cut": 40},
            None,
            "too few examples (the largest dataset has 0); mostly left out: answer was cut off (40 of 52)",
            MORE_TOKENS,
        ),
        (7, {}, 8, "too few examples (the largest dataset has 7, training.minExamples is 8)", "raise task.train, or lower"),
        (
            0,
            {"ofTomorrow": 9},
            1,
            "too few examples (the largest dataset has 0, training.minExamples is 1); mostly",
            "raise task.train",
        ),
        (0, {"unparsed": 5, "outvoted": 5}, 1, "too few examples (the largest dataset has 0", LEFT_OUT["outvoted"].change),
    ],
)
def test_the_reason_and_what_to_change(most: int, left_out: dict[str, int], minimum: int | None, why: str, change: str) -> None:
    found = shortage(most, left_out, minimum)
    assert found.why.startswith(why)
    assert found.change.startswith(change)


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_every_reason_names_a_field_or_better_questions(reason: str) -> None:
    _, change = shortage(0, {reason: 1})
    assert any(section in change for section in ("debate.", "task.", "training.", "model.")) or "questions" in change
    assert not change.endswith(".")


# --- the report ---


def put_untrained(store: Store, iteration: int, left_out: dict[str, int], trained: tuple[tuple[Role, int], ...] = ()) -> None:
    """An iteration whose debate left so much out that only these adapters were trained; the others keep the base."""
    publish(store, layout.debate(REPORTED, iteration), {layout.TRANSCRIPTS: records.encode_lines(MIXED)}, meta={"seed": 7})
    counts = [DatasetCounts(role, n, 11 if (role, n) in trained else n, left_out) for role in ROLES for n in range(2)]
    publish(store, layout.datasets(REPORTED, iteration), {}, meta={"counts": records.plain(counts)})
    for role in ROLES:
        for n in range(2):
            made = (role, n) in trained
            name = f"{role}-{n}-{iteration}-0123456789ab" if made else BASE
            adapter = Adapter(role, n, iteration, name, made, 11 if made else n, 3 if made else 0, None, None, 5 if made else 0)
            publish(store, layout.adapter(REPORTED, iteration, role, n), {}, meta={"adapter": records.plain(adapter)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "store"))
    put_problems(opened)
    put_evaluation(opened, 0)
    return opened


NOTHING = (
    "Nothing was trained in iteration 1, so the agents are still the base model: too few examples (the largest dataset has 1, "
    "training.minExamples is 2); mostly left out: no consensus (24 of 28). To change that, "
)


def test_a_table_does_not_call_untrained_agents_finetuned(store: Store) -> None:
    put_untrained(store, 1, {"noConsensus": 6, "cut": 1})
    put_evaluation(store, 1)
    summary, page, data = make(store)
    names = [row[0] for row in Page(page).rows if row]
    assert "debate, nothing was trained, iteration 1" in names
    assert not [name for name in names if name.startswith("multiagent finetuning")]
    assert summary.results[-1].name == data["accuracy"][-1]["name"] == "debate, nothing was trained, iteration 1"
    assert data["untrained"].startswith(NOTHING)
    assert summary.remarks == (data["untrained"],)
    assert data["headline"] == (
        "Nothing was trained: after 1 iteration the agents are still the base model, and the debate is right on 60.7 ± 4.0 % of "
        "the held-out questions (25.0 ± 4.0 % untrained; the difference is chance)."
    )
    text = Page(page).text.replace("\N{NO-BREAK SPACE}", " ")
    assert data["untrained"] in text and data["headline"] in text
    assert 'class="best"' not in page


def test_untrained_agents_that_were_not_evaluated_before(store: Store, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    put_problems(other)
    put_untrained(other, 1, {"cut": 6})
    put_evaluation(other, 1)
    headline = sentences.headline(report_read.read(other, REPORTED))
    assert headline.endswith("and the debate is right on 60.7 ± 4.0 % of the held-out questions.")


def test_an_iteration_that_adds_nothing_to_trained_agents_says_that(store: Store) -> None:
    put_debate(store, 1)
    put_adapters(store, 1)
    put_evaluation(store, 1)
    publish(store, layout.debate(REPORTED, 2), {layout.TRANSCRIPTS: records.encode_lines(RIGHT)}, meta={"seed": 7})
    counts = [DatasetCounts(role, n, 2, {"mix": 9}) for role in ROLES for n in range(2)]
    publish(store, layout.datasets(REPORTED, 2), {}, meta={"counts": records.plain(counts)})
    for role in ROLES:
        for n in range(2):
            kept = Adapter(role, n, 2, f"{role}-{n}-1-0123456789ab" if n == 0 else BASE, False, 2, 0, None, None)
            publish(store, layout.adapter(REPORTED, 2, role, n), {}, meta={"adapter": records.plain(kept)})
    put_evaluation(store, 2)
    run = report_read.read(store, REPORTED)
    assert [row.name for row in sentences.rows(run)][3:] == [
        "multiagent finetuning, iteration 1",
        "multiagent finetuning, iteration 2 (nothing new was trained)",
    ]
    said_ = remarks.untrained(run)
    assert said_.startswith("Nothing was trained in iteration 2: too few examples (the largest dataset has 2")
    assert "training.criticMix" in said_
    assert "base model" not in said_ + sentences.headline(run)


def test_an_iteration_that_trained_some_says_how_many(store: Store) -> None:
    put_untrained(store, 1, {"outvoted": 3, "cut": 9}, trained=(("generator", 0), ("generator", 1), ("critic", 1)))
    put_evaluation(store, 1)
    run = report_read.read(store, REPORTED)
    expected = (
        "Not all adapters were trained (3 of 4 in iteration 1); for the others there were too few examples (the largest dataset "
        "has 0, training.minExamples is 2); mostly left out: answer was cut off (9 of 12)."
    )
    assert remarks.partly(run) == expected
    assert expected in sentences.details(run)
    assert (remarks.untrained(run), remarks.remarks(run)) == ("", ())
    assert sentences.rows(run)[-1].name == "multiagent finetuning, iteration 1"


def test_many_iterations_that_trained_nothing_are_not_all_listed(store: Store) -> None:
    for iteration in range(1, 6):
        put_untrained(store, iteration, {"cut": 9})
    said_ = remarks.untrained(report_read.read(store, REPORTED))
    assert said_.startswith("Nothing was trained in iterations 3, 4, 5 and 2 more, so the agents are still the base model: ")


def test_what_has_no_adapters_yet_is_not_called_untrained(store: Store) -> None:
    put_debate(store, 1)
    run = report_read.read(store, REPORTED)
    assert (remarks.untrained(run), remarks.partly(run), run.still_base(1), run.still_base(0)) == ("", "", False, False)


def test_a_run_of_a_comparison_has_no_spec_and_says_it_too(tmp_path: Path) -> None:
    opened = open_store(str(tmp_path))
    put_untrained(opened, 1, {"noConsensus": 6})
    said_ = remarks.untrained(report_read.read(opened, REPORTED))
    assert "(the largest dataset has 1); mostly left out: no consensus (24 of 24)" in said_


def test_turns_that_do_not_count_have_a_column_where_there_are_any(store: Store) -> None:
    assert "Turns left out" not in make(store)[1]
    put_untrained(store, 1, {"cut": 1}, trained=(("generator", 0),))
    rows = Page(make(store)[1]).rows
    assert ["1", "generator", "0", "generator-0-1-0123456789ab", "trained", "11", "5", "3", "–"] in rows


def test_a_run_in_which_no_agent_has_enough_examples(tmp_path: Path, mock_url: str) -> None:
    """Every program as the plan has it, up to the table."""
    many = {"training": {"minExamples": 1000, "topology": "Shared"}}
    world = World(tmp_path, mock_url, **many, **CUT_WORLD)
    world.run("prepare")
    world.run("evaluate", 0)
    debated_ = world.run("debate", 1)
    trained = world.run("train", 1)
    world.run("evaluate", 1)
    reported = world.run("report", 1)
    assert (trained.trained, trained.kept) == (0, 6)
    assert reported.results[-1].name == "debate, nothing was trained, iteration 1"
    most = max(count for counts in debated_.kept.values() for count in counts)
    why, change = shortage(most, debated_.left_out, 1000)  # what the status says, but for the number that was asked for
    assert f"base model: {why}. To change that, {change}." in reported.remarks[0]
    assert reported.remarks[1].startswith("Many answers were cut off")


# --- cut, clipped and thought, in the report ---

SHORT = [replace(t, turns=tuple((replace(a, call=replace(a.call, finish_reason="length")), b) for a, b in t.turns)) for t in WRONG]


def test_debates_with_too_many_cut_answers_are_warned_of(store: Store) -> None:
    files = {layout.TRANSCRIPTS: records.encode_lines(SHORT), layout.EVALUATION: records.encode(numbers(1))}
    publish(store, layout.evaluation(REPORTED, 1), files, meta={"seed": 7})
    summary, page, data = make(store)
    expected = (
        "Many answers were cut off, and such answers never train: 6 of 12 (held-out questions after iteration 1). "
        f"To change that, {MORE_TOKENS}."
    )
    assert data["cut"] == expected
    assert summary.remarks == (expected,)
    assert expected in Page(page).text
    rows = Page(page).rows
    assert ["Held-out questions, untrained agents", "12", "0", "0.0", "0"] in rows
    assert ["Held-out questions, agents after iteration 1", "12", "6", "50.0 ⚠", "0"] in rows
    assert [stage["answers"] for stage in data["stages"]] == [
        {"asked": 12, "cut": 0, "clipped": 0},
        {"asked": 12, "cut": 6, "clipped": 0},
    ]


def test_without_cut_answers_nobody_is_warned(store: Store) -> None:
    summary, _, data = make(store)
    assert (data["cut"], data["untrained"], summary.remarks) == ("", "", ())


THOUGHT = "Hm </script><img src=x onerror=alert(1)> maybe 7"


def test_a_thought_is_shown_before_its_answer_and_nowhere_else() -> None:
    shown = json.loads(cards.card(debated((said(thought=THOUGHT), said()))).data)["agents"][0]
    assert [turn.get("thought") for turn in shown] == [THOUGHT, None]
    assert shown[0]["text"] == "4"
    assert b"<" not in cards.card(debated((said(thought=THOUGHT),))).data


@pytest.mark.parametrize(
    ("summary", "turn", "expected"),
    [
        (None, replace(said(clipped=2), prompt="A: [...] 4"), [{"texts": 2, "prompt": "A: [...] 4"}]),
        (summarized(0, 2, 1), replace(said(clipped=1), prompt="they say: what do you?"), [(1, "the others [...] said")]),
        (summarized(None, 2, 1), replace(said(), prompt="they say: what do you?"), [(1, "the others [...] said")]),
        (summarized(0, 2, 1), replace(said(clipped=1), prompt="[...] say"), [(1, "the others [...] said"), (1, "[...] say")]),
        (summarized(0, 2), replace(said(), prompt="they say: what do you?"), None),
        (summarized(0, 2, 1, text=""), replace(said(clipped=1), prompt="A: [...] 4"), [(1, "A: [...] 4")]),
    ],
)
def test_a_prompt_with_clipped_texts_is_shown_as_it_was(summary: Summary | None, turn: Turn, expected: Any) -> None:
    transcript = debated((said(), turn), summaries=(summary,) if summary else ())
    found = json.loads(cards.card(transcript).data)["agents"][0][1].get("clipped")
    pairs = expected and [one if isinstance(one, dict) else {"texts": one[0], "prompt": one[1]} for one in expected]
    assert found == pairs


def test_an_agent_whose_summary_said_nothing_saw_the_answers_themselves() -> None:
    transcript = debated((said(), said()), summaries=(summarized(0, 2, text=" "),))
    assert json.loads(cards.card(transcript).data)["agents"][0][1]["summary"] is None


def test_a_running_debate_counts_answers_before_its_first_question_ends() -> None:
    progress = program.Progress(("", 0))
    shown, done = DebateProgress(progress), lambda: progress.registry.get_sample_value("maft_progress_done")
    shown.start(2)
    for _ in range(3):
        shown.said(0, answers=4)
    shown.said(1, answers=4)
    assert done() == 1.0
    shown.add(debated((said(), said())))  # the first question, whose debate ended early
    assert done() == 1.25
    for _ in range(9):  # hints beside its rounds are no more than the question
        shown.said(1, answers=4)
    assert done() == 2.0
