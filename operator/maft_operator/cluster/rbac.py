"""What the operator must be allowed to do, and a check of it at the start: one line for each right that is missing.

charts and the test cluster grant exactly these. Source: SelfSubjectAccessReview (authorization.k8s.io/v1).
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from maft_operator.cluster.api import Api
from maft_operator.spec.schema import GROUP


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on a resource. optional: without it the operator does less, and says so once."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    optional: bool = False


_CHILD = ("list", "watch", "create", "patch", "delete")
WATCHED = (  # in every namespace that the operator serves
    Right(GROUP, "multiagentfinetunes", ("get", "list", "watch", "delete")),
    Right(GROUP, "multiagentfinetunes/status", ("patch",)),
    Right("batch", "jobs", _CHILD),
    Right("apps", "deployments", _CHILD),
    Right("", "services", _CHILD),
    Right("", "pods", ("list", "watch")),
    Right("", "events", ("list", "create"), optional=True),
)
ISOLATING = (Right("networking.k8s.io", "networkpolicies", ("list", "create", "patch", "delete")),)  # with --network-policies
REVIEWING = (  # with --metrics-auth
    Right("authentication.k8s.io", "tokenreviews", ("create",)),
    Right("authorization.k8s.io", "subjectaccessreviews", ("create",)),
)
OWN = (  # in its own namespace; the chart makes the Lease, too
    Right("coordination.k8s.io", "leases", ("get", "update", "patch")),
    Right("coordination.k8s.io", "leases", ("create",), optional=True),
)


async def missing(api: Api, rights: Iterable[Right], namespace: str | None, name: str = "") -> list[tuple[Right, str]]:
    """Rights that are not there, each with its line. namespace None: in all; name: of the one object that they are about."""
    asked = [(right, verb) for right in rights for verb in right.verbs]
    answers = await asyncio.gather(*(_allowed(api, right, verb, namespace, name) for right, verb in asked))
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    return [(right, _line(right, verb, where)) for (right, verb), allowed in zip(asked, answers, strict=True) if not allowed]


def _line(right: Right, verb: str, where: str) -> str:
    name = f"{right.resource}.{right.group}" if right.group else right.resource
    return f"the operator may not {verb} {name} {where}; add the verb to the Role or ClusterRole of its service account"


async def _allowed(api: Api, right: Right, verb: str, namespace: str | None, name: str) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        "namespace": namespace or "",
        "name": name,
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    answer = await api.create(body)
    return bool(answer.get("status", {}).get("allowed"))
