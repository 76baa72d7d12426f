"""A real Prometheus for tests: Debian's package as a process on loopback, told to scrape as the chart's monitors tell it to."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, free_port, serving
from kube import Json, Kube
from prepare import host

RULES = ROOT / "charts" / "maft" / "files" / "alerts.yaml"
SCRAPE = "2s"
# The chart's PodMonitor copies these labels of the pods; Prometheus makes underscores of dots and slashes.
POD_TARGET_LABELS = ("maft.dev/run", "maft.dev/iteration", "app.kubernetes.io/component")


def require_prometheus() -> None:
    """Debian's package is installed before (prepare.py); where that could not be, the test is skipped, or fails in CI."""
    if all(map(shutil.which, host.PROMETHEUS)):
        return
    text = "no prometheus and promtool (Debian's package is prometheus); run: make prepare"
    if os.environ.get("CI") or os.environ.get("MAFT_REQUIRE_CLUSTER"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def promtool(*arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    require_prometheus()
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API, as Grafana uses it."""

    url: str

    def query(self, expression: str, moment: float | None = None) -> list[Json]:
        """An instant query."""
        return self._ask("query", query=expression, **({} if moment is None else {"time": moment}))["result"]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Json]:
        return self._ask("query_range", query=expression, start=start, end=end, step=step)["result"]

    def alerts(self) -> list[Json]:
        return self._ask("alerts")["alerts"]

    def rules(self) -> list[Json]:
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[Json]:
        return self._ask("targets", state="active")["activeTargets"]

    def _ask(self, what: str, **parameters: Any) -> Json:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None


@contextlib.contextmanager
def prometheus(folder: Path, kube: Kube, namespaces: list[str], system: str, **operator: Any) -> Iterator[Prometheus]:
    """Scrapes the operator in `system` and the runs in `namespaces` as long as the block lasts. operator: how its own metrics are
    asked for, in Prometheus' words (scheme, tls_config, authorization)."""
    require_prometheus()
    config, targets = folder / "prometheus.yml", folder / "pods.json"
    targets.write_text("[]")
    config.write_text(yaml.safe_dump(configuration(targets, namespaces, system, operator)))
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (
        discovering(kube, [system, *namespaces], targets),
        serving(command, port, folder / "prometheus.log", 60, health="/-/ready") as url,
    ):
        yield Prometheus(url)


@contextlib.contextmanager
def discovering(kube: Kube, namespaces: list[str], targets: Path) -> Iterator[None]:
    """Writes all pods' ports down every second with the labels of kubernetes_sd_configs, which Debian's build comes without."""
    stop = threading.Event()

    def look() -> None:
        own = Kube(kube.kubeconfig)  # a client of its own: they are not made for several threads
        while not stop.wait(1):
            try:
                ports = [target for namespace in namespaces for pod in own.list("Pod", namespace) for target in _ports(pod)]
            except Exception as error:  # the next look will do
                print(f"discovery: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            new = targets.with_suffix(".new")
            new.write_text(json.dumps(ports))
            new.replace(targets)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def _ports(pod: Json) -> Iterator[Json]:
    meta = "__meta_kubernetes_"
    common = {f"{meta}pod_label_{_word(key)}": value for key, value in pod["metadata"].get("labels", {}).items()}
    common |= {
        f"{meta}namespace": pod["metadata"]["namespace"],
        f"{meta}pod_name": pod["metadata"]["name"],
        f"{meta}pod_phase": pod["status"]["phase"],
    }
    if not (address := pod["status"].get("podIP")):
        return
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            own = {
                f"{meta}pod_container_name": container["name"],
                f"{meta}pod_container_port_name": port.get("name", ""),
                f"{meta}pod_container_port_number": str(port["containerPort"]),
            }
            yield {"targets": [f"{address}:{port['containerPort']}"], "labels": common | own}


def configuration(targets: Path, namespaces: list[str], system: str, asked: Json) -> Json:
    """What prometheus-operator would make of the chart's ServiceMonitor and PodMonitor."""

    def job(name: str, where: list[str], keep: dict[str, str], labels: tuple[str, ...] = ()) -> Json:
        meta = "__meta_kubernetes_pod_"
        copies = {f"{meta}label_{_word(label)}": _word(label) for label in labels}
        copies |= {
            "__meta_kubernetes_namespace": "namespace",
            f"{meta}name": "pod",
            f"{meta}container_name": "container",
            f"{meta}container_port_name": "endpoint",
        }
        relabel: list[Json] = [{"source_labels": ["__meta_kubernetes_namespace"], "regex": "|".join(where), "action": "keep"}]
        relabel += [{"source_labels": [f"{meta}{source}"], "regex": regex, "action": "keep"} for source, regex in keep.items()]
        relabel.append({"source_labels": [f"{meta}phase"], "regex": "(Failed|Succeeded)", "action": "drop"})
        relabel += [{"source_labels": [source], "target_label": target} for source, target in copies.items()]
        discovery = [{"files": [str(targets)], "refresh_interval": "2s"}]
        return {"job_name": name, "honor_labels": True, "file_sd_configs": discovery, "relabel_configs": relabel}

    pods = {"label_app_kubernetes_io_managed_by": "maft", "container_port_name": "metrics|http"}
    operator = {"label_app_kubernetes_io_name": "maft-operator|maft", "container_port_number": "8080"}
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            job("maft-operator", [system], operator) | asked,
            job("maft-pods", namespaces, pods, POD_TARGET_LABELS),
        ],
    }


def _word(label: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in label)
