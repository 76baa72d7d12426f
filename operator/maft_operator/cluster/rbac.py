"""What the operator must be allowed to do, and a check of it at the start: one line for each right that is missing.

Rights to objects come from kinds.py; the chart and the test cluster grant exactly these. Source: SelfSubjectAccessReview
(authorization.k8s.io/v1).
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from maft_operator.cluster import kinds
from maft_operator.cluster.api import Api
from maft_operator.cluster.kinds import Kind


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on a resource. optional: without it the operator does less, and says so once."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    optional: bool = False


def _right(kind: Kind) -> Right:
    return Right(kind.group, kind.plural, kind.verbs, kind.optional)


def of_parent(kind: Kind) -> tuple[Right, ...]:
    """Lists what is needed on objects of a parent kind, its status included; comparisons also make runs."""
    runs = (Right(kinds.RUN.group, kinds.RUN.plural, ("create", "patch"), optional=True),) if kind == kinds.COMPARISON else ()
    return _right(kind), Right(kind.group, f"{kind.plural}/status", ("patch",), kind.optional), *runs


_CHILDREN = kinds.children(isolated=False)
WATCHED = (  # in every namespace that the operator serves
    *(right for kind in kinds.PARENTS for right in of_parent(kind)),
    *map(_right, _CHILDREN),
    _right(kinds.INGRESS),
    _right(kinds.EVENT),
    _right(kinds.WORKLOAD),
)
ISOLATING = tuple(_right(kind) for kind in kinds.children(isolated=True) if kind not in _CHILDREN)  # with --network-policies
KEYING = (_right(kinds.SECRET),)  # without --no-server-keys
REVIEWING = (_right(kinds.TOKEN_REVIEW), _right(kinds.ACCESS_REVIEW))  # with --metrics-auth
OWN = (  # in its own namespace; the chart makes the Lease, too
    Right("coordination.k8s.io", "leases", ("get", "update", "patch")),
    Right("coordination.k8s.io", "leases", ("create",), optional=True),
)


async def missing(api: Api, rights: Iterable[Right], namespace: str | None, name: str = "") -> list[tuple[Right, str]]:
    """Asks which rights are not there, each with its line. namespace None: in all; name: of the one object they are about."""
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
    kind = kinds.SELF_REVIEW
    answer = await api.create(
        {"apiVersion": kind.api_version, "kind": kind.name, "spec": {"resourceAttributes": attributes}},
    )
    return bool(answer.get("status", {}).get("allowed"))
