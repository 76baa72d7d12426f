"""Prepare, debate and evaluate as programs, with a probe and with another task's held-out questions: what they publish and say."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import TINY, resource, write
from msgspec.structs import replace

from maft import evaluate, program, records
from maft.debate import __main__ as debate
from maft.debate import society
from maft.errors import BadInput
from maft.prepare import __main__ as prepare
from maft.prepare import formats
from maft.program import Assignment
from maft.records import Example, Problem, Transcript, Vote
from maft.report import __main__ as report
from maft.report import read as report_read
from maft.scores import Tally
from maft.shortage import NO_CONSENSUS
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import fetch, publish, required
from maft.store.urls import open_store
from maft.summaries import DebateSummary, PrepareSummary, ProgramSummary, encode_summary
from maft.train import __main__ as train
from maft_operator.plan import graph as plan
from maft_operator.spec import files
from maft_operator.spec.parse import parse

PROGRAMS: dict[str, ModuleType] = {
    "prepare": prepare,
    "debate": debate,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}
RUN = "default/test"


class World:
    """A store, and programs that run as the plan of a resource says."""

    def __init__(self, folder: Path, url: str, **spec: Any) -> None:
        self.store = open_store(str(folder))
        self._graph = plan.graph(parse(resource(**spec)), str(folder))
        self._url = url

    def assignment(self, kind: str, iteration: int) -> Assignment:
        task = next(t for t in self._graph.tasks if (t.kind, t.iteration) == (kind, iteration))
        line = plan.command(task, {server.name: [self._url] for server in self._graph.servers})
        return program.decode(PROGRAMS[kind].PARSER.parse_args(line[2:]))

    def run(self, kind: str, iteration: int = 0) -> Any:
        said: ProgramSummary = PROGRAMS[kind].main(self.assignment(kind, iteration))
        return said

    def lines(self, prefix: str, name: str, kind: type) -> list[Any]:
        commit = required(self.store, prefix, "the test")
        return records.decode_lines(fetch(self.store, commit, name), kind, name)

    def problems(self, part: str) -> list[Problem]:
        return self.lines(f"{RUN}/{layout.PROBLEMS}", f"{part}.jsonl", Problem)


WEIGHTS = (TINY / "model.safetensors").stat().st_size
PROBED = {"task": {"probe": 10}, "debate": {"minAgreement": 2}}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, mock_url: str) -> tuple[World, PrepareSummary, DebateSummary]:
    """The world after its first debate, and what prepare and debate said."""
    world = World(tmp_path_factory.mktemp("store"), mock_url, **PROBED)
    prepared = world.run("prepare")
    return world, prepared, world.run("debate", 1)


Probed = tuple[World, PrepareSummary, DebateSummary]


def test_three_parts_that_share_no_question(probed: Probed) -> None:
    world, prepared, _ = probed
    parts = [world.problems(part) for part in ("train", "held-out", "probe")]
    assert [len(part) for part in parts] == [24, 16, 10]
    assert len({p.id for part in parts for p in part}) == 50
    assert prepared == PrepareSummary(train=24, held_out=16, probe=10, model_bytes=WEIGHTS)


def test_the_probe_is_debated_beside_the_training_questions_and_trains_nothing(probed: Probed) -> None:
    world, _, said = probed
    prefix = layout.debate(RUN, 1)
    asked = [t.problem for t in world.lines(prefix, layout.PROBE, Transcript)]
    assert asked == world.problems("probe")
    assert [t.problem for t in world.lines(prefix, layout.TRANSCRIPTS, Transcript)] == world.problems("train")
    assert said.questions == 24
    trained = {
        e.problem
        for role in records.ROLES
        for agent in range(3)
        for e in world.lines(layout.datasets(RUN, 1), layout.dataset_file(role, agent), Example)
    }
    assert trained
    assert trained <= {p.id for p in world.problems("train")}


def test_what_the_debate_says_of_its_majority(probed: Probed) -> None:
    world, _, said = probed
    transcripts = world.lines(layout.debate(RUN, 1), layout.TRANSCRIPTS, Transcript)
    right = [t.vote.right for t in world.lines(layout.debate(RUN, 1), layout.PROBE, Transcript)]
    share = sum(right) / 10
    assert said.probe
    assert (said.probe.mean, said.probe.questions) == (share, 10)
    assert said.probe.stderr == pytest.approx((share * (1 - share) / 9) ** 0.5, abs=1e-4)
    assert said.margins == tuple(Tally.of(transcripts).margins)
    assert sum(said.margins) == 24
    counts = required(world.store, layout.datasets(RUN, 1), "the test").meta["counts"]
    generators = [c for c in counts if c["role"] == "generator"]
    assert {c["leftOut"].get(NO_CONSENSUS, 0) for c in generators} == {said.abstained}
    assert said.abstained == sum(t.vote.votes < 2 for t in transcripts) > 0
    calls = sum(
        len(list(t.calls()))
        for name in (layout.TRANSCRIPTS, layout.PROBE)
        for t in world.lines(layout.debate(RUN, 1), name, Transcript)
    )
    assert said.usage.calls == calls


def test_a_second_look_says_the_same(probed: Probed) -> None:
    world, prepared, said = probed
    again = world.run("prepare")
    assert (replace(again, earlier=prepared.earlier), world.run("debate", 1)) == (prepared, said)
    assert again.earlier.debates == "1"  # which it reports


def test_held_out_questions_have_no_probe_beside_them(probed: Probed) -> None:
    world, _, _ = probed
    assert world.run("evaluate", 0).questions == 16
    commit = required(world.store, layout.evaluation(RUN, 0), "the test")
    assert {entry.name for entry in commit.files} == {layout.TRANSCRIPTS, layout.EVALUATION}


def test_without_a_probe_nothing_is_said_of_it(tmp_path: Path, mock_url: str) -> None:
    """And the training questions' debates are the same with one."""
    probed_, bare = World(tmp_path / "a", mock_url, **PROBED), World(tmp_path / "b", mock_url, debate={"minAgreement": 2})
    for world in (probed_, bare):
        world.run("prepare")
    assert "probe" not in json.loads(encode_summary(bare.run("prepare")))
    one, other = probed_.run("debate", 1), bare.run("debate", 1)
    assert other.probe is None
    assert "probe" not in json.loads(encode_summary(other))
    prefix = layout.debate(RUN, 1)
    assert {entry.name for entry in required(bare.store, prefix, "").files} == {layout.TRANSCRIPTS}
    files = [fetch(w.store, required(w.store, prefix, ""), layout.TRANSCRIPTS) for w in (probed_, bare)]
    assert files[0] == files[1]
    assert (one.margins, one.abstained, one.kept) == (other.margins, other.abstained, other.kept)


def test_margins() -> None:
    margins = [Vote("1", votes, next_, tied=False, right=True).margin for votes, next_ in ((3, 0), (2, 1), (1, 1), (0, 0))]
    assert margins == [3, 1, 0, 0]
    assert Tally.of([]).margins == [0]


# --- another task's held-out questions ---


def choices(folder: Path, count: int) -> str:
    rows = [
        {"question": f"Which colour has box {i}?", "choices": ["red", "blue", "green"], "answer": i % 3, "subject": "boxes"}
        for i in range(count)
    ]
    (folder / "choices.jsonl").write_bytes(records.encode_lines(rows))
    return str(folder / "choices.jsonl")


def elsewhere(folder: Path, **more: Any) -> dict[str, Any]:
    section = {"kind": "mmlu", "source": choices(folder, 9), "heldOut": 5, "prompt": "Choose: {question}", **more}
    return {"evaluation": {"task": section}}


def test_training_questions_stay_and_held_out_questions_come_from_elsewhere(tmp_path: Path, mock_url: str) -> None:
    one, other = World(tmp_path / "a", mock_url, task={"heldOut": 1}), World(tmp_path / "b", mock_url, **elsewhere(tmp_path))
    one.run("prepare")
    assert other.run("prepare") == PrepareSummary(train=24, held_out=5, model_bytes=WEIGHTS)
    assert other.problems("train") == one.problems("train")
    held_out = other.problems("held-out")
    assert len(held_out) == 5
    assert all(p.question.startswith("Which colour has box ") and p.answer in "ABC" for p in held_out)
    asking = society.held_out_rules(other.assignment("evaluate", 1).spec, 1)
    training = society.training_rules(other.assignment("debate", 1).spec, 1)
    assert (asking.answer, asking.prompts.first) == ("choice", "Choose: {question}")
    assert (training.answer, training.prompts.first) == ("number", "{question}")


def test_examples_are_put_before_each_question(tmp_path: Path, mock_url: str) -> None:
    world = World(tmp_path / "store", mock_url, **elsewhere(tmp_path, shots=2))
    world.run("prepare")
    found = world.problems("held-out")
    assert {p.question.count("Question: Which colour") for p in found} == {3}
    assert {p.question.count("\nAnswer: ") for p in found} == {2}
    assert len({p.id for p in found}) == 5


def test_another_answers_kind_is_evaluated(tmp_path: Path, mock_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock says numbers: as choices none of them parses, and that is said, for the evaluation alone."""
    world = World(tmp_path / "store", mock_url, **elsewhere(tmp_path))
    world.run("prepare")
    with pytest.raises(BadInput, match="none of the answers to the first 5 questions holds a choice"):
        world.run("evaluate", 0)
    assert world.run("debate", 1).questions == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {"task": {"kind": "arithmetic", "heldOut": 4}}}, "made with spec.evaluation.task "),
        ({"method": "union"}, "made with spec.method 'multiagent', this is 'union'"),
        ({"task": {"probe": 3}}, "made with spec.task.probe 0, this is 3"),
    ],
)
def test_a_run_that_would_compute_something_else_is_refused(
    tmp_path: Path, mock_url: str, change: dict[str, Any], message: str
) -> None:
    World(tmp_path, mock_url).run("prepare")
    World(tmp_path, mock_url, evaluation={"every": 3, "baselines": ["base"]}).run("prepare")
    with pytest.raises(BadInput) as caught:
        World(tmp_path, mock_url, **change).run("prepare")
    assert message in str(caught.value)


def test_what_nobody_says_of_an_agent_is_no_difference(tmp_path: Path, mock_url: str) -> None:
    """Releases before wrote `null` for it."""
    warm = {"agentOverrides": [{"agent": 1, "temperature": 0.5}]}
    World(tmp_path, mock_url, **warm).run("prepare")
    [commit] = tmp_path.rglob("problems/_COMMIT.json")
    whole = json.loads(commit.read_text())
    whole["meta"]["spec"]["agentOverrides"] = [{"agent": 1, "temperature": 0.5, "system": None, "topP": None, "learningRate": None}]
    commit.write_text(json.dumps(whole))
    World(tmp_path, mock_url, **warm).run("prepare")
    for other in ([], [{"agent": 1, "temperature": 0.6}], [{"agent": 1, "temperature": 0.5, "topP": 0.1}]):
        with pytest.raises(BadInput, match=r"made with spec\.agentOverrides "):
            World(tmp_path, mock_url, agentOverrides=other).run("prepare")


@pytest.mark.parametrize("spec", ['"model task method"', "[]", "null", "1"])
def test_a_commit_that_describes_no_spec_is_refused_in_one_line(tmp_path: Path, mock_url: str, spec: str) -> None:
    World(tmp_path, mock_url).run("prepare")
    [commit] = tmp_path.rglob("problems/_COMMIT.json")
    whole = json.loads(commit.read_text())
    whole["meta"]["spec"] = json.loads(spec)
    commit.write_text(json.dumps(whole))
    with pytest.raises(BadInput, match=r"^store \S+: its commit does not describe its spec; use another name or prefix$"):
        World(tmp_path, mock_url).run("prepare")


def test_parts_that_share_a_question_are_never_published() -> None:
    problem = formats.problem("q", "1", "number", "here")
    with pytest.raises(AssertionError):
        prepare._disjoint((problem,), (), (problem,))


def test_sources_beside_the_resource_file_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    found = resource(evaluation={"task": {"kind": "mmlu", "source": "choices.jsonl"}}, task={"source": "./questions.jsonl"})
    path = write(tmp_path / "run.yaml", found)
    monkeypatch.chdir(tmp_path / "runs")
    spec = files.load(path)["spec"]
    assert (spec["task"]["source"], spec["evaluation"]["task"]["source"]) == ("../questions.jsonl", "../choices.jsonl")
    assert files.load(write(path, resource(evaluation={"task": None})))["spec"]["evaluation"] == {"task": None}


@pytest.mark.parametrize("section", [{}, {"evaluation": {"task": {"kind": "math", "levels": [5]}}}, {"task": {"answer": "number"}}])
def test_the_report_reads_the_spec_as_the_operator_writes_it(tmp_path: Path, section: dict[str, Any]) -> None:
    store = open_store(str(tmp_path))
    spec = parse(resource(**section)).spec
    publish(store, f"{RUN}/{layout.PROBLEMS}", {}, meta={"spec": json.loads(immutable_spec_json(spec))})
    read = report_read.read(store, RUN).spec
    assert read
    assert read.agents == spec.agents
