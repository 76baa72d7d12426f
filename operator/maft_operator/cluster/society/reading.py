"""From a Society and its run to what is to be made, or the reason why nothing can be made yet. Pure.

In: both resources as the API server has them. Out: a Wish, which objects.py turns into manifests, or an Obstacle, which status.py
tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from maft.society_spec import SocietySpec
from maft.spec import SecretName, Section
from maft_operator.cluster import conditions, kinds, reasons
from maft_operator.cluster.fields import count, part, parts, text, texts
from maft_operator.cluster.reasons import Reason
from maft_operator.plan import done
from maft_operator.spec import skew
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec, Json, filled


class Tls(Section, frozen=True, kw_only=True):
    """How connections are encrypted."""

    secret_name: str


class IngressSpec(Section, frozen=True, kw_only=True):
    """How clients from outside the cluster come in."""

    host: str
    class_name: str = ""
    tls_secret_name: str = ""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Served(Section, frozen=True, kw_only=True):
    """What a Society says beside how it answers (SocietySpec)."""

    run: str
    iteration: Annotated[int, Meta(ge=1)] | None = None
    replicas: Annotated[int, Meta(ge=0)] = 1
    api_keys_secret: SecretName | None = None
    tls: Tls | None = None
    ingress: IngressSpec | None = None
    gpus: Annotated[int, Meta(ge=0)] | None = None
    pod_template: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A Society as it was written."""

    namespace: str
    name: str
    uid: str
    served: Served
    answers: SocietySpec


@dataclass(frozen=True, slots=True)
class Wish:
    """A Society that can be made."""

    asked: Asked
    run: Run
    """With the podTemplate that counts here."""
    run_uid: str
    iteration: int
    model_bytes: int = 0
    """Of the base model; 0: not known."""

    @property
    def models(self) -> tuple[str, ...]:
        """Lists what a request may name; a test compares it with the program's own list."""
        agents = range(1, self.run.spec.held_out_agents(self.iteration) + 1)
        roles = ("generator", "critic") if self.run.spec.debate.critics else ("generator",)
        return ("society", "society/majority", *(f"society/{role}-{n}" for role in roles for n in agents))


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can be made now."""

    reason: Reason
    message: str
    passes: bool = False
    """By itself: the run goes on."""


def asked(resource: Mapping[str, Any]) -> Asked | Obstacle:
    """Reads a Society; fields that this release does not know are passed over."""
    whole = filled({"metadata": dict(resource["metadata"]), "spec": dict(part(resource, "spec"))}, kinds.SOCIETY.name)
    metadata, spec = whole["metadata"], whole["spec"]
    try:
        served, answers = msgspec.convert(spec, Served), msgspec.convert(spec, SocietySpec)
    except msgspec.ValidationError as error:
        return Obstacle(reasons.INVALID_SPEC, f"spec: {error}")
    return Asked(metadata["namespace"], metadata["name"], text(metadata, "uid"), served, answers)


def wished(asked: Asked, run: Json | None) -> Wish | Obstacle:
    """Decides what to make of a Society. run: the resource that it names; None: there is none."""
    served = asked.served
    if run is None:
        return Obstacle(reasons.RUN_MISSING, f"spec.run: no MultiAgentFinetune {served.run} is in namespace {asked.namespace}")
    read = _run(run)
    if isinstance(read, Obstacle):
        return read
    iteration = _iteration(served, read, part(run, "status"))
    if isinstance(iteration, Obstacle):
        return iteration
    template = read.spec.pod_template if served.pod_template is None else served.pod_template
    own = replace(read, spec=msgspec.structs.replace(read.spec, pod_template=template))
    return Wish(asked, own, text(run, "metadata", "uid"), iteration, max(0, count(run, "status", "model", "bytes")))


def _run(resource: Json) -> Run | Obstacle:
    """The run as its own reconciler reads it."""
    try:
        run = skew.read(resource, begun="startTime" in part(resource, "status")).run
    except BadSpec as error:
        return Obstacle(reasons.RUN_UNUSABLE, str(error))
    if run.spec.storage is None:
        return Obstacle(reasons.RUN_UNUSABLE, "spec.storage: missing; without a bucket no pod reaches its adapters")
    return run


def _iteration(served: Served, run: Run, status: Json) -> int | Obstacle:
    """Whose adapters answer: the one that is named, the run's best, the last one that is trained."""
    if not run.spec.trained_agents:
        return Obstacle(reasons.RUN_WITHOUT_ADAPTERS, f"run {run.name} trains nothing (method {run.spec.method})")
    trained = _trained(run, status)
    if served.iteration is not None:
        return served.iteration if served.iteration in trained else _untrained(served.iteration, run, trained, status)
    if not conditions.finished(status):
        return Obstacle(reasons.RUN_UNFINISHED, f"run {run.name} has not finished", passes=True)
    if not trained:
        return Obstacle(reasons.RUN_WITHOUT_ADAPTERS, f"run {run.name} has ended, and no iteration of it is trained")
    best = count(status, "best", "iteration")
    return best if best in trained else max(trained)


def _trained(run: Run, status: Json) -> frozenset[int]:
    """Iterations of which all adapters are committed, as the run's status records them; not those before the first that trained
    anything."""
    rows = [row for row in parts(status, "iterations") if "trained" in row]
    first = min((count(row, "iteration") for row in rows if count(row, "trained")), default=len(rows) + 1 if rows else 0)
    return frozenset(number for number in done.trained(run, texts(status, "done")) if number >= first)


def _untrained(wanted: int, run: Run, trained: frozenset[int], status: Json) -> Obstacle:
    known = f"; trained are {', '.join(map(str, sorted(trained)))}" if trained else ""
    if wanted > run.spec.iterations:
        message = f"spec.iteration: {wanted}; run {run.name} has the iterations 1 to {run.spec.iterations}{known}"
        return Obstacle(reasons.ITERATION_MISSING, message)
    over = conditions.finished(status)
    reason = reasons.ITERATION_MISSING if over else reasons.ITERATION_UNFINISHED
    return Obstacle(reason, f"spec.iteration: {wanted} of run {run.name} is not trained{known}", passes=not over)
