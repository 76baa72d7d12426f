"""Which of the objects that a list shows are one task's or server's. Pure.

Labels only find candidates: anybody may write them. A Job or Deployment counts under its own name, which nobody else's object can
have, and a pod where the Job or Deployment made it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from maft_operator.cluster import kinds, pods
from maft_operator.cluster.fields import controller, parts, text
from maft_operator.cluster.manifests import CHILD
from maft_operator.cluster.pods import created, is_terminating
from maft_operator.spec.schema import Json


@dataclass(frozen=True, slots=True)
class Child:
    """One task or server with its objects. made: its Job or Deployment; None where only pods are left. pods: oldest first."""

    name: str
    made: Json | None
    pods: tuple[Json, ...]

    @property
    def object(self) -> Json:
        """Returns the Job of a task, which is known by it."""
        assert self.made is not None
        return self.made


def tasks_in(children: Mapping[str, Sequence[Json]]) -> list[Child]:
    """Lists the tasks that there are. children: the run's objects by kind."""
    by_child = _pods_by_child(children)
    jobs = {_name(job): job for job in parts(children, kinds.JOB.name) if has_its_name(job) and not is_terminating(job)}
    return [Child(name, job, tuple(p for p in by_child.get(name, ()) if pods.is_of_job(p, job))) for name, job in jobs.items()]


def servers_in(children: Mapping[str, Sequence[Json]], names: Iterable[str]) -> list[Child]:
    """Lists the servers of which anything is left: pods whose Deployment has gone still hold their GPUs."""
    by_child = _pods_by_child(children)
    there = {_name(d): d for d in parts(children, kinds.DEPLOYMENT.name) if has_its_name(d) and not is_terminating(d)}
    own = {name: tuple(p for p in by_child.get(name, ()) if pods.is_of_server(p, name)) for name in names}
    servers = [Child(name, there.get(name), several) for name, several in own.items()]
    return [server for server in servers if server.made or server.pods]


def pods_in(children: Mapping[str, Sequence[Json]], names: Iterable[str]) -> list[Json]:
    """Lists the pods of all of them, and no others that carry their labels. names: the servers'."""
    return [pod for child in (*tasks_in(children), *servers_in(children, names)) for pod in child.pods]


def is_controlled_by(thing: Json, uid: str) -> bool:
    """Tells whether the parent of that uid controls the object: several may own one, and each that we make has its parent as its
    controller."""
    return bool(uid) and text(controller(thing), "uid") == uid


def has_its_name(thing: Json) -> bool:
    """Tells whether an object is called as the child is that its label names, as each of ours is, Services and NetworkPolicies
    included. A copy of one has the label and the owner, too, but another name: it speaks for nobody."""
    return _child(thing) == _name(thing)


def _pods_by_child(children: Mapping[str, Sequence[Json]]) -> dict[str, tuple[Json, ...]]:
    by_child: dict[str, tuple[Json, ...]] = {}
    for pod in sorted(parts(children, kinds.POD.name), key=created):
        by_child[_child(pod)] = (*by_child.get(_child(pod), ()), pod)
    return by_child


def _child(thing: Json) -> str:
    return text(thing, "metadata", "labels", CHILD) or _name(thing)


def _name(thing: Json) -> str:
    return text(thing, "metadata", "name")
