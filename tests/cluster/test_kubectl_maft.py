"""`kubectl maft` against a real API server and beside the real kubectl: its tables, its watches, whom it may see.

The server is one of our own, without controllers and nodes.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, resource, wait_until
from kube import RUNS, Json, Kube
from kube_objects import STORAGE

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane

pytestmark = pytest.mark.cluster
CRDS: list[Json] = [
    yaml.safe_load((ROOT / "crds" / f"{name}.yaml").read_text())
    for name in ("multiagentfinetunes", "multiagentcomparisons", "societies")
]
COMPARISON = "MultiAgentComparison"
WORKING: Json = {
    "phase": "Debating",
    "iteration": {"current": 1, "total": 2, "text": "1/2"},
    "progress": {"percent": 40, "text": "40 %, 5m00s left"},
    "accuracy": {"mean": 0.5, "stderr": 0.01, "text": "50.0 ± 1.0"},
    "baseAccuracy": {"mean": 0.4, "stderr": 0.01, "text": "40.0 ± 1.0"},
    "artifacts": {"report": "s3://bucket/runs/default/one/report/index.html"},
}
COMPLETE: Json = {"phase": "Complete", "completionTime": "2026-01-01T00:00:00Z"}


@dataclass
class Scene:
    """The API server with our definition. kubeconfig: of its administrator."""

    kube: Kube
    kubeconfig: Path
    kubectl: str
    plane: ControlPlane

    def run(self, name: str, namespace: str = "default", status: Json | None = None) -> None:
        made = {**resource(name, storage=STORAGE), "metadata": {"name": name, "namespace": namespace, "labels": {"team": name}}}
        self.kube.apply(made)
        if status:
            self.kube.merge_status(RUNS, namespace, name, {"status": status})

    def comparison(self, name: str, status: Json) -> None:
        template = resource(name, storage=STORAGE)["spec"]
        spec = {"template": template, "methods": ["base", "multiagent"], "seeds": 1}
        made = {"apiVersion": "maft.dev/v1alpha1", "kind": COMPARISON, "metadata": {"name": name, "namespace": "default"}}
        self.kube.apply({**made, "spec": spec})
        self.kube.merge_status(COMPARISON, "default", name, {"status": status})

    def command(self, *arguments: str, maft: bool = True) -> list[str]:
        return [*([sys.executable, "-m", "maft_operator.kubectl"] if maft else [self.kubectl]), *arguments]

    def call(self, *arguments: str, maft: bool = True, kubeconfig: str = "") -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "KUBECONFIG": kubeconfig or str(self.kubeconfig)}
        line = self.command(*arguments, maft=maft)
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)


def kubeconfig(plane: ControlPlane, path: Path, token: str, **context: str) -> Path:
    made = yaml.safe_load((plane.folder / "kubeconfig").read_text())
    made["users"][0]["user"]["token"] = token
    made["contexts"][0]["context"] |= context
    path.write_text(yaml.safe_dump(made))
    return path


@pytest.fixture(scope="module", name="scene")
def scene_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as plane:
        path = kubeconfig(plane, folder / "admin", plane.token)
        kube = Kube(path)
        kube.apply(*CRDS, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})

        def served() -> bool:
            made = [kube.get("CustomResourceDefinition", None, crd["metadata"]["name"]) or {} for crd in CRDS]
            conditions = [crd.get("status", {}).get("conditions") or () for crd in made]
            return all(any(c["type"] == "Established" and c["status"] == "True" for c in several) for several in conditions)

        wait_until(served, 60)
        kubectl = folder / "kubectl"
        kubectl.symlink_to((folder / "etcd").resolve())
        scene = Scene(Kube(path), path, str(kubectl), plane)
        scene.run("one", status=WORKING)
        scene.run("a-much-longer-name")
        scene.run("theirs", "team", {"phase": "Pending"})
        yield scene


@pytest.mark.parametrize(
    ("flags", "theirs"),
    [
        ((), ()),
        (("-o", "wide"), ("-o", "wide")),
        (("-A",), ("-A",)),
        (("-n", "team"), ("-n", "team")),
        (("-l", "team=one"), ("-l", "team=one")),
        (("-A", "-o", "wide", "-l", "team"), ("-A", "-o", "wide", "-l", "team")),
    ],
)
def test_a_list_is_what_kubectl_prints(scene: Scene, flags: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    ours, real = scene.call("list", *flags), scene.call("get", "maft", *theirs, maft=False)
    assert (ours.returncode, ours.stderr) == (0, "") and real.returncode == 0
    # kubectl pads the last column; ages go on between two calls.
    assert [line.split()[:-1] for line in ours.stdout.splitlines()] == [line.split()[:-1] for line in real.stdout.splitlines()]
    head = real.stdout.splitlines()[0].rstrip()
    assert ours.stdout.splitlines()[0] == head and len(ours.stdout.splitlines()) > 1


def test_names_alone_and_nothing_at_all(scene: Scene) -> None:
    assert scene.call("list", "-o", "name", "-l", "team=one").stdout == "maft/one\n"
    nothing = scene.call("list", "-n", "kube-system")
    real = scene.call("get", "maft", "-n", "kube-system", maft=False)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", real.stderr)


def test_flags_stand_before_the_command_or_after_it(scene: Scene) -> None:
    before, after = scene.call("-n", "team", "list", "-o", "name"), scene.call("list", "-o", "name", "-n", "team")
    assert before.stdout == after.stdout == "maft/theirs\n"


def test_the_kubeconfig_is_read_as_kubectl_reads_it(scene: Scene, tmp_path: Path) -> None:
    """Its context's namespace; of several files the first that names a context; another context by its name."""
    team = kubeconfig(scene.plane, tmp_path / "team", scene.plane.token, namespace="team")
    several = yaml.safe_load(team.read_text())
    several["contexts"].append({"name": "other", "context": {**several["contexts"][0]["context"], "namespace": "default"}})
    team.write_text(yaml.safe_dump(several))
    second = tmp_path / "second"
    second.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "elsewhere"}))
    both = os.pathsep.join([str(tmp_path / "missing"), str(team), str(second)])
    for flags, names in (((), {"maft/theirs"}), (("--context", "other"), {"maft/one", "maft/a-much-longer-name"})):
        ours = scene.call("list", "-o", "name", *flags, kubeconfig=both)
        real = scene.call("get", "maft", "-o", "name", *flags, maft=False, kubeconfig=both)
        assert set(ours.stdout.split()) == names, ours.stderr
        assert len(real.stdout.split()) == len(names), real.stderr


def refusals(scene: Scene, folder: Path) -> dict[str, tuple[tuple[str, ...], str, int, str]]:
    """What goes wrong, by name: arguments, kubeconfig, exit code, the whole of standard error as far as it is ours."""
    bare = kubeconfig(scene.plane, folder / "bare", "wrong")
    nobody = str(scene.plane.folder / "kubeconfig")
    broken = folder / "broken"
    broken.write_text("contexts: [")
    empty = folder / "empty"
    empty.write_text("")
    away = folder / "away"
    away.write_text(scene.kubeconfig.read_text().replace(scene.plane.url, "https://127.0.0.1:1"))
    return {
        "no run": (
            ("report", "none"),
            "",
            2,
            "error: run default/none: there is none of that name; `kubectl maft list -A` shows all\n",
        ),
        "watched": (("watch", "none"), "", 2, "error: run default/none: there is none of that name; "),
        "no name": (("logs", "../secrets"), "", 2, "error: RUN '../secrets': no name; expected small letters, digits and -\n"),
        "namespace": (("list", "-n", "a/b"), "", 2, "error: -n 'a/b': no name; expected small letters, digits and -\n"),
        "both": (("watch", "one", "-A"), "", 2, "error: -A: a run of a name is in one namespace; give it with -n\n"),
        "context": (
            ("list", "--context", "x"),
            "",
            2,
            "error: --context x: the kubeconfig has none of that name; there are: scale\n",
        ),
        "token": (("list",), str(bare), 1, "error: 401: Unauthorized\n"),
        "right": (("list", "-A"), nobody, 1, "error: 403: multiagentfinetunes.maft.dev is forbidden: User "),
        "selector": (("list", "-l", "=="), "", 1, "error: 400: "),
        "no file": (("list",), str(folder / "x"), 2, "error: no cluster: "),
        "broken": (("list",), str(broken), 2, "error: no cluster: "),
        "empty": (("list",), str(empty), 2, "error: no cluster: "),
        "away": (("list",), str(away), 1, "error: the API server does not answer: "),
        "task": (("logs", "one", "--task", "x"), "", 2, "error: argument --task: invalid choice: 'x' "),
        "command": (("show",), "", 2, "error: argument COMMAND: invalid choice: 'show' "),
    }


WRONG = (
    "no run", "watched", "no name", "namespace", "both", "context", "token", "right", "selector", "no file", "broken", "empty",
    "away", "task", "command",
)  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_one_line(scene: Scene, name: str, tmp_path: Path) -> None:
    arguments, path, code, words = refusals(scene, tmp_path)[name]
    done = scene.call(*arguments, kubeconfig=path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith(words) and done.stderr.count("\n") == 1


def test_a_status_moves_no_cursor(scene: Scene) -> None:
    scene.run("hostile", status={"phase": "a\x1b[2Jb\nsecond"})
    try:
        row = scene.call("list", "-l", "team=hostile").stdout.splitlines()[1]
    finally:
        scene.kube.delete(RUNS, "default", "hostile")
    assert row.split()[:2] == ["hostile", "a?[2Jb"] and "\x1b" not in row


class Watching:
    """`kubectl maft watch` as long as the block lasts. lines: what it has printed."""

    def __init__(self, scene: Scene, *arguments: str) -> None:
        environment = {**os.environ, "KUBECONFIG": str(scene.kubeconfig), "PYTHONUNBUFFERED": "1"}
        line = scene.command("watch", *arguments)
        self.process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()

    def until(self, words: str) -> None:
        wait_until(lambda: any(words in line for line in self.lines), 30, lambda: f"{words}: {self.lines}")


def test_a_watch_goes_on_with_changes_and_says_nothing_twice(scene: Scene) -> None:
    with Watching(scene, "-A") as watching:
        watching.until("theirs")
        scene.kube.merge_status(RUNS, "default", "one", {"status": {"observedGeneration": 7}})  # no column shows it
        scene.kube.merge_status(RUNS, "default", "one", {"status": {"progress": {"text": "41 %"}}})
        watching.until("41 %")
        scene.run("late", "team")
        watching.until("late")
        scene.kube.delete(RUNS, "team", "late")
        wait_until(lambda: sum("late" in line for line in watching.lines) == 2, 30)
        lines = [line.split() for line in watching.lines]
    assert lines[0][:3] == ["NAMESPACE", "NAME", "PHASE"] and sum(line[0] == "NAMESPACE" for line in lines) == 1
    assert [line[:2] for line in lines].count(["default", "one"]) == 2
    scene.kube.merge_status(RUNS, "default", "one", {"status": WORKING})


FAILED: Json = {
    **COMPLETE,
    "phase": "Failed",
    "conditions": [
        {
            "type": "Failed", "status": "True", "reason": "SourceMissing", "message": "no such file\nat all",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "code", "last"),
    [
        ({**COMPLETE, "artifacts": WORKING["artifacts"]}, 0, "Report: s3://bucket/runs/default/one/report/index.html"),
        (FAILED, 2, ""),
    ],
)
def test_a_watch_of_one_run_ends_with_it(scene: Scene, ending: Json, code: int, last: str) -> None:
    scene.run("ending", status=WORKING)
    try:
        with Watching(scene, "ending") as watching:
            watching.until("40 %")
            scene.run("beside", status={"phase": "Training"})
            scene.kube.merge_status(RUNS, "default", "ending", {"status": ending})
            assert watching.process.wait(30) == code
            assert watching.process.stderr is not None
            error = watching.process.stderr.read()
            watching.until(last or "Failed")
        assert error == ("" if not code else "error: SourceMissing: no such file at all\n")
        assert not any("beside" in line for line in watching.lines)
    finally:
        for name in ("ending", "beside"):
            scene.kube.delete(RUNS, "default", name)


def test_a_watched_run_that_is_deleted_is_told(scene: Scene) -> None:
    scene.run("going", status=WORKING)
    with Watching(scene, "going") as watching:
        watching.until("going")
        scene.kube.delete(RUNS, "default", "going")
        assert watching.process.wait(30) == 2
        assert watching.process.stderr is not None
        assert watching.process.stderr.read() == "error: run default/going: was deleted\n"


COMPARED: Json = {
    **COMPLETE,
    "table": "method  accuracy\nbase  \x1b[2J41.0\n",
    "report": "s3://bucket/runs/default/methods/compare/index.html",
}


def test_comparisons_and_societies_are_listed_as_kubectl_lists_them(scene: Scene) -> None:
    """And a watch of one comparison says which of its runs wait, each once, and ends with its table."""
    scene.comparison("methods", {"phase": "Running", "runs": {"text": "1/2"}})
    society = {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": {"name": "asked", "namespace": "default"}}
    scene.kube.apply({**society, "spec": {"run": "one"}})
    try:
        for kind, plural, name in (("comparisons", "multiagentcomparisons", "methods"), ("societies", "societies", "asked")):
            ours, real = scene.call("list", "--kind", kind), scene.call("get", plural, maft=False)
            assert (ours.returncode, ours.stderr) == (0, "")
            rows = [line.split()[:-1] for line in ours.stdout.splitlines()]
            assert rows == [line.split()[:-1] for line in real.stdout.splitlines()] and rows[1][0] == name
            assert scene.call("list", "--kind", kind, "-o", "name").stdout == f"{plural}/{name}\n"
        with Watching(scene, "methods", "--kind", "comparisons") as watching:
            watching.until("1/2")
            for reason in ("Queued", "Queued", "ServersCrash"):
                rows = [{"run": "methods-vote-0"}, {"run": "methods-debate-0", "reason": reason}]
                scene.kube.merge_status(COMPARISON, "default", "methods", {"status": {"rows": rows}})
                watching.until(f"  methods-debate-0: {reason}")
            scene.kube.merge_status(COMPARISON, "default", "methods", {"status": COMPARED})
            assert watching.process.wait(30) == 0
            watching.until("Report: s3://bucket/runs/default/methods/compare/index.html")
        assert any("base" in line and "41.0" in line for line in watching.lines)
        assert sum("methods-debate-0: Queued" in line for line in watching.lines) == 1
        assert not any("\x1b" in line for line in watching.lines)
        missing = scene.call("watch", "none", "--kind", "comparisons")
        hint = "there is none of that name; `kubectl maft list -A --kind comparisons` shows all"
        assert (missing.returncode, missing.stderr) == (2, f"error: comparison default/none: {hint}\n")
    finally:
        scene.kube.delete(COMPARISON, "default", "methods")
        scene.kube.delete("Society", "default", "asked")


def test_where_the_report_lies(scene: Scene) -> None:
    assert scene.call("report", "one").stdout == "s3://bucket/runs/default/one/report/index.html\n"
    place = f"s3://{STORAGE['bucket']}"
    untold = scene.call("report", "theirs", "-n", "team")  # its status does not say yet
    assert untold.stdout.startswith(place) and untold.stdout.endswith("/team/theirs/report/index.html\n")


def test_kubectl_takes_it_for_one_of_its_commands(scene: Scene, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-maft"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m maft_operator.kubectl "$@"\n')
    plugin.chmod(0o755)
    environment = {**os.environ, "KUBECONFIG": str(scene.kubeconfig), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [scene.kubectl, "maft", "list", "-o", "name", "-n", "team"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "maft/theirs\n"), done.stderr


def test_kubectl_completes_its_words(scene: Scene, tmp_path: Path) -> None:
    """kubectl asks `kubectl_complete-maft`, which knows the commands and asks the cluster for names."""
    for name, module in (("kubectl-maft", "maft_operator.kubectl"), ("kubectl_complete-maft", "maft_operator.kubectl.complete")):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    environment = {**os.environ, "KUBECONFIG": str(scene.kubeconfig), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def completed(*words: str) -> list[str]:
        line = [scene.kubectl, "__complete", "maft", *words]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
        return [row.partition("\t")[0] for row in done.stdout.splitlines()]

    assert completed("l") == ["list", "logs", ":4"]
    assert completed("logs", "-n", "team", "") == ["theirs", ":4"]
    assert completed("report", "a") == ["a-much-longer-name", ":4"]
    assert completed("logs", "-n", "kube-system", "") == [":4"]
