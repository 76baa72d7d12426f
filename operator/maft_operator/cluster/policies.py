"""Who reaches the pods of a run, as specs of NetworkPolicies: its own pods, and those that read metrics. Pure.

In a cluster whose network enforces none they change nothing. What is not named is closed, on every port: a trainer's ranks listen
on ports that nobody chose. Nodes reach their pods in any case, so probes do.
"""

from collections.abc import Mapping, Sequence

from maft_operator.spec.schema import Json

_OPERATOR = {"app.kubernetes.io/name": "maft-operator"}  # of its pods, as the chart labels them
_NAMESPACE = "kubernetes.io/metadata.name"  # label that every namespace has
Labels = Mapping[str, str]


def of_server(server: Labels, run: Labels, port: int, scraped_from: Sequence[str]) -> Json:
    """A server answers the run's own pods; who reads its metrics comes to the same port, and has no key."""
    return _ingress({"matchLabels": dict(server)}, [_rule([_pods(run), *_scrapers(scraped_from)], port)])


def of_tasks(run: Labels, component: str, port: int, scraped_from: Sequence[str], operated_from: str) -> Json:
    """Of a task only metrics are read: by the operator, the run's own pods and those who scrape. component: the label's name."""
    operator = [{"namespaceSelector": {"matchLabels": {_NAMESPACE: operated_from}}, "podSelector": {"matchLabels": _OPERATOR}}]
    readers = [_pods(run), *(operator if operated_from else []), *_scrapers(scraped_from)]
    others = [{"key": component, "operator": "NotIn", "values": ["serve"]}]
    return _ingress({"matchLabels": dict(run), "matchExpressions": others}, [_rule(readers, port)])


def of_meeting(members: Labels) -> Json:
    """Pods that train together let in each other, on whichever ports they agree; metrics are `of_tasks`'."""
    return _ingress({"matchLabels": dict(members)}, [{"from": [_pods(members)]}])


def of_society(society: Labels, port: int, scraped_from: Sequence[str], *, open_to_all: bool) -> Json:
    """A society answers the pods of its namespace and those who read its metrics; open_to_all: whoever reaches the port."""
    namespace: list[Json] = [{"podSelector": {}}, *_scrapers(scraped_from)]
    rule = {"ports": [{"protocol": "TCP", "port": port}]} if open_to_all else _rule(namespace, port)
    return _ingress({"matchLabels": dict(society)}, [rule])


def _ingress(selected: Json, rules: list[Json]) -> Json:
    return {"podSelector": selected, "policyTypes": ["Ingress"], "ingress": rules}


def _rule(peers: list[Json], port: int) -> Json:
    return {"from": peers, "ports": [{"protocol": "TCP", "port": port}]}


def _pods(labels: Labels) -> Json:
    return {"podSelector": {"matchLabels": dict(labels)}}


def _scrapers(namespaces: Sequence[str]) -> list[Json]:
    return [{"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}} for name in namespaces]
