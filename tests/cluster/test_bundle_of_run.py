"""`maft bundle` on the real API server: of an admin, and of somebody who may only look at one namespace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from installed import Installed
from test_bundle import opened

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SECRET = "zq-hunter2-not-for-you"


def bundled(kubeconfig: Path, output: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "maft_operator", "bundle", *arguments, "-o", str(output)]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def of_account(maft: Installed, namespace: str, path: Path) -> Path:
    """The kubeconfig of an account that has the role `view` in the namespace, and nothing else."""
    account = {"kind": "ServiceAccount", "name": "viewer", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    maft.kube.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer", "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "viewer", "namespace": namespace},
            "roleRef": role,
            "subjects": [account],
        },
    )
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), "-n", namespace, "create", "token", "viewer"]
    token = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    made = yaml.safe_load(Path(maft.kube.kubeconfig).read_text())
    made["users"][0]["user"] = {"token": token}
    made["contexts"][0]["context"]["namespace"] = namespace
    path.write_text(yaml.safe_dump(made))
    return path


def test_a_bundle_of_a_waiting_run(maft: Installed, namespace: str, tmp_path: Path) -> None:
    """A variable of its template and an argument hold a secret, which is on the cluster and not in the archive."""
    kube = maft.kube
    program = {"name": "debate", "command": ["sh", "-c", f"echo token={SECRET}; echo started; sleep 600"]}
    template = {"spec": {"containers": [{**program, "env": [{"name": "OURS", "value": SECRET}]}]}}
    kube.apply(maft.resource("shown", namespace, podTemplate=template))

    def pods():
        return [p for p in kube.list("Pod", namespace, "maft.dev/run=shown") if p["status"].get("phase") == "Running"]

    pod = kube.wait(pods, 60, lambda: kube.explain(namespace, "shown"))[0]["metadata"]["name"]
    kube.wait(lambda: "started" in kube.log(namespace, pod), 30)
    assert SECRET in json.dumps(kube.list("Pod", namespace, "maft.dev/run=shown")) and SECRET in kube.log(namespace, pod)

    done = bundled(Path(kube.kubeconfig), tmp_path / "all.tar.gz", "shown", "-n", namespace)
    assert done.returncode == 0, done.stderr
    files = opened(tmp_path / "all.tar.gz")
    assert not [name for name, content in files.items() if SECRET.encode() in content]
    assert b"started" in files[f"logs/{pod}/debate.log"]
    assert json.loads(files["run.json"])["metadata"]["name"] == "shown"
    assert [j["metadata"]["name"] for j in json.loads(files["jobs.json"])] == ["shown-0-prepare"]
    assert "Scheduled" in [event["reason"] for event in json.loads(files["events.json"])]
    assert json.loads(files["cluster/nodes.json"])[0]["allocatable"]["cpu"]
    assert json.loads(files["cluster/crd.json"])["status"]["storedVersions"] == ["v1alpha1"]
    assert any(name.startswith("maft-operator/logs/maft-operator-") and content for name, content in files.items())
    assert f'maft.dev/release": "{json.loads(files["manifest.json"])["maft"]}' in files["jobs.json"].decode()

    viewer = of_account(maft, namespace, tmp_path / "kubeconfig")
    done = bundled(viewer, tmp_path / "some.tar.gz", "shown")  # the namespace is that of the kubeconfig
    assert done.returncode == 0, done.stderr
    some = opened(tmp_path / "some.tar.gz")
    missing = {gap["file"]: gap["why"] for gap in json.loads(some["manifest.json"])["missing"]}
    for file in ("cluster/nodes.json", "cluster/crd.json", "maft-operator/pods.json"):
        assert missing[file].startswith("403: ") and "viewer" in missing[file]
    assert b"started" in some[f"logs/{pod}/debate.log"] and "pods.json" in some

    done = bundled(viewer, tmp_path / "none.tar.gz", "no-such-run")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: run {namespace}/no-such-run: there is none of that name; give its namespace with -n\n",
    )
