"""Programs that models wrote, in a pod as `restricted` allows it: one that is right runs, and those that try to get out do not."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from installed import Installed, make_namespace
from test_escapes import ASKED, CALL, ESCAPES

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(900)]
LIMIT = 400.0  # seconds; some programs use their time up
REACHES = (
    "tcp",
    "unix socket",
    "name",
    "file",
    "service account",
    "its environment",
    "a descriptor of it",
    "the folder",
    "a temporary file",
    "fork bomb",
    "program",
    "kill the parent",
    "memory, bit by bit",
    "sleeping",
)
CALLS = ("ptrace", "reading memory", "io_uring")
RIGHT = "def f(x):\n    return x + 1"
Given = list[Any]
RUN = """
import json, os, sys
from maft.answers.programs import run
from maft.records import Cases
server = os.environ["KUBERNETES_SERVICE_HOST"]
assert os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")
def given(program):
    program = program.replace("127.0.0.1', PORT", server + "', 443").replace("PARENT", str(os.getpid()))
    result = run(Cases("f", "[[1]]"), program)
    return [list(result.outputs), result.fault]
print(json.dumps({name: given(program) for name, program in json.loads(sys.argv[1]).items()}))
"""


@pytest.fixture(scope="module", name="given")
def given_fixture(maft: Installed) -> Iterator[dict[str, Given]]:
    """What each program gave in the pod: outputs, and why there are none."""
    namespace, kube = f"e2e-{uuid.uuid4().hex[:8]}", maft.kube
    make_namespace(maft, namespace)
    calls = {name: f"{CALL}\ndef f(x):\n    if {ASKED[name]} == -1:\n        raise OSError\n    return 1" for name in CALLS}
    programs = {"right": RIGHT, **{name: ESCAPES[name] for name in REACHES}, **calls}
    kube.apply(maft.restricted_pod(namespace, "runs", ["python3", "-c", RUN, json.dumps(programs)]))

    def phase() -> str:
        return str((kube.get("Pod", namespace, "runs") or {}).get("status", {}).get("phase"))

    kube.wait(lambda: phase() in ("Succeeded", "Failed"), LIMIT)
    assert phase() == "Succeeded", kube.log(namespace, "runs")
    yield json.loads(kube.log(namespace, "runs").splitlines()[-1])
    kube.delete("Namespace", None, namespace)


def test_a_program_that_is_right_runs(given: dict[str, Given]) -> None:
    assert given["right"] == [["2"], ""]


@pytest.mark.parametrize("name", [*REACHES, *CALLS])
def test_none_gets_out(given: dict[str, Given], name: str) -> None:
    outputs, fault = given[name]
    assert not outputs and fault, given[name]
