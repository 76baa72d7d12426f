"""`maft compare`: one graph of many runs, the table by hand, and whole comparisons as processes with a counting engine."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import MOCK, resource, wait_until, write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import BASE as RESOURCE
from test_plan import World, assignment, merged, run, vllm_flags

from maft import adapters, committed_run, evaluate, program, records
from maft.compare import __main__ as compare
from maft.debate import __main__ as debate
from maft.endpoint import served
from maft.errors import BadInput
from maft.records import Transcript
from maft.spec import Compared
from maft.store.files import FileStore
from maft_operator.__main__ import main
from maft_operator.local import gpus
from maft_operator.plan import compare as planned
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import Observed, ServerState, TaskState, step
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import BadSpec

# --- the graph ---


def compared(methods: str = "all", seeds: int = 2, **spec: Any) -> tuple[Graph, dict[tuple[str, int], Any]]:
    whole = merged(json.loads(json.dumps(RESOURCE)), {"spec": spec})
    runs = planned.runs(whole, planned.chosen(methods), seeds)
    return planned.graph(parse(whole), runs, "file:///store"), runs


def test_a_run_per_method_and_seed_with_the_same_questions() -> None:
    made, runs = compared("debate,base", seeds=3, seed=5)
    assert list(runs) == [(m, s) for m in ("base", "debate") for s in (5, 6, 7)]
    assert [r.name for r in runs.values()][:2] == ["r-base-5", "r-base-6"]
    assert {r.spec.seed for r in runs.values()} == {5, 6, 7}
    assert len({r.spec.task for r in runs.values()}) == 1
    assert [t.name for t in made.tasks if t.kind in ("prepare", "preflight")] == ["r-0-prepare", "r-0-preflight"]
    assert not [t for t in made.tasks if t.kind == "report"]


def test_on_one_machine_it_does_not_matter_what_a_cluster_calls_gpus() -> None:
    _, runs = compared("base,multiagent", 1, gpuResource="gpu.intel.com/xe")
    assert {*runs} == {("base", 0), ("multiagent", 0)}


def test_the_table_names_every_run_and_waits_for_its_numbers() -> None:
    made, runs = compared(iterations=2)
    last = made.tasks[-1]
    assert (last.name, last.kind, made.tasks.index(last)) == ("r-compare", "compare", len(made.tasks) - 1)
    rows = program.decode(compare.PARSER.parse_args(plan.command(last, {})[2:])).compared
    assert [(r.method, r.seed) for r in rows] == list(runs) == [(m, s) for m in METHODS for s in (0, 1)]
    assert {f"{r.run}-{r.iteration}-evaluate" for r in rows} <= set(last.needs)
    assert {r.iteration for r in rows if r.method in ("base", "majority", "equal-sample-majority", "debate")} == {0}
    assert {r.iteration for r in rows if r.method in ("star", "multiagent", "distill")} == {2}


def test_no_table_names_more_runs_than_its_programs_argument_holds() -> None:
    """As many runs as there may be, with the longest names; one seed more is refused before anything is made of it."""
    name, seed = "r" * 40, 2**31 - 1 - planned.MOST_RUNS
    longest = max(METHODS, key=len)
    rows = tuple(
        Compared(method=longest, seed=seed + k, run=f"{name}-{longest}-{seed + k}", iteration=100) for k in range(planned.MOST_RUNS)
    )
    assert len(msgspec.json.encode(rows)) <= 128 * 1024 - 1 - len("--compared=")
    with pytest.raises(BadSpec, match=r"^--seeds 401: makes 802 runs of 2 methods; one table holds 800; ask for fewer$"):
        compared("base,debate", seeds=401)


def test_only_societies_are_measured_for_diversity_and_the_table_waits_for_it() -> None:
    made, runs = compared(iterations=1, evaluation={"diversity": 5})
    measured_ = {t.name.removesuffix("-diversity") for t in made.tasks if t.kind == "diversity"}
    alone = {"base", "reflection", "star", "single-agent-alone", "distill"}
    assert measured_ == {
        f"{one.name}-{i}" for (method, _), one in runs.items() for i in ({1} if one.spec.iterations else {0}) if method not in alone
    }
    assert {f"{name}-diversity" for name in measured_} <= set(made.tasks[-1].needs)


@pytest.mark.parametrize(
    ("methods", "spec", "widest"),
    [
        ("all", {}, "without-summary"),  # others' answers stand in the prompt whole
        ("base,majority,equal-sample-majority,debate", {}, "debate"),
        ("base,star", {}, "star"),  # it trains
        ("debate,union", {}, "union"),
        ("star,dpo,multiagent", {"method": "base"}, "multiagent"),
        ("multiagent,star", {"debate": {"rounds": 1, "critics": False}}, "multiagent"),
        ("base,majority", {}, "base"),
        ("multiagent,cooperative", {"method": "star", "agents": 5}, "multiagent"),
        ("union,multiagent", {"agentOverrides": [{"agent": 1, "lora": {"rank": 64}}]}, "multiagent"),  # union has agent 0's
    ],
)
def test_the_model_is_tried_once_with_the_widest_of_the_specs(methods: str, spec: dict[str, Any], widest: str) -> None:
    """On the group's questions: whatever fits there fits in all the others."""
    made, runs = compared(methods, seeds=2, **spec)
    [prepare, tried] = [t for t in made.tasks if t.kind in ("prepare", "preflight")]
    assert (tried.needs, tried.servers, tried.gpus, tried.run.key) == ((prepare.name,), (), 0, "ns/r")
    assert tried.run.spec == runs[widest, 0].spec
    assert made.servers[0].run == tried.run  # so that it finds what was tried
    firsts = [t for t in made.tasks if "r-0-preflight" in t.needs]
    assert {owner(t.name, runs) for t in firsts} == {one.name for one in runs.values()}


def test_tasks_that_ask_know_the_group_and_the_one_server() -> None:
    made, _ = compared()
    [server] = made.servers
    assert server.name == "r-server"
    for task in made.tasks:
        assert task.servers in ((), ("r-server",))
        if task.servers:
            given_ = assignment(task, {"debate": debate, "evaluate": evaluate})
            assert (given_.group, given_.questions, given_.run.startswith("ns/r-")) == ("ns/r", "ns/r", True)
        elif task.kind in ("train", "diversity"):  # by it they find the revision of the model
            assert "--group=ns/r" in plan.command(task, {})


@pytest.mark.parametrize("topology", ["Shared", "PerAgent"])
@pytest.mark.parametrize(
    ("methods", "agents", "loras", "kept"),
    [
        ("all", 3, 6, 12),
        ("base,majority,equal-sample-majority", 3, 1, 2),  # never asked for an adapter; vLLM wants room for one
        ("without-critics,base", 4, 4, 8),
        ("union,distill", 4, 2, 4),
        ("multiagent", 8, 16, 32),
    ],
)
def test_the_server_has_room_for_the_most_demanding_method(topology: str, methods: str, agents: int, loras: int, kept: int) -> None:
    """Whatever the resource says: here one server has the adapters of all agents."""
    made, _ = compared(methods, agents=agents, inference={"topology": topology})
    flags = vllm_flags(made.servers[0])
    assert (flags["--max-loras"], flags["--max-cpu-loras"]) == (str(loras), str(kept))
    assert "--run=ns/r" in plan.serve(made.servers[0])


def test_of_many_agents_the_most_demanding_method_counts_too() -> None:
    made, _ = compared("without-critics,cooperative", agents=20, inference={"topology": "Shared"})
    flags = vllm_flags(made.servers[0])
    assert (flags["--max-loras"], flags["--max-cpu-loras"]) == ("16", "80")


worlds = st.fixed_dictionaries(
    {
        "iterations": st.integers(1, 3),
        "training": st.fixed_dictionaries({"topology": st.sampled_from(["PerAgent", "Shared"])}),
        "inference": st.fixed_dictionaries({"lifetime": st.sampled_from(["Phase", "Run"])}),
        "evaluation": st.fixed_dictionaries({"every": st.integers(1, 2)}),
        "backoffLimit": st.integers(0, 2),
    }
)


def owner(task: str, runs: dict[tuple[str, int], Any]) -> str:
    """The run that a task belongs to; longest name first, since `r-single-agent-0` begins others."""
    return max((r.name for r in runs.values() if task.startswith(f"{r.name}-")), key=len, default="group")


@given(worlds, st.lists(st.sampled_from(list(METHODS)), min_size=1, max_size=4, unique=True), st.integers(1, 2), st.data())
@settings(max_examples=30)
def test_one_run_after_the_other(spec: dict[str, Any], methods: list[str], seeds: int, data: st.DataObject) -> None:
    """Whatever happens in whatever order, tasks of two runs are never under way together, and all is done in the end."""
    made, runs = compared(",".join(methods), seeds, agents=2, **spec)
    names = [t.name for t in made.tasks]
    assert len(set(names)) == len(names)
    for i, task in enumerate(made.tasks):
        assert set(task.needs) <= set(names[:i])
    world = World(made)
    while (decided := step(made, world.observed())).phase != "Complete":
        world.do(decided)
        under_way = {owner(t.name, runs) for t in made.tasks if world.running(t.name)}
        assert len(under_way) <= 1
        if possible := world.happenings():
            world.happen(*data.draw(st.sampled_from(possible)))
    assert world.servers == {} or decided.delete
    assert {n for n, s in world.tasks.items() if s.status == "succeeded"} == set(names)


def test_the_next_run_waits_for_all_that_nobody_else_waits_for() -> None:
    """Servers that stay do not make training wait for the held-out debate before it; the next run does."""
    made, _ = compared("multiagent,union", seeds=1, iterations=3, evaluation={"every": 2}, inference={"lifetime": "Run"})
    first = next(t for t in made.tasks if t.name.startswith("r-union-0-"))
    assert first.needs == ("r-0-preflight", "r-multiagent-0-2-evaluate", "r-multiagent-0-3-evaluate")


def test_what_is_done_is_not_done_again() -> None:
    made, _ = compared("base,debate", seeds=1, inference={"lifetime": "Run"})
    done = {name: TaskState("succeeded") for name in ("r-0-prepare", "r-0-preflight", "r-base-0-0-evaluate")}
    [server] = step(made, Observed(done, {})).create
    assert server.name == "r-server"
    [task] = step(made, Observed(done, {"r-server": ServerState(ready=True)})).create
    assert task.name == "r-debate-0-0-evaluate"


def test_servers_hand_over_their_gpus_where_the_resource_says_so() -> None:
    assert compared(inference={"lifetime": "Phase"})[0].servers_release_gpus
    assert not compared(inference={"lifetime": "Run"})[0].servers_release_gpus
    gpus.fits(compared(inference={"lifetime": "Phase"}, training={"topology": "Shared", "gpus": 1})[0], gpus.Found(("0",)))


def test_the_resources_own_method_and_baselines_do_not_matter() -> None:
    plain, _ = compared("debate,union")
    odd, _ = compared("debate,union", method="star", evaluation={"baselines": ["base"]})
    urls = {"r-server": ["http://h"]}
    commands = [{t.name: plan.command(t, urls) for t in made.tasks if t.kind != "prepare"} for made in (plain, odd)]
    assert commands[0] == commands[1]
    assert vllm_flags(plain.servers[0]) == vllm_flags(odd.servers[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", tuple(METHODS)),
        ("base", ("base",)),
        (" debate , base,debate ", ("base", "debate")),
        ("base,,", ("base",)),
    ],
)
def test_methods_are_chosen_in_the_order_of_the_table(text: str, expected: tuple[str, ...]) -> None:
    assert planned.chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("debates", "--methods debates: no such method; did you mean debate? Known are multiagent, base, "),
        ("x", "--methods x: no such method; known are multiagent, base, "),
        ("base,all", "--methods all: no such method"),
        ("", "--methods: names no method; all, or some of multiagent, base"),
        (" , ", "--methods: names no method"),
    ],
)
def test_other_methods_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadSpec) as caught:
        planned.chosen(text)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("held_out", "precision", "enough"), [(625, 2.0, True), (624, 2.0, False), (100, 5.0, True), (99, 5.0, False)]
)
def test_precision_asks_for_questions(held_out: int, precision: float, enough: bool) -> None:
    group = run(task={"heldOut": held_out})
    if enough:
        planned.enough(group, precision)
        return
    with pytest.raises(BadSpec, match=rf"^task\.heldOut: {held_out} questions give a standard error of up to \d+\.\d points; for"):
        planned.enough(group, precision)


def test_precision_says_how_many() -> None:
    with pytest.raises(BadSpec) as caught:
        planned.enough(run(task={"heldOut": 100}), 2)
    assert str(caught.value) == "task.heldOut: 100 questions give a standard error of up to 5.0 points; for 2 ask for 625"
    for precision in (0.0, -1.0):
        with pytest.raises(BadSpec, match="give a standard error in percentage points"):
            planned.enough(run(), precision)
    planned.enough(run(task={"heldOut": 2}), None)


# --- adapters of several runs on one server ---


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("generator-0-1-0123456789ab", ("ns/r/iterations/1/adapters/generator-0/", "0123456789ab")),
        ("r-union-7.critic-2-10-0123456789ab", ("ns/r-union-7/iterations/10/adapters/critic-2/", "0123456789ab")),
        ("other.generator-0-1-0123456789ab", ("ns/other/iterations/1/adapters/generator-0/", "0123456789ab")),
        ("critic-1.generator-0-1-0123456789ab", ("ns/critic-1/iterations/1/adapters/generator-0/", "0123456789ab")),
        (".generator-0-1-0123456789ab", None),
        ("../x.generator-0-1-0123456789ab", None),
        ("a/b.generator-0-1-0123456789ab", None),
        ("a.b.generator-0-1-0123456789ab", None),
        ("A.generator-0-1-0123456789ab", None),
        ("r.base", None),
        ("r.generator-0-1-0123456789AB", None),
    ],
)  # fmt: skip
def test_where_a_qualified_name_lies(name: str, where: tuple[str, str] | None) -> None:
    assert adapters.locate(name, "ns/r") == where


def test_every_run_of_a_comparison_has_a_name_that_servers_find() -> None:
    _, runs = compared(seeds=1, seed=2147483647)
    for one in runs.values():
        assert adapters.locate(f"{one.name}.generator-0-1-0123456789ab", "ns/r") == (
            f"{one.key}/iterations/1/adapters/generator-0/",
            "0123456789ab",
        )


# --- whole comparisons ---

MAFT = [sys.executable, "-m", "maft_operator", "compare"]
LIMIT = 500.0
SPEC = resource("cmp", task={"train": 24, "heldOut": 16})
CHOSEN = "base,multiagent,dpo,distill"
FEW = "base,multiagent"


def command(folder: Path, methods: str, *more: str) -> list[str]:
    file = write(folder / "run.yaml", SPEC)
    serving = ["--serve", f"{sys.executable} {MOCK}"]
    return [*MAFT, str(file), "--dir", str(folder / "runs"), "--methods", methods, "--seeds", "2", *serving, *more]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "MOCK_COUNT": str(folder / "requests"), **more}


def whole_compare(folder: Path, methods: str) -> str:
    done = subprocess.run(command(folder, methods), capture_output=True, text=True, timeout=LIMIT, env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(folder: Path) -> list[dict[str, Any]]:
    """The rows without what a clock says."""
    comparison = json.loads((folder / "runs/default/cmp/compare/compare.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in comparison["rows"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("whole")
    out = whole_compare(folder, CHOSEN)
    return folder, out, result(folder)


@pytest.mark.nightly  # test_comparison_on_cluster.py makes one of two methods here and there, and a page
@pytest.mark.run
@pytest.mark.timeout(900)
def test_a_comparison_prints_its_table_and_makes_a_page(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    folder, out, rows = finished
    assert {row["method"] for row in rows} == set(CHOSEN.split(",")) and {row["seeds"] for row in rows} == {2}
    table_text = (folder / "runs/default/cmp/compare/table.txt").read_text()
    page = Path(re.search(r"Report: file://(\S+)", out)[1]).read_text()  # type: ignore[index]
    for row in rows:
        line = next(line for line in table_text.splitlines() if line.startswith(f"{row['method']} "))
        assert line in out.splitlines()
        assert f'<td class="words">{row["method"]}</td>' in page and f">{row['method']}</text>" in page
    adapters_ = {row["method"]: row["adapters"] for row in rows}
    assert adapters_ == {"base": 0, "multiagent": 6, "dpo": 3, "distill": 1}


@pytest.mark.nightly
@pytest.mark.run
@pytest.mark.timeout(900)
def test_it_asks_at_least_40_percent_less_than_the_methods_one_by_one(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """A transcript has every call that its run would have made alone."""
    folder, _, _ = finished
    alone: Counter[str] = Counter()
    reworked = 0  # answers to a hint, of distillation: as many as first answers differ from the vote
    for path in (folder / "runs/default").glob("cmp-*/iterations/*/*/part-0.jsonl"):
        for one in records.decode_lines(path.read_bytes(), Transcript, str(path)):
            alone.update("base" if call.model == "base" else "adapter" for call in one.calls())
            reworked += sum(len(turns) - 2 for turns in one.turns if len(turns) > 2)
    reached = Counter("base" if line == "base" else "adapter" for line in (folder / "requests").read_text().split())
    probes = 2 * (1 + 6 + 3 + 1) + 2 * 8  # every debate asks each of its models once whether it is there
    assert alone["adapter"] <= reached["adapter"] <= alone["adapter"] + probes, "adapters' answers are each run's own"
    assert reached.total() <= 0.6 * alone.total(), (reached, alone)
    calls = 24 * 9 * 3 + 16 * (1 + 9 + 9 + 1)
    assert alone.total() == 2 * calls + reworked


@pytest.mark.nightly
@pytest.mark.run
@pytest.mark.timeout(900)
def test_again_with_other_methods_makes_another_table_and_nothing_else(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    folder, _, rows = finished
    requests = (folder / "requests").stat().st_size
    out = whole_compare(folder, FEW)
    assert [row["method"] for row in result(folder)] == [row["method"] for row in rows if row["method"] in FEW.split(",")]
    assert not re.search(r"^(dpo|distill) ", out, re.MULTILINE)
    assert (folder / "requests").stat().st_size == requests
    assert whole_compare(folder, CHOSEN) and result(folder) == rows


@pytest.mark.nightly
@pytest.mark.run
@pytest.mark.timeout(900)
def test_its_runs_are_served_exported_and_reported_as_any_other(
    finished: tuple[Path, str, list[dict[str, Any]]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = finished
    store, name = FileStore(folder / "runs"), "default/cmp-multiagent-1"
    own, group = committed_run.read(store, name), committed_run.read(store, "default/cmp")
    assert own.spec and (own.spec.seed, own.spec.training.method) == (1, "sft") and own.final
    assert own.problems and group.problems and own.problems.files == group.problems.files
    assert served.chosen(store, name, served.begun(store, name)) == 1
    run = str(folder / "runs" / name)
    for line in (["export", run, f"--to=vllm={folder / 'vllm'}"], ["export", run, f"--to=peft={folder / 'peft'}"], ["report", run]):
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert ended.value.code == 0, capfd.readouterr().err
    with pytest.raises(BadInput, match=r"is a comparison; name one of its runs, such as cmp-multiagent-0"):
        served.chosen(store, "default/cmp", served.begun(store, "default/cmp"))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder / "runs" / "default" / "cmp")])
    assert ended.value.code == 2 and not (folder / "runs" / "default" / "cmp" / "report").exists()


@pytest.mark.nightly
@pytest.mark.run
@pytest.mark.timeout(900)
def test_a_comparison_as_a_resource_gives_the_table_of_the_same_methods_and_seeds(tmp_path: Path) -> None:
    """All but what a clock says. Methods that train nothing: the mock engine answers by the adapter's name, which has the run's."""
    few = ["base", "majority"]
    whole_compare(tmp_path, ",".join(few))
    expected = result(tmp_path)
    one = {**SPEC, "kind": "MultiAgentComparison"}
    one["spec"] = {"template": SPEC["spec"], "methods": few, "seeds": 2, "grid": {"training.epochs": [1, 2]}}
    line = [*MAFT, str(write(tmp_path / "c.yaml", one)), "--dir", str(tmp_path / "again" / "runs")]
    line += ["--serve", f"{sys.executable} {MOCK}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path / "again") == expected and {row["method"] for row in expected} == {*few}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ["--methods", "base"],
            "--methods base: a MultiAgentComparison says it in spec.methods; change it there, or with --set 'methods=[base]'",
        ),
        (["--seeds", "2"], "--seeds 2: a MultiAgentComparison says it in spec.seeds"),
        (["--set", "grid.agent=[2]"], "spec.grid[agent]: not of a grid"),
        (["--set", "template.agents=0"], "spec.template.agents: 0; expected at least 1"),
        (["--precision", "1"], "task.heldOut: 16 questions give a standard error of up to 12.5 points; for 1 ask for 2500"),
    ],
)
def test_wrong_commands_about_a_comparison_are_one_line(
    tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {**SPEC, "kind": "MultiAgentComparison", "spec": {"template": SPEC["spec"], "methods": ["base", "debate"]}}
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(write(tmp_path / "c.yaml", one)), "--dir", str(tmp_path / "runs"), *more])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1 and says in told


def test_validate_counts_the_runs_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {**SPEC, "kind": "MultiAgentComparison", "spec": {"template": SPEC["spec"], "methods": ["base", "debate"]}}
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(write(tmp_path / "c.yaml", one))])
    assert (ended.value.code, capsys.readouterr().out) == (
        0,
        f"{tmp_path / 'c.yaml'}: default/cmp, a comparison of 6 runs, is valid\n",
    )


@pytest.mark.nightly  # a comparison is one graph, resumed as a run is: test_run.py
@pytest.mark.run
@pytest.mark.timeout(900)
def test_kill_9_then_the_same_command_ends_with_the_same_table(
    finished: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    whole_compare(finished[0], FEW)
    expected = result(finished[0])
    with (tmp_path / "out.txt").open("w") as output:
        process = subprocess.Popen(
            command(tmp_path, FEW), stdout=output, stderr=output, env=environment(tmp_path, MOCK_LATENCY="0.02")
        )
        journal = "cmp-multiagent-0/iterations/1/debate/journal-*"
        wait_until(
            lambda: next((tmp_path / "runs/default").glob(journal), None) is not None or process.poll() is not None,
            LIMIT,
            lambda: (tmp_path / "out.txt").read_text(),
        )
        assert process.poll() is None, (tmp_path / "out.txt").read_text()
        process.kill()
        process.wait()
    assert not (tmp_path / "runs/default/cmp/compare").exists()
    whole_compare(tmp_path, FEW)
    assert result(tmp_path) == expected


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--methods", "debates"], "--methods debates: no such method; did you mean debate? Known are"),
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["--precision", "1"], "task.heldOut: 16 questions give a standard error of up to 12.5 points; for 1 ask for 2500"),
        (["--set", "debate.rounds=1", "--set", "debate.critics=false"], "is about debate, and debate.rounds is 1"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(write(tmp_path / "run.yaml", SPEC)), "--dir", str(tmp_path / "runs"), *more])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and says in said
    assert not (tmp_path / "runs").exists()
