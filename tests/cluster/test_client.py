"""The Python client against a real API server, without controllers: what it applies, what it reads, what it is refused."""

import os
from pathlib import Path

import pytest
import yaml
from conftest import resource
from kube import RUNS, Json
from kube_objects import STORAGE
from test_kubectl_maft import COMPLETE, FAILED, WORKING, Scene, kubeconfig, scene_fixture  # noqa: F401 - the fixture `scene`

from maft_client import Client, MaftError, NoSuchRun, Refused, RunFailed, Score
from maft_operator.spec.schema import COMPARISON

pytestmark = pytest.mark.cluster
ROWS = [
    {"iteration": 0, "answer": {"mean": 0.25, "stderr": 0.05}, "accuracy": {"mean": 0.3, "stderr": 0.05}},
    {"iteration": 1, "accuracy": {"mean": 0.5, "stderr": 0.04}, "agreement": 0.75, "kept": {"generator": {"fewest": 3, "most": 5}}},
]


@pytest.fixture(name="client")
def client_fixture(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("KUBECONFIG", str(scene.kubeconfig))
    return Client.cluster()


def small(name: str, **spec: object) -> Json:
    return resource(name, storage=STORAGE, **spec)


def test_submitted_followed_and_read(scene: Scene, client: Client, tmp_path: Path) -> None:
    run = client.submit(small("asked"))
    assert run == "default/asked" and client.status("asked").phase == "Pending"
    status = {**WORKING, "artifacts": {**WORKING["artifacts"], "adapters": "s3://b/adapters/"}}
    scene.kube.merge_status(RUNS, "default", "asked", {"status": status})
    now = client.status(run)
    assert (now.phase, now.over, now.iteration, now.progress) == ("Debating", False, "1/2", "40 %, 5m00s left")
    assert now.accuracy == Score(0.5, 0.01) and str(now.base) == "40.0 ± 1.0" and client.adapters(run) == "s3://b/adapters/"
    with pytest.raises(TimeoutError, match="default/asked: Debating after 0 seconds"):
        client.wait(run, timeout=0)

    scene.kube.merge_status(RUNS, "default", "asked", {"status": {**COMPLETE, "iterations": ROWS}})
    assert client.wait(run, timeout=30).phase == "Complete"
    frame = client.results(run).frame()
    assert list(frame.index) == [0, 1] and frame.loc[1, "kept.generator.most"] == 5 and frame.loc[0, "answerStderr"] == 0.05

    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(small("asked", suspend=True)).replace("learningRate: 0.003", "learningRate: 3e-3"))
    assert client.submit(file) == run  # as kubectl reads it: 3e-3 is a number
    assert scene.kube.get(RUNS, "default", "asked")["spec"]["training"]["learningRate"] == 0.003
    client.submit(small("asked"))
    assert scene.kube.get(RUNS, "default", "asked")["spec"]["suspend"] is False
    client.stop("asked")
    assert scene.kube.get(RUNS, "default", "asked")["spec"]["suspend"] is True


def test_a_comparison_submitted_followed_and_read(scene: Scene, client: Client) -> None:
    run = small("compared")
    whole = {**run, "kind": COMPARISON, "spec": {"template": run["spec"], "methods": ["base", "multiagent"], "seeds": 1}}
    with pytest.raises(Refused, match=r"MultiAgentComparison; expected maft.dev/v1alpha1 MultiAgentFinetune"):
        client.submit(whole)
    name = client.comparisons.submit(whole)
    assert name == "default/compared" and client.comparisons.status(name).phase == "Pending"
    rows = [
        {
            "method": "base",
            "seed": 0,
            "run": "c-base-0",
            "phase": "Complete",
            "accuracy": {"mean": 0.25, "stderr": 0.05, "text": "25"},
        },
        {"method": "multiagent", "seed": 0, "run": "c-multiagent-0", "phase": "Debating"},
    ]
    status = {"phase": "Running", "runs": {"total": 2, "complete": 1, "text": "1/2"}, "rows": rows}
    scene.kube.merge_status(COMPARISON, "default", "compared", {"status": status})
    assert client.comparisons.status(name).progress == "1/2"
    frame = client.comparisons.results("compared").frame()
    assert list(frame["method"]) == ["base", "multiagent"] and frame.loc[0, "accuracyStderr"] == 0.05
    client.comparisons.stop(name)
    assert scene.kube.get(COMPARISON, "default", "compared")["spec"]["suspend"] is True
    accuracy = {"mean": 0.25, "stderr": 0.05, "text": "25.0 ± 5.0"}
    over = {"phase": "Complete", "completionTime": "2026-01-01T00:00:00Z", "report": "s3://b/compare/index.html"}
    scene.kube.merge_status(COMPARISON, "default", "compared", {"status": {**over, "accuracy": accuracy}})
    ended = client.comparisons.wait(name, timeout=30)
    assert (ended.report, str(ended.accuracy)) == ("s3://b/compare/index.html", "25.0 ± 5.0")
    with pytest.raises(NoSuchRun):
        client.status("compared")  # no run is called so


def test_a_failed_run(scene: Scene, client: Client) -> None:
    run = client.submit(small("bad"))
    scene.kube.merge_status(RUNS, "default", "bad", {"status": FAILED})
    with pytest.raises(RunFailed, match="default/bad: SourceMissing: no such file at all"):
        client.wait(run, timeout=30)
    assert client.wait(run, check=False).reason == "SourceMissing"


def test_events_are_those_of_this_run(scene: Scene, client: Client) -> None:
    run = client.submit(small("heard"))
    metadata = scene.kube.get(RUNS, "default", "heard")["metadata"]
    for number, (uid, kind) in enumerate(((metadata["uid"], "Warning"), (metadata["uid"], "Normal"), ("another", "Normal"))):
        scene.kube.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"heard.{number}", "namespace": "default"},
                "involvedObject": {"kind": RUNS, "name": "heard", "namespace": "default", "uid": uid},
                "type": kind,
                "reason": f"Reason{number}",
                "message": "words",
                "lastTimestamp": f"2026-01-01T00:00:0{9 - number}Z",
            },
            "default",
        )
    assert [(e.reason, e.warning) for e in client.events(run)] == [("Reason1", False), ("Reason0", True)]


def test_another_context_and_namespace(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kubeconfig(scene.plane, tmp_path / "team", scene.plane.token, namespace="team")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert Client.cluster().status("theirs").run == "team/theirs"
    assert Client.cluster("scale", "default").status("one").run == "default/one"
    second = tmp_path / "second"
    second.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "elsewhere"}))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "missing"), str(path), str(second)]))
    assert Client.cluster().status("theirs").run == "team/theirs"
    with pytest.raises(MaftError, match="the kubeconfig has no context 'other'; there are: scale"):
        Client.cluster("other")


REFUSED = {
    "a field": (small("x", debate={"round": 3}), r"\.spec\.debate\.round: field not declared in schema"),
    "a bound": (small("x", agents=0), r"spec\.agents"),
    "a rule": (small("x", debate={"minAgreement": 9}), r"minAgreement"),
    "a kind": ({**small("x"), "kind": "Pod"}, "kind: maft.dev/v1alpha1 Pod; expected"),
    "no name": ({**small("x"), "metadata": {}}, "metadata.name: missing"),
    "a path": ({**small("x"), "metadata": {"name": "../../x"}}, "no name; expected small letters"),
    "a namespace": ({**small("x"), "metadata": {"name": "x", "namespace": "a/b"}}, "no name; expected small letters"),
    "nothing": ({}, "metadata.name: missing"),
    "no spec": ({**small("x"), "spec": None}, "spec"),
    "a file": ("missing.yaml", "missing.yaml: No such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line(name: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given, words = REFUSED[name]
    with pytest.raises(Refused, match=words) as error:
        client.submit(given)
    assert "\n" not in str(error.value)


def test_who_is_not_there_and_who_may_not(scene: Scene, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (client.status, client.results, client.events, client.stop):
        with pytest.raises(NoSuchRun, match="default/none: there is none of that name"):
            ask("none")
    with pytest.raises(MaftError, match="expected small letters"):
        client.status("a/..b")
    monkeypatch.setenv("KUBECONFIG", str(scene.plane.folder / "kubeconfig"))
    with pytest.raises(Refused, match="is forbidden: User"):
        Client.cluster().status("one")
    away = tmp_path / "away"
    away.write_text(scene.kubeconfig.read_text().replace(scene.plane.url, "https://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(away))
    with pytest.raises(MaftError, match="the API server does not answer"):
        Client.cluster().status("one")
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    with pytest.raises(MaftError, match="no cluster: "):
        Client.cluster()
