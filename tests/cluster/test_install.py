"""The chart on a cluster, as a platform team has it: accepted by the API server, installed, tested, upgraded in mid-run, removed.

The release of the whole session is upgraded and removed here, and installed again at the end.
"""

import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import helm
import pytest
import queueing
import yaml
from certified import certified
from comparisons import Compared
from installed import BUCKET, RESTRICTED, SYSTEM, Installed, helm_here, install, make_namespace
from kube import Json, holds
from test_bundle import opened
from test_bundle_of_run import bundled
from test_chart import TABLE, TWO
from test_kueue import waits_for
from test_older_operator import FIELD
from test_older_operator import newer as with_fields
from test_quotas import quota
from watching import prometheus as scraping

from maft_operator.cluster import images

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run, on two busy cores
SMALL = {"iterations": 1, "agents": 2}
CRD = "CustomResourceDefinition"
API = "maft.dev/v1alpha1"
RUNS_CRD = "multiagentfinetunes.maft.dev"
LEFT = {f"going-1-{stage}" for stage in ("debate", "train", "evaluate", "report")}  # Jobs: those of iteration 0 have gone
HOST = f"maft-operator.{SYSTEM}.svc"
MONITORING = ("podmonitors", "prometheusrules", "servicemonitors")
LABELLED = (
    "deployments,replicasets,pods,services,serviceaccounts,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,"
    "poddisruptionbudgets,networkpolicies,leases,servicemonitors,podmonitors,prometheusrules,crd"
)


def kubectl(maft: Installed, *arguments: str, given: str = "") -> str:
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def restored(maft: Installed) -> Iterator[None]:
    """The session's release, as it was. An upgrade would fail: Helm wants to know the kinds of what was installed before."""
    yield
    helm_here(maft, "uninstall", "maft", "--ignore-not-found", "--wait")
    for name in MONITORING:
        maft.kube.delete(CRD, None, f"{name}.monitoring.coreos.com")
    maft.kube.wait(lambda: monitoring(maft) == 0, 60)
    for namespace in (*TWO["namespaces"], "grafana"):
        maft.kube.delete("Namespace", None, namespace)
    install(maft)


@pytest.fixture(scope="module")
def prometheus(maft: Installed) -> None:
    """The API of the Prometheus Operator, and nothing behind it."""
    folder = helm.folder("prometheus-operator") / "example" / "prometheus-operator-crd"
    for name in MONITORING:
        maft.kube.apply(yaml.safe_load((folder / f"monitoring.coreos.com_{name}.yaml").read_text()))
    maft.kube.wait(lambda: monitoring(maft) == len(MONITORING), 60)


def monitoring(maft: Installed) -> int:
    """How many kinds of the Prometheus Operator the API server has."""
    return len(kubectl(maft, "api-resources", "--api-group=monitoring.coreos.com", "--output=name").split())


@pytest.fixture
def space(maft: Installed) -> Iterator[str]:
    """As `namespace`, but deleted at once."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, name)
    yield name
    maft.kube.delete("Namespace", None, name)


def columns(maft: Installed) -> list[str]:
    return [c["name"] for c in maft.kube.get(CRD, None, RUNS_CRD)["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_the_api_server_accepts_every_variant(maft, prometheus):
    """Strictly, in a dry run: no unknown field, no wrong value, no pod that `restricted` would refuse."""
    for namespace in (*TWO["namespaces"], "grafana"):
        maft.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}})
    variants = [(values, arguments) for values, arguments, _ in TABLE.values()]
    objects = {json.dumps(o, sort_keys=True): o for values, arguments in variants for o in helm.rendered(values, *arguments)}
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects.values())})
    accounts = [o for o in objects.values() if o["kind"] == "ServiceAccount" and o["metadata"]["name"].endswith("-test")]
    maft.kube.apply(*accounts)  # a Pod without its account is refused, also in a dry run
    flags = ["--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "--field-manager=tests"]
    accepted = kubectl(maft, "apply", *flags, "-f", "-", given=given).splitlines()
    for account in accounts:
        maft.kube.delete("ServiceAccount", SYSTEM, account["metadata"]["name"])
    assert len(objects) > 100 and len(accepted) == len(objects)
    assert all(line.endswith("(server dry run)") for line in accepted)


def test_helm_test(maft):
    done = helm.call("test", "maft", "--kubeconfig", str(maft.kube.kubeconfig), "--namespace", SYSTEM)
    assert [line for line in done.stderr.splitlines() if line.startswith(("ok: ", "failed: "))] == [
        "ok: the operator is healthy",
        "ok: its metrics answer 200 to anybody",
        "ok: a run is accepted",
        "ok: a wrong run is refused",
    ]
    assert done.returncode == 0
    assert not maft.kube.list("Pod", SYSTEM, "app.kubernetes.io/name=maft-test")


def test_installing_again_changes_nothing(maft):
    """Not the Deployment, and so no pod."""
    install(maft)  # what tests before have set by hand goes back
    before = maft.kube.get("Deployment", SYSTEM, "maft-operator")["metadata"]
    install(maft)
    after = maft.kube.get("Deployment", SYSTEM, "maft-operator")["metadata"]
    assert (after["generation"], after["uid"]) == (before["generation"], before["uid"])


@pytest.fixture(scope="module")
def newer(tmp_path_factory) -> Path:
    """A later release of the chart, with a column more; a wide one: tests beside this one look at the others."""
    chart = tmp_path_factory.mktemp("newer") / "maft"
    shutil.copytree(helm.CHART, chart)
    crd = chart / "files" / "crds" / "multiagentfinetunes.yaml"
    column = "        - {name: Age, type: date"
    assert column in crd.read_text()
    another = "        - {name: Agents, type: integer, jsonPath: .spec.agents, priority: 1}"
    crd.write_text(crd.read_text().replace(column, f"{another}\n{column}"))
    return chart


def failures(maft: Installed, space: str) -> int:
    """Counts attempts that failed, for whatever reason."""
    return sum(job["status"].get("failed", 0) for job in maft.kube.list("Job", space))


def test_an_upgrade_in_mid_run(maft, space, newer, prometheus):
    """The resource is upgraded too, the operator is replaced by two of another configuration, and the run does not notice."""
    kube = maft.kube
    kube.apply(maft.resource("going", space, **{**SMALL, **maft.mocked(0.3)}))
    kube.wait(lambda: kube.status(space, "going").get("phase") == "Debating", LIMIT, lambda: kube.explain(space, "going"))
    old, failed = {p["metadata"]["name"] for p in maft.operator_pods()}, failures(maft, space)
    install(maft, newer, replicas=2, log={"format": "json"}, networkPolicy={"operator": True})
    assert not kube.is_true(space, "going", "Complete"), "the run was over too soon for this test"
    assert "Agents" in columns(maft)
    kube.wait(lambda: len(now := {p["metadata"]["name"] for p in maft.operator_pods()}) == 2 and not now & old, 60)
    kube.wait_complete(space, "going", LIMIT)
    assert {job["metadata"]["name"] for job in kube.list("Job", space)} == LEFT
    assert failures(maft, space) == failed, kube.explain(space, "going")
    assert kubectl(maft, "-n", SYSTEM, "get", "poddisruptionbudgets,networkpolicies", "-o", "name").split() == [
        "poddisruptionbudget.policy/maft-operator",
        "networkpolicy.networking.k8s.io/maft-operator",
    ]
    assert "Succeeded" in helm_here(maft, "test", "maft")


@pytest.fixture(scope="module")
def later(maft: Installed) -> str:
    """Another tag of the same images, as of a later release."""
    accept = "application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json"
    host, _, repository = maft.images.partition("/")
    for name in ("operator", *images.ROLES):
        at = f"http://{host}/v2/{repository}/{name}/manifests/"
        with urllib.request.urlopen(urllib.request.Request(f"{at}{maft.tag}", headers={"Accept": accept}), timeout=30) as found:
            kind, manifest = found.headers["Content-Type"], found.read()
        put = urllib.request.Request(f"{at}{maft.tag}-later", manifest, {"Content-Type": kind}, method="PUT")
        urllib.request.urlopen(put, timeout=30).close()
    return f"{maft.tag}-later"


def test_a_run_keeps_its_images_through_upgrade_and_rollback(maft, space, later):
    """No server starts again, and pods that are made meanwhile are made of what the run began with."""
    kube = maft.kube
    spec = {**SMALL, **maft.mocked(0.4, slots=2), "inference": {**maft.mocked()["inference"], "lifetime": "Run"}}
    kube.apply(maft.resource("keeps", space, **spec))
    explain = partial(kube.explain, space, "keeps")
    kube.wait(lambda: kube.status(space, "keeps").get("phase") == "Debating", LIMIT, explain)
    server = serving(maft, space)
    for tag in (later, maft.tag):
        install(maft, images={"prefix": maft.images, "tag": tag})
        assert maft.operator_pods()[0]["spec"]["containers"][0]["image"].endswith(f":{tag}")
        assert not kube.is_true(space, "keeps", "Complete"), "the run was over too soon for this test"
        assert serving(maft, space) == server
    status = kube.wait_complete(space, "keeps", LIMIT)
    assert {role: pin["image"].rpartition(":")[2] for role, pin in status["images"].items()} == dict.fromkeys(
        images.ROLES, maft.tag
    )
    used = {c["image"] for pod in kube.list("Pod", space) for c in pod["spec"]["containers"]}
    assert used and not [image for image in used if image.endswith(later)]
    digests = {role: pin["digest"] for role, pin in status["images"].items()}
    assert f"{maft.images}/trainer@{digests['trainer']}" in used  # by digest, once preflight's pod had told it


@pytest.fixture
def wider(maft: Installed, tmp_path: Path) -> Iterator[Path]:
    """A later release of the chart, whose runs have fields more; afterwards the definition is as it was."""
    shutil.copytree(helm.CHART, tmp_path / "maft")
    file = tmp_path / "maft" / "files" / "crds" / "multiagentfinetunes.yaml"
    definition = yaml.safe_load(file.read_text())
    definition["spec"]["versions"] = with_fields(definition)
    file.write_text(yaml.safe_dump(definition, sort_keys=False))
    yield tmp_path / "maft"
    install(maft)


def revision(maft: Installed) -> str:
    """The release's, as `helm rollback` takes it."""
    [release] = json.loads(helm_here(maft, "list", "--filter", "^maft$", "--output", "json"))
    return str(release["revision"])


def has_field(maft: Installed) -> bool:
    [version] = maft.kube.get(CRD, None, RUNS_CRD)["spec"]["versions"]
    return FIELD in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def there(maft: Installed, space: str) -> set[str]:
    """The pods that work, by uid."""
    pods = [pod for pod in maft.kube.list("Pod", space) if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["uid"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")}


@pytest.mark.nightly
@pytest.mark.parametrize("own", [True, False], ids=["definition of the release", "definition beside it"])
def test_a_rollback_in_mid_run(maft, space, later, wider, own):
    """The older operator finishes the run that the newer one began: no pod is replaced. A definition that is the release's goes
    back with it, fields that only the newer one had are dropped; one that is not stays, and they with it."""
    kube, values = maft.kube, {"crds": {"install": own}}
    install(maft, **values)
    before = revision(maft)
    if not own:
        [definition] = yaml.safe_load_all((wider / "files" / "crds" / "multiagentfinetunes.yaml").read_text())
        kube.merge(CRD, None, RUNS_CRD, {"spec": {"versions": definition["spec"]["versions"]}})
    install(maft, wider, **values, images={"prefix": maft.images, "tag": later})
    kube.wait(lambda: has_field(maft), 30)
    run = maft.resource("back", space, **{**SMALL, **maft.mocked(0.4, slots=2)})
    run["spec"][FIELD] = {"days": 7}
    kube.apply(run)
    explain = partial(kube.explain, space, "back")
    kube.wait(lambda: kube.status(space, "back").get("phase") == "Debating", LIMIT, explain)
    working, failed = there(maft, space), failures(maft, space)
    helm_here(maft, "rollback", "maft", before, "--wait", "--timeout", "120s")
    kube.wait(lambda: maft._ready() == 1, 90, maft.operator_log)
    assert maft.operator_pods()[0]["spec"]["containers"][0]["image"].endswith(f":{maft.tag}")
    assert not kube.is_true(space, "back", "Complete"), "the run was over too soon for this test"
    assert working and working <= there(maft, space), explain()
    kube.wait(lambda: has_field(maft) is not own, 30)
    status = kube.wait_complete(space, "back", LIMIT)
    assert kube.get("MultiAgentFinetune", space, "back")["spec"].get(FIELD, {}).get("days") == (None if own else 7)
    assert failures(maft, space) == failed, explain()
    children = [pod["metadata"]["labels"]["maft.dev/child"] for pod in kube.list("Pod", space)]
    assert len(children) == len(set(children))
    assert {role: status["images"][role]["image"].rpartition(":")[2] for role in ("debate", "trainer")} == dict.fromkeys(
        ("debate", "trainer"), later
    )


def serving(maft: Installed, space: str) -> list[str]:
    """The pods that serve, by uid."""
    return [pod["metadata"]["uid"] for pod in maft.kube.list("Pod", space, "app.kubernetes.io/component=serve")]


@pytest.mark.nightly
def test_a_run_that_is_made_again_does_nothing_twice(maft, space):
    """Deleted and applied anew it has no status and no Jobs; prepare finds what is committed, and no server starts."""
    kube = maft.kube
    resource = maft.resource("again", space, **{**SMALL, **maft.mocked()})
    kube.apply(resource)
    before = kube.wait_complete(space, "again", LIMIT)
    kube.delete("MultiAgentFinetune", space, "again")
    kube.wait(lambda: not kube.list("Job", space), 60)
    kube.apply(resource)
    after = kube.wait_complete(space, "again", LIMIT)
    assert {job["metadata"]["name"] for job in kube.list("Job", space)} == {"again-1-report"}
    assert (after["accuracy"], after["baseAccuracy"], after["done"]) == (before["accuracy"], before["baseAccuracy"], before["done"])
    assert after["artifacts"] == before["artifacts"]
    events = kube.list("Event", space)
    servers = [e for e in events if e["involvedObject"]["kind"] == "Deployment" and e["reason"] == "ScalingReplicaSet"]
    assert len({e["involvedObject"]["uid"] for e in servers if "again-server" in e["involvedObject"]["name"]}) == 1


def test_auto_found_the_prometheus_operator(maft):
    found = kubectl(maft, "-n", SYSTEM, "get", "servicemonitors,podmonitors", "-o", "name").split()
    assert found == [
        "servicemonitor.monitoring.coreos.com/maft-operator",
        "podmonitor.monitoring.coreos.com/maft-operator-runs",
    ]
    files = list((helm.CHART / "dashboards").glob("*.json"))
    assert len(maft.kube.list("ConfigMap", SYSTEM, "grafana_dashboard=1")) == len(files)
    rules = kubectl(maft, "-n", SYSTEM, "get", "prometheusrules", "-o", "name").split()
    assert len(rules) == (helm.CHART / "files" / "alerts.yaml").exists()


@pytest.fixture
def served(maft: Installed, tmp_path: Path) -> Iterator[Path]:
    """The Secret `served` with a certificate for the Service's name, as cert-manager makes one; the certificate's file."""
    certificate, key = certified(tmp_path, HOST)
    files = (f"--from-file=tls.crt={certificate}", f"--from-file=tls.key={key}", f"--from-file=ca.crt={certificate}")
    kubectl(maft, "-n", SYSTEM, "create", "secret", "generic", "served", *files)
    yield certificate
    install(maft)
    kubectl(maft, "-n", SYSTEM, "delete", "secret", "served")


def test_metrics_for_those_who_may(maft, space, served):
    """No token: 401, one without the right: 403, one that is bound to the chart's role: 200. The rights for it are enough."""
    install(maft, metrics={"tls": {"secretName": "served"}, "auth": True}, networkPolicy={"workloads": True})
    address = maft.kube.get("Service", SYSTEM, "maft-operator")["spec"]["clusterIP"]
    maft.kube.wait(lambda: scrape(address, served) == 401, 60)  # the Service may lead to the former pod for a moment
    for account in ("scraper", "stranger"):
        kubectl(maft, "-n", space, "create", "serviceaccount", account)
    flags = ["--clusterrole=maft-operator-metrics-reader", f"--serviceaccount={space}:scraper"]
    kubectl(maft, "create", "clusterrolebinding", space, *flags)
    try:
        tokens = [kubectl(maft, "-n", space, "create", "token", account).strip() for account in ("stranger", "scraper")]
        # The first question about a token goes on to the API server: a busy one may answer after a scraper has given up.
        assert [maft.kube.wait(partial(scrape, address, served, token), 120) for token in tokens] == [403, 200]
    finally:
        kubectl(maft, "delete", "clusterrolebinding", space)
    assert "Succeeded" in helm_here(maft, "test", "maft")


def scrape(address: str, authority: Path, token: str = "") -> int:
    """The status code; 0 without an answer."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False  # the certificate has the Service's name, which this machine does not resolve
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"https://{address}:8080/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=3, context=context) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.nightly
def test_metrics_over_tls_are_read_with_a_token(maft, space, prometheus, served, tmp_path):
    """With a certificate and a token: by `helm test` and a real Prometheus."""
    kubectl(maft, "-n", space, "create", "serviceaccount", "scraper")
    flags = ["--clusterrole=maft-operator-metrics-reader", f"--serviceaccount={space}:scraper"]
    try:
        install(maft, metrics={"tls": {"secretName": "served"}, "auth": True})
        kubectl(maft, "create", "clusterrolebinding", space, *flags)
        assert "Succeeded" in helm_here(maft, "test", "maft")
        monitor = json.loads(kubectl(maft, "-n", SYSTEM, "get", "servicemonitor", "maft-operator", "-o", "json"))
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["tlsConfig"] == {"ca": {"secret": {"name": "served", "key": "ca.crt"}}, "serverName": HOST}
        asked = {
            "scheme": endpoint["scheme"],
            "tls_config": {"ca_file": str(served), "server_name": endpoint["tlsConfig"]["serverName"]},
            "authorization": {"credentials": kubectl(maft, "-n", space, "create", "token", "scraper").strip()},
        }
        with scraping(tmp_path, maft.kube, [], SYSTEM, **asked) as found:
            maft.kube.wait(lambda: found.query('up{job="maft-operator"} == 1'), 60, lambda: str(found.targets()))
            assert found.query('maft_leader{job="maft-operator"} == 1')
    finally:
        kubectl(maft, "delete", "clusterrolebinding", space, "--ignore-not-found")


def test_kubernetes_own_roles_reach_runs(maft, space):
    """Who may view or edit a namespace may view or edit its runs."""
    for role in ("view", "edit"):
        kubectl(maft, "-n", space, "create", "rolebinding", role, f"--clusterrole={role}", f"--user=with-{role}")

    def may(role: str, verb: str) -> bool:
        line = ["-n", space, "auth", "can-i", verb, "multiagentfinetunes", f"--as=with-{role}"]
        command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), *line]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    assert [may("view", verb) for verb in ("list", "create", "delete")] == [True, False, False]
    assert [may("edit", verb) for verb in ("list", "create", "patch", "delete")] == [True] * 4


def test_uninstalling_leaves_the_resource_and_the_runs(maft, space, prometheus):
    kube = maft.kube
    kube.apply(maft.resource("kept", space, **{**SMALL, **maft.mocked()}))
    kube.wait(lambda: kube.status(space, "kept").get("phase"), 30)
    helm_here(maft, "uninstall", "maft", "--wait")
    mine = "app.kubernetes.io/instance=maft"
    kube.wait(lambda: not kubectl(maft, "get", LABELLED, "-A", "-l", mine, "-o", "name").split(), 60)
    assert kube.get(CRD, None, RUNS_CRD) and not kube.list("Secret", SYSTEM, "owner=helm")
    assert kube.status(space, "kept")["phase"], "the run is gone"
    elsewhere = ["install", "other", str(helm.CHART), "--dry-run=server", "--set", f"images.prefix={maft.images}"]
    left_alone = helm_here(maft, *elsewhere, namespace=space)
    assert "kind: CustomResourceDefinition" not in left_alone
    assert f"The CustomResourceDefinitions belong to {SYSTEM}/maft and were left as they are" in left_alone
    elsewhere += ["--set", "crds.install=true"]
    refused = helm.call(*elsewhere, "--kubeconfig", str(kube.kubeconfig), "--namespace", space)
    assert refused.returncode == 1 and "invalid ownership metadata" in refused.stderr
    helm_here(maft, *elsewhere, "--take-ownership", namespace=space)


def a_team(maft: Installed, *places: str) -> list[str]:
    """Namespaces for a release of a team, its own one the last."""
    release = f"team-{uuid.uuid4().hex[:6]}"
    names = [f"{release}-{place}" for place in (*places, "home")]
    for name in names:
        make_namespace(maft, name)
    return [release, *names]


def of_a_team(maft: Installed, *namespaces: str) -> Json:
    """Values of its release."""
    return {
        "namespaces": [*namespaces],
        "images": {"prefix": maft.images, "tag": maft.tag},
        "metrics": {k: {"enabled": False} for k in ("serviceMonitor", "podMonitor", "rules", "dashboards")},
    }


def test_two_namespaces_and_no_other(maft):
    """Roles in two namespaces, nothing of the whole cluster; a run in a third namespace is nobody's. The resource's definition is
    another release's, and stays so."""
    kube = maft.kube
    release, *names = a_team(maft, "a", "b", "c")
    served, other, third, home = names
    values = of_a_team(maft, served, other)
    helm_here(maft, "install", release, str(helm.CHART), "--wait", "--timeout", "120s", namespace=home, values=values)
    try:
        mine = f"app.kubernetes.io/instance={release}"
        assert not kubectl(maft, "get", "clusterroles,clusterrolebindings,crd", "-l", mine, "-o", "name")
        assert len(kubectl(maft, "get", "roles", "-A", "-l", mine, "-o", "name").split()) == 3
        for name in (served, third):
            kube.apply(maft.resource("run", name, **{**SMALL, **maft.mocked()}))
        kube.wait_complete(served, "run", LIMIT)
        assert "Succeeded" in helm_here(maft, "test", release, namespace=home)
        assert kube.status(served, "run")["serverKey"] and kube.list("NetworkPolicy", served, "maft.dev/run=run")
        assert kube.status(third, "run") == {"observedGeneration": -1} and not kube.list("Job", third)
    finally:
        helm_here(maft, "uninstall", release, "--wait", namespace=home)
        for name in names:
            kube.delete("Namespace", None, name)


@pytest.mark.nightly
def test_societies_comparisons_and_the_page_in_one_namespace(maft):
    """What a team has without any right in the whole cluster: all kinds of resources, and the page of its own runs."""
    kube = maft.kube
    release, served, home = a_team(maft, "a")
    reports = {"read": [f"{BUCKET}/runs"], "secretName": "s3", "endpoint": maft.cluster.s3_endpoint, "region": "us-east-1"}
    values = of_a_team(maft, served) | {"page": {"enabled": True, "reports": reports}}
    helm_here(maft, "install", release, str(helm.CHART), "--wait", "--timeout", "120s", namespace=home, values=values)
    try:
        mine = f"app.kubernetes.io/instance={release}"
        assert not kubectl(maft, "get", "clusterroles,clusterrolebindings,crd", "-l", mine, "-o", "name")
        compared = Compared(maft, served)
        compared.apply(methods=["base", "multiagent"], seeds=1)
        assert [row["phase"] for row in compared.completed()["rows"]] == ["Complete"] * 2
        [run] = [name for one in compared.runs() if "-multiagent-" in (name := one["metadata"]["name"])]
        society: Json = {"run": run, "gpus": 0}
        kube.apply({"apiVersion": API, "kind": "Society", "metadata": {"name": "s", "namespace": served}, "spec": society})
        kube.wait(lambda: holds(kube.get("Society", served, "s"), "Ready"), LIMIT, lambda: str(kube.get("Society", served, "s")))
        page = maft.kube.wait(lambda: shown(maft, home, f"{release}-maft-operator-page"), 60)
        assert all(f"{served}/</span>{name}<" in page for name in (run, compared.name, "s")), page[:4000]
        for path in (f"reports/{served}/{run}/", f"comparisons/{served}/{compared.name}/"):
            assert f'href="/{path}index.html"' in page
            assert "<html" in shown(maft, home, f"{release}-maft-operator-page", f"{path}index.html")
    finally:
        helm_here(maft, "uninstall", release, "--wait", namespace=home)
        for name in (served, home):
            kube.delete("Namespace", None, name)


@pytest.mark.nightly
def test_queues_quotas_and_a_bundle_in_one_namespace(maft, tmp_path):
    """The operator of a team reads Workloads and Events by a Role: it tells why a run waits, as one of the whole cluster does."""
    kube = maft.kube
    release, served, home = a_team(maft, "a")
    values = of_a_team(maft, served)
    helm_here(maft, "install", release, str(helm.CHART), "--wait", "--timeout", "120s", namespace=home, values=values)
    try:
        with queueing.kueue(maft.cluster, kube):
            kube.merge("Namespace", None, served, {"metadata": {"labels": queueing.CHOSEN}})
            queueing.queue(kube, served, "default", cpu="0")
            quota(maft, served, **{"limits.memory": "2Gi"})
            kube.apply(maft.resource("run", served, **{**SMALL, **maft.mocked()}))
            waits_for(kube, served, "run", "QueueUnusable", "> maximum capacity")
            queueing.queue(kube, served, "default", cpu="8")
            waits_for(kube, served, "run", "QuotaExceeded", "limits.memory")
            archive = bundled(Path(kube.kubeconfig), tmp_path / "run.tar.gz", "run", "-n", served)
            assert archive.returncode == 0, archive.stderr
            quota(maft, served)
            kube.wait_complete(served, "run", LIMIT)
        files = opened(tmp_path / "run.tar.gz")
        assert json.loads(files["run.json"])["metadata"]["name"] == "run"
        own = f"maft-operator/logs/{release}-maft-operator-"
        assert any(name.startswith(own) and content for name, content in files.items()), [*files]
    finally:
        helm_here(maft, "uninstall", release, "--wait", namespace=home)
        for name in (served, home):
            kube.delete("Namespace", None, name)


def shown(maft: Installed, namespace: str, deployment: str, path: str = "") -> str:
    """What the page says to its own pod; empty while it does not answer."""
    ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8090/{path}', timeout=10).read().decode())"
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), "-n", namespace, "exec", f"deploy/{deployment}"]
    return subprocess.run([*command, "--", "python3", "-c", ask], capture_output=True, text=True, timeout=60).stdout
