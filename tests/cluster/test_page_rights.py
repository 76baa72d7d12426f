"""The live page against a real API server: with the rights that the chart gives it, and as somebody's own command."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helm import rendered
from test_kubectl_maft import Scene, kubeconfig, scene_fixture  # noqa: F401 - the fixture `scene`

from maft_operator.cluster import kinds

pytestmark = [pytest.mark.cluster, pytest.mark.tools]
SYSTEM, PAGE = "maft-system", "maft-operator-page"


@contextlib.contextmanager
def shown(path: Path, *command: str) -> Iterator[str]:
    """What the page shows whoever looks at it on this machine; the process ends well when it is told to."""
    environment = {**os.environ, "KUBECONFIG": str(path)}
    line = [sys.executable, "-m", *command, "--port", "0"]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://localhost:"), process.stderr.read()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.replace("localhost", "127.0.0.1"), timeout=30) as response:
            yield response.read().decode()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture(scope="module", name="account")
def account_fixture(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig of the page's service account, with the roles that the chart renders."""
    chart = rendered({"page": {"enabled": True}, "images": {"prefix": "r.io/maft"}})
    mine = [o for o in chart if o["metadata"]["name"] == PAGE and o["kind"] != "Deployment"]
    assert {o["kind"] for o in mine} == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    scene.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}, *mine)
    token = scene.call("-n", SYSTEM, "create", "token", PAGE, maft=False)
    assert token.returncode == 0, token.stderr
    return kubeconfig(scene.plane, tmp_path_factory.mktemp("account") / "kubeconfig", token.stdout.strip())


def test_the_charts_rights_are_enough_and_no_more(scene: Scene, account: Path) -> None:
    with shown(account, "maft_operator.page") as text:
        assert "a-much-longer-name</th>" in text and "team/</span>theirs" in text and "50.0 ± 1.0" in text
    rights = scene.call("auth", "can-i", "--list", "-n", "default", maft=False, kubeconfig=str(account)).stdout
    ours = [line.split() for line in rights.splitlines() if "maft.dev" in line]
    assert {line[0] for line in ours} == {f"{kind.plural}.maft.dev" for kind in kinds.PARENTS}
    assert all(line[-3:] == ["[get", "list", "watch]"] for line in ours)
    for verb, what in (("list", "pods"), ("get", "secrets"), ("get", "pods/log"), ("patch", "multiagentfinetunes.maft.dev")):
        assert scene.call("auth", "can-i", verb, what, "-A", maft=False, kubeconfig=str(account)).stdout.strip() == "no"


def test_somebodys_own_page_shows_their_namespace(scene: Scene) -> None:
    with shown(scene.kubeconfig, "maft_operator.kubectl", "page", "-n", "team") as text:
        assert "theirs</th>" in text and "a-much-longer-name" not in text
    with shown(scene.kubeconfig, "maft_operator.kubectl", "page", "-A") as text:
        assert "theirs</th>" in text and "a-much-longer-name</th>" in text


def test_who_may_not_list_is_told_so(scene: Scene) -> None:
    with pytest.raises(urllib.error.HTTPError) as error, shown(scene.plane.folder / "kubeconfig", "maft_operator.page"):
        pass
    assert error.value.code == 502 and b"403: multiagentfinetunes.maft.dev is forbidden" in error.value.read()


def test_a_port_that_is_taken_is_one_line(scene: Scene) -> None:
    port = scene.plane.url.rpartition(":")[2]
    done = scene.call("page", "--port", port)
    assert done.returncode == 2 and done.stderr.startswith(f"error: --port {port}: ") and done.stderr.count("\n") == 1
