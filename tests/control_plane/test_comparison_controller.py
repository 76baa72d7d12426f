"""A comparison from its resource to its table, against an API server in memory that keeps what is applied."""

import asyncio
import copy
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from kube_objects import IMAGES, STORAGE, writer
from test_comparison import resource

from maft.summaries import CompareSummary, Score, encode_summary
from maft_operator.cluster import kinds
from maft_operator.cluster.api import Refused
from maft_operator.cluster.comparison.controller import Comparisons
from maft_operator.cluster.fields import stamp
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.spec.schema import COMPARISON, checked, openapi

KEY = "multiagentcomparisons/ns/arithmetic"
TEMPLATE = {**resource()["spec"]["template"], "storage": STORAGE}


class Server:
    """Objects by kind and name. refuses: names of objects that it will not have."""

    def __init__(self, **spec: Any) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.refuses: dict[str, Refused] = {}
        self._version = 0
        self.keys = Keys(Queue(), Metrics())
        self.comparisons = Comparisons(self, IMAGES, keys=self.keys, writer=writer(self, Metrics()))  # type: ignore[arg-type]
        made = resource(**{"template": TEMPLATE, **spec})
        made["metadata"] |= {"uid": "uid-of-comparison", "generation": 1, "creationTimestamp": stamp(datetime.now(UTC))}
        self.put(made)

    def put(self, thing: Json) -> Json:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self.objects.setdefault(thing["kind"], {})[thing["metadata"]["name"]] = thing
        return thing

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get(kind.name, {}).get(name))

    async def list(self, kind: Kind, namespace: str | None, *, label_selector: str = "", field_selector: str = "") -> list[Json]:
        label, _, value = label_selector.partition("=")
        name = field_selector.partition("=")[2]
        several = [
            thing
            for thing in self.objects.get(kind.name, {}).values()
            if (not label or thing["metadata"].get("labels", {}).get(label) == value) and name in ("", thing["metadata"]["name"])
        ]
        return [{key: copy.deepcopy(part) for key, part in thing.items() if key not in ("kind", "apiVersion")} for thing in several]

    async def list_all(self, kind: Kind, namespace: str | None, *, label_selector: str) -> Sequence[Json]:
        return await self.list(kind, namespace, label_selector=label_selector)

    async def apply(self, body: Json) -> Json:
        name = body["metadata"]["name"]
        if name in self.refuses:
            raise self.refuses[name]
        before = self.objects.get(body["kind"], {}).get(name, {})
        uid = {"uid": f"uid-of-{name}", "creationTimestamp": stamp(datetime.now(UTC)), "generation": 1}
        status = {"status": before["status"]} if "status" in before else {}
        return self.put({**copy.deepcopy(body), "metadata": {**uid, **body["metadata"]}, **status})

    async def apply_status(self, body: Json) -> Json:
        thing = self.objects[body["kind"]][body["metadata"]["name"]]
        return copy.deepcopy(self.put({**thing, "status": body["status"]}))

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        return body

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        del self.objects[kind.name][name]

    # --- what tests do and see ---

    @property
    def runs(self) -> dict[str, Json]:
        return self.objects.get(kinds.RUN.name, {})

    @property
    def status(self) -> Json:
        status: Json = self.objects[COMPARISON]["arithmetic"]["status"]
        return status

    def condition(self, kind: str) -> Json:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def change(self, **spec: Any) -> None:
        comparison = self.objects[COMPARISON]["arithmetic"]
        comparison["spec"] |= spec
        comparison["metadata"]["generation"] += 1

    def end(self, name: str, phase: str = "Complete", mean: float = 0.5) -> None:
        score = {"mean": mean, "stderr": 0.01, "text": "x"}
        self.runs[name]["status"] = {"phase": phase, **({"accuracy": score} if phase == "Complete" else {})}

    def finish_job(self, summary: Any = None, code: int = 0) -> None:
        """The table's pod ends: with what it says, or with that exit code."""
        [job] = self.objects["Job"].values()
        done = {"type": "Failed" if code else "Complete", "status": "True", "lastTransitionTime": stamp(datetime.now(UTC))}
        job["status"] = {"conditions": [done], "succeeded": 0 if code else 1, "failed": 1 if code else 0}
        message = encode_summary(summary).decode() if summary else "error: no evaluation"
        ended = {"exitCode": code, "message": message, "finishedAt": stamp(datetime.now(UTC))}
        container = {"name": job["spec"]["template"]["spec"]["containers"][0]["name"], "state": {"terminated": ended}}
        reference = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
        labels = job["spec"]["template"]["metadata"]["labels"]
        times = {"creationTimestamp": stamp(datetime.now(UTC))}
        metadata = {"name": "table-pod", "namespace": "ns", "uid": "p", "labels": labels, "ownerReferences": [reference], **times}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        self.put({"kind": "Pod", "metadata": metadata, "spec": {}, "status": status})


def looked(server: Server) -> float | None:
    """One look; the status is one that the definition allows, all of it."""

    again = asyncio.run(server.comparisons.look(KEY, server.keys.state(KEY)))
    if "status" in server.objects.get(COMPARISON, {}).get("arithmetic", {}):
        schema = openapi(COMPARISON)["properties"]["status"]
        jsonschema.validate(server.status, {**schema, "additionalProperties": False})
    return again


def test_runs_are_ordinary_ones_that_belong_to_the_comparison() -> None:
    server = Server(maxParallel=9)
    looked(server)
    assert len(server.runs) == 4  # one of each seed that asks questions, one that asks others
    for name, run in server.runs.items():
        checked({key: run[key] for key in ("apiVersion", "kind", "metadata", "spec")})
        [owner] = run["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            COMPARISON,
            "arithmetic",
            "uid-of-comparison",
            True,
        )
        labels = run["metadata"]["labels"]
        assert (labels["maft.dev/comparison"], labels["maft.dev/seed"]) == ("arithmetic", str(run["spec"]["seed"]))
        assert name.startswith(f"arithmetic-{labels['maft.dev/method']}-")
    assert [(row["phase"], row["run"] in server.runs) for row in server.status["rows"]] == [
        ("Pending", True), ("Pending", True), ("Waiting", False), ("Waiting", False), ("Pending", True), ("Pending", True)
    ]  # fmt: skip
    assert (server.status["phase"], server.status["runs"]["text"]) == ("Running", "0/6")
    assert server.condition("Reconciling")["status"] == "True"


def test_from_the_first_run_to_the_table() -> None:
    """A run at a time; the last one fails, and the table is over the others."""
    server, order = Server(seeds=1), []
    for mean in (0.25, 0.5, 0.75):
        looked(server)
        [name] = [name for name, run in server.runs.items() if "status" not in run]
        order.append(name)
        server.end(name, "Complete" if mean < 0.7 else "Failed", mean)
    assert looked(server) == 10.0
    [job] = server.objects["Job"].values()
    assert (job["metadata"]["name"], server.status["phase"]) == ("arithmetic-compare", "Comparing")
    assert "maft.dev/run" not in {**job["metadata"]["labels"], **job["spec"]["template"]["metadata"]["labels"]}
    [container] = job["spec"]["template"]["spec"]["containers"]
    line = " ".join(container["args"] if "args" in container else container["command"])
    assert [name in line for name in order] == [True, True, False]
    best = Score(0.5, 0.05)
    server.finish_job(CompareSummary(table="method  accuracy\nmajority  50.0\n", report="there", methods=2, accuracy=best))
    assert looked(server) is None
    assert server.status["accuracy"] == {"mean": 0.5, "stderr": 0.05, "text": "50.0 ± 5.0"}
    assert server.status["phase"] == "Complete" and server.status["table"].startswith("method  accuracy")
    assert server.status["report"].startswith("s3://") and server.status["report"].endswith("ns/arithmetic/compare/index.html")
    assert server.status["best"] == {"method": "majority", "mean": 0.5, "text": "majority 50.0"}
    assert server.condition("Complete")["message"] == "2 of 3 runs complete, 1 failed"
    assert [server.condition(kind)["status"] for kind in ("Complete", "Reconciling", "Stalled")] == ["True", "False", "False"]


def test_a_copy_of_the_tables_job_is_not_taken_for_it() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.end(next(iter(server.runs)))
    looked(server)
    [job] = server.objects["Job"].values()
    failed = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": stamp(datetime.now(UTC))}], "failed": 9}
    server.put({**job, "metadata": {**job["metadata"], "name": "a-copy", "uid": "c"}, "status": failed})
    looked(server)
    assert server.status["phase"] == "Comparing" and {*server.objects["Job"]} == {job["metadata"]["name"], "a-copy"}


def test_where_all_runs_failed_so_has_the_comparison() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.end(next(iter(server.runs)), "Failed")
    looked(server)
    assert (server.status["phase"], server.condition("Failed")["reason"]) == ("Failed", "RunsFailed")
    assert server.condition("Stalled")["status"] == "True" and "Job" not in server.objects


def test_a_table_that_fails_says_why() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.end(next(iter(server.runs)))
    looked(server)
    server.finish_job(code=2)
    looked(server)
    assert server.status["phase"] == "Failed" and "no evaluation" in server.condition("Failed")["message"]


def test_runs_that_are_added_while_the_table_is_made_are_in_it() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.end(next(iter(server.runs)))
    looked(server)
    server.finish_job(CompareSummary(table="of one\n", report="there", methods=1))
    server.change(methods=["base", "majority"])
    looked(server)
    added = next(name for name, run in server.runs.items() if "status" not in run)
    server.end(added)
    looked(server)
    assert (server.status["phase"], server.objects["Job"]) == ("Comparing", {})
    server.objects["Pod"].clear()  # with its Job
    looked(server)
    server.finish_job(CompareSummary(table="of both\n", report="there", methods=2))
    looked(server)
    assert (server.status["phase"], server.status["table"]) == ("Complete", "of both\n")


def test_suspend_and_resume_reach_the_runs_and_change_nothing_else_of_them() -> None:
    server = Server(methods=["base"], seeds=2)
    looked(server)
    [name] = server.runs
    before = copy.deepcopy(server.runs[name]["spec"])
    server.change(suspend=True)
    looked(server)
    assert server.runs[name]["spec"] == {**before, "suspend": True}
    assert (server.status["phase"], server.condition("Suspended")["status"]) == ("Suspended", "True")
    server.change(suspend=False)
    looked(server)
    assert server.runs[name]["spec"] == {**before, "suspend": False} and len(server.runs) == 1


def test_a_run_that_is_refused_is_told_and_does_not_stop_the_others() -> None:
    server = Server(methods=["base"], seeds=2, maxParallel=2)
    first = next(row["run"] for row in _rows(server) if row["seed"] == 0)
    server.refuses[first] = Refused(403, "exceeded quota: runs, requested: count/multiagentfinetunes.maft.dev=1")
    assert looked(server) == 10.0
    assert len(server.runs) == 1 and first not in server.runs
    assert server.condition("Progressing")["reason"] == "QuotaExceeded" and first in server.condition("Progressing")["message"]
    assert server.condition("Stalled")["status"] == "True"
    assert {row["run"]: row.get("reason") for row in server.status["rows"]} == {
        first: "QuotaExceeded",
        next(iter(server.runs)): None,
    }


class Unlisted(Server):
    """Runs may not be listed."""

    async def list_all(self, kind: Kind, namespace: str | None, *, label_selector: str) -> Sequence[Json]:
        raise Refused(403, 'User "maft" cannot list resource "multiagentfinetunes"')


def test_one_whose_runs_may_not_be_listed_has_stalled_in_its_generation() -> None:
    server = Unlisted()
    server.change(maxParallel=2)
    with pytest.raises(Refused):
        looked(server)
    stalled = server.condition("Stalled")
    assert (stalled["status"], stalled["reason"], server.status["observedGeneration"]) == ("True", "OperatorForbidden", 2)


@pytest.mark.parametrize(
    ("phase", "condition", "reason"),
    [
        ("Preparing", {"type": "Progressing", "status": "False", "reason": "Unschedulable"}, "Unschedulable"),
        ("Debating", {"type": "Progressing", "status": "True", "reason": "Working"}, None),
        ("Failed", {"type": "Failed", "status": "True", "reason": "StoreUnusable"}, "StoreUnusable"),
        ("Complete", {"type": "Progressing", "status": "False", "reason": "AllIterationsDone"}, None),
    ],
)
def test_a_row_says_why_its_run_waits_or_failed(phase: str, condition: Json, reason: str | None) -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    [run] = server.runs.values()
    run["status"] = {"phase": phase, "conditions": [condition]}
    looked(server)
    [row] = server.status["rows"]
    assert (row["phase"], row.get("reason")) == (phase, reason)


def test_a_name_that_somebody_elses_run_has_is_not_taken_over() -> None:
    server = Server(methods=["base"], seeds=1)
    name = _rows(server)[0]["run"]
    theirs = {"apiVersion": "maft.dev/v1alpha1", "kind": kinds.RUN.name, "metadata": {"name": name, "namespace": "ns"}, "spec": {}}
    server.put(copy.deepcopy(theirs))
    looked(server)
    assert (
        server.runs[name]["spec"] == {}
        and "exists and is not the multiagentcomparison's" in server.condition("Progressing")["message"]
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"grid": {"debate.round": [2]}}, "spec.grid[debate.round]: no field of a run; did you mean debate.rounds?"),
        ({"template": {**TEMPLATE, "storage": None}}, "storage"),
        ({"template": resource()["spec"]["template"]}, "spec.template.storage: missing"),
    ],
)
def test_what_cannot_be_run_is_rejected_before_any_run_is_made(spec: Json, words: str) -> None:
    server = Server(**spec)
    assert looked(server) is None
    assert (server.status["phase"], server.condition("Accepted")["status"]) == ("Rejected", "False")
    assert words in server.condition("Accepted")["message"] and not server.runs


def test_one_that_has_begun_keeps_its_runs_when_it_can_no_longer_be_read() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.change(grid={"seed": [1]})
    looked(server)
    assert len(server.runs) == 1 and server.condition("Progressing")["reason"] == "InvalidSpec"


ON_INTEL = {"template": {**TEMPLATE, "gpuResource": "gpu.intel.com/xe"}, "seeds": 1}


def test_methods_that_do_not_train_are_compared_on_gpus_that_serve_alone() -> None:
    """Whatever the template would do by itself."""
    server = Server(**ON_INTEL, methods=["base", "majority", "debate"], maxParallel=3)
    looked(server)
    assert server.status["runs"]["total"] == 3 and server.condition("Accepted")["status"] == "True"


def test_one_that_would_train_on_gpus_that_serve_alone_does_not_begin_and_one_that_has_begun_goes_on() -> None:
    server = Server(**ON_INTEL, methods=["base", "multiagent"], maxParallel=2)
    looked(server)
    refusal = "run multiagent: gpuResource: gpu.intel.com/xe; training needs CUDA or ROCm"
    assert server.status["phase"] == "Rejected" and not server.runs
    assert refusal in server.condition("Accepted")["message"]
    begun = Server(methods=["base"], seeds=1)
    looked(begun)
    begun.change(**ON_INTEL, methods=["base", "multiagent"], maxParallel=2)
    looked(begun)
    assert len(begun.runs) == 2 and begun.condition("Accepted")["status"] == "True"


def test_trials_of_a_search_would_train_as_well() -> None:
    server = Server(**{**SEARCHED, "template": {**SEARCHED["template"], "gpuResource": "gpu.intel.com/xe"}})
    looked(server)
    assert server.status["phase"] == "Rejected" and "training needs CUDA or ROCm" in server.condition("Accepted")["message"]


def test_fields_of_a_newer_definition_are_passed_over_and_told() -> None:
    server = Server(methods=["base"], seeds=1, template={**TEMPLATE, "novelty": 1})
    looked(server)
    assert len(server.runs) == 1 and "template.novelty" in server.status["warnings"][0]


def test_fields_of_a_newer_definition_are_passed_over_in_what_is_searched_too() -> None:
    path, newer = "training.learningRate", {"low": 0.001, "high": 0.01, "step": 0.001}
    server = Server(**{**SEARCHED, "search": {"trials": 2, "parameters": {path: newer}}})
    looked(server)
    assert server.runs and f"search.parameters.{path}.step" in server.status["warnings"][0]


def test_it_is_read_once_for_each_spec_and_nothing_is_kept_of_one_that_is_gone() -> None:
    """As with a run: also where only a watch tells of its end, and no look."""
    server = Server()

    def reading() -> Any:
        looked(server)
        known = server.keys.state(KEY).read
        return known.reading if known else None

    first = reading()
    assert first is not None and reading() is first
    server.change(maxParallel=3)
    assert reading() is not first
    watched = Watched(server.keys, Metrics())
    watched.parent(kinds.COMPARISON, "DELETED", server.objects[COMPARISON]["arithmetic"])
    assert server.keys.state(KEY).read is None
    looked(server)
    while server.status["phase"] != "Failed":  # others begin as these end
        for name in server.runs:
            server.end(name, "Failed")
        looked(server)
    assert reading() is None


def test_it_expires_with_its_runs() -> None:
    server = Server(methods=["base"], seeds=1, ttlSecondsAfterFinished=0)
    looked(server)
    server.end(next(iter(server.runs)), "Failed")
    assert looked(server) is not None
    assert looked(server) is None and "arithmetic" not in server.objects[COMPARISON]


def test_looking_again_changes_nothing() -> None:
    server = Server(maxParallel=2)
    looked(server)
    before = copy.deepcopy(server.objects)
    looked(server)
    assert server.objects == before


def test_of_a_finished_one_nothing_is_looked_at_again() -> None:
    server = Server(methods=["base"], seeds=1)
    looked(server)
    server.end(next(iter(server.runs)), "Failed")
    looked(server)
    watched = Watched(Keys(Queue(), Metrics()), Metrics())
    watched.parent(kinds.COMPARISON, "MODIFIED", server.objects[COMPARISON]["arithmetic"])
    assert watched.settled == {KEY}


def test_runs_of_a_comparison_that_only_a_newer_release_knows_whole_stay() -> None:
    """Taken back to this release, an operator passes over what says that they are wanted."""
    server = Server(methods=["base"], seeds=1)
    looked(server)
    [name] = server.runs
    other = copy.deepcopy(server.runs[name])
    server.put({**other, "metadata": {**other["metadata"], "name": "of-a-newer-release", "uid": "n"}})
    server.change(sweep={"trials": 3})
    looked(server)
    assert {*server.runs} == {name, "of-a-newer-release"} and "spec.sweep" in server.status["warnings"][0]
    del server.objects[COMPARISON]["arithmetic"]["spec"]["sweep"]
    server.change()
    looked(server)
    assert {*server.runs} == {name}


# --- a search ---

SEARCHED: dict[str, Any] = {
    "template": {**TEMPLATE, "evaluation": {"validation": 20}},
    "methods": ["base", "multiagent"],
    "seeds": 1,
    "maxParallel": 2,
    "search": {"trials": 4, "parameters": {"training.learningRate": {"low": 0.0001, "high": 0.01, "log": True}}},
}


def end_trials(server: Server, held_out: float) -> list[str]:
    """Ends what is there; the fewer validation questions a trial has right, the more held-out ones. Returns its names."""
    ended = []
    for number, (name, run) in enumerate(server.runs.items()):
        if "status" not in run:
            server.end(name, mean=held_out)
            run["status"]["best"] = {"iteration": 1, "accuracy": {"mean": 0.9 - number / 10, "stderr": 0.01, "text": "x"}}
            ended.append(name)
    return ended


def test_a_search_from_its_first_wave_to_the_table_of_what_validation_chose() -> None:
    server = Server(**SEARCHED)
    looked(server)
    assert len(server.runs) == 2  # the base, and the first trial of two
    assert server.status["search"] == [{"method": "multiagent", "trials": 0}]
    for mean in (0.2, 0.4, 0.6, 0.8):
        end_trials(server, mean)
        looked(server)
    rows = server.status["rows"]
    trials = [row for row in rows if "trial" in row]
    assert [row["trial"] for row in trials] == [0, 1, 2, 3] and len({row["run"] for row in rows}) == 5
    best = max(trials, key=lambda row: row["validated"])
    assert best["accuracy"]["mean"] < max(row["accuracy"]["mean"] for row in trials)
    told = {"method": "multiagent", "trials": 4, "trial": best["trial"], "row": best["method"], "validated": best["validated"]}
    assert server.status["search"] == [told]
    assert server.status["best"]["method"] in ("base", best["method"])
    [job] = server.objects["Job"].values()
    [container] = job["spec"]["template"]["spec"]["containers"]
    line = " ".join(container["args"] if "args" in container else container["command"])
    assert {row["run"] for row in rows if row["run"] in line} == {rows[0]["run"], best["run"]}
    server.finish_job(CompareSummary(table="of two\n", report="there", methods=2))
    looked(server)
    assert server.status["phase"] == "Complete"


def test_another_operator_goes_on_with_the_trials_that_were_made_also_after_they_were_stopped() -> None:
    server = Server(**SEARCHED)
    looked(server)
    server.change(suspend=True)
    looked(server)
    kept = {name: run["metadata"]["annotations"] for name, run in server.runs.items() if "annotations" in run["metadata"]}
    assert [json.loads(one["maft.dev/trial"])["number"] for one in kept.values()] == [0]
    server.comparisons = Comparisons(server, IMAGES, keys=server.keys, writer=writer(server, Metrics()))  # type: ignore[arg-type]
    server.change(suspend=False, maxParallel=1)
    looked(server)
    assert {name: server.runs[name]["metadata"]["annotations"] for name in kept} == kept
    end_trials(server, 0.5)
    looked(server)
    assert [row["trial"] for row in server.status["rows"] if "trial" in row] == [0, 1]


def test_a_trial_that_is_being_deleted_is_made_anew_before_there_is_a_table() -> None:
    server = Server(**SEARCHED)
    for _ in range(3):  # the base and a trial, the rest of the first wave, the second
        looked(server)
        end_trials(server, 0.5)
    [last] = [row["run"] for row in server.status["rows"] if row.get("trial") == 3]
    server.runs[last]["metadata"]["deletionTimestamp"] = stamp(datetime.now(UTC))  # its children go first
    looked(server)
    assert server.status["phase"] == "Running" and "Job" not in server.objects
    del server.runs[last]
    looked(server)
    assert server.status["phase"] == "Running" and last in server.runs


def test_a_search_without_a_trial_that_has_a_value_says_so() -> None:
    server = Server(**{**SEARCHED, "methods": ["multiagent"], "search": {**SEARCHED["search"], "trials": 2}})
    for _ in range(2):
        looked(server)
        for name in server.runs:
            server.end(name)  # complete, and without a word about validation questions
    looked(server)
    assert (server.status["phase"], "Job" in server.objects) == ("Failed", False)
    assert "spec.search: no trial has a value" in server.condition("Failed")["message"]


def test_a_comparison_does_not_expire_while_a_run_of_it_sends() -> None:
    target = {"to": "mlflow", "address": "http://mlflow:5000"}
    template = {**TEMPLATE, "export": [target]}
    server = Server(template=template, methods=["base"], seeds=1, ttlSecondsAfterFinished=0)
    looked(server)
    [name] = server.runs
    server.end(name)
    complete = {"type": "Complete", "status": "True"}
    sending = {**target, "phase": "Sending", "iteration": 0, "last": True}
    server.runs[name]["status"] |= {"conditions": [complete], "exports": [sending]}
    looked(server)
    server.finish_job(CompareSummary(table="of one\n", report="there", methods=1))
    for _ in range(2):
        again = looked(server)
    assert again and server.objects[COMPARISON]
    server.runs[name]["status"]["exports"] = [{**sending, "phase": "Failed"}]
    looked(server)
    assert not server.objects[COMPARISON]


def told(*events: tuple[str, dict[str, Any]]) -> list[int]:
    """Which of these events about one of its runs make the comparison due: 1 where it is, by event."""

    async def scenario() -> list[int]:
        queue = Queue()
        watched, due = Watched(Keys(queue, Metrics()), Metrics()), []
        watched.kinds = (kinds.RUN, kinds.COMPARISON)
        for number, (kind, body) in enumerate(events):
            metadata = {"name": "r", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": str(number)}
            labels = {"creationTimestamp": stamp(datetime.now(UTC)), "labels": {"maft.dev/comparison": "arithmetic"}}
            watched.run(kind, {**body, "metadata": {**metadata, **labels, **body.get("metadata", {})}})
            keys = [await queue.get() for _ in range(len(queue))]
            due.append(keys.count(KEY))
            for key in keys:
                queue.done(key)
        return due

    return asyncio.run(scenario())


def test_how_far_a_run_is_by_itself_is_nothing_to_its_comparison() -> None:
    at_work = {"phase": "Training", "done": {"debate": "1"}}
    assert told(
        ("ADDED", {"status": at_work}),
        ("MODIFIED", {"status": {**at_work, "progress": {"percent": 50}, "spent": {"seconds": 9}}}),
        ("MODIFIED", {"status": {**at_work, "done": {"debate": "1-2"}}}),
        ("MODIFIED", {"status": {**at_work, "done": {"debate": "1-2"}, "conditions": []}}),
        ("MODIFIED", {"status": {"phase": "Complete"}}),
        ("MODIFIED", {"status": {"phase": "Complete"}, "metadata": {"generation": 2}}),
        ("MODIFIED", {"status": {"phase": "Complete"}, "metadata": {"generation": 2, "deletionTimestamp": "now"}}),
        ("DELETED", {"status": {"phase": "Complete"}}),
        ("ADDED", {"status": {"phase": "Complete"}}),
    ) == [1, 0, 1, 0, 1, 1, 1, 1, 1]


def test_what_changes_of_its_runs_waits_until_a_look_at_them_all_is_affordable() -> None:
    """And what is said of the comparison itself, such as suspend, does not."""

    async def scenario() -> tuple[list[float], bool]:
        server, queue = Server(methods=["base"], seeds=100, maxParallel=100), Queue()
        keys, loop = Keys(queue, Metrics()), asyncio.get_running_loop()
        await server.comparisons.look(KEY, keys.state(KEY))  # makes them
        rests = []
        for _ in range(2):
            await server.comparisons.look(KEY, keys.state(KEY))
            rests.append(keys.state(KEY).rests - loop.time())
        keys.stir(KEY)
        waits = queue.late() == 0.0 and KEY in queue
        keys.wake(KEY)
        return rests, waits and await asyncio.wait_for(queue.get(), 1) == KEY

    rests, waits = asyncio.run(scenario())
    assert waits and all(1.0 < rest <= 2.5 for rest in rests)


def test_the_largest_status_is_small_enough_for_an_object() -> None:
    """Eight hundred runs: less than half of what etcd takes."""
    server = Server(
        methods=["majority", "multiagent"], seeds=100, grid={"debate.temperature": [0.7, 0.8, 0.9, 1.0]}, maxParallel=100
    )
    for _ in range(8):
        looked(server)
        for name, run in server.runs.items():
            if "status" not in run:
                server.end(name, mean=0.123456789)
    looked(server)
    assert server.status["runs"] == {"total": 800, "active": 0, "complete": 800, "failed": 0, "text": "800/800"}
    assert len(str(server.status)) < 700_000


def _rows(server: Server) -> list[Json]:
    """The rows that the comparison will have, from another one like it."""
    other = Server(**server.objects[COMPARISON]["arithmetic"]["spec"])
    looked(other)
    rows: list[Json] = other.status["rows"]
    return rows
