"""What stands beside a run: a sidecar that does not end with the program, a stranger's pod with the run's labels."""

import pytest
from installed import CONFINED, Installed
from kube import Json, holds

from maft_operator.cluster import manifests, reasons

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LIMIT = 30.0  # seconds from the moment that the fact is there
STARTUP = 45.0  # seconds that several pods at once may take to start on two cores
SLEEP = ["python3", "-c", "import time; time.sleep(600)"]
LEAVE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
FORGE = """
open('/dev/termination-log', 'w').write('{"program": "failure", "error": "store s3://forged: a stranger says so"}')
raise SystemExit(2)
"""


def sidecar(maft: Installed) -> Json:
    """A podTemplate with a container that never ends, as sidecars were before Kubernetes knew of them."""
    image = f"{maft.images}/debate:{maft.tag}"
    return {
        "podTemplate": {"spec": {"containers": [{"name": "proxy", "image": image, "command": SLEEP, "securityContext": CONFINED}]}}
    }


def native(maft: Installed) -> Json:
    """A mocked run's image and podTemplate, with a sidecar as Kubernetes has them now: an init container that is always started
    again, and told to end after the others."""
    mocked = maft.mocked()
    container = {"name": "proxy", "image": f"{maft.images}/debate:{maft.tag}", "command": ["python3", "-c", LEAVE]}
    mocked["podTemplate"]["spec"]["initContainers"] = [{**container, "restartPolicy": "Always", "securityContext": CONFINED}]
    return mocked


def stranger(maft: Installed, namespace: str, child: str, run: str) -> Json:
    """A pod of somebody else's that says it is the task's, and that the input is wrong."""
    labels = {manifests.RUN: run, manifests.CHILD: child, manifests.MANAGED_BY: manifests.MANAGER}
    return maft.restricted_pod(namespace, "stranger", ["python3", "-c", FORGE], labels, name="debate")


def test_a_program_that_ends_beside_a_sidecar_has_ended(maft: Installed, namespace: str) -> None:
    """Of the run that goes well the next task begins; wrong input fails the other; the container is named."""
    kube = maft.kube
    kube.apply(maft.resource("well", namespace, **sidecar(maft)))
    kube.apply(maft.resource("wrong", namespace, task={"train": 100_000}, **sidecar(maft)))

    def told(run: str, kind: str, reason: reasons.Reason) -> Json:
        found = kube.wait(
            lambda: (c := kube.condition(namespace, run, kind)).get("reason") == reason.name and c,
            LIMIT + STARTUP,
            lambda: kube.explain(namespace, run),
        )
        return dict(found)

    assert "100016 questions asked for" in told("wrong", "Failed", reasons.INPUT_INVALID)["message"]
    kube.wait(lambda: not kube.list("Pod", namespace, "maft.dev/run=wrong"), LIMIT)
    message = told("well", "Progressing", reasons.SIDECAR_RUNS_ON)["message"]
    assert "the program has done its work, but the container proxy of the pod well-0-prepare-" in message
    kube.wait(lambda: kube.get("Job", namespace, "well-0-preflight"), LIMIT, lambda: kube.explain(namespace, "well"))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_whole_run_beside_native_sidecars(maft: Installed, namespace: str) -> None:
    """Servers and every program of it have one, which ends where the program has."""
    kube = maft.kube
    kube.apply(maft.resource("meshed", namespace, iterations=1, agents=2, **native(maft)))
    servers = kube.wait(
        lambda: [p for p in kube.list("Pod", namespace, "app.kubernetes.io/component=serve") if holds(p, "Ready")],
        300,
        lambda: kube.explain(namespace, "meshed"),
    )
    assert all(proxies(pod) == ["running"] for pod in servers)
    kube.wait_complete(namespace, "meshed", 400)
    ended = kube.list("Pod", namespace, "maft.dev/run=meshed,app.kubernetes.io/component!=serve")
    assert {pod["metadata"]["labels"]["maft.dev/child"] for pod in ended} >= {
        f"meshed-1-{s}" for s in ("debate", "train", "evaluate", "report")
    }
    assert {pod["status"]["phase"] for pod in ended} == {"Succeeded"}
    assert all(proxies(pod) == ["terminated"] for pod in ended)


def proxies(pod: Json) -> list[str]:
    """The states of its sidecars."""
    several = pod["status"].get("initContainerStatuses", [])
    return [state for status in several if status["name"] == "proxy" for state in status["state"]]


def test_what_a_stranger_says_is_not_heard(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    kube.apply(maft.resource("calm", namespace, podTemplate={"spec": {"nodeSelector": {"no-such-label": "x"}}}))
    kube.apply(stranger(maft, namespace, "calm-0-prepare", "calm"))
    kube.wait(lambda: (kube.get("Pod", namespace, "stranger") or {}).get("status", {}).get("phase") == "Failed", STARTUP)
    kube.merge("Job", namespace, "calm-0-prepare", {"metadata": {"annotations": {"test/touched": "after the stranger's end"}}})
    kube.wait(
        lambda: kube.condition(namespace, "calm", "Progressing").get("reason") == reasons.UNSCHEDULABLE.name,
        LIMIT,
        lambda: kube.explain(namespace, "calm"),
    )
    assert not kube.is_true(namespace, "calm", "Failed")
    assert "forged" not in str(kube.get("MultiAgentFinetune", namespace, "calm")["status"])
