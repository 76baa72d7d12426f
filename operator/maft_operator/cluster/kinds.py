"""Kinds of objects that the operator deals with, in one table. Pure.

Requests (api.py), watches (handlers.py), lists and deletion (backend.py) and rights (rbac.py) are made from it. A new kind of
child is one line here, its manifest, and the same right in the chart, which a test compares with this table. Parents are what users
make: runs and, where the cluster knows them, others; CONTRIBUTING.md says what a new one takes.
"""

from dataclasses import dataclass

from maft_operator.spec import schema
from maft_operator.spec.schema import GROUP, KIND, PLURALS, VERSION

_EVERYTHING = ("list", "watch", "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object and what is done with it."""

    name: str
    plural: str
    verbs: tuple[str, ...]
    """What the operator does with such objects, as RBAC calls it; server-side apply takes create and patch."""
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    child: bool = False
    """Belongs to a run and carries its label."""
    optional: bool = False
    """Without the right to it the operator does less, and goes on."""
    only_isolated: bool = False
    """Made only where the operator was told to isolate servers."""
    label: str = ""
    """Of a parent: what belongs to one of its objects has its name under this label."""

    @property
    def prefix(self) -> str:
        """Returns the place of its group in URLs."""
        return "apis" if self.group else "api"

    @property
    def api_version(self) -> str:
        """Names group and version as objects do."""
        return f"{self.group}/{self.version}" if self.group else self.version


RUN = Kind(KIND, PLURALS[KIND], ("get", "list", "watch", "delete"), GROUP, VERSION, label="maft.dev/run")
# Optional: an operator may be newer than the definitions of its cluster, and then goes on without (served.py).
SOCIETY = Kind(
    schema.SOCIETY, PLURALS[schema.SOCIETY], ("get", "list", "watch"), GROUP, VERSION, optional=True, label="maft.dev/society"
)
COMPARISON = Kind(
    schema.COMPARISON,
    PLURALS[schema.COMPARISON],
    ("get", "list", "watch", "delete"),
    GROUP,
    VERSION,
    optional=True,
    label="maft.dev/comparison",
)
JOB = Kind("Job", "jobs", _EVERYTHING, "batch", child=True)
DEPLOYMENT = Kind("Deployment", "deployments", _EVERYTHING, "apps", child=True)
SERVICE = Kind("Service", "services", _EVERYTHING, child=True)
POD = Kind("Pod", "pods", ("list", "watch"), child=True)
NETWORK_POLICY = Kind(
    "NetworkPolicy",
    "networkpolicies",
    ("list", "create", "patch", "delete"),
    "networking.k8s.io",
    child=True,
    only_isolated=True,
)
# A Society's alone, and only where it asks for one. Optional: an operator's role may be older.
INGRESS = Kind("Ingress", "ingresses", ("list", "create", "patch", "delete"), "networking.k8s.io", optional=True)
SECRET = Kind("Secret", "secrets", ("create",))  # the key of a run's servers: made once, never read
EVENT = Kind("Event", "events", ("list", "create"), optional=True)
WORKLOAD = Kind("Workload", "workloads", ("list",), "kueue.x-k8s.io", "v1beta2", optional=True)  # there with Kueue alone
TOKEN_REVIEW = Kind("TokenReview", "tokenreviews", ("create",), "authentication.k8s.io", namespaced=False)
ACCESS_REVIEW = Kind("SubjectAccessReview", "subjectaccessreviews", ("create",), "authorization.k8s.io", namespaced=False)
# Everybody may ask for their own rights, so it is in no role.
SELF_REVIEW = Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", ("create",), "authorization.k8s.io", namespaced=False)

PARENTS = (RUN, SOCIETY, COMPARISON)
_CHILDREN = (JOB, DEPLOYMENT, SERVICE, POD, NETWORK_POLICY)
ALL = (*PARENTS, *_CHILDREN, INGRESS, SECRET, EVENT, WORKLOAD, TOKEN_REVIEW, ACCESS_REVIEW, SELF_REVIEW)
WATCHED_CHILDREN = tuple(kind for kind in ALL if kind.child and "watch" in kind.verbs)
DELETED_CHILDREN = tuple(kind for kind in ALL if kind.child and "delete" in kind.verbs)


def children(*, isolated: bool) -> tuple[Kind, ...]:
    """Lists the kinds that a run has objects of."""
    return tuple(kind for kind in ALL if kind.child and (isolated or not kind.only_isolated))


def named(kind: str) -> Kind:
    """Finds the kind of that name."""
    return next(each for each in ALL if each.name == kind)


# --- keys: what the queue, the watches and the log know an object of a parent kind by ---


def key(kind: Kind, namespace: str, name: str) -> str:
    """Names one object: a run as NAMESPACE/NAME, others with the plural of their kind before it."""
    own = f"{namespace}/{name}"
    return own if kind == RUN else f"{kind.plural}/{own}"


def addressed(key: str) -> tuple[Kind, str, str]:
    """Reads a key: kind, namespace and name."""
    plural, _, own = key.rpartition("/")[0].rpartition("/")
    name = key.rpartition("/")[2]
    return next((kind for kind in PARENTS if kind.plural == plural), RUN), own, name
