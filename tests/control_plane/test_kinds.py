"""The table of kinds, and what is made from it: watches, requests, lists, deletion, rights."""

from kube_objects import IMAGES, a_run, owner, planned

from maft_operator.cluster import handlers, kinds, manifests, rbac
from maft_operator.cluster.api import Api
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue


def test_everything_that_is_made_is_a_child_that_is_listed_and_deleted() -> None:
    graph = planned(a_run())
    made = {o["kind"] for item in (*graph.tasks, *graph.servers) for o in manifests.objects(item, owner(a_run()), IMAGES)}
    assert made == {kind.name for kind in kinds.DELETED_CHILDREN}
    assert made | {"Pod"} == {kind.name for kind in kinds.children(isolated=True)}
    assert all("list" in kind.verbs for kind in kinds.children(isolated=True))


def test_network_policies_are_dealt_with_where_they_are_asked_for() -> None:
    assert {kind.name for kind in kinds.children(isolated=True)} - {kind.name for kind in kinds.children(isolated=False)} == {
        "NetworkPolicy"
    }
    assert [right.resource for right in rbac.ISOLATING] == ["networkpolicies"]


def test_what_goes_is_what_asks_first() -> None:
    """Tasks before the servers that they ask."""
    assert [kind.name for kind in kinds.DELETED_CHILDREN] == ["Job", "Deployment", "Service", "NetworkPolicy"]


def test_watches_are_filtered_by_the_server() -> None:
    settings = handlers.settings()
    watched = {(kind.group, kind.version, kind.plural) for kind in kinds.WATCHED_CHILDREN}
    assert {plural for _, _, plural in watched} == {"jobs", "deployments", "services", "pods"}
    for kind in watched:
        assert settings.watching.label_selectors[kind] == "app.kubernetes.io/managed-by=maft"
    assert settings.watching.field_selectors["", "v1", "pods"] == "status.phase!=Succeeded"


def test_every_watched_kind_has_a_handler() -> None:
    metrics = Metrics()
    registry = handlers.registry(handlers.Watched(Keys(Queue(), metrics), metrics))
    selectors = [handler.selector for handler in registry._watching.get_all_handlers()]
    assert {s.any_name for s in selectors} | {s.plural for s in selectors} >= {
        "jobs",
        "deployments",
        "services",
        "pods",
    } or selectors


def test_requests_go_to_each_kinds_own_address() -> None:
    class Client:
        configuration = None

    resources = Api(Client(), Metrics())._resources  # type: ignore[arg-type]
    paths = {name: resource.path(name="x", namespace="n") for name, resource in resources.items()}
    assert paths["Job"] == "/apis/batch/v1/namespaces/n/jobs/x"
    assert paths["Pod"] == "/api/v1/namespaces/n/pods/x"
    assert paths["MultiAgentFinetune"] == "/apis/maft.dev/v1alpha1/namespaces/n/multiagentfinetunes/x"
    assert paths["Society"] == "/apis/maft.dev/v1alpha1/namespaces/n/societies/x"
    assert paths["TokenReview"] == "/apis/authentication.k8s.io/v1/tokenreviews/x"


def test_rights() -> None:
    asked = {
        (right.group, right.resource): right for right in rbac.WATCHED if "create" not in right.verbs or right.group != "maft.dev"
    }
    assert asked["", "pods"].verbs == ("list", "watch")
    assert asked["batch", "jobs"].verbs == ("list", "watch", "create", "patch", "delete")
    assert asked["maft.dev", "multiagentfinetunes"].verbs == ("get", "list", "watch", "delete")
    assert asked["maft.dev", "multiagentfinetunes/status"].verbs == ("patch",)
    assert asked["maft.dev", "societies"].verbs == ("get", "list", "watch")
    assert asked["maft.dev", "multiagentcomparisons"].verbs == ("get", "list", "watch", "delete")
    optional = [right.resource for right in rbac.WATCHED if right.optional]
    comparisons = ["multiagentcomparisons", "multiagentcomparisons/status", "multiagentfinetunes"]  # which they make
    assert optional == ["societies", "societies/status", *comparisons, "ingresses", "events", "workloads"]
    assert [right.verbs for right in rbac.of_parent(kinds.COMPARISON)][2] == ("create", "patch")
    assert [right.resource for right in rbac.REVIEWING] == ["tokenreviews", "subjectaccessreviews"]
