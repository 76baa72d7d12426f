"""The chart's ValidatingAdmissionPolicy at a real API server: what it lets through, what it refuses, and with which line."""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission_cases import ALLOWED, HERE, OWN, REFUSED, SOCIETIES_ALLOWED, SOCIETIES_REFUSED, STRICT, of_template, opened, pod
from conftest import ROOT
from helm import rendered
from kube_objects import STORAGE
from small import resource

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"


class Server:
    """Requests of the administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._tls = ssl.create_default_context(cafile=str(plane.authority))

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        headers = {"Authorization": f"Bearer {self._plane.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._plane.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._tls) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"message": text}

    def make(self, path: str, body: Json) -> None:
        code, answer = self.ask("POST", path, body)
        assert code == 201, answer

    def create(self, namespace: str = "default", **spec: Any) -> str:
        """Creates a run, but for the last step: what the API server says against it, empty where it is accepted."""
        whole = resource("r", **{**HERE, **spec})
        code, answer = self.ask("POST", f"{runs(namespace)}?dryRun=All&fieldValidation=Strict", whole)
        return "" if code == 201 else str(answer["message"])

    def comparison(self, namespace: str = "default", **spec: Any) -> str:
        """The same of a comparison, of which that is the template."""
        template = resource("r", **{**HERE, **spec})["spec"]
        whole = {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentComparison", "metadata": {"name": "c"}}
        body = {**whole, "spec": {"template": template, "methods": ["base"]}}
        code, answer = self.ask("POST", f"{comparisons(namespace)}?dryRun=All&fieldValidation=Strict", body)
        return "" if code == 201 else str(answer["message"])

    def society(self, namespace: str = "default", **spec: Any) -> str:
        """The same of a Society."""
        whole = {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": {"name": "s"}, "spec": {"run": "r", **spec}}
        code, answer = self.ask("POST", f"{societies(namespace)}?dryRun=All&fieldValidation=Strict", whole)
        return "" if code == 201 else str(answer["message"])


def societies(namespace: str) -> str:
    return f"/apis/maft.dev/v1alpha1/namespaces/{namespace}/societies"


def comparisons(namespace: str) -> str:
    return f"/apis/maft.dev/v1alpha1/namespaces/{namespace}/multiagentcomparisons"


def runs(namespace: str) -> str:
    return f"/apis/maft.dev/v1alpha1/namespaces/{namespace}/multiagentfinetunes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with the definition, and the policies of two releases: one for all namespaces but some, one for `own` alone."""
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as plane:
        found = Server(plane)
        for name in ("free", "own"):
            found.make("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for kind in ("multiagentfinetunes", "multiagentcomparisons", "societies"):
            crd = yaml.safe_load((ROOT / "crds" / f"{kind}.yaml").read_text())
            found.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        wait(lambda: not found.create(namespace="free"), found.create("free"))
        wait(lambda: not found.comparison(namespace="free"), found.comparison("free"))
        wait(lambda: not found.society(namespace="free"), found.society("free"))
        for release, values in (("maft", {"admission": STRICT}), ("own", {"admission": OWN, "namespaces": ["own"]})):
            for made in rendered(values, release=release):
                if made["kind"].startswith("ValidatingAdmissionPolicy"):
                    found.make(POLICIES + ("ybindings" if made["kind"].endswith("Binding") else "ies"), made)
        wait(lambda: found.create(model={"trustRemoteCode": True}), "the policy is not in force")
        wait(lambda: found.comparison(**pod(hostPID=True)), "the policy over comparisons is not in force")
        wait(lambda: found.society(**pod(hostPID=True)), "the policy over societies is not in force")
        wait(lambda: found.create("own", podTemplate={"spec": {"hostPID": True}}), "the other policy is not in force")
        yield found


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_passes(server: Server, case: str) -> None:
    assert server.create(**ALLOWED[case]) == server.comparison(**ALLOWED[case]) == ""


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_refused_in_one_line_that_says_what_and_whom_to_ask(server: Server, case: str) -> None:
    spec, line = REFUSED[case]
    said = server.create(**spec)
    assert line in said and "\n" not in said
    assert "or ask who installed maft (admission." in said
    assert of_template(line, "comparisons") in server.comparison(**spec)
    assert server.create("free", **spec) == server.comparison("free", **spec) == ""  # exempt


@pytest.mark.parametrize("case", SOCIETIES_ALLOWED)
def test_what_a_society_may_name_passes(server: Server, case: str) -> None:
    assert server.society(**SOCIETIES_ALLOWED[case]) == ""


@pytest.mark.parametrize("case", SOCIETIES_REFUSED)
def test_what_a_society_may_not_name_is_refused_in_one_line(server: Server, case: str) -> None:
    spec, line = SOCIETIES_REFUSED[case]
    refusal = server.society(**spec)
    assert line in refusal and "\n" not in refusal and "or ask who installed maft (admission." in refusal
    assert server.society("free", **spec) == ""  # exempt


def test_a_society_that_was_there_can_be_scaled_and_not_opened(server: Server) -> None:
    spec = {"run": "r", **pod(hostNetwork=True)}
    whole = {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": {"name": "before"}, "spec": spec}
    code, made = server.ask("POST", societies("free"), whole)
    assert code == 201, made
    path = POLICIES + "ybindings/maft-operator-societies"
    _, binding = server.ask("GET", path)
    whole_world = binding["spec"].pop("matchResources")
    assert server.ask("PUT", path, binding)[0] == 200
    wait(lambda: server.society("free", **pod(hostNetwork=True)), "not in force")
    try:
        made["spec"]["replicas"] = 3
        code, scaled = server.ask("PUT", f"{societies('free')}/before", made)
        assert code == 200, scaled
        scaled["spec"] |= opened("bank.io")
        code, answer = server.ask("PUT", f"{societies('free')}/before", scaled)
        assert code == 422 and "may not be" in answer["message"]
    finally:
        _, binding = server.ask("GET", path)
        assert server.ask("PUT", path, {**binding, "spec": {**binding["spec"], "matchResources": whole_world}})[0] == 200
        assert server.ask("DELETE", f"{societies('free')}/before")[0] == 200


def test_of_another_release_in_its_namespaces_other_things_are_allowed(server: Server) -> None:
    volume = {"name": "v", "emptyDir": {}}
    assert server.create("own", **pod(volumes=[volume], containers=[{"name": "proxy", "image": "x"}])) == ""
    assert server.create("own", **pod(volumes=None, initContainers=[None], containers=[{"name": "proxy", "image": None}])) == ""
    assert server.create("own", model={"trustRemoteCode": True}, inference={"extraArgs": ["--trust-remote-code"]}) == ""
    assert server.create("own", storage={**STORAGE, "endpoint": "http://evil"}) == ""
    said = server.create("own", **pod(volumes=[volume, {"name": "root", "hostPath": {"path": "/"}}]))
    assert "the volume root is of a type that is not allowed here" in said
    assert "nodeSelector may not be set here" in server.create("own", **pod(nodeSelector={"a": "b"}))
    said = server.create("own", **pod(initContainers=[{"name": "i", "command": ["sh"]}]))
    assert "command may not be set of a container here" in said


def test_a_run_that_was_there_before_can_be_suspended_and_goes(server: Server) -> None:
    """Made where the policy does not hold, as before it came; then it holds."""
    code, made = server.ask("POST", runs("free"), resource("before", **{**HERE, **pod(hostNetwork=True)}))
    assert code == 201, made
    path = POLICIES + "ybindings/maft-operator-runs"
    _, binding = server.ask("GET", path)
    binding["spec"].pop("matchResources")
    assert server.ask("PUT", path, binding)[0] == 200
    wait(lambda: server.create("free", **pod(hostNetwork=True)), "not in force")
    made["spec"]["suspend"] = True
    code, suspended = server.ask("PUT", f"{runs('free')}/before", made)
    assert code == 200, suspended
    suspended["spec"]["podTemplate"]["spec"]["hostPID"] = True
    code, said = server.ask("PUT", f"{runs('free')}/before", suspended)
    assert code == 422, said
    assert server.ask("DELETE", f"{runs('free')}/before")[0] == 200
