"""What people watch maft with: metrics, dashboards, alerts, runbooks; and all of it over a real run in a real Prometheus."""

import importlib.util
import json
import os
import re
import shutil
import sys
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT
from installed import SYSTEM, Installed, make_namespace
from kube import Json
from prometheus_client.exposition import generate_latest
from watching import POD_TARGET_LABELS, RULES, Prometheus, prometheus, promtool

from maft_operator.cluster import reasons
from maft_operator.cluster.metrics import FAMILIES, SHOWN, Metrics, samples
from maft_operator.cluster.other_metrics import OF_COMPARISONS, OF_SOCIETIES

DASHBOARDS = ROOT / "charts" / "maft" / "dashboards"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
NAMES = re.compile(r"\b(?:maft_(?!dev_run\b|dev_society\b|dev_iteration\b)[a-z_]+|vllm:[a-z_0-9]+|process_[a-z_]+)\b")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dashboards, panels, metrics_reference = script("dashboards"), script("panels"), script("metrics_reference")


# --- metrics of runs ---

ROW = {
    "accuracy": {"mean": 0.91, "stderr": 0.017},
    "majority": {"mean": 0.9, "stderr": 0.01},
    "answer": {"mean": 0.801, "stderr": 0.02},
    "consensus": {"mean": 0.7, "stderr": 0.01},
    "agreement": 0.771,
    "kept": {
        "generator": {"fewest": 9, "most": 14, "counts": [12, 9, 14]},
        "critic": {"fewest": 2, "most": 4, "counts": [3, 2, 4]},
    },
    "wrongToRight": 3,
    "rightToWrong": 1,
    "trained": 6,
    "promptTokens": 50,
    "completionTokens": 60,
    "seconds": 4,
    "gpuSeconds": 9,
}


def run(name: str = "a", rows: int = 3, **status) -> Json:
    condition = {"type": "Progressing", "status": "True", "reason": "Working", "lastTransitionTime": "2026-01-01T00:00:10Z"}
    state = {
        "phase": "Training",
        "iteration": {"current": 2, "total": 100, "text": "2/100"},
        "progress": {"percent": 40},
        "iterations": [{"iteration": i, **ROW} for i in range(rows)],
        "conditions": [condition],
        **status,
    }
    metadata = {"name": name, "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"iterations": 100, "inference": {"gpus": 2}, "training": {"gpus": 1}}, "status": state}


def values(resource: Json) -> dict[tuple[str, ...], float]:
    return {(s.name.removeprefix("maft_run_"), *(s.labels or {}).values()): s.value for s in samples(resource)}


def test_a_run_in_numbers():
    found = values(run())
    assert found["info", "Training", "Working"] == 1
    assert found["accuracy_ratio", "2"] == 0.91 and found["accuracy_stderr_ratio", "2"] == pytest.approx(0.017)
    assert found["kept_examples", "generator", "fewest"] == 9 and found["kept_examples", "generator", "most"] == 14
    assert (
        found["agreement_ratio",] == pytest.approx(0.771)
        and found["flips", "wrong_to_right"] == 3
        and found["flips", "right_to_wrong"] == 1
    )
    assert found["tokens", "completion"] == 180 and found["gpu_seconds",] == 27 and found["adapters_trained",] == 18
    assert found["pod_gpus", "serve"] == 2 and found["pod_gpus", "train"] == 1
    assert found["last_transition_timestamp_seconds",] - found["created_timestamp_seconds",] == 10


def test_many_agents_are_counted_by_the_fewest_and_the_most():
    """Of more than eight agents the status says no more than that."""
    resource = run()
    resource["status"]["iterations"][-1]["kept"] = {"generator": {"fewest": 9, "most": 140}}
    found = values(resource)
    assert found["kept_examples", "generator", "fewest"] == 9 and found["kept_examples", "generator", "most"] == 140


def test_a_run_that_nobody_has_looked_at_has_numbers_too():
    resource = run()
    del resource["status"]
    found = values({**resource, "spec": {}})
    assert found["info", "Pending", "Pending"] == 1 and found["progress_ratio",] == 0 and found["pod_gpus", "serve"] == 0


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 101])
def test_a_run_has_at_most_61_series(rows):
    found = values(run(rows=rows))
    assert len(found) <= 61
    shown = [key[1] for key in found if key[0] == "accuracy_ratio"]
    assert shown == [str(i) for i in range(rows) if i == 0 or i > rows - SHOWN]


def test_a_deleted_run_is_gone_at_the_next_scrape():
    metrics = Metrics()
    metrics.seen("ns/a", run("a"))
    metrics.seen("ns/b", run("b"))
    assert b'run="a"' in metrics.encoded(generate_latest)
    metrics.gone("ns/a")
    text = metrics.encoded(generate_latest)
    assert b'run="a"' not in text and b'run="b"' in text and b'maft_runs{phase="Training",reason="Working"} 1.0' in text


def test_the_leader_says_since_when():
    metrics = Metrics()
    assert metrics.registry.get_sample_value("maft_leader") == 0
    assert metrics.registry.get_sample_value("maft_leader_since_timestamp_seconds") == 0
    metrics.leads()
    assert metrics.registry.get_sample_value("maft_leader") == 1
    assert metrics.registry.get_sample_value("maft_leader_since_timestamp_seconds") > 1e9


def test_errors_are_there_before_the_first_one():
    """A rate over a counter that appears with its first error would not see it."""
    assert Metrics().registry.get_sample_value("maft_reconcile_errors_total", {"kind": "fault"}) == 0


# --- the page, names ---


def test_the_metrics_page_is_current():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_reference.reference(), "run scripts/metrics_reference.py"


def of_operator() -> bytes:
    metrics = Metrics()
    metrics.seen("ns/a", run())
    metrics.transitions.labels("Failed", "True", "StoreUnusable").inc()
    metrics.requests.labels("get", "Job", "200").inc()
    return metrics.encoded(generate_latest)


@pytest.mark.tools
@pytest.mark.parametrize("text", [of_operator(), *map(generate_latest, metrics_reference.registries())])
def test_promtool_has_nothing_to_say_of_our_names(text):
    done = promtool("check", "metrics", text=text.decode())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- dashboards ---


def documents() -> dict[str, Json]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def expressions(document: Json) -> list[str]:
    return [target["expr"] for panel in panels.panels(document) for target in panel["targets"]]


def variables(document: Json) -> list[Json]:
    return document["templating"]["list"]


@pytest.mark.parametrize("page", dashboards.PAGES, ids=lambda page: page.name)
def test_dashboards_are_current(page):
    assert (DASHBOARDS / f"{page.name}.json").read_text() == dashboards.document(page), "run scripts/dashboards.py"


@pytest.mark.parametrize("name", documents())
def test_panels_explain_themselves(name):
    document = documents()[name]
    found = list(panels.panels(document))
    assert len(found) >= 10 and len({p["title"] for p in found}) == len(found)
    assert all(len(p["description"]) > 30 for p in found), [p["title"] for p in found if len(p["description"]) <= 30]
    assert all(p["fieldConfig"]["defaults"]["unit"] for p in found)
    assert all(p["datasource"]["uid"] == "${datasource}" for p in found)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in found)


@pytest.mark.parametrize("name", documents())
def test_panels_follow_the_variables(name):
    document = documents()[name]
    names = {v["name"] for v in variables(document)}
    assert names == (
        {"datasource", "cluster", "namespace"} if name == "operator" else {"datasource", "cluster", "namespace", "run"}
    )
    for expression in expressions(document):
        used = {v for v in re.findall(r"\$(\w+)", expression) if not v.isdigit()}
        assert used <= names | {"__rate_interval", "__range"}
        assert {"cluster", "namespace"} <= used or "ALERTS" in expression, expression
        unasked = "ALERTS" in expression or any(metric in expression for metric in OF_COMPARISONS | OF_SOCIETIES)  # of no run
        assert name == "operator" or "run" in used or unasked, expression


def known() -> set[str]:
    """Every series that stands in docs/metrics.md, or that vLLM's source makes."""
    page = set(re.findall(r"^\| `([a-z_]+)` \| (\w+)", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    parts = ("bucket", "count", "sum")
    own = {name for name, _ in page} | {f"{name}_{part}" for name, kind in page if kind == "histogram" for part in parts}
    spec = importlib.util.find_spec("vllm")
    assert spec and spec.origin
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    vllm = set(re.findall(r'"(vllm:[a-z_0-9]+)"', source))
    return own | {name + part for name in vllm for part in ("", "_total", "_bucket", "_count", "_sum")}


@pytest.mark.parametrize("where", [*documents(), "alerts", "runbooks"])
def test_metrics_that_are_asked_for_exist(where):
    texts = {
        "alerts": [rule["expr"] for rule in ALERTS],
        "runbooks": re.findall(r"```promql\n(.*?)```", "\n".join(p.read_text() for p in RUNBOOKS.glob("*.md")), re.DOTALL),
    }
    asked = {name for text in texts.get(where) or expressions(documents()[where]) for name in NAMES.findall(text)}
    assert asked and asked <= known(), asked - known()


def test_nothing_is_measured_in_vain():
    """Every metric is on a dashboard or in an alert, but for two that are for queries of one's own."""
    texts = [rule["expr"] for rule in ALERTS] + [text for document in documents().values() for text in expressions(document)]
    shown = {re.sub("_(bucket|count|sum)$", "", name) for text in texts for name in NAMES.findall(text)}
    mine = {re.sub("_(bucket|count|sum)$", "", name) for name in known() if name.startswith("maft_")}
    assert mine - shown == {"maft_runs", "maft_run_adapters_trained"}


def test_waiting_reasons_are_those_of_the_operator():
    names = {reason.name for reason in reasons.ALL}
    used = {
        reason
        for text in [dashboards.WAITING, *(r["expr"] for r in ALERTS)]
        for found in re.findall(r'reason=~?"([^"]+)"', text) or ([text] if "(" not in text else [])
        for reason in found.split("|")
    }
    assert "Unschedulable" in used and used <= names, used - names
    [waiting] = [re.findall(r'reason=~"([^"]+)"', r["expr"]) for r in ALERTS if r["alert"] == "MaftRunWaiting"]
    assert waiting == ["|".join(reason.name for reason in reasons.WAITING if reason != reasons.QUEUED)]


def test_the_chart_copies_the_labels_that_queries_use():
    monitors = ROOT / "charts" / "maft" / "templates" / "monitors.yaml"
    if not monitors.exists():
        pytest.skip("no chart")
    text = monitors.read_text()
    assert "honorLabels: true" in text
    assert all(label in text for label in POD_TARGET_LABELS) and "podTargetLabels" in text, "the PodMonitor's podTargetLabels"


# --- alerts and runbooks ---


@pytest.mark.tools
def test_rules_are_valid():
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0 and f"{len(ALERTS)} rules found" in done.stdout, done.stdout + done.stderr


@pytest.mark.tools
def test_each_alert_fires_where_it_should_and_only_there():
    done = promtool("test", "rules", str(ROOT / "tests" / "cluster" / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_that_fires():
    tests = yaml.safe_load((ROOT / "tests" / "cluster" / "alerts_test.yaml").read_text())["tests"]
    firing = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert firing == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_page(rule):
    name = rule["alert"]
    assert name.startswith("Maft") and rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"https://github.com/maft-dev/maft/blob/main/docs/runbooks/{name}.md"
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert f"| [{name}](runbooks/{name}.md) | {rule['labels']['severity']} |" in (ROOT / "docs" / "observability.md").read_text()
    assert all(part in page for part in ("## How to see it", "## What to do", "```promql", "kubectl"))
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert (RUNBOOKS / target).exists(), target


PARTS = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


@pytest.mark.parametrize("where", [*documents(), "alerts"])
def test_no_query_mixes_clusters_or_namespaces(where):
    """What is grouped or matched by run or pod is so by cluster and namespace, too; and nothing asks that there be one series."""
    asked = [rule["expr"] for rule in ALERTS] if where == "alerts" else expressions(documents()[where])
    for expression in asked:
        assert "scalar(" not in expression, expression
        for names in PARTS.findall(expression):
            labels = {name.strip() for name in names.split(",")}
            if labels & {"run", "maft_dev_run", "pod", "namespace"} and "ALERTS" not in expression:
                assert {"cluster", "namespace"} <= labels, expression


def test_no_page_is_left_over():
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in ALERTS}


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs" / "images").glob("*.png"))
    assert [p.stem for p in pictures] == sorted(documents())
    assert all(p.stat().st_size < 200_000 for p in pictures)
    text = (ROOT / "docs" / "observability.md").read_text()
    assert all(f"(images/{p.name})" in text for p in pictures)


# --- over a real run ---


@dataclass(frozen=True)
class Watched:
    """A Prometheus that saw one run complete, one fail, and two that wait. times: begun, in mid-debate, complete."""

    prometheus: Prometheus
    namespace: str
    times: tuple[float, float, float]


SPEC = {
    "agents": 2,
    "iterations": 1,
    "task": {"train": 120, "heldOut": 60, "probe": 10},
    "evaluation": {"diversity": 10, "validation": 20},
    "training": {"epochs": 6},
    "inference": {"extraArgs": ["--max-num-seqs=32"]},
}


@pytest.fixture(scope="module")
def watched(maft: Installed, tmp_path_factory):
    kube, namespace = maft.kube, f"e2e-{uuid.uuid4().hex[:8]}"  # another one each time: what is in the store is not done again
    make_namespace(maft, namespace)
    with prometheus(tmp_path_factory.mktemp("prometheus"), kube, [namespace], SYSTEM) as found:
        kube.wait(lambda: found.query("maft_leader == 1"), 60)
        begun = found.query("time()")[1]
        bad = {"bucket": "no-such-bucket", "endpoint": maft.cluster.s3_endpoint, "credentialsSecret": {"name": "s3"}}
        kube.apply(maft.resource("no-bucket", namespace, storage=bad))
        unknown = {"podTemplate": {"spec": {"nodeSelectors": {"a": "b"}}}}  # the API server will not have its Job
        kube.apply(maft.resource("no-field", namespace, **unknown))
        kube.apply(maft.resource("no-node", namespace, podTemplate={"spec": {"nodeSelector": {"no-such-label": "x"}}}))
        kube.apply(maft.resource("arithmetic", namespace, **SPEC))
        kube.apply(a_society(namespace))
        kube.apply(a_comparison(maft, namespace))
        kube.wait_complete(namespace, "arithmetic", 600)
        kube.wait(lambda: found.query(f'maft_run_info{{namespace="{namespace}", run="arithmetic", phase="Complete"}}'), 30)
        ended = float(found.query("time()")[1])
        busy = found.query_range(f'sum(vllm:num_requests_running{{namespace="{namespace}"}}) > 0', float(begun), ended, 1)
        yield Watched(found, namespace, (float(begun), busy[0]["values"][int(0.7 * len(busy[0]["values"]))][0], ended))
    kube.delete("Namespace", None, namespace)


def a_society(namespace: str) -> Json:
    """One that waits: its run never completes."""
    metadata = {"name": "answers", "namespace": namespace}
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": metadata, "spec": {"run": "no-node"}}


def a_comparison(maft: Installed, namespace: str) -> Json:
    """One that makes no run: it is suspended."""
    metadata = {"name": "methods", "namespace": namespace}
    spec = {"suspend": True, "methods": ["debate"], "seeds": 1, "template": maft.resource("one", namespace)["spec"]}
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentComparison", "metadata": metadata, "spec": spec}


def of_others(panel) -> bool:
    """Whether it shows societies and comparisons: of those here none answers and none runs."""
    return all(re.search("maft_(society|comparison)_", target["expr"]) for target in panel["targets"])


def span(watched: Watched, name: str, end: float | None = None):
    start, _, last = watched.times
    namespace = SYSTEM if name == "operator" else watched.namespace
    return panels.Span(start, end or last, {"cluster": ".*", "namespace": namespace, "run": ".*"})


@pytest.mark.cluster
@pytest.mark.timeout(1500)
class TestOverARealRun:
    @pytest.mark.parametrize(
        ("name", "title"),
        [(name, p["title"]) for name, document in documents().items() for p in panels.panels(document) if not of_others(p)],
    )
    def test_no_panel_is_empty(self, watched, name, title):
        panel = next(p for p in panels.panels(documents()[name]) if p["title"] == title)
        assert all(panels.answers(watched.prometheus.url, panel, span(watched, name))), panel["targets"]

    @pytest.mark.parametrize(
        ("title", "kind", "name"), [("Comparisons", "comparison", "methods"), ("Societies", "society", "answers")]
    )
    def test_what_waits_is_listed_whatever_its_kind(self, watched, title, kind, name):
        panel = next(p for p in panels.panels(documents()["runs"]) if p["title"] == title)
        listed, *_ = panels.answers(watched.prometheus.url, panel, span(watched, "runs"))
        assert [name] == [row["metric"][kind] for row in listed], listed

    def test_variables_find_what_is_there(self, watched):
        for name, document in documents().items():
            for variable in variables(document)[1:]:
                query = span(watched, name).filled(variable["query"]["query"])
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
                found = {r["metric"].get(label) for r in watched.prometheus.query(f"last_over_time({metric}[10m])")}
                if label == "cluster":  # which a Prometheus of several clusters adds
                    assert found == {None}, query
                    continue
                assert (SYSTEM if name == "operator" else watched.namespace) in found or "arithmetic" in found, query

    def test_stats_say_what_happened(self, watched):
        said = {
            panel["title"]: float(panels.answers(watched.prometheus.url, panel, span(watched, "runs"))[0][0]["value"][1])
            for panel in panels.panels(documents()["runs"])
            if panel["type"] == "stat"
        }
        assert (said["Failed"], said["Complete"], said["Waiting"], said["Under way"]) == (1, 1, 2, 0)

    def test_every_alert_is_evaluated(self, watched):
        rules = {rule["name"]: rule for rule in watched.prometheus.rules()}
        assert set(rules) == {rule["alert"] for rule in ALERTS}
        assert all(rule["health"] == "ok" and not rule.get("lastError") for rule in rules.values())

    def test_the_failed_run_and_its_store_fire(self, watched):
        def firing() -> set[tuple[str, str]]:
            alerts = [a for a in watched.prometheus.alerts() if a["state"] == "firing"]
            mine = [a["labels"] for a in alerts if a["labels"].get("namespace") == watched.namespace]
            return {(labels["alertname"], labels.get("run", "")) for labels in mine}

        assert firing() >= {("MaftRunFailed", "no-bucket"), ("MaftStoreUnusable", "")}
        assert ("MaftRunFailed", "arithmetic") not in firing()
        pending = {a["labels"]["alertname"] for a in watched.prometheus.alerts() if a["state"] == "pending"}
        assert "MaftRunWaiting" in pending

    def test_a_run_has_at_most_61_series(self, watched):
        for name in ("arithmetic", "no-bucket"):
            selector = f'{{__name__=~"maft_.*", namespace="{watched.namespace}", run="{name}"}}'
            assert 10 <= len(watched.prometheus.query(selector)) <= 61

    def test_each_change_is_counted_once(self, watched):
        """As often as there are Events of it, which are named after the change."""
        counted = watched.prometheus.query('maft_run_transitions_total{condition="Failed", status="True", reason="StoreUnusable"}')
        before = watched.prometheus.query(
            'maft_run_transitions_total{condition="Failed", status="True", reason="StoreUnusable"}', watched.times[0]
        )
        earlier = {r["metric"]["pod"]: float(r["value"][1]) for r in before}
        assert sum(float(r["value"][1]) - earlier.get(r["metric"]["pod"], 0) for r in counted) == 1

    def test_the_accuracy_is_that_of_the_status(self, watched, maft):
        status = maft.kube.status(watched.namespace, "arithmetic")
        found = watched.prometheus.query(f'maft_run_accuracy_ratio{{namespace="{watched.namespace}", iteration="1"}}')
        assert float(found[0]["value"][1]) == status["accuracy"]["mean"]
        assert f"{100 * float(found[0]['value'][1]):.1f}" == status["accuracy"]["text"].split()[0]

    def test_promtool_has_nothing_to_say_of_a_real_scrape(self, watched):
        target = next(t for t in watched.prometheus.targets() if t["labels"]["job"] == "maft-operator" and t["health"] == "up")
        with urllib.request.urlopen(target["scrapeUrl"], timeout=10) as response:
            text = response.read().decode()
        done = promtool("check", "metrics", text=text)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert set(FAMILIES) <= set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))

    def test_panels_can_be_drawn(self, watched, tmp_path):
        """As for docs/images; MAFT_PICTURES names another folder to keep them in."""
        for name, document in documents().items():
            end = watched.times[1] if name == "serving" else None
            panels.picture(watched.prometheus.url, document, span(watched, name, end), tmp_path / f"{name}.png")
        assert all(10_000 < p.stat().st_size < 200_000 for p in tmp_path.glob("*.png"))
        if folder := os.environ.get("MAFT_PICTURES"):
            for path in tmp_path.glob("*.png"):
                shutil.copy(path, folder)

    def test_series_of_a_deleted_run_are_gone_within_a_minute(self, watched, maft):
        """The last test: the run is deleted."""
        selector = f'{{__name__=~"maft_run_.*", namespace="{watched.namespace}", run="arithmetic"}}'
        maft.kube.delete("MultiAgentFinetune", watched.namespace, "arithmetic")
        maft.kube.wait(lambda: not watched.prometheus.query(selector), 60)
