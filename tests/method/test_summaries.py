"""What programs say at their end: read as it was written, and never longer than a cluster keeps."""

import json
from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from small import a_spec
from structs import camel, subclasses, values

from maft import evaluate
from maft.compare import __main__ as compare
from maft.compare.table import MethodRow
from maft.debate import __main__ as debate
from maft.diversity import __main__ as diversity
from maft.records import ROLES, Adapter, Call, Commit, DatasetCounts, Diversity, Evaluation, Problem, Transcript, Turn, Vote
from maft.report import __main__ as report
from maft.report import read as report_read
from maft.shortage import LEFT_OUT
from maft.summaries import (
    LIMIT,
    Answers,
    AnySummary,
    DiversitySummary,
    EvaluateSummary,
    Failure,
    PrepareSummary,
    ProbeScore,
    ProgramSummary,
    ReportSummary,
    Score,
    TrainSummary,
    Usage,
    decode_summary,
    encode_summary,
)
from maft.train import shown
from maft_operator.spec.methods import METHODS

KINDS = subclasses(ProgramSummary)


def test_all_summaries_are_known_to_readers() -> None:
    assert set(KINDS) == set(get_args(AnySummary))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_what_is_written_is_read_back(kind: type[Any], data: st.DataObject) -> None:
    summary = data.draw(values(kind))
    assert decode_summary(encode_summary(summary)) == summary
    assert decode_summary(encode_summary(summary).decode()) == summary


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_its_json_names_the_program_and_has_one_case(kind: type[Any], data: st.DataObject) -> None:
    summary = data.draw(values(kind))
    written = json.loads(encode_summary(summary))
    program = kind.__name__.removesuffix("Summary").lower()
    assert written.pop("program") == program
    assert set(written) <= {camel(name) for name in kind.__struct_fields__}
    assert {camel(field.name) for field in msgspec.structs.fields(kind) if field.required} <= set(written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[]",
        '"prepare"',
        "Traceback (most recent call last):\n  File ...",
        "error: no such thing",
        '{"train":24,"heldOut":16}',
        '{"program":"prepare"}',
        '{"program":"prepare","train":"24","heldOut":16}',
        '{"program":"another","train":24,"heldOut":16}',
        '{"program":"prepare","train":24,"heldOut":16',
        '{"error":"made by maft 0.1"}',
        "\0",
    ],
)
def test_foreign_text_is_no_summary(text: str) -> None:
    assert decode_summary(text) is None
    assert decode_summary(text.encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"program":"failure","error":"\xff\xfe"}',
        b'{"program":"\xff","error":""}',
        b'{"program":"prepare","train":1,"heldOut":1,"more":' + b'{"a":' * 100_000,
        b'{"a":' * 100_000,
        '{"program":"failure","error":"\udc80"}',
    ],
    ids=["no UTF-8", "no UTF-8 in the tag", "nested in a field", "nested", "half a character"],
)
def test_text_that_no_decoder_likes_is_no_summary(data: bytes | str) -> None:
    assert decode_summary(data) is None


@given(st.binary())
def test_no_bytes_are_too_strange_to_look_at(data: bytes) -> None:
    assert decode_summary(data) is None


def test_a_newer_release_may_say_more() -> None:
    assert decode_summary('{"program":"prepare","version":"9","train":24,"heldOut":16,"more":[1]}') == PrepareSummary(
        version="9", train=24, held_out=16
    )


def test_what_would_not_fit_is_not_cut_in_silence() -> None:
    with pytest.raises(ValueError, match=f"summary of [0-9]+ bytes; a termination message holds {LIMIT}"):
        encode_summary(Failure(error="x" * LIMIT))


# --- the largest of each program ---

AGENTS, ITERATIONS, QUESTIONS = 32, 100, 1_000_000  # what the resource allows
TOKENS = QUESTIONS * AGENTS * 10 * 131_072  # in ten rounds
ALL = Usage(calls=TOKENS, prompt_tokens=TOKENS, completion_tokens=TOKENS)
SHARE = Score(0.1234, 0.0123)  # as summaries round it
PLACE = f"s3://{'b' * 63}/{'p' * 512}/{'n' * 63}/{'r' * 40}"  # of a run, with the longest names of all


def kept_as_message(summary: ProgramSummary) -> ProgramSummary:
    """The summary, as it comes back from a cluster whose release has a long number."""
    whole = replace(summary, version="10.10.10.dev1000+g0123456789ab")
    written = encode_summary(whole)
    assert len(written) <= LIMIT
    assert decode_summary(written) == whole
    return summary


def transcript(index: int, margin: int) -> Transcript:
    """A debate with that margin behind its vote."""
    turn = Turn("Q?", Call("base", 1, 5, 7, "stop", "8"), "8", agrees=True, right=True)
    votes = (Vote("8", margin, 0, tied=margin == 0, right=True),)
    return Transcript(index, Problem(str(index), "Q?", "8"), ((turn,),) * AGENTS, (), votes)


def test_the_largest_debate() -> None:
    transcripts = [transcript(i, margin) for i, margin in enumerate(range(AGENTS + 1))]
    left_out = dict.fromkeys(LEFT_OUT, QUESTIONS)
    counts = [DatasetCounts(role, n, QUESTIONS, left_out) for role in ROLES for n in range(AGENTS)]
    spent = Commit("", (), (), {"usage": {"calls": TOKENS, "promptTokens": TOKENS, "completionTokens": TOKENS}})
    said = debate.summary(a_spec(agents=AGENTS), transcripts, counts, probe=ProbeScore(0.1234, 0.0123, QUESTIONS), spent=spent)
    assert (len(said.margins), len(said.kept["critic"]), said.usage) == (AGENTS + 1, AGENTS, ALL)
    assert said.left_out == dict.fromkeys(sorted(LEFT_OUT), 2 * AGENTS * QUESTIONS)
    answers = Answers(asked=TOKENS, cut=TOKENS, clipped=TOKENS)
    margins = (QUESTIONS,) * len(said.margins)
    kept_as_message(replace(said, questions=QUESTIONS, agreement=0.1234, abstained=QUESTIONS, margins=margins, answers=answers))


def adapter(role: Any, agent: int) -> Adapter:
    name = f"{role}-{agent}-{ITERATIONS}-0123456789ab"
    return Adapter(role, agent, ITERATIONS, name, True, QUESTIONS * AGENTS, QUESTIONS * AGENTS * 100, 1234.5678, 1234.5678)


def test_the_largest_training() -> None:
    """Some adapters stand for all of them; how many there are is said."""
    said = shown.summary([adapter(role, agent) for agent in reversed(range(AGENTS)) for role in ROLES])
    kept_as_message(said)
    assert isinstance(said, TrainSummary)
    assert said.trained == 2 * AGENTS
    assert 10 <= len(said.adapters) <= said.trained


def numbers(iteration: int) -> Evaluation:
    """An evaluation of that iteration with all there can be."""
    return Evaluation(
        iteration,
        QUESTIONS,
        answers=(Score(0.12341, 0.01231),) * 10,
        agents=((SHARE,) * 10,) * AGENTS,
        votes=(SHARE,) * 10,
        consensus=SHARE,
        wrong_to_right=QUESTIONS * AGENTS,
        right_to_wrong=QUESTIONS * AGENTS,
        unparsed=QUESTIONS * AGENTS * 10,
        ties=QUESTIONS,
        usage=ALL,
        whole=Answers(asked=TOKENS, cut=TOKENS, clipped=TOKENS),
    )


def test_the_largest_evaluation() -> None:
    said = evaluate.summary(numbers(ITERATIONS))
    assert isinstance(said, EvaluateSummary)
    assert said.answer == SHARE
    kept_as_message(said)


def test_the_largest_measure_of_diversity() -> None:
    nll = ((1234.56789,) * AGENTS,) * AGENTS
    found = Diversity(ITERATIONS, QUESTIONS, nll, 1234.56789, 1234.56789, SHARE, Score(AGENTS - 0.12345, 0.1), SHARE, SHARE)
    said = diversity.summary(found)
    assert isinstance(said, DiversitySummary)
    assert (said.nll, said.dissimilarity) == (1234.5679, 0.1234)
    kept_as_message(said)


def reported(iterations: Sequence[int], method: str) -> report_read.ReportedRun:
    """What the table needs of a run that has evaluated these iterations."""
    spec = a_spec(agents=AGENTS, iterations=ITERATIONS, method=method, evaluation={"baselines": ["base", "majority", "debate"]})
    rows = (report_read.Iteration(n, None, report_read.TrainedIteration(), None, numbers(n)) for n in iterations)
    return report_read.ReportedRun("ns/run", {}, spec, {}, tuple(rows))


def test_the_largest_report() -> None:
    """Of a long run the reference rows and the last iterations."""
    rows = report.summary_rows(reported(range(ITERATIONS + 1), "majority-finetuning"))
    assert (rows[0].name, rows[-1].name) == ("base (one answer)", f"majority-finetuning, iteration {ITERATIONS}")
    assert len(rows) >= 10
    kept_as_message(ReportSummary(report=f"{PLACE}/report/index.html", results=rows, debates=QUESTIONS * 201, in_page=QUESTIONS))


def long_run() -> report_read.ReportedRun:
    """A run of all iterations."""
    return reported(range(ITERATIONS + 1), "multiagent")


@pytest.mark.parametrize("prefix", ["p" * 512, "é" * 512, "错" * 512, "😀" * 512, "\x01" * 512, '"' * 512, "错" * 5000])
def test_a_long_address_takes_no_more_room_than_there_is(prefix: str) -> None:
    """The table's references and its last row are there in any case, and the page's address or its key."""
    store = f"s3://bucket/{prefix}"
    said = report.summary(long_run(), store, QUESTIONS)
    kept_as_message(said)
    assert said.report in (f"{store}/ns/run/report/index.html", "ns/run/report/index.html")
    names = [row.name for row in said.results]
    assert (names[0], names[-1]) == ("base (one answer)", f"multiagent finetuning, iteration {ITERATIONS}")
    assert 6 <= len(names) <= report.SUMMARY_ROWS


def test_an_address_of_the_usual_length_costs_no_row() -> None:
    store = f"s3://bucket/{'p' * 512}"
    said = report.summary(long_run(), store, QUESTIONS)
    assert (said.report, len(said.results)) == (f"{store}/ns/run/report/index.html", report.SUMMARY_ROWS)


def test_a_short_run_is_reported_whole() -> None:
    rows = report.summary_rows(reported(range(4), "multiagent"))
    assert [row.name for row in rows] == [
        "base (one answer)",
        f"majority of {AGENTS}",
        "debate (untrained)",
        *(f"multiagent finetuning, iteration {n}" for n in (1, 2, 3)),
    ]


def largest_table(**more: Any) -> list[MethodRow]:
    """All methods, over several seeds, with everything measured."""
    longest = max(METHODS, key=len)
    score, ratio, bits = Score(0.1234, 0.0123), 0.1234, 12.345
    shares = {"accuracy": score, "spread": ratio, "better": longest, "p": 1e-4, "p_best": 1e-4, "first": ratio, "consensus": ratio}
    measured = {"distinct": bits, "entropy": bits, "nll": bits, "kl": bits, "dissimilarity": ratio}
    costs = {"tokens": TOKENS, "seconds": 1e7, "adapters": 2 * AGENTS}
    return [MethodRow(method, 3, **shares, **measured, **costs, **more) for method in METHODS]


def test_the_largest_table() -> None:
    rows, (store, namespace, name) = largest_table(), PLACE.rsplit("/", 2)
    largest = compare.summary(rows, store, f"{namespace}/{name}/compare/index.html")
    kept_as_message(largest)
    assert largest.table == compare.text(rows) and len(largest.table.splitlines()) == len(METHODS) + 1


@pytest.mark.parametrize(("prefix", "whole"), [("p" * 256, True), ("错" * 512, False), ("错" * 5000, False)])
def test_where_the_address_leaves_the_table_no_room_its_key_stands_for_it(prefix: str, whole: bool) -> None:
    store, key = f"s3://bucket/{prefix}", "ns/run/compare/index.html"
    said = compare.summary(largest_table(), store, key)
    kept_as_message(said)
    assert said.report == (f"{store}/{key}" if whole else key)


def test_the_largest_preparation() -> None:
    kept_as_message(PrepareSummary(train=QUESTIONS, held_out=QUESTIONS, probe=QUESTIONS))


def test_a_table_in_which_nothing_was_trained_leaves_its_notes_out_before_its_rows() -> None:
    rows = largest_table(untrained=3, why="too few examples, " * 20)
    said = compare.summary(rows, "s3://bucket", "ns/run/compare/index.html")
    kept_as_message(said)
    assert len(said.table.splitlines()) == len(METHODS) + 1
    assert all(f"{method}, nothing was trained" in said.table for method in METHODS)
    few = compare.summary(rows[:2], "s3://bucket", "ns/run/compare/index.html")
    assert few.table.count("these agents are the base model; too few examples") == 2
