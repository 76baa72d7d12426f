"""The graph of a run, the next step in every kind of world, and command lines that the programs accept."""

import copy
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maft.preflight
from maft import program
from maft.debate import society
from maft.errors import BadInput
from maft.prepare import tasks as tasks_module
from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.serve.platform import Platform
from maft.spec import Spec
from maft_operator.__main__ import main
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph, Server, Task, command, graph
from maft_operator.plan.shards import spread
from maft_operator.plan.step import Observed, Phase, ServerState, Step, TaskState, step
from maft_operator.spec.parse import Run, parse

BASE = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "r", "namespace": "ns"},
    "spec": {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}},
}


def merged(into: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        into[key] = merged(into.get(key, {}), value) if isinstance(value, dict) else value
    return into


def run(**spec: Any) -> Run:
    return parse(merged(copy.deepcopy(BASE), {"spec": spec}))


def planned(**spec: Any) -> Graph:
    return graph(run(**spec), "file:///store")


DIVERSE = {"evaluation": {"diversity": 4}}  # which is measured on one GPU
IDLE = "spec.training.gpus: {}, and no task of method {} uses {}; {}"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"training": {"gpus": 2}}, ""),
        ({"method": "debate"}, ""),
        ({"method": "base", "training": {"gpus": 0}}, ""),
        ({"method": "debate", "training": {"gpus": 1}, **DIVERSE}, ""),
        ({"method": "debate", "training": {"gpus": 2}, **DIVERSE}, IDLE.format(2, "debate", "more than 1", "set it to 1")),
        ({"method": "debate", "training": {"gpus": 2}}, IDLE.format(2, "debate", "one", "leave it out")),
        ({"method": "star", "training": {"gpus": 2}}, IDLE.format(2, "star", "more than 1", "set it to 1")),
        ({"method": "star", "training": {"gpus": 2, "parallelism": "Sharded"}}, ""),
    ],
)
def test_gpus_that_no_task_uses_are_a_line(spec: dict[str, Any], says: str) -> None:
    assert plan.idle_gpus(planned(**spec), run(**spec)) == says


def test_validate_and_plan_warn_of_gpus_that_no_task_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = merged(copy.deepcopy(BASE), {"spec": {"method": "base", "training": {"gpus": 2}}})
    (tmp_path / "r.yaml").write_text(json.dumps(whole))
    warning = "warning: " + IDLE.format(2, "base", "one", "leave it out")
    for name, line in (("validate", warning), ("plan", f"# {warning}")):
        for more, there in ((), True), (("--set", "training.gpus=0"), False):
            with pytest.raises(SystemExit) as ended:
                main([name, str(tmp_path / "r.yaml"), *more])
            assert (ended.value.code, line in capsys.readouterr().out.splitlines()) == (0, there)


@pytest.mark.parametrize("spec", [{}, {"method": "base"}], ids=["trains", "does not"])
def test_validate_and_plan_refuse_to_train_on_what_serves_alone(
    spec: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the operator does, which compares with them what does not train."""
    whole = merged(copy.deepcopy(BASE), {"spec": {"gpuResource": "gpu.intel.com/xe"} | spec})
    methods = ["debate", spec.get("method", "multiagent")]
    compared = {**whole, "kind": "MultiAgentComparison", "spec": {"template": whole["spec"], "methods": methods, "seeds": 1}}
    for resource, where in (whole, ""), (compared, "run multiagent: "):
        (tmp_path / "r.yaml").write_text(json.dumps(resource))
        for name in ("validate", "plan"):
            with pytest.raises(SystemExit) as ended:
                main([name, str(tmp_path / "r.yaml")])
            assert ended.value.code == (0 if spec else 2)
            assert capsys.readouterr().err.startswith("" if spec else f"error: {where}gpuResource: gpu.intel.com/xe; training")


# --- the graph ---

CHECKS = ("r-0-prepare", "r-0-preflight")
SERVER = ("r-server",)
EACH = ("r-server-0", "r-server-1")
TRAINS = ("r-1-train-0", "r-1-train-1")
SHARED: dict[str, Any] = {"training": {"topology": "Shared"}, "inference": {"topology": "Shared"}}


def shape(made: Graph) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {task.name: (task.needs, task.servers) for task in made.tasks}


def test_shape_of_the_default() -> None:
    made = planned(agents=2)
    assert shape(made) == {
        "r-0-prepare": ((), ()),
        "r-0-preflight": (("r-0-prepare",), ()),
        "r-0-evaluate": (CHECKS[1:], EACH),
        "r-1-debate": (CHECKS[1:], EACH),
        "r-1-train-0": (("r-1-debate", "r-0-evaluate"), ()),
        "r-1-train-1": (("r-1-debate", "r-0-evaluate"), ()),
        "r-1-evaluate": (TRAINS, EACH),
        "r-1-report": (("r-0-evaluate", *TRAINS, "r-1-evaluate"), ()),
    }
    assert made.servers_release_gpus
    assert [s.name for s in made.servers] == list(EACH)


def test_shape_of_everything_shared_over_two_iterations() -> None:
    made = planned(iterations=2, **SHARED)
    assert shape(made) == {
        "r-0-prepare": ((), ()),
        "r-0-preflight": (("r-0-prepare",), ()),
        "r-0-evaluate": (CHECKS[1:], SERVER),
        "r-1-debate": (CHECKS[1:], SERVER),
        "r-1-train": (("r-1-debate", "r-0-evaluate"), ()),
        "r-1-evaluate": (("r-1-train",), SERVER),
        "r-2-debate": (("r-1-train",), SERVER),
        "r-2-train": (("r-2-debate", "r-1-evaluate"), ()),
        "r-2-evaluate": (("r-2-train",), SERVER),
        "r-2-report": (("r-0-evaluate", "r-1-train", "r-1-evaluate", "r-2-train", "r-2-evaluate"), ()),
    }


def test_servers_that_stay_do_not_make_training_wait_for_the_held_out_debate() -> None:
    made = planned(iterations=2, training={"topology": "Shared"}, inference={"topology": "Shared", "lifetime": "Run"})
    assert not made.servers_release_gpus
    assert shape(made)["r-1-train"] == (("r-1-debate",), ())
    assert shape(made)["r-2-train"] == (("r-2-debate",), ())


def test_without_baselines_there_is_no_untrained_evaluation() -> None:
    made = shape(planned(evaluation={"baselines": []}, **SHARED))
    assert "r-0-evaluate" not in made
    assert made["r-1-train"] == (("r-1-debate",), ())
    assert made["r-1-report"] == (("r-1-train", "r-1-evaluate"), ())


@pytest.mark.parametrize(
    ("iterations", "every", "evaluated"),
    [(1, 1, [0, 1]), (4, 1, [0, 1, 2, 3, 4]), (4, 2, [0, 2, 4]), (5, 2, [0, 2, 4, 5]), (3, 100, [0, 3])],
)
def test_how_often_is_evaluated(iterations: int, every: int, evaluated: list[int]) -> None:
    made = planned(iterations=iterations, evaluation={"every": every}, **SHARED)
    assert [t.iteration for t in made.tasks if t.kind == "evaluate"] == evaluated
    for task in made.tasks:
        if task.kind == "train":  # waits for the held-out debate of the models before, where there is one
            before = f"r-{task.iteration - 1}-evaluate"
            assert (before in task.needs) == (task.iteration - 1 in evaluated)


SHARDED: dict[str, Any] = {"debate": {"shards": 2}, **SHARED}


def test_debates_of_several_programs_are_one_task_each_on_a_cluster_and_several_here() -> None:
    made = planned(**SHARDED)
    assert shape(made) == shape(planned(**SHARED))
    assert {task.kind for task in made.tasks if task.programs == 2} == {"debate", "evaluate"}
    untrained, debates, evaluates = ((f"r-{name}-0", f"r-{name}-1") for name in ("0-evaluate", "1-debate", "1-evaluate"))
    assert shape(spread(made)) == {
        "r-0-prepare": ((), ()),
        "r-0-preflight": (("r-0-prepare",), ()),
        **dict.fromkeys(untrained, (CHECKS[1:], SERVER)),
        **dict.fromkeys(debates, (CHECKS[1:], SERVER)),
        "r-1-train": ((*debates, *untrained), ()),
        **dict.fromkeys(evaluates, (("r-1-train",), SERVER)),
        "r-1-report": ((*untrained, "r-1-train", *evaluates), ()),
    }
    assert [task.shard for task in spread(made).tasks if task.name in debates] == [0, 1]


def test_a_graph_without_shards_is_not_spread() -> None:
    assert spread(planned(**SHARED)) == planned(**SHARED)


topologies = st.fixed_dictionaries(
    {
        "agents": st.integers(2, 4),
        "iterations": st.integers(1, 3),
        "debate": st.fixed_dictionaries({"critics": st.booleans(), "rounds": st.integers(2, 3)}),
        "training": st.fixed_dictionaries(
            {
                "topology": st.sampled_from(["PerAgent", "Shared"]),
                "gpus": st.integers(0, 2),
                "parallelism": st.sampled_from(["Adapters", "Sharded"]),
                "nodes": st.sampled_from([1, 1, 3]),
            }
        ),
        "inference": st.fixed_dictionaries(
            {
                "topology": st.sampled_from(["PerAgent", "Shared"]),
                "lifetime": st.sampled_from(["Phase", "Run"]),
                "replicas": st.integers(1, 3),
            }
        ),
        "evaluation": st.fixed_dictionaries(
            {"baselines": st.sampled_from([[], ["base"], ["base", "majority", "debate"]]), "every": st.integers(1, 4)}
        ),
        "backoffLimit": st.integers(0, 3),
    }
).filter(lambda spec: is_allowed(spec["training"], critics=spec["debate"]["critics"]))


def is_allowed(training: dict[str, Any], *, critics: bool) -> bool:
    """Tells whether the resource's rules about GPUs let it pass: none of a task's idle, and several to share a base."""
    if training["parallelism"] == "Sharded":
        return bool(training["gpus"] > 1 or training["nodes"] > 1)
    return training["nodes"] == 1 and (training["topology"] == "Shared" or critics or training["gpus"] <= 1)


@given(topologies)
@settings(max_examples=30)
def test_every_graph_is_in_order_and_whole(spec: dict[str, Any]) -> None:
    made = planned(**spec)
    names = [task.name for task in made.tasks]
    assert len(set(names)) == len(names)
    assert len({*names, *(s.name for s in made.servers)}) == len(names) + len(made.servers)
    for i, task in enumerate(made.tasks):
        assert set(task.needs) <= set(names[:i])
        assert set(task.servers) <= {s.name for s in made.servers}
        assert len(set(task.needs)) == len(task.needs)
    by_iteration = Counter((t.kind, t.iteration) for t in made.tasks)
    trains = spec["agents"] if spec["training"]["topology"] == "PerAgent" else 1
    for iteration in range(1, spec["iterations"] + 1):
        assert by_iteration["debate", iteration] == 1
        assert by_iteration["train", iteration] == trains
    assert by_iteration["evaluate", spec["iterations"]] == 1
    assert by_iteration["evaluate", 0] == bool(spec["evaluation"]["baselines"])
    assert (by_iteration["prepare", 0], by_iteration["preflight", 0], by_iteration["report", spec["iterations"]]) == (1, 1, 1)
    assert len(made.servers) == (spec["agents"] if spec["inference"]["topology"] == "PerAgent" else 1)
    assert {s.replicas for s in made.servers} == {spec["inference"]["replicas"]}
    assert {t.gpus for t in made.tasks if t.kind == "train"} == {spec["training"]["gpus"]}
    assert {t.gpus for t in made.tasks if t.kind != "train"} == {0}
    assert made.backoff_limit == spec["backoffLimit"]


def test_the_graph_depends_on_nothing_but_the_resource() -> None:
    assert planned(agents=2) == planned(agents=2)


@pytest.mark.parametrize("length", [1, 40])
def test_child_names_fit_into_a_label(length: int) -> None:
    resource = merged(copy.deepcopy(BASE), {"metadata": {"name": "a" * length}, "spec": {"agents": 8, "iterations": 100}})
    made = graph(parse(resource), "s")
    names = [*(task.name for task in made.tasks), *(server.name for server in made.servers)]
    assert max(map(len, names)) <= 63


# --- the next step: worlds of a run with two agents, one iteration, a server for both ---


def settled(*done: str) -> dict[str, TaskState]:
    return {f"r-{name}": TaskState("succeeded") for name in done}


RUNNING, LOST, WRONG = TaskState("running"), TaskState("failed", 2, 1, "lost"), TaskState("failed", 1, 2, "wrong file")
READY, STARTING, DOWN = ServerState(ready=True), ServerState(ready=False), ServerState(ready=False, failed=True, failures=2)
QUEUED = ServerState(ready=False, queued=True)
PHASE = planned(agents=2, training={"topology": "PerAgent"}, inference={"topology": "Shared"})
STAYS = planned(agents=2, training={"topology": "PerAgent"}, inference={"topology": "Shared", "lifetime": "Run"})
TWO = planned(agents=2)
PAUSED = replace(PHASE, suspended=True)
CHECKED = settled("0-prepare", "0-preflight")
BEFORE_TRAINING = CHECKED | settled("0-evaluate", "1-debate")
BEFORE_EVALUATION = CHECKED | settled("0-evaluate", "1-debate", "1-train-0", "1-train-1")
BEFORE_REPORT = BEFORE_EVALUATION | settled("1-evaluate")
FINISHED = BEFORE_REPORT | settled("1-report")
OLDER = settled("0-prepare")
LATER = [name.removeprefix("r-") for name in FINISHED if name not in CHECKS]

WORLDS: dict[str, tuple[Graph, Mapping[str, TaskState], Mapping[str, ServerState], tuple[str, str, str]]] = {
    # name: graph, tasks, servers, (deletes, creates, phase)
    "fresh": (PHASE, {}, {}, ("", "0-prepare", "Preparing")),
    "fresh, servers that stay": (STAYS, {}, {}, ("", "0-prepare", "Preparing")),
    "preparing": (PHASE, {"r-0-prepare": RUNNING}, {}, ("", "", "Preparing")),
    "prepared": (PHASE, settled("0-prepare"), {}, ("", "0-preflight", "Preparing")),
    "prepared, servers that stay": (STAYS, settled("0-prepare"), {}, ("", "0-preflight", "Preparing")),
    "the model is tried": (PHASE, settled("0-prepare") | {"r-0-preflight": RUNNING}, {}, ("", "", "Preparing")),
    "checked": (PHASE, CHECKED, {}, ("", "server", "Serving")),
    "checked, a server each": (TWO, CHECKED, {}, ("", "server-0 server-1", "Serving")),
    "server starts": (PHASE, CHECKED, {"r-server": STARTING}, ("", "", "Serving")),
    "one of two is ready": (
        TWO,
        CHECKED,
        {"r-server-0": READY, "r-server-1": STARTING},
        ("", "", "Serving"),
    ),
    "one of two is there": (TWO, CHECKED, {"r-server-1": READY}, ("", "server-0", "Serving")),
    "server is ready": (PHASE, CHECKED, {"r-server": READY}, ("", "0-evaluate 1-debate", "Debating")),
    "debating": (
        PHASE,
        CHECKED | {"r-0-evaluate": RUNNING, "r-1-debate": RUNNING},
        {"r-server": READY},
        ("", "", "Debating"),
    ),
    "debated, still evaluating": (
        PHASE,
        CHECKED | settled("1-debate") | {"r-0-evaluate": RUNNING},
        {"r-server": READY},
        ("", "", "Evaluating"),
    ),
    "debated, still evaluating, servers stay": (
        STAYS,
        CHECKED | settled("1-debate") | {"r-0-evaluate": RUNNING},
        {"r-server": READY},
        ("", "1-train-0 1-train-1", "Evaluating"),
    ),
    "training waits until the server is gone": (PHASE, BEFORE_TRAINING, {"r-server": READY}, ("server", "", "Training")),
    "the server is gone": (PHASE, BEFORE_TRAINING, {}, ("", "1-train-0 1-train-1", "Training")),
    "training does not wait for servers that stay": (
        STAYS,
        BEFORE_TRAINING,
        {"r-server": READY},
        ("", "1-train-0 1-train-1", "Training"),
    ),
    "servers that stay come back while training": (STAYS, BEFORE_TRAINING, {}, ("", "server 1-train-0 1-train-1", "Training")),
    "one agent is trained": (
        PHASE,
        BEFORE_TRAINING | settled("1-train-0") | {"r-1-train-1": RUNNING},
        {},
        ("", "", "Training"),
    ),
    "trained": (PHASE, BEFORE_EVALUATION, {}, ("", "server", "Serving")),
    "trained, server is ready": (PHASE, BEFORE_EVALUATION, {"r-server": READY}, ("", "1-evaluate", "Evaluating")),
    "evaluated": (PHASE, BEFORE_REPORT, {"r-server": READY}, ("server", "1-report", "Reporting")),
    "evaluated, servers that stay go": (STAYS, BEFORE_REPORT, {"r-server": READY}, ("server", "1-report", "Reporting")),
    "reporting": (PHASE, BEFORE_REPORT | {"r-1-report": RUNNING}, {}, ("", "", "Reporting")),
    "complete": (PHASE, FINISHED, {}, ("", "", "Complete")),
    "complete, a server is left over": (PHASE, FINISHED, {"r-server": READY}, ("server", "", "Complete")),
    "a server of nobody": (PHASE, {"r-0-prepare": RUNNING}, {"r-server-9": READY}, ("server-9", "", "Preparing")),
    # failures, with backoffLimit 3
    "task failed, to be tried again": (PHASE, {"r-0-prepare": LOST}, {}, ("", "0-prepare", "Preparing")),
    "task failed as often as it may": (
        PHASE,
        {"r-0-prepare": TaskState("failed", 3, 1, "lost")},
        {},
        ("", "0-prepare", "Preparing"),
    ),
    "debate failed, its server is ready": (
        PHASE,
        CHECKED | settled("0-evaluate") | {"r-1-debate": LOST},
        {"r-server": READY},
        ("", "1-debate", "Debating"),
    ),
    "debate failed, its server is not ready": (
        PHASE,
        CHECKED | settled("0-evaluate") | {"r-1-debate": LOST},
        {"r-server": STARTING},
        ("", "", "Serving"),
    ),
    "one training failed": (
        PHASE,
        BEFORE_TRAINING | {"r-1-train-0": LOST, "r-1-train-1": RUNNING},
        {},
        ("", "1-train-0", "Training"),
    ),
    "server went down under a debate": (
        PHASE,
        CHECKED | settled("0-evaluate") | {"r-1-debate": RUNNING},
        {"r-server": DOWN},
        ("", "server", "Serving"),
    ),
    "server waits in a queue": (PHASE, CHECKED, {"r-server": QUEUED}, ("", "", "Serving")),
    "server made room for others under two debates": (
        PHASE,
        CHECKED | {"r-0-evaluate": RUNNING, "r-1-debate": RUNNING},
        {"r-server": QUEUED},
        ("0-evaluate 1-debate", "", "Serving"),
    ),
    "one of two made room for others": (
        TWO,
        CHECKED | settled("0-evaluate") | {"r-1-debate": RUNNING},
        {"r-server-0": READY, "r-server-1": QUEUED},
        ("1-debate", "", "Serving"),
    ),
    "a server that stays makes room, which training does not ask": (
        STAYS,
        CHECKED | settled("0-evaluate", "1-debate") | {"r-1-train-0": RUNNING, "r-1-train-1": RUNNING},
        {"r-server": QUEUED},
        ("", "", "Training"),
    ),
    "server came back after many failures": (
        PHASE,
        CHECKED,
        {"r-server": ServerState(ready=True, failures=9)},
        ("", "0-evaluate 1-debate", "Debating"),
    ),
    "a succeeded task is not asked how often it failed": (
        PHASE,
        CHECKED | {"r-0-prepare": TaskState("succeeded", 9)},
        {},
        ("", "server", "Serving"),
    ),
    # suspended
    "suspended before it began": (PAUSED, {}, {}, ("", "", "Suspended")),
    "suspended while it debates": (
        PAUSED,
        CHECKED | {"r-0-evaluate": RUNNING, "r-1-debate": RUNNING},
        {"r-server": READY},
        ("server 0-evaluate 1-debate", "", "Suspended"),
    ),
    "suspended while it trains": (
        PAUSED,
        BEFORE_TRAINING | settled("1-train-0") | {"r-1-train-1": RUNNING},
        {},
        ("1-train-1", "", "Suspended"),
    ),
    "suspended, servers not yet ready or broken": (
        PAUSED,
        CHECKED,
        {"r-server": STARTING, "r-server-9": DOWN},
        ("server server-9", "", "Suspended"),
    ),
    "suspended, a failed task is not tried again": (PAUSED, {"r-0-prepare": LOST}, {}, ("", "", "Suspended")),
    "suspended with everything done": (PAUSED, FINISHED, {"r-server": READY}, ("server", "", "Complete")),
    # begun by a release that tried no model: what has begun does not wait for it
    "older, before anything has begun": (PHASE, OLDER, {"r-server": READY}, ("server", "0-preflight", "Preparing")),
    "older, debating": (
        PHASE,
        OLDER | {"r-0-evaluate": RUNNING, "r-1-debate": RUNNING},
        {"r-server": READY},
        ("", "", "Debating"),
    ),
    "older, a debate failed": (
        PHASE,
        OLDER | settled("0-evaluate") | {"r-1-debate": LOST},
        {"r-server": READY},
        ("", "1-debate", "Debating"),
    ),
    "older, debated, still evaluating": (
        PHASE,
        OLDER | settled("1-debate") | {"r-0-evaluate": RUNNING},
        {"r-server": READY},
        ("", "", "Evaluating"),
    ),
    "older, debated and evaluated": (
        PHASE,
        OLDER | settled("0-evaluate", "1-debate"),
        {},
        ("", "1-train-0 1-train-1", "Training"),
    ),
    "older, suspended before the debate": (
        PHASE,
        OLDER | settled("0-evaluate"),
        {},
        ("", "0-preflight", "Preparing"),
    ),
    "older, suspended while it trains": (
        PAUSED,
        OLDER | settled("0-evaluate", "1-debate") | {"r-1-train-0": RUNNING},
        {},
        ("1-train-0", "", "Suspended"),
    ),
    "older, complete": (PHASE, OLDER | settled(*LATER), {}, ("", "", "Complete")),
    "only its last task is known": (PHASE, settled("1-report"), {}, ("", "", "Complete")),
}


@pytest.mark.parametrize("name", WORLDS)
def test_next_step(name: str) -> None:
    made, tasks, servers, (delete, create, phase) = WORLDS[name]
    decided = step(made, Observed(tasks, servers))
    assert decided.delete == tuple(f"r-{n}" for n in delete.split())
    assert tuple(item.name for item in decided.create) == tuple(f"r-{n}" for n in create.split())
    assert (decided.phase, decided.message) == (phase, "")
    there = {*servers, *(n for n, state in tasks.items() if state.status == "running")}
    others = {*decided.delete, *(item.name for item in decided.create)}
    known = {*(t.name for t in made.tasks), *(s.name for s in made.servers)}
    assert {item.name for item in decided.keep} == (set() if phase in ("Suspended", "Complete") else (there - others) & known)


@pytest.mark.parametrize(
    ("tasks", "servers", "message"),
    [
        ({"r-0-prepare": WRONG}, {}, "r-0-prepare: wrong file"),
        ({"r-0-prepare": TaskState("failed", 4, 1, "lost")}, {}, "r-0-prepare: lost"),
        (settled("0-prepare") | {"r-0-preflight": WRONG}, {}, "r-0-preflight: wrong file"),
        (CHECKED | {"r-1-debate": WRONG, "r-0-evaluate": RUNNING}, {"r-server": READY}, "r-1-debate: wrong file"),
        (
            CHECKED | {"r-1-debate": RUNNING},
            {"r-server": ServerState(False, failed=True, failures=4, exit_code=1, message="no GPU")},
            "r-server: no GPU",
        ),
        (
            CHECKED,
            {"r-server": ServerState(False, failed=True, failures=1, exit_code=2, message="no such model")},
            "r-server: no such model",
        ),
        (
            BEFORE_TRAINING | {"r-1-train-0": RUNNING, "r-1-train-1": TaskState("failed", 4, 137, "killed")},
            {},
            "r-1-train-1: killed",
        ),
    ],
)
def test_a_run_that_failed_stops_everything(
    tasks: Mapping[str, TaskState], servers: Mapping[str, ServerState], message: str
) -> None:
    decided = step(PHASE, Observed(tasks, servers))
    running = {name for name, state in tasks.items() if state.status == "running"}
    assert decided == Step(decided.delete, (), "Failed", message=message, failed_child=message.partition(":")[0])
    assert sorted(decided.delete) == sorted({*servers, *running})
    stopped = {name: state for name, state in tasks.items() if name not in running}
    if not servers:
        assert step(PHASE, Observed(stopped, {})) == Step((), (), "Failed", message=message, failed_child=decided.failed_child)


def test_the_backoff_limit_is_the_specs() -> None:
    impatient = planned(backoffLimit=0)
    once = Observed({"r-0-prepare": TaskState("failed", 1, 1, "lost")})
    assert step(impatient, once).phase == "Failed"
    assert step(PHASE, once).phase == "Preparing"


def test_a_run_that_failed_stays_failed_when_it_is_suspended() -> None:
    failed = Observed({"r-0-prepare": WRONG})
    assert step(PAUSED, failed) == step(PHASE, failed)
    assert step(PAUSED, failed).phase == "Failed"


# --- whole runs in a small world ---


@dataclass
class World:
    """Does what it is told, checks that it may be told so, and lets things happen in an order that hypothesis chooses."""

    graph: Graph
    tasks: dict[str, TaskState] = field(default_factory=dict)
    servers: dict[str, ServerState] = field(default_factory=dict)
    started: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def observed(self) -> Observed:
        return Observed(dict(self.tasks), dict(self.servers))

    def do(self, decided: Step) -> None:
        for name in decided.delete:
            in_use = {s for t in self.graph.tasks if self.running(t.name) for s in t.servers}
            if self.graph.suspended:  # a Job that is deleted is forgotten, and so are its failures
                assert name in self.servers or self.running(name)
                self.tasks.pop(name, None)
            else:
                assert name in self.servers and name not in in_use
            self.servers.pop(name, None)
        for item in decided.create:
            if isinstance(item, Server):
                assert item.name not in self.servers or self.servers[item.name].failed
                failures = self.servers[item.name].failures if item.name in self.servers else 0
                self.servers[item.name] = ServerState(ready=False, failures=failures)
            else:
                self._start(item)
        if self.graph.servers_release_gpus and any(self.running(t.name) for t in self.graph.tasks if t.kind == "train"):
            assert not self.servers

    def _start(self, task: Task) -> None:
        assert task.name not in self.tasks or self.tasks[task.name].status == "failed"
        assert self.started[task.name] or all(self.tasks[need].status == "succeeded" for need in task.needs)
        assert all(self.servers[server].ready for server in task.servers)
        self.tasks[task.name] = TaskState("running", self.failed[task.name])
        self.started[task.name] += 1

    def running(self, name: str) -> bool:
        return name in self.tasks and self.tasks[name].status == "running"

    def happenings(self) -> list[tuple[str, str]]:
        """What can happen next: (what, to whom)."""
        limit = self.graph.backoff_limit
        moves = [("finish", name) for name in self.tasks if self.running(name)]
        moves += [("fail", name) for name in self.tasks if self.running(name) and self.failed[name] < limit]
        moves += [("ready", name) for name, state in self.servers.items() if not state.ready and not state.failed]
        moves += [("down", name) for name, state in self.servers.items() if not state.failed and state.failures < limit]
        return moves

    def happen(self, what: str, name: str) -> None:
        if what == "finish":
            self.tasks[name] = TaskState("succeeded", self.failed[name])
        elif what == "fail":
            self.failed[name] += 1
            self.tasks[name] = TaskState("failed", self.failed[name], 1, "lost")
        elif what == "ready":
            self.servers[name] = ServerState(ready=True, failures=self.servers[name].failures)
        else:
            self.servers[name] = ServerState(ready=False, failed=True, failures=self.servers[name].failures + 1)


@given(topologies, st.data())
@settings(max_examples=40)
def test_a_whole_run(spec: dict[str, Any], data: st.DataObject) -> None:
    world = World(planned(**spec))
    phases = []
    while True:
        decided = step(world.graph, world.observed())
        assert decided == step(world.graph, world.observed())
        assert decided.phase in get_args(Phase)
        world.do(decided)
        phases.append(decided.phase)
        if decided.phase == "Complete":
            break
        again = step(world.graph, world.observed())
        if not decided.delete:  # what was made is there; only where servers had to go first is there more to do at once
            assert (again.delete, again.create) == ((), ())
        possible = world.happenings()
        if possible:
            world.happen(*data.draw(st.sampled_from(possible)))
        else:
            assert again.create or again.delete, "nothing happens and nothing is done: stuck"
    assert {t.name for t in world.graph.tasks} == set(world.tasks)
    assert world.started == {t.name: 1 + world.failed[t.name] for t in world.graph.tasks}
    assert world.servers == {}
    assert step(world.graph, world.observed()) == Step((), (), "Complete")
    assert "Failed" not in phases
    assert phases[0] == "Preparing"


@given(topologies, st.data())
@settings(max_examples=40)
def test_a_run_that_is_suspended_and_resumed_anywhere_ends_as_any_other(spec: dict[str, Any], data: st.DataObject) -> None:
    world = World(planned(**spec))
    changes = data.draw(st.sets(st.integers(0, 40), max_size=8), label="steps at which spec.suspend is set or cleared")
    count, finished = 0, set[str]()
    while (decided := step(world.graph, world.observed())).phase != "Complete":
        world.do(decided)
        if world.graph.suspended:
            assert (decided.phase, decided.create) == ("Suspended", ())
            assert world.servers == {} and not any(map(world.running, world.tasks))
        elif possible := world.happenings():
            world.happen(*data.draw(st.sampled_from(possible)))
        before, finished = finished, {name for name, state in world.tasks.items() if state.status == "succeeded"}
        assert before <= finished
        suspended = world.graph.suspended != (count in changes) and count <= max(changes, default=0)
        world.graph = replace(world.graph, suspended=suspended)
        count += 1
    world.do(decided)
    assert {name: state.status for name, state in world.tasks.items()} == {t.name: "succeeded" for t in world.graph.tasks}
    assert world.servers == {}


def without_preflight(made: Graph) -> Graph:
    """As a release planned it that tried no model."""
    prepare, preflight, *others = made.tasks
    older = [replace(t, needs=tuple(prepare.name if need == preflight.name else need for need in t.needs)) for t in others]
    return replace(made, tasks=(prepare, *older))


@given(topologies, st.integers(0, 40), st.data())
@settings(max_examples=40)
def test_a_run_under_way_goes_on_when_a_release_puts_a_task_before_its_debates(
    spec: dict[str, Any], changes: int, data: st.DataObject
) -> None:
    """Nothing is done twice, nothing waits for ever, and the new task runs only where nothing that needs it has begun."""
    whole = planned(**spec)
    world = World(without_preflight(whole))
    first = {t.name for t in whole.tasks if "r-0-preflight" in t.needs}
    count, begun = 0, False
    while True:
        if count == changes:
            world.graph, begun = whole, any(name in world.tasks for name in first)
            assert step(whole, world.observed()).phase == "Preparing" or begun
        decided = step(world.graph, world.observed())
        world.do(decided)
        if decided.phase == "Complete":
            break
        if possible := world.happenings():
            world.happen(*data.draw(st.sampled_from(possible)))
        count += 1
    missing = {t.name for t in whole.tasks} - set(world.tasks)
    assert missing <= {"r-0-preflight"}
    if count >= changes:
        assert not missing or begun
    assert world.started == {name: 1 + world.failed[name] for name in world.tasks}
    assert step(whole, world.observed()) == Step((), (), "Complete")


# --- command lines ---

ODD = "-- {question} 'x' \"y\" $HOME\n\t--seed 9 \\frac{1}{2} größer"
SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything shared": SHARED | {"iterations": 2},
    "the best is chosen": SHARED | {"iterations": 2, "evaluation": {"validation": 50}, "stopWhen": {"patience": 1}},
    "other values everywhere": {
        "model": {"source": "./model", "revision": "v1", "trustRemoteCode": True, "maxLength": 4096},
        "task": {
            "kind": "jsonl",
            "source": "./my questions.jsonl",
            "heldOutSource": "s3://b/q.jsonl?endpoint=http://h:1&region=r",
            "answer": "math",
            "prompt": ODD,
            "train": 7,
            "heldOut": 9,
            "seed": 5,
            "arithmetic": {"operands": 2, "minimum": -7, "maximum": -3},
        },
        "seed": 2147483647,
        "agents": 4,
        "iterations": 3,
        "debate": {
            "rounds": 3,
            "summarize": False,
            "critics": False,
            "cooperative": True,
            "temperature": 0,
            "topP": 1e-5,
            "maxTokens": 17,
            "minAgreement": 3,
            "mode": "fast",
            "shards": 5,
            "prompts": {
                "summarize": ODD + "{answers}",
                "revise": ODD + "{summary}",
                "concatenate": ODD + "{answers}",
                "cooperate": "--{summary}{question}",
            },
        },
        "training": {
            "lora": {"rank": 17, "alpha": 3, "dropout": 0.05, "targetModules": ["q_proj", "v_proj"]},
            "learningRate": 1e-05,
            "warmup": 0,
            "weightDecay": 0.1,
            "epochs": 3,
            "batchSize": 5,
            "batchTokens": 999,
            "criticMix": 0.67,
            "lossOn": "all",
            "startFrom": "base",
            "minExamples": 11,
            "gpus": 2,
            "topology": "Shared",
        },
        "inference": {
            "topology": "PerAgent",
            "replicas": 2,
            "gpus": 4,
            "extraArgs": [
                "--gpu-memory-utilization=0.85",
                "--max-num-seqs",
                "64",
                "--kv-cache-dtype",
                "fp8",
                "--rope-scaling",
                '{"a": 1}',
            ],
        },
    },
    "one agent alone": {"agents": 1, "debate": {"rounds": 1, "critics": False}, "evaluation": {"baselines": []}},
    "mathematics, evaluated on multiple choice": {
        "task": {"kind": "math", "levels": [4, 5], "probe": 12, "prompt": "Solve. {question}"},
        "evaluation": {
            "task": {
                "kind": "mmlu",
                "source": "me/mmlu",
                "subjects": ["formal_logic", "-odd subject"],
                "prompt": "Choose. {question}",
                "shots": 2,
                "heldOut": 3,
            }
        },
    },
    "multiple choice, evaluated on mathematics": {
        "task": {"kind": "mmlu", "subjects": ["virology"]},
        "evaluation": {"task": {"kind": "math", "levels": [5]}},
    },
}


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ModuleType]]:
    """The modules by kind of task. Parsers need neither torch nor matplotlib, so an empty module stands in for what does, and for
    all that preflight tries a model with."""
    with pytest.MonkeyPatch.context() as patch:
        trying = [f"maft.preflight.{path.stem}" for path in Path(*maft.preflight.__path__).glob("[!_]*.py")]
        for heavy in ("maft.lora", "maft.train.dpo", "maft.charts", *trying):
            stand_in = ModuleType(heavy)
            stand_in.__file__ = __file__  # hypothesis and torch read it of every module
            stand_in.__getattr__ = lambda name: object  # type: ignore[method-assign]
            patch.setitem(sys.modules, heavy, stand_in)
        kinds = ("prepare", "preflight", "debate", "train", "evaluate", "report")
        yield {kind: light(patch, "maft.evaluate" if kind == "evaluate" else f"maft.{kind}.__main__") for kind in kinds}


def light(patch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """The module, made anew, so that others do not find stand-ins in it."""
    spec = importlib.util.find_spec(name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


URLS = ["http://{name}:8000", "http://127.0.0.1:1/"]


def assignment(task: Task, programs: Mapping[str, ModuleType]) -> Assignment:
    """What the program of the task makes of its command line."""
    urls = {name: [url.format(name=name) for url in URLS] for name in task.servers}
    minus_m, module, *line = command(task, urls)
    assert (minus_m, module) == ("-m", f"maft.{task.kind}")
    return program.decode(programs[task.kind].PARSER.parse_args(line))


@pytest.mark.parametrize("name", SPECS)
def test_every_program_gets_exactly_what_the_spec_says(
    name: str, programs: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MAFT_SUMMARY", "MAFT_METRICS_PORT", "MAFT_METRICS_HOST", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(variable, raising=False)
    one = run(**SPECS[name])
    tasks = graph(one, "file:///store").tasks
    assert {t.kind for t in tasks} == set(programs)
    for task in tasks:
        given = assignment(task, programs)
        assert (given.store.url, given.run, given.metrics) == ("file:///store", one.key, ("", 0))
        assert given.given_spec == (None if task.kind == "report" else fixed(one))
        assert given.iteration == (0 if task.kind in ("prepare", "preflight", "report") else task.iteration)
        assert given.servers == {name: [url.format(name=name) for url in URLS] for name in task.servers}
        assert (given.group, given.compared, given.questions) == ("", (), one.key)
        agents = range(one.spec.agents) if one.spec.training.topology == "Shared" else task.agents
        assert given.agents == (tuple(agents) if task.kind == "train" else ())
        assert given.shard is None
        assert given.part == ("validation" if task.validates else "held-out")
    trained = Counter(agent for task in tasks for agent in assignment(task, programs).agents)
    assert trained == dict.fromkeys(range(one.spec.agents), one.spec.iterations)


def test_programs_of_one_debate_are_told_which_they_are(programs: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a flag here, by what Kubernetes puts into the environment of an Indexed Job's pods there."""
    for task in spread(planned(**SHARDED)).tasks:
        assert assignment(task, programs).shard == task.shard
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    whole = planned(**SHARDED).tasks
    assert {task.kind: assignment(task, programs).shard for task in whole if task.programs > 1} == {"debate": 1, "evaluate": 1}
    assert {assignment(task, programs).shard for task in whole if task.programs == 1} == {None}
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "100")
    with pytest.raises(BadInput, match=r"^JOB_COMPLETION_INDEX '100': expected a whole number from 0 to 63$"):
        assignment(next(task for task in whole if task.programs > 1), programs)


def test_programs_that_debate_alone_ask_not_which_pod_they_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one of somebody's Indexed Job, in which `maft run` was started."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "100")
    debating = {"debate": light(monkeypatch, "maft.debate.__main__"), "evaluate": light(monkeypatch, "maft.evaluate")}
    several = spread(planned(**SHARDED)).tasks
    for task in (task for task in (*planned(**SHARED).tasks, *several) if task.kind in debating):
        assert assignment(task, debating).shard == task.shard


def fixed(one: Run) -> Spec:
    """What of the run's spec may not change while it is under way."""
    return Spec(**{name: getattr(one.spec, name) for name in Spec.__struct_fields__})


@pytest.mark.parametrize("name", SPECS)
def test_every_server_gets_exactly_what_the_spec_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MAFT_SUMMARY", "MAFT_METRICS_PORT", "MAFT_METRICS_HOST"):
        monkeypatch.delenv(variable, raising=False)
    one = run(**SPECS[name])
    spec = one.spec
    for server in graph(one, "file:///store").servers:
        minus_m, module, *line = plan.serve(server, "--host=127.0.0.1", "--port=81", "--adapter-folder=/a")
        assert (minus_m, module) == ("-m", "maft.serve")
        known = serve.parser().parse_args(line)
        given = program.decode(known)
        assert (given.store.url, given.run, given.spec) == ("file:///store", one.key, fixed(one))
        roles = (2 if spec.debate.critics else 1) * (spec.agents if spec.inference.topology == "Shared" else 1)
        assert serve.listens(known) == serve.Listening("127.0.0.1", 81, roles, "/a")


@pytest.mark.parametrize("name", SPECS)
def test_the_rules_of_debate_are_those_of_the_spec(name: str, programs: dict[str, ModuleType]) -> None:
    one = run(**SPECS[name])
    tasks = {t.kind: assignment(t, programs) for t in graph(one, "s").tasks}
    rules = society.training_rules(tasks["debate"].spec, tasks["debate"].iteration)
    assert (rules.debate, rules.fast, rules.hinted) == (one.spec.debate, one.spec.debate.mode == "fast", False)
    assert (rules.prompts.first, rules.answer, rules.seed) == (one.spec.task.prompt, one.spec.task.answer_kind, one.spec.seed)
    assert rules.prompts.later == one.spec.debate.prompts
    held_out = society.held_out_rules(tasks["evaluate"].spec, tasks["evaluate"].iteration)
    asked = one.spec.held_out_task
    assert (held_out.debate, held_out.prompts.first, held_out.answer) == (one.spec.debate, asked.prompt, asked.answer_kind)
    drawn = tasks_module.of_task(tasks["prepare"].spec.task)
    assert (drawn.train, drawn.held_out, drawn.seed) == (one.spec.task.train, one.spec.task.held_out, one.spec.task.seed)
    if other := one.spec.evaluation.task:
        elsewhere = tasks_module.of_evaluation_task(other, one.spec.task)
        assert (elsewhere.train, elsewhere.held_out, elsewhere.questions) == (other.shots, other.held_out, other)


def vllm_flags(server: Server) -> dict[str, str]:
    """vLLM's flags by name."""
    known = serve.parser().parse_args(plan.serve(server)[2:])
    listening = serve.listens(known)
    line = serve.command(program.decode(known), listening, Platform("cpu"))
    return dict(zip(line, line[1:], strict=False))


@pytest.mark.parametrize(("rank", "served"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (257, 320), (321, 512), (512, 512)])
def test_servers_take_the_next_rank_that_vllm_knows(rank: int, served: int) -> None:
    [server] = planned(training={"lora": {"rank": rank}}, inference={"topology": "Shared"}).servers
    assert vllm_flags(server)["--max-lora-rank"] == str(served)


def test_many_adapters_of_a_model_of_unknown_size_are_not_all_in_one_batch() -> None:
    [server] = planned(agents=32, inference={"topology": "Shared"}).servers
    flags = vllm_flags(server)
    assert (flags["--max-loras"], flags["--max-cpu-loras"]) == ("16", "128")


def test_a_command_names_every_replica_and_nothing_else() -> None:
    [debating] = [t for t in TWO.tasks if t.kind == "debate"]
    line = command(debating, {"r-server-0": ["http://a", "http://b"], "r-server-1": ["http://c"], "other": ["http://d"]})
    assert line[-3:] == ("--server=r-server-0=http://a", "--server=r-server-0=http://b", "--server=r-server-1=http://c")
    assert line.count("--server=other=http://d") == 0
