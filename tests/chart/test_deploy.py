"""How the operator starts where it may not, and where there is no cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from installed import SYSTEM

from maft_operator.cluster import rbac


def asked(wanted: tuple[rbac.Right, ...]) -> set[tuple[str, str, str]]:
    return {(right.group, right.resource, verb) for right in wanted for verb in right.verbs}


@pytest.fixture
def limited(maft, tmp_path) -> Path:
    """A kubeconfig of a service account that has no right at all."""
    kube = maft.kube
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": SYSTEM}})
    command = [maft.cluster.kubectl, "--kubeconfig", str(kube.kubeconfig), "-n", SYSTEM, "create", "token", "nobody"]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    return tmp_path / "kubeconfig"


@pytest.mark.cluster
def test_an_operator_without_rights_names_each_and_ends(limited):
    command = [sys.executable, "-m", "maft_operator", "operator", "--images", "x/maft", "--port", "0", "--log-format", "json"]
    done = subprocess.run(command, env={**os.environ, "KUBECONFIG": str(limited)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    lines = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert (
        "the operator may not create jobs.batch in all namespaces; add the verb to the Role or ClusterRole of its service account"
        in lines
    )
    assert "the operator may not patch multiagentfinetunes/status.maft.dev in all namespaces; " in "\n".join(lines)
    asked_for = (*rbac.WATCHED, *rbac.KEYING, *rbac.OWN)
    assert len([line for line in lines if "may not" in line]) == len(asked(asked_for))


@pytest.mark.programs
def test_an_operator_without_a_cluster_says_so(tmp_path):
    command = [sys.executable, "-m", "maft_operator", "operator", "--images", "x/maft", "--port", "0"]
    done = subprocess.run(
        command, env={**os.environ, "KUBECONFIG": str(tmp_path / "none")}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "no cluster" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.programs
@pytest.mark.parametrize("flags", [(), ("--images", ""), ("--images", "/")])
def test_an_operator_that_knows_no_images_says_so(flags):
    """Before it asks for a cluster: no run could begin."""
    environment = {name: value for name, value in os.environ.items() if name != "MAFT_IMAGES"}
    command = [sys.executable, "-m", "maft_operator", "operator", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --images: not set; name where nodes find the images, such as registry.example.com/maft\n"
