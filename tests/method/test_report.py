"""The report: everything that is committed is in it, what models wrote cannot act in it, and nothing is fetched by it."""

import dataclasses
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from small import a_spec

from maft import charts, program, records
from maft.debate import datasets, lessons
from maft.errors import BadInput
from maft.program import Assignment
from maft.readable import FILES, OF_A_RUN
from maft.records import (
    BASE,
    ROLES,
    Adapter,
    Call,
    DatasetCounts,
    Diversity,
    Evaluation,
    Problem,
    Summary,
    Timing,
    Transcript,
    Turn,
    Vote,
)
from maft.report import __main__ as report
from maft.report import cards, sentences
from maft.report import page as report_page
from maft.report import read as report_read
from maft.report.scripts import sha256
from maft.shortage import LEFT_OUT
from maft.spec import FORMAT, StopSpec, immutable_spec_json
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.urls import open_store
from maft.summaries import Gain, ReportSummary, ResultRow, Score, Threshold, Usage, Validation

RUN = "default/demo"
HOSTILE = "</script><img src=x onerror=alert(1)><!-- {{ 7*7 }} ' \u2028"
SPEC = a_spec(
    method="multiagent",
    agents=2,
    iterations=2,
    seed=7,
    task={"kind": "jsonl", "source": f"{HOSTILE}.jsonl", "answer": "number", "heldOut": 3},
    debate={"rounds": 2, "mode": "paper"},
    evaluation={"baselines": ["base", "majority", "debate"], "every": 1},
)
SPREAD = {"noConsensus": 1, HOSTILE: 2}


def call(text: str, model: str = BASE) -> Call:
    return Call(model, 1, 30, 10, "stop", text)


def turn(answer: str | None, final: str | None, text: str) -> Turn:
    return Turn("question", call(text), answer, agrees=answer is not None and answer == final, right=answer == "4")


def transcript(index: int, first: Sequence[str | None], last: Sequence[str | None], *, tied: bool = False) -> Transcript:
    """Agents that say `first` and then `last`; the reference answer is 4, the majority the last agent's last answer."""
    final = last[-1]
    text = f"I say {HOSTILE}"
    turns = tuple((turn(a, final, text), turn(b, final, text)) for a, b in zip(first, last, strict=True))
    votes = tuple(Vote(v[-1], sum(a == v[-1] for a in v), 0, tied, v[-1] == "4") for v in (first, last))
    summaries = tuple(Summary(n, 2, "summarize", call(f"summary for {n} {HOSTILE}")) for n in range(len(first)))
    return Transcript(index, Problem(f"p{index}", f"2+2? {HOSTILE}", "4"), turns, summaries, votes)


WRONG = [transcript(i, ["3", "5"], ["5", "5"]) for i in range(3)]
MIXED = [
    transcript(0, ["3", "4"], ["4", "4"]),
    transcript(1, ["4", "5"], ["5", "5"]),
    transcript(2, ["4", None], ["4", "5"], tied=True),
]
RIGHT = [transcript(i, ["4", "4"], ["4", "4"]) for i in range(3)]
DEBATES = {0: WRONG, 1: MIXED, 2: RIGHT}


def numbers(iteration: int) -> Evaluation:
    share = (0.1, 0.4567, 0.8)[iteration]
    scores = (Score(share, 0.01), Score(share + 0.05, 0.02))
    return Evaluation(
        iteration=iteration,
        questions=3,
        answers=scores,
        agents=(scores, scores),
        votes=(Score(share + 0.1, 0.03), Score(share + 0.15, 0.04)),
        consensus=Score(0.9, 0.05),
        wrong_to_right=1234 + iteration,
        right_to_wrong=77 + iteration,
        unparsed=5,
        ties=1,
        usage=Usage(1, 2, 3),
    )


def put_problems(store: Store) -> None:
    part = records.encode_lines([Problem("a", HOSTILE, "4")] * 3)
    meta = {"spec": json.loads(immutable_spec_json(SPEC)), "version": "0.1.0", "model": f"tiny{HOSTILE}", "taskSeed": 1}
    publish(store, f"{RUN}/{layout.PROBLEMS}", {"train.jsonl": part, "held-out.jsonl": part}, meta=meta)


def put_evaluation(store: Store, iteration: int) -> None:
    files = {
        layout.TRANSCRIPTS: records.encode_lines(DEBATES[iteration]),
        layout.EVALUATION: records.encode(numbers(iteration)),
    }
    prefix = layout.evaluation(RUN, iteration)
    publish(store, prefix, files, meta={"seed": 7})
    store.write(prefix + layout.TIMING, records.encode(Timing(75.0)))


def put_debate(store: Store, iteration: int) -> None:
    """Without a timing, which may be missing."""
    publish(store, layout.debate(RUN, iteration), {layout.TRANSCRIPTS: records.encode_lines(MIXED)}, meta={"seed": 7})
    counts = [DatasetCounts(role, n, 11 * iteration + n, SPREAD) for role in ROLES for n in range(2)]
    publish(store, layout.datasets(RUN, iteration), {}, meta={"counts": records.plain(counts)})


def put_adapters(store: Store, iteration: int, agents: Sequence[int] = (0, 1)) -> None:
    for role in ROLES:
        for n in agents:
            trained = n == 0
            name = f"{role}-{n}-{iteration}-0123456789ab" if trained else BASE
            losses = (1.25, 0.5) if trained else (None, None)
            made = Adapter(role, n, iteration, name, trained, 11, 3 if trained else 0, *losses)
            prefix = layout.adapter(RUN, iteration, role, n)
            publish(store, prefix, {}, meta={"adapter": records.plain(made), "versions": {"peft": "0.21"}})
            store.write(prefix + layout.TIMING, records.encode(Timing(2.5)))


def put_run(store: Store, iterations: int = 2) -> None:
    put_problems(store)
    put_evaluation(store, 0)
    for iteration in range(1, iterations + 1):
        put_debate(store, iteration)
        put_adapters(store, iteration)
        put_evaluation(store, iteration)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(str(tmp_path_factory.mktemp("finished")))
    put_run(opened)
    return opened


@pytest.fixture(scope="module")
def finished(finished_store: Store) -> "Made":
    return make(finished_store)


Made = tuple[ReportSummary, str, dict[str, Any]]


def make(store: Store) -> Made:
    """The summary, the page and report.json."""
    summary = report.main(Assignment(store=store, run=RUN))
    page, data = (store.read(f"{RUN}/{layout.REPORT}{name}").decode() for name in ("index.html", "report.json"))
    return summary, page, json.loads(data)


def report_json(store: Store) -> dict[str, Any]:
    """report.json without the page and its charts."""
    run = report_read.read(store, RUN)
    return records.plain(report.data(run, [stage.cards for stage in run.stages]))  # type: ignore[no-any-return]


class Page(HTMLParser):
    """Elements with their attributes, table rows as texts, and the contents of data blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.blocks: dict[str, Any] = {}
        self.words: list[str] = []
        self._block: str | None = None
        self._inside = ""
        self._cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._inside = tag
        self._block = attributes["id"] if tag == "script" and attributes.get("type") == "application/json" else None
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._block = None
        self._inside = ""
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = json.loads(data)
        elif self._inside not in ("script", "style"):
            self.words.append(data)
            if self._cell:
                self.rows[-1][-1] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_table_equals_the_evaluations(finished_store: Store, finished: Made) -> None:
    summary, page, data = finished
    rows = {row[0]: row[1:] for row in Page(page).rows if row}
    assert rows["base (one answer)"][0] == "10.0 ± 1.0"
    assert rows["majority of 2"][0] == "20.0 ± 3.0"
    assert rows["debate (untrained)"] == ["25.0 ± 4.0", "10.0 ± 1.0", "20.0 ± 3.0", "90.0 ± 5.0", "1,234", "77", "5"]
    assert rows["multiagent finetuning, iteration 1"][:3] == ["60.7 ± 4.0", "45.7 ± 1.0", "55.7 ± 3.0"]
    assert rows["multiagent finetuning, iteration 2"][0] == "95.0 ± 4.0"
    assert [row["accuracy"]["mean"] for row in data["accuracy"]] == pytest.approx([0.1, 0.2, 0.25, 0.6067, 0.95])
    assert summary.results[0] == ResultRow(name="base (one answer)", accuracy=Score(0.1, 0.01))
    assert summary.results[2] == ResultRow(
        name="debate (untrained)", accuracy=Score(0.25, 0.04), answer=Score(0.1, 0.01), consensus=Score(0.9, 0.05)
    )
    assert summary.report == f"{finished_store.url}/{RUN}/report/index.html"


def test_head_says_what_happened(finished: Made) -> None:
    _, page, data = finished
    assert data["headline"] == (
        "Held-out accuracy of the debate rose from 25.0 ± 4.0 % (untrained) to 95.0 ± 4.0 % after 2 iterations of finetuning."
    )
    assert "+100.0 ± 0.0 percentage points" in data["details"]  # WRONG and RIGHT, question by question
    assert data["unfinished"] == ""
    assert data["facts"]["Iterations"] == "2 of 2"
    assert data["facts"]["Versions"] == "maft 0.1.0, peft 0.21"
    assert data["headline"] in Page(page).text.replace("\N{NO-BREAK SPACE}", " ")


def test_what_the_head_says_stands_in_the_json_as_numbers(finished: Made) -> None:
    _, _, data = finished
    assert (data["format"], data["method"], data["model"]) == (FORMAT, SPEC.method, f"tiny{HOSTILE}")
    assert (data["agents"], data["rounds"], data["seed"]) == (SPEC.agents, SPEC.debate.rounds, SPEC.seed)
    assert data["iterations"] == {"trained": 2, "planned": 2}
    assert data["questions"] == {"train": 3, "heldOut": 3}
    assert data["versions"] == {"maft": "0.1.0", "peft": "0.21"}


def test_every_reason_to_leave_something_out_has_words() -> None:
    known = vars(lessons) | vars(datasets)
    names = [value for name, value in known.items() if name.isupper() and isinstance(value, str)]
    assert sorted(names) == sorted(LEFT_OUT)


def test_nothing_is_fetched_and_nothing_hostile_is_markup(finished: Made) -> None:
    _, page, _ = finished
    elements = Page(page).elements
    assert not {tag for tag, _ in elements} & {"img", "link", "iframe", "object", "embed", "image", "base", "form"}
    assert all(not attributes.keys() & {"src", "srcset", "action", "data", "xlink:href", "poster"} for _, attributes in elements)
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in elements)
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert "onerror=alert(1)>" not in page.replace(r"\u003cimg src=x onerror=alert(1)>", "")
    assert "<img" not in page
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert not re.findall(r"https?:", page)


def test_only_the_scripts_of_the_page_may_run(finished: Made) -> None:
    _, page, _ = finished
    policy = next(a["content"] for _, a in Page(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 2
    assert policy
    assert policy.startswith("default-src 'none'")
    assert all(f"'{sha256(script)}'" in policy for script in scripts)
    assert "innerHTML" not in page


def test_the_debates_reach_the_script_as_they_were(finished: Made) -> None:
    _, page, _ = finished
    blocks = Page(page).blocks
    stages = blocks["stages"]
    assert [stage["label"] for stage in stages] == [
        "Held-out questions, untrained agents",
        "Training questions of iteration 1, untrained agents",
        "Held-out questions, agents after iteration 1",
        "Training questions of iteration 2, agents after iteration 1",
        "Held-out questions, agents after iteration 2",
    ]
    assert [stage["chosen"] for stage in stages] == [False, False, False, False, True]
    assert stages[1]["counts"] == {"corrected": 1, "talkedOut": 1, "noConsensus": 1}
    card = blocks["cards-1"][0]
    assert card["question"] == f"2+2? {HOSTILE}"
    assert card["vote"] == {"answer": "4", "votes": 2, "runnerUp": 0, "tied": False, "right": True}
    first, second = card["agents"][0]
    assert (first["parsed"], first["right"], first["agrees"], first["summary"]) == ("3", False, False, None)
    assert (second["parsed"], second["right"], second["agrees"]) == ("4", True, True)
    assert second["summary"] == f"summary for 0 {HOSTILE}"


def test_examples_adapters_and_costs_are_listed(finished: Made) -> None:
    _, page, data = finished
    rows = Page(page).rows
    assert ["2", "critic", "1", "23", "2", "1"] in rows
    assert ["1", "generator", "0", "generator-0-1-0123456789ab", "trained", "11", "3", "1.250 → 0.500"] in rows
    assert ["1", "critic", "1", "base model", "kept what it had", "11", "0", "–"] in rows
    assert ["training 1", "–", "–", "–", "–", "10.0 s", "–"] in rows
    assert ["debate 1", "3", "18", "540", "180", "–", "–"] in rows  # no timing
    assert ["evaluation 1", "3", "18", "540", "180", "1 min 15 s", "2"] in rows
    assert data["trainingSeconds"] == {"1": 10.0, "2": 10.0}


def test_charts_have_titles_and_the_colours_of_the_page(finished: Made) -> None:
    _, page, _ = finished
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    titles = [re.search(r'aria-label="([^"]*)"', chart) for chart in charts]
    assert [title and title[1] for title in titles] == [
        "Accuracy on held-out questions",
        "Agreement with the majority",
        "Examples kept for the generators",
        "Examples kept for the critics",
        "Tokens written (solid) and read (pale)",
        "Time of the stages",
    ]
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for chart in charts:
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart)) == set()
        assert "var(--series-" in chart
        assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', chart)) <= {(i, "") for i in ids} | {("", i) for i in ids}


@pytest.mark.parametrize(
    ("debate", "expected"),
    [
        (transcript(0, ["4", "4"], ["4", "4"]), ()),
        (transcript(0, ["3", "4"], ["4", "4"]), ("corrected",)),
        (transcript(0, [None, "4"], ["4", "4"]), ("corrected",)),
        (transcript(0, ["4", "5"], ["5", "5"]), ("talkedOut",)),
        (transcript(0, ["4", "5"], [None, "5"]), ("talkedOut",)),
        (transcript(0, ["4", "3"], ["3", "4"], tied=True), ("corrected", "talkedOut", "noConsensus")),
        (transcript(0, ["3", "5"], ["3", "5"], tied=True), ("noConsensus",)),
        (transcript(0, [None, None], [None, None]), ("noConsensus",)),
    ],
)
def test_categories(debate: Transcript, expected: tuple[str, ...]) -> None:
    assert cards.categories(debate) == expected


def test_a_debate_of_one_round_has_no_flips() -> None:
    whole = transcript(0, ["3", "4"], ["4", "4"])
    short = replace(whole, turns=tuple(turns[:1] for turns in whole.turns), votes=whole.votes[:1], summaries=())
    assert cards.categories(short) == ()


def test_a_full_page_keeps_rare_debates_and_something_of_every_stage() -> None:
    def card(name: str, *tags: str) -> cards.Card:
        return cards.Card(tags, name.encode().ljust(9))

    first = [card("dull"), card("a", "corrected"), card("b", "corrected"), card("c", "corrected", "noConsensus")]
    second = [card("d", "corrected"), card("dull")]
    assert cards.fit([first, second], 60) == [first, second]
    assert cards.fit([first, second], 30) == [[first[1], first[3]], [second[0]]]
    assert cards.fit([first, second], 9) == [[], []]


def test_what_is_left_out_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(store)
    monkeypatch.setattr(report, "EMBEDDED", 3000)
    summary, page, data = make(store)
    blocks = Page(page).blocks
    shown = [len(blocks[f"cards-{i}"]) for i in range(5)]
    assert shown == [stage["inPage"] for stage in data["stages"]]
    assert sum(shown) == summary.in_page < summary.debates == 15
    assert [stage["total"] for stage in blocks["stages"]] == [3] * 5


def test_unfinished_run(store: Store) -> None:
    put_run(store, iterations=1)
    put_debate(store, 2)
    put_adapters(store, 2, agents=[0])
    _, page, data = make(store)
    assert data["unfinished"] == "This run is unfinished: 1 of 2 iterations have all their adapters."
    assert data["unfinished"] in Page(page).text
    assert "after 1 iteration of finetuning" in data["headline"]


def test_iteration_without_evaluation(store: Store) -> None:
    put_problems(store)
    for iteration in (1, 2):
        put_debate(store, iteration)
        put_adapters(store, iteration)
    _, page, data = make(store)
    assert data["headline"] == "No held-out evaluation is finished yet, so there is no accuracy to tell."
    assert data["unfinished"] == "The held-out evaluation of iteration 2 is not finished."
    assert "Accuracy on held-out questions" not in page
    put_evaluation(store, 2)
    assert report_json(store)["headline"] == (
        "After 2 iterations of finetuning, the debate is right on 95.0 ± 4.0 % of the held-out questions; "
        "it was not evaluated untrained."
    )


def test_only_the_questions_are_there(store: Store) -> None:
    put_problems(store)
    summary, page, _ = make(store)
    assert summary.results == ()
    assert "<svg" not in page
    assert not Page(page).blocks


def test_untrained_only(store: Store) -> None:
    put_problems(store)
    put_evaluation(store, 0)
    assert report_json(store)["headline"].startswith("Untrained, the debate is right on 25.0 ± 4.0 %")


def test_only_the_reference_rows_that_the_spec_names() -> None:
    spec = replace(SPEC, evaluation=replace(SPEC.evaluation, baselines=("debate",)))
    nothing = report_read.TrainedIteration()
    run = report_read.ReportedRun(RUN, {}, spec, {}, (report_read.Iteration(0, None, nothing, None, numbers(0)),))
    assert [row.name for row in sentences.rows(run)] == ["debate (untrained)"]


# --- other methods ---

NOTHING = report_read.TrainedIteration()


def of(method: str, agents: int, rounds: int, *, iterations: int = 0, baselines: tuple[str, ...] = ()) -> report_read.ReportedRun:
    """A run of that method whose evaluations had so many agents and rounds, the last two of them if it trains."""

    def shaped(n: int) -> Evaluation:
        e = numbers(n)
        return replace(e, agents=e.agents[:1] * agents, answers=e.answers[:rounds], votes=e.votes[:rounds])

    evaluation = replace(SPEC.evaluation, baselines=baselines)
    spec = replace(SPEC, method=method, iterations=iterations, evaluation=evaluation)
    return report_read.ReportedRun(
        RUN, {}, spec, {}, tuple(report_read.Iteration(n, None, NOTHING, None, shaped(n)) for n in range(iterations + 1))
    )


ALL = ("base", "majority", "debate")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (of("base", 1, 1), ["base (one answer)"]),
        (of("base", 1, 1, baselines=ALL), ["base (one answer)"]),
        (of("majority", 2, 1), ["majority of 2"]),
        (of("majority", 2, 1, baselines=ALL), ["base (one answer)", "majority of 2"]),
        (of("debate", 2, 2), ["debate (untrained)"]),
        (of("equal-sample-majority", 9, 1), ["equal-sample-majority"]),
        (of("equal-sample-majority", 9, 1, baselines=ALL), ["base (one answer)", "majority of 9", "equal-sample-majority"]),
        (of("star", 1, 1, iterations=1), ["star, iteration 1"]),
        (of("union", 2, 2, iterations=2, baselines=("base",)), ["base (one answer)", "union, iteration 1", "union, iteration 2"]),
        (of("multiagent", 2, 2, iterations=1), ["multiagent finetuning, iteration 1"]),
        (of("", 2, 2, iterations=1, baselines=("debate",)), ["debate (untrained)", "finetuned, iteration 1"]),
    ],
    ids=lambda value: value.method if isinstance(value, report_read.ReportedRun) else "",
)
def test_every_method_has_rows_of_its_own_name(run: report_read.ReportedRun, expected: list[str]) -> None:
    assert [row.name for row in sentences.rows(run)] == expected
    assert sentences.facts(run).get("Method", "") == run.method


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (of("base", 1, 1), "Untrained, one answer is right on 20.0 ± 3.0 % of the held-out questions; this method trains nothing."),
        (
            of("majority", 2, 1),
            "Untrained, the majority is right on 20.0 ± 3.0 % of the held-out questions; this method trains nothing.",
        ),
        (
            of("star", 1, 1, iterations=1),
            "Held-out accuracy of one answer went from 20.0 ± 3.0 % (untrained) to 55.7 ± 3.0 % after 1 iteration of finetuning.",
        ),
        (
            of("majority-finetuning", 2, 1, iterations=1),
            "Held-out accuracy of the majority went from 20.0 ± 3.0 % (untrained) to 55.7 ± 3.0 % after 1 iteration of finetuning.",
        ),
    ],
    ids=lambda value: value.method if isinstance(value, report_read.ReportedRun) else "",
)
def test_the_headline_says_whose_accuracy_it_is(run: report_read.ReportedRun, expected: str) -> None:
    assert sentences.headline(run) == expected
    assert "the debate turned" not in sentences.details(run)


def test_the_chart_has_no_line_for_a_debate_that_was_not_held() -> None:
    shown = {name: "debate" in charted(name) for name in ("star", "majority-finetuning", "union")}
    assert shown == {"star": False, "majority-finetuning": False, "union": True}
    assert "majority of first answers" not in charted("star")


def charted(method: str) -> str:
    agents, rounds = {"star": (1, 1), "majority-finetuning": (2, 1), "union": (2, 2)}[method]
    return charts.accuracy(of(method, agents, rounds, iterations=1).evaluations)


def test_a_card_about_programs_says_what_they_were_run_on() -> None:
    plain = transcript(0, ["3"], ["4"])
    cases = records.Cases("f", '[[0, "pear"], [[1, 2]], []]')
    shown = json.loads(cards.card(replace(plain, problem=replace(plain.problem, cases=cases))).data)
    assert shown["compared"] == 'f(0, "pear"), f([1, 2]), f()'
    assert "compared" not in json.loads(cards.card(plain).data)


def test_a_model_that_answers_alone_is_not_called_a_debate() -> None:
    before, after = of("distill", 2, 2), of("distill", 1, 1, iterations=1)
    run = dataclasses.replace(after, iterations=(before.iterations[0], after.iterations[1]))
    assert sentences.headline(run) == (
        "Held-out accuracy went from 25.0 ± 4.0 % (the debate, untrained) to 55.7 ± 3.0 % (one answer) after 1 iteration "
        "of finetuning."
    )


def test_an_answer_after_a_hint_is_no_flip_and_is_shown_as_what_it_is(store: Store) -> None:
    hinted = transcript(0, ["3"], ["4"])
    hinted = replace(hinted, votes=hinted.votes[:1], summaries=())
    assert cards.categories(hinted) == ()
    shown = json.loads(cards.card(hinted).data)
    assert [turn["hinted"] for turn in shown["agents"][0]] == [False, True]
    spec = json.loads(immutable_spec_json(replace(SPEC, method="star")))
    publish(store, f"{RUN}/{layout.PROBLEMS}", {}, meta={"spec": spec})
    publish(store, layout.debate(RUN, 1), {layout.TRANSCRIPTS: records.encode_lines([hinted])}, meta={"seed": 7})
    _, page, _ = make(store)
    text = " ".join(Page(page).text.split())
    assert "training has used those of the training questions" in text and "training has not used them" not in text
    assert "This run is star" in text


def test_diversity_is_drawn_and_kept(store: Store) -> None:
    put_run(store)
    one = Score(1.0, 0.0)
    for iteration, cross in ((0, 0.14), (1, 0.0725)):
        measured = Diversity(iteration, 4, ((0.0, cross), (cross, 0.0)), cross, cross / 4, None, one, one, one)
        publish(store, layout.diversity(RUN, iteration), {layout.DIVERSITY: records.encode(measured)})
    _, page, data = make(store)
    assert [(d["iteration"], d["cross"]) for d in data["diversity"]] == [(0, 0.14), (1, 0.0725)]
    assert 'aria-label="Diversity of first answers"' in page


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Score(0.2, 0.02), ("rose", "")),
        (Score(-0.2, 0.02), ("fell", "")),
        (Score(0.03, 0.02), ("went", ", which is no more than chance explains")),
        (Score(0.0, 0.0), ("went", ", which is no more than chance explains")),
        (None, ("went", "")),
    ],
)
def test_chance_is_no_rise(change: Score | None, expected: tuple[str, str]) -> None:
    assert sentences._change(change) == expected


def test_nothing_committed_is_bad_input(store: Store) -> None:
    store.write(f"{RUN}/run.json", b"{}")
    with pytest.raises(BadInput, match="nothing committed there; check store, namespace and name") as error:
        make(store)
    assert "\n" not in str(error.value)


def test_made_again_it_is_the_same(finished_store: Store, finished: Made) -> None:
    assert make(finished_store) == finished


def test_the_live_page_may_show_all_that_it_writes(finished_store: Store, finished: Made) -> None:
    prefix = f"{RUN}/report/"
    assert {key.removeprefix(prefix) for key in finished_store.list(prefix)} == set(FILES[OF_A_RUN])


def test_summary_of_a_long_run_fits(store: Store, tmp_path: Path) -> None:
    nothing = report_read.TrainedIteration()
    iterations = tuple(report_read.Iteration(i, None, nothing, None, replace(numbers(0), iteration=i)) for i in range(101))
    rows = report.summary_rows(report_read.ReportedRun(RUN, {}, SPEC, {}, iterations))
    assert rows[0].name == "base (one answer)"
    assert rows[-1].name == "multiagent finetuning, iteration 100"
    summary = ReportSummary(report="x" * 1024, results=rows, debates=10**6, in_page=10**6)
    program.write_summary(str(tmp_path / "summary.json"), summary)


def test_command_line() -> None:
    assignment = program.decode(report.PARSER.parse_args(["--store", "/s", "--run", RUN]))
    assert (assignment.store.url, assignment.run) == ("file:///s", RUN)


# --- the probe ---


@pytest.mark.parametrize(
    ("probe", "share", "harmful"), [(WRONG, "0.0 ± 0.0 %", True), (MIXED, "33.3 ± 33.3 %", True), (RIGHT, "100.0 ± 0.0 %", False)]
)
def test_what_the_probe_says_of_the_labels(tmp_path: Path, probe: list[Transcript], share: str, harmful: bool) -> None:
    store = open_store(str(tmp_path))
    put_problems(store)
    files = {layout.TRANSCRIPTS: records.encode_lines(RIGHT), layout.PROBE: records.encode_lines(probe)}
    publish(store, layout.debate(RUN, 1), files, meta={"seed": 7})
    run = report_read.read(store, RUN)
    expected = f"Training reinforces wrong answers: the majority was right on {share} (iteration 1) of the probe questions."
    assert sentences.warning(run) == (expected if harmful else "")
    assert f"Of the probe questions {share} had a right majority when iteration 1 was trained." in sentences.details(run)
    assert [stage.questions for stage in run.stages] == [3]  # the probe is no training question
    page = report_page.page(run, [[]])
    assert ("Training reinforces wrong answers" in page) == harmful


def test_without_a_probe_there_is_no_warning(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    put_run(store)
    run = report_read.read(store, RUN)
    assert (sentences.warning(run), sentences.probed(run)) == ("", [])
    assert "probe" not in sentences.details(run)


# --- the best iteration ---


def put_choice(store: Store, *gains: tuple[float, float, int] | None, patience: int = 1, evaluated: Sequence[int] = (0,)) -> None:
    """A run of two agents whose iterations gained so much on validation questions. evaluated: which debated held-out questions."""
    spec = replace(SPEC, iterations=4, stop_when=StopSpec(patience=patience))
    spec = replace(spec, evaluation=replace(spec.evaluation, validation=3))
    part = records.encode_lines([Problem("a", "?", "4")] * 3)
    meta = {"spec": json.loads(immutable_spec_json(spec)), "version": "0.1.0", "model": "tiny", "taskSeed": 1}
    files = dict.fromkeys(("train.jsonl", "held-out.jsonl", "validation.jsonl"), part)
    publish(store, f"{RUN}/{layout.PROBLEMS}", files, meta=meta)
    for iteration, gain in enumerate(gains, 1):
        put_debate(store, iteration)
        put_adapters(store, iteration)
        one = Validation(accuracy=Score(0.5 + iteration / 100, 0.1), gain=Gain(*gain) if gain else None)
        debated = {layout.TRANSCRIPTS: records.encode_lines(MIXED), layout.EVALUATION: records.encode(numbers(0))}
        publish(store, layout.validation(RUN, iteration), debated, meta={"seed": 7, "validation": records.plain(one)})
    for iteration in evaluated:
        put_evaluation(store, iteration)


def test_the_page_says_from_when_on_answers_count_as_the_same(store: Store) -> None:
    chosen = Threshold(cosine=0.84, source="fitted", pairs=90, error=Score(0.15, 0.022))
    publish(store, f"{RUN}/{layout.PROBLEMS}", {}, meta={"semantic": records.plain(chosen)})
    put_debate(store, 1)
    summary, page, _ = make(store)
    [remark] = [remark for remark in summary.remarks if "cosine" in remark]
    assert remark == f"Votes and accuracies are the encoder's opinion: {chosen.text}."
    assert chosen.text in page.replace("\xa0", " ")


def test_the_page_says_which_iteration_is_the_best_and_how_it_was_chosen(store: Store) -> None:
    put_choice(store, None, (0.25, 0.125, 1), (-0.125, 0.0625, 2), evaluated=(0, 2))
    summary, page, data = make(store)
    says = (
        "Iteration 2 is the best on the validation questions; stopped after iteration 3 of 4: 1 iteration without gain (stopWhen)"
    )
    assert [row.name for row in summary.results][-1] == "multiagent finetuning, iteration 2, chosen by validation"
    assert f"{says}." in summary.remarks
    assert (
        f"{says}. Of these 3 questions it answers 52.0 ± 10.0 % right. The held-out questions had no part in that choice."
        in data["details"]
    )
    assert (data["validation"]["best"], data["unfinished"]) == (2, "")
    assert [one["gain"] for one in data["validation"]["curve"]][1:] == [
        {"mean": 0.25, "stderr": 0.125, "over": 1},
        {"mean": -0.125, "stderr": 0.0625, "over": 2},
    ]
    rows = Page(page).rows
    assert ["2 (best)", "52.0 ± 10.0", "25.0 ± 12.5", "1"] in rows
    assert ["1", "51.0 ± 10.0", "–", "–"] in rows
    assert ["validation 2", "3", *rows_of_cost(rows, "validation 2")] in rows
    assert data["facts"]["Iterations"] == "3 of 4, stopped"
    assert data["facts"]["Questions"] == "3 for training, 3 held out, 3 for validation"
    assert [stage["part"] for stage in data["stages"] if stage["iteration"] == 2] == ["training", "validation", "held-out"]


def rows_of_cost(rows: list[list[str]], name: str) -> list[str]:
    return next(row for row in rows if row[0] == name)[2:]


@pytest.mark.parametrize(
    ("gains", "evaluated", "says"),
    [
        ((None,), (0,), "This run is unfinished: 1 of 4 iterations have all their adapters."),
        ((None, (-0.1, 0.1, 1)), (0,), "The held-out evaluation of iteration 1 is not finished."),
        ((None, (-0.1, 0.1, 1)), (0, 1), ""),
        ((None, (0.1, 0.1, 1), (0.1, 0.1, 2), (0.1, 0.1, 3)), (0, 1), "The held-out evaluation of iteration 4 is not finished."),
    ],
)
def test_a_run_that_chooses_is_finished_with_its_best(
    store: Store, gains: tuple[Any, ...], evaluated: tuple[int, ...], says: str
) -> None:
    put_choice(store, *gains, evaluated=evaluated)
    assert report_json(store)["unfinished"] == says


def test_without_validation_the_report_says_nothing_of_it(finished: Made) -> None:
    summary, page, data = finished
    assert "validation" not in data and "alidation" not in page
    assert not any("validation" in remark for remark in summary.remarks)
