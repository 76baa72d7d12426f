"""`kubectl maft logs` and `report`: whose logs are printed, in which order, until when; what is read of the bucket."""

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from answering import answering
from hypothesis import given
from hypothesis import strategies as st
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from test_bundle import NS, kubeconfig
from test_comparison import resource as comparison_resource

from maft.store.urls import open_store
from maft_operator.cluster.comparison.objects import table_job
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import CHILD, COMPONENT, ITERATION
from maft_operator.cluster.manifests import RUN as LABEL
from maft_operator.ended import is_over
from maft_operator.kubectl import asked, tables
from maft_operator.kubectl.__main__ import main
from maft_operator.kubectl.logs import Wanted
from maft_operator.plan.comparison import table_graph
from maft_operator.spec import comparison
from maft_operator.spec.schema import Json

UID = "u-run"
RUNS, JOBS = f"/apis/maft.dev/v1alpha1/namespaces/{NS}/multiagentfinetunes", f"/apis/batch/v1/namespaces/{NS}/jobs"
COMPARISONS = f"/apis/maft.dev/v1alpha1/namespaces/{NS}/multiagentcomparisons"
PODS, DEPLOYMENTS = f"/api/v1/namespaces/{NS}/pods", f"/apis/apps/v1/namespaces/{NS}/deployments"
SECRETS = f"/api/v1/namespaces/{NS}/secrets"
RUNNING, WAITING = {"state": {"running": {}}}, {"state": {"waiting": {}}}


def about(name: str, component: str, iteration: str, owner: Json, created: str = "2026-01-01T00:00:00Z") -> Json:
    labels = {LABEL: "r", CHILD: f"r-{iteration}-{component}", COMPONENT: component, ITERATION: iteration}
    made = {"name": name, "namespace": NS, "uid": f"u-{name}", "labels": labels, "creationTimestamp": created}
    return {**made, "ownerReferences": [{**owner, "controller": True}]}


def job(component: str, iteration: str, uid: str = UID) -> Json:
    return {"metadata": about(f"r-{iteration}-{component}", component, iteration, {"kind": "MultiAgentFinetune", "uid": uid})}


def pod(component: str, iteration: str, *, made: Json | None = None, minute: int = 0, name: str = "", **status: Json) -> Json:
    owner = {"kind": "Job", "uid": f"u-r-{iteration}-{component}"} if made is None else made
    container = "trainer" if component in ("train", "preflight") else "debate"
    metadata = about(name or f"r-{iteration}-{component}-x", component, iteration, owner, f"2026-01-01T00:{minute:02d}:00Z")
    several = [{"name": name, **state} for name, state in (status or {container: RUNNING}).items()]
    return {"metadata": metadata, "status": {"containerStatuses": several}}


@dataclass
class World:
    """What the API server has. logs: by pod and container, and whether it is the one before; looks: at the run."""

    run: Json
    jobs: list[Json] = field(default_factory=list)
    pods: list[Json] = field(default_factory=list)
    deployments: list[Json] = field(default_factory=list)
    secret: Json | None = None
    logs: Mapping[tuple[str, str, bool], bytes] = field(default_factory=dict)
    later: Callable[["World"], None] = lambda world: None
    looks: int = 0
    place: str = RUNS
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query)))
        if request.path == f"{self.place}/r":
            self.looks += 1
            self.later(self)
            return web.json_response(self.run)
        if request.path == f"{SECRETS}/keys" and self.secret:
            return web.json_response(self.secret)
        lists = {JOBS: self.jobs, PODS: self.pods, DEPLOYMENTS: self.deployments}
        if request.path in lists:
            return web.json_response({"items": [t for t in lists[request.path] if _matches(t, request.query["labelSelector"])]})
        key = (request.path.split("/")[-2], request.query.get("container", ""), "previous" in request.query)
        if request.path.endswith("/log") and key in self.logs:
            return web.Response(body=self.logs[key])
        return web.json_response({"message": f"may not get {request.path}"}, status=403)


def _matches(thing: Json, selector: str) -> bool:
    return all(thing["metadata"]["labels"].get(key) == value for key, _, value in (s.partition("=") for s in selector.split(",")))


def called(world: World, folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    async def scenario() -> "subprocess.CompletedProcess[bytes]":
        async with answering(world.answer) as url:
            variables = {**os.environ, "KUBECONFIG": str(kubeconfig(folder, url)), **environment}
            line = [sys.executable, "-m", "maft_operator.kubectl", *arguments]
            return await asyncio.to_thread(subprocess.run, line, env=variables, capture_output=True, timeout=60)

    return asyncio.run(scenario())


def run(over: bool = False, **storage: Json) -> Json:
    status = {"completionTime": "2026-01-01T00:00:00Z"} if over else {}
    spec = {"storage": {"bucket": "bucket", "prefix": "", "region": "", **storage}} if storage is not None else {}
    return {"metadata": {"name": "r", "namespace": NS, "uid": UID}, "spec": spec, "status": status}


def world() -> World:
    """A run in its first iteration: what it debates and trains, a pod of a stranger with our labels, one of an earlier run."""
    jobs = [job("prepare", "0"), job("debate", "1"), job("train", "1"), job("evaluate", "1", uid="u-another-run")]
    pods = [
        pod("train", "1", minute=4, trainer=RUNNING, sidecar=RUNNING),
        pod("debate", "1", minute=2, debate={**RUNNING, "restartCount": 1}),
        pod("prepare", "0", minute=1),
        pod("debate", "1", made={"kind": "Job", "uid": "u-theirs"}, name="stranger"),
        pod("evaluate", "1"),
    ]
    logs = {
        ("r-0-prepare-x", "debate", False): b"40 questions\n",
        ("r-1-debate-x", "debate", False): b"round 1\rround 2\nround 3",
        ("r-1-debate-x", "debate", True): b"no memory\n",
        ("r-1-train-x", "trainer", False): b"step 1\n",
        ("r-1-train-x", "sidecar", False): b"proxy\n",
        ("stranger", "debate", False): b"believe me\n",
        ("r-1-evaluate-x", "debate", False): b"another's\n",
    }
    return World(run(), jobs, pods, logs=logs)


def compared(**storage: Json) -> World:
    """A comparison that has made its table, and one of its runs, which carries its label as well."""
    whole = comparison_resource()
    whole["metadata"] = {"name": "r", "namespace": NS, "uid": UID}
    whole["spec"]["template"]["storage"] = {"bucket": "bucket", "prefix": "", "region": "", **storage}
    one = comparison.read(whole)
    [task] = table_graph(one, [child.run.name for child in one.children]).tasks
    made = table_job(task, one, UID, Images("registry/maft", "1"))
    name = made["metadata"]["name"]
    made["metadata"]["uid"] = f"u-{name}"
    owners = [{"kind": "Job", "uid": f"u-{name}", "controller": True}]
    metadata = {**made["spec"]["template"]["metadata"], "name": f"{name}-x", "namespace": NS, "ownerReferences": owners}
    tabled = {"metadata": metadata, "status": {"containerStatuses": [{"name": "debate", **RUNNING}]}}
    theirs = job("debate", "1", uid="u-of-a-run")
    theirs["metadata"]["labels"]["maft.dev/comparison"] = "r"
    logs = {(f"{name}-x", "debate", False): b"4 methods\n"}
    return World(whole, [theirs, made], [pod("debate", "1"), tabled], logs=logs, place=COMPARISONS)


OF_COMPARISONS = ("--kind", "comparisons")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--task", "compare"), "error: --task compare: no task of runs; name one with --kind comparisons\n"),
        (
            ("--task", "debate", *OF_COMPARISONS),
            "error: --task debate: no task of comparisons; leave --kind out and name one of its runs\n",
        ),
        (("--kind", "societies"), "argument --kind: invalid choice: 'societies'"),
    ],
)
def test_a_task_that_such_a_thing_never_has_is_refused_before_the_cluster_is_asked(
    flags: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["logs", "r", *flags])
    assert ended.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.programs
@pytest.mark.parametrize("flags", [(), ("--task", "compare")])
def test_of_a_comparison_the_tables_own(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = called(compared(), tmp_path, "logs", "r", *OF_COMPARISONS, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"4 methods\n", b"")


@pytest.mark.programs
def test_where_a_comparisons_report_lies(tmp_path: Path) -> None:
    there = compared()
    flags = ("report", "r", *OF_COMPARISONS)
    assert called(there, tmp_path, *flags).stdout == f"s3://bucket/{NS}/r/compare/index.html\n".encode()
    there.run["status"] = {"report": "s3://said/by/its/status.html"}
    assert called(there, tmp_path, *flags).stdout == b"s3://said/by/its/status.html\n"
    del there.run["spec"]["template"]["storage"]
    bare = called(there, tmp_path, *flags, "--to", str(tmp_path))
    assert bare.returncode == 2 and bare.stderr.startswith(b"error: spec.template.storage: ") and bare.stderr.count(b"\n") == 1
    assert bare.stderr.endswith(b"; the comparison has no bucket to look into\n")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--tail=-1", "argument --tail: '-1' is no whole number of 0 or more"),
        ("--iteration=-2", "argument --iteration: '-2' is no whole number of 0 or more"),
        ("--iteration=last", "argument --iteration: 'last' is no whole number of 0 or more"),
    ],
)
def test_numbers_that_count_nothing_are_refused_before_the_cluster_is_asked(flag: str, says: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["logs", "r", flag])
    assert ended.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.programs
@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        (
            (),
            b"==> r-0-prepare-x <==\n40 questions\n==> r-1-debate-x <==\nround 1\rround 2\nround 3\n==> r-1-train-x <==\nstep 1\n",
        ),
        (("--task", "debate"), b"round 1\rround 2\nround 3\n"),
        (("--iteration", "0"), b"40 questions\n"),
        (("--task", "debate", "--iteration", "1", "-p"), b"no memory\n"),
        (("-c", "sidecar"), b"proxy\n"),
    ],
)
def test_of_its_own_pods_the_oldest_first(flags: tuple[str, ...], printed: bytes, tmp_path: Path) -> None:
    done = called(world(), tmp_path, "logs", "r", *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")


@pytest.mark.programs
def test_of_exports(tmp_path: Path) -> None:
    there = World(run(), [job("export", "1")], [pod("export", "1")], logs={("r-1-export-x", "debate", False): b"refused\n"})
    done = called(there, tmp_path, "logs", "r", "--task", "export")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"refused\n", b"")


@pytest.mark.programs
def test_lines_from_the_end_are_the_servers_to_count(tmp_path: Path) -> None:
    there = world()
    called(there, tmp_path, "logs", "r", "--tail", "5")
    assert {query.get("tailLines") for path, query in there.asked if path.endswith("/log")} == {"5"}


@pytest.mark.programs
def test_of_servers(tmp_path: Path) -> None:
    owner = {"kind": "ReplicaSet", "uid": "u-rs", "name": "r-base-5f"}
    made = {"metadata": about("r-base", "serve", "0", {"kind": "MultiAgentFinetune", "uid": UID})}
    serving = pod("serve", "0", made=owner, name="r-base-5f-x", inference=RUNNING)
    serving["metadata"]["labels"] |= {CHILD: "r-base", "pod-template-hash": "5f"}
    logs = {("r-base-5f-x", "inference", False): b"vLLM\n"}
    done = called(World(run(), pods=[serving], deployments=[made], logs=logs), tmp_path, "logs", "r", "--task", "serve")
    assert (done.returncode, done.stdout) == (0, b"vLLM\n"), done.stderr


@pytest.mark.programs
def test_followed_until_the_run_has_ended_with_pods_that_come_later(tmp_path: Path) -> None:
    there = world()
    waiting = pod("train", "1", trainer=WAITING)
    there.pods = [there.pods[2], waiting]

    def later(state: World) -> None:
        if state.looks == 2:
            state.pods = world().pods
            state.run = run(over=True)

    there.later = later
    done = called(there, tmp_path, "logs", "r", "-f")
    assert done.returncode == 0, done.stderr
    lines = [
        b"[r-0-prepare-x] 40 questions",
        b"[r-1-debate-x] round 1\rround 2",
        b"[r-1-debate-x] round 3",
        b"[r-1-train-x] step 1",
    ]
    assert sorted(done.stdout.strip(b"\n").split(b"\n")) == sorted(lines)


def rejected(generation: int) -> Json:
    """A run whose spec of generation 1 was refused."""
    conditions = [{"type": "Accepted", "status": "False", "reason": "InvalidSpec", "message": "spec.agents: \x1b[2J-1"}]
    made = run()
    status = {"phase": "Rejected", "observedGeneration": 1, "conditions": conditions}
    return {**made, "metadata": {**made["metadata"], "generation": generation}, "status": status}


@pytest.mark.programs
def test_nobody_waits_for_a_run_that_was_rejected(tmp_path: Path) -> None:
    assert called(World(rejected(1)), tmp_path, "logs", "r", "-f").returncode == 0
    assert asked.failure(rejected(1)) == "InvalidSpec: spec.agents: [2J-1"
    assert not is_over(rejected(2))  # changed since, and not looked at yet

    async def scenario() -> None:
        async with answering(World(rejected(1)).answer) as url:
            context = {"KUBECONFIG": str(kubeconfig(tmp_path, url))}
            code = "from maft import Client; s = Client.cluster().wait('r', 30, check=False); print(s.phase, s.failed, s.reason)"
            line = [sys.executable, "-c", code]
            done = await asyncio.to_thread(subprocess.run, line, env={**os.environ, **context}, capture_output=True, timeout=60)
            assert done.stdout == b"Rejected True InvalidSpec\n", done.stderr

    asyncio.run(scenario())


@pytest.mark.programs
def test_a_log_that_may_not_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    there = world()
    there.run = run(over=True)
    there.logs = {key: log for key, log in there.logs.items() if "prepare" not in key[0]}
    done = called(there, tmp_path, "logs", "r", "-f")
    assert done.stderr.startswith(b"[r-0-prepare-x] 403: may not get ") and b"[r-1-train-x] step 1" in done.stdout


LOGS = {
    "prepare-20260101T000000Z-r-0-prepare-x-1.log": "40 questions\n",
    "debate-1-20260101T000100Z-r-1-debate-x-1.log": "round 1\nround 2\n",
    "debate-2-20260101T000200Z-r-2-debate-x-1.log": "round 9\n",
    "evaluate-2-20260101T000300Z-r-2-evaluate-x-1.log": "right\n",
}


@pytest.fixture(name="bucket")
def bucket_fixture(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Json:
    """The storage of a run that has left logs and a report in a real bucket."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    prefix = f"kubectl/{tmp_path.name}"
    store = open_store(s3.url(prefix))
    for name, log in LOGS.items():
        store.write(f"{NS}/r/logs/{name}", log.encode())
    for name in ("index.html", "report.json", "_COMMIT.json"):
        store.write(f"{NS}/r/report/{name}", name.encode())
    store.write(f"{NS}/r2/report/index.html", b"another's")
    store.write(f"{NS}/r/compare/table.md", b"| base |")
    store.write(f"{NS}/r/logs/compare-20260101T000400Z-r-compare-x-1.log", b"4 methods\n")
    return {"bucket": s3.bucket, "prefix": prefix, "endpoint": s3.endpoint, "region": "us-east-1"}


@pytest.mark.s3
@pytest.mark.programs
@pytest.mark.parametrize(
    ("flags", "logs"),
    [
        (("--task", "debate", "--iteration", "2"), ("round 9\n",)),
        (("--task", "debate"), ("round 1\nround 2\n", "round 9\n")),
        (("--iteration", "2"), ("round 9\n", "right\n")),
        (("--tail", "1"), ("40 questions\n", "round 2\n", "round 9\n", "right\n", "4 methods\n")),
        (("--kept", "--task", "prepare"), ("40 questions\n",)),
    ],
)
def test_where_pods_are_gone_the_bucket_has_logs(
    flags: tuple[str, ...], logs: tuple[str, ...], bucket: Json, tmp_path: Path
) -> None:
    done = called(World(run(over=True, **bucket)), tmp_path, "logs", "r", *flags)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.decode().splitlines(keepends=True) if not line.startswith("==> ")]
    assert sorted(printed) == sorted("".join(logs).splitlines(keepends=True))
    assert done.stdout.count(b"==> ") == (len(logs) if len(logs) > 1 else 0)
    assert f"s3://{bucket['bucket']}/{bucket['prefix']}/{NS}/r/logs/".encode() in done.stderr and b"endpoint" not in done.stderr


@pytest.mark.s3
@pytest.mark.programs
def test_a_log_that_nobody_kept_is_one_line(bucket: Json, tmp_path: Path) -> None:
    done = called(World(run(**bucket)), tmp_path, "logs", "r", "--task", "train")
    assert done.returncode == 2 and b"nothing lies below team/r/logs/ under the name train-*\n" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.s3
@pytest.mark.programs
def test_a_report_is_fetched(bucket: Json, tmp_path: Path) -> None:
    done = called(World(run(**bucket)), tmp_path, "report", "r", "--to", str(tmp_path / "here"))
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "here").iterdir()} == {"index.html", "report.json", "_COMMIT.json"}
    assert str(tmp_path / "here" / "index.html") in done.stdout.decode()


@pytest.mark.s3
@pytest.mark.programs
def test_a_comparisons_report_and_logs_are_fetched_with_the_keys_of_its_runs(bucket: Json, s3: S3Server, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    there = compared(**bucket, credentialsSecret={"name": "keys"})
    there.secret = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}}
    nothing = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
    flags = ("r", *OF_COMPARISONS, "--secret")
    done = called(there, tmp_path, "report", *flags, "--to", str(tmp_path / "here"), **nothing)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["table.md"]
    kept = called(there, tmp_path, "logs", *flags, "--kept", "--task", "compare", **nothing)
    assert (kept.returncode, kept.stdout) == (0, b"4 methods\n"), kept.stderr


@pytest.mark.s3
@pytest.mark.programs
def test_with_the_keys_of_the_runs_own_secret(bucket: Json, s3: S3Server, tmp_path: Path) -> None:
    """They are used where the user says so, and one who may not read the Secret is told."""
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    secret = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}}
    there = World(run(**bucket, credentialsSecret={"name": "keys"}), secret=secret)
    nothing = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
    flags = ("report", "r", "--to", str(tmp_path / "here"))
    assert called(there, tmp_path, *flags, **nothing).returncode == 2
    assert called(there, tmp_path, *flags, "--secret", **nothing).returncode == 0
    there.secret = None
    refused = called(there, tmp_path, *flags, "--secret", **nothing)
    assert (refused.returncode, refused.stderr) == (1, f"error: 403: may not get {SECRETS}/keys\n".encode())
    without = called(World(run(**bucket)), tmp_path, *flags, "--secret")
    assert without.returncode == 2 and without.stderr.startswith(b"error: --secret: the run names no ")


@pytest.mark.programs
def test_a_run_without_a_bucket_has_nothing_kept(tmp_path: Path) -> None:
    bare = run()
    bare["spec"] = {}
    done = called(World(bare), tmp_path, "logs", "r")
    assert done.returncode == 2 and done.stderr.startswith(b"error: spec.storage: ") and done.stderr.count(b"\n") == 1


def test_which_names_a_pattern_means() -> None:
    assert Wanted("r", "debate", 2).kept == "debate-2-[0-9]*T[0-9]*Z-*"
    assert Wanted("r").selector(LABEL) == f"{LABEL}=r" and Wanted("r", iteration=0).selector("l") == f"l=r,{ITERATION}=0"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.dictionaries(st.sampled_from(["columnDefinitions", "rows", "metadata"]), JSON | st.lists(st.dictionaries(
    st.sampled_from(["cells", "object", "name", "priority"]), JSON))))  # fmt: skip
def test_any_answer_is_printed_as_lines(answer: Json) -> None:
    for line in tables.Printed(namespaces=True).lines(tables.read(answer)):
        assert line.isprintable()
