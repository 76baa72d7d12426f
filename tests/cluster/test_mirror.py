"""An install from a mirror alone: images and chart are copied to another place of the cluster's registry, and come from there."""

import json
import urllib.request
from pathlib import Path

import helm
import pytest
from helm import CHART
from installed import SYSTEM, Installed, helm_here, install

from maft_operator import __version__

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(400)]
KINDS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


def asked(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[bytes, str]:
    """The body and its type."""
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
        return answer.read(), answer.headers.get("Content-Type", "")


def copied(registry: str, old: str, new: str, tag: str) -> None:
    """One image under another name, as `skopeo copy` and `crane copy` do; its layers are mounted."""
    base = f"http://{registry}/v2"
    manifest, kind = asked(f"{base}/{old}/manifests/{tag}", Accept=", ".join(KINDS))
    parts = json.loads(manifest)
    for part in (parts["config"], *parts["layers"]):
        asked(f"{base}/{new}/blobs/uploads/?mount={part['digest']}&from={old}", "POST", b"")
    asked(f"{base}/{new}/manifests/{tag}", "PUT", manifest, **{"Content-Type": kind})


def test_a_mirror_is_enough(maft: Installed, namespace: str, tmp_path: Path) -> None:
    """The operator and a run's first pods come from there, and nothing from elsewhere."""
    registry, _, folder = maft.images.partition("/")
    for name in ("operator", "debate", "trainer", "inference"):
        copied(registry, f"{folder}/{name}", f"mirror/maft/{name}", maft.tag)
    helm.run("package", str(CHART), "--destination", str(tmp_path))
    helm.run("push", str(tmp_path / f"maft-{__version__}.tgz"), f"oci://{registry}/mirror/charts", "--plain-http")
    flags = ["--version", __version__, "--plain-http", "--wait", "--timeout", "120s"]
    mirror = {"images": {"prefix": f"{registry}/mirror/maft", "tag": maft.tag}}
    try:
        helm_here(maft, "upgrade", "maft", f"oci://{registry}/mirror/charts/maft", *flags, values=mirror)
        maft.kube.wait(lambda: maft._ready() == 1, 90, maft.operator_log)
        maft.kube.apply(maft.resource("mirrored", namespace, iterations=1))
        pods = maft.kube.wait(lambda: images(maft, namespace, "preflight"), 180, lambda: maft.kube.explain(namespace, "mirrored"))
        operators = {c["image"] for pod in maft.operator_pods() for c in pod["spec"]["containers"]}
        assert operators == {f"{registry}/mirror/maft/operator:{maft.tag}"}
        assert pods and all(image.startswith(f"{registry}/mirror/maft/") for image in pods)
        maft.kube.merge("MultiAgentFinetune", namespace, "mirrored", {"spec": {"suspend": True}})
    finally:
        install(maft)
    assert {c["image"].split("/")[1] for pod in maft.operator_pods() for c in pod["spec"]["containers"]} == {folder}
    assert maft.kube.get("Deployment", SYSTEM, "maft-operator")


def images(maft: Installed, namespace: str, task: str) -> set[str]:
    """Of all pods of the namespace, once that task's container has started."""
    pods = maft.kube.list("Pod", namespace)
    began = [p for p in pods if task in p["metadata"]["name"] and p["status"].get("phase") in ("Running", "Succeeded")]
    return {c["image"] for pod in pods for c in pod["spec"]["containers"]} if began else set()
