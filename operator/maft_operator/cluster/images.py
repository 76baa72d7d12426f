"""Which images a run uses: those that it began with, to its end, whatever release the operator is of meanwhile. Pure.

They stand in the status (by role, with their digests once a pod has told them) and as an annotation on each Job and Deployment,
from which they come where the status is lost. Where both are lost those of this operator count, and the status says so.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from maft_operator import __version__
from maft_operator.cluster import fields, kinds, server_key
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.pod_template import DEBATE, SERVE, TRAIN
from maft_operator.plan.disk import LARGEST
from maft_operator.spec.schema import Json
from maft_operator.spec.skew import OPERATOR

ROLES = (DEBATE, TRAIN, SERVE)
# Annotations: JSON of references by role; release of the operator that made the child; hash of the podTemplate that went into it.
IMAGES, RELEASE, TEMPLATE = "maft.dev/images", "maft.dev/release", "maft.dev/pod-template"
MODEL = "maft.dev/model-bytes"  # and the model's size that its resources follow from
_OURS = (IMAGES, RELEASE, TEMPLATE, MODEL, server_key.NOTE)
_MUTABLE = ("backoffLimit", "activeDeadlineSeconds", "replicas")  # of the spec of a child, while it is under way
_DIGEST = "@sha256:"
PRESUMED = OPERATOR + "the images that the run began with"
_LOST = PRESUMED + " stand neither in its status nor on its children any more: {} of this operator, {}"


@dataclass(frozen=True, slots=True)
class Images:
    """Where the workload images are: PREFIX/debate:TAG and so on."""

    prefix: str
    tag: str
    policy: str = "IfNotPresent"
    """Their imagePullPolicy."""
    named: Mapping[str, str] = field(default_factory=dict)
    """By role: the image that is not PREFIX/ROLE:TAG."""
    isolated: bool = False
    """NetworkPolicies let only the run's own pods, and those who read metrics, reach its pods."""
    scraped_from: tuple[str, ...] = ()
    """Namespaces whose pods may read metrics."""
    operated_from: str = ""
    """Namespace of the operator, which reads the metrics of tasks."""
    keyed: bool = False
    """Servers of runs that begin want a key."""
    key: str = ""
    """Name of the Secret with the key of a run's servers; empty: they want none."""
    release: str = __version__
    """Of the operator."""
    pods: PodSettings = field(default_factory=PodSettings)
    """What all pods have."""
    model_bytes: int = 0
    """Of the run's base model, for a run or a child of it; 0: not known."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """By role: the image that counts for a run, or for a child of it, that was made with it."""

    def of(self, role: str, asked: str = "") -> str:
        """Names the image of that role. asked: the one that the spec names."""
        return self.pinned.get(role) or asked or self.named.get(role) or f"{self.prefix}/{role}:{self.tag}"

    def noted_on(self, child: Json, template: Mapping[str, Any] | None) -> Json:
        """Adds the annotations to a child that is made with them. template: the user's podTemplate."""
        built = self.release if self.tag == self.release else f"{self.release}+{self.tag}"  # two builds of one version differ, too
        built += f"~{self.pods.digest}" if self.pods.digest else ""  # other settings restart no server, either
        notes = {IMAGES: json.dumps(dict(self.pinned), sort_keys=True), RELEASE: built, TEMPLATE: _digest(template)}
        notes[MODEL] = str(self.model_bytes)
        notes |= {server_key.NOTE: self.key} if self.key else {}
        return {**child, "metadata": {**child["metadata"], "annotations": {**child["metadata"].get("annotations", {}), **notes}}}


@dataclass(frozen=True, slots=True)
class Pin:
    """An image of a run. digest: sha256:…, empty until a pod has told it."""

    image: str
    digest: str = ""

    @property
    def reference(self) -> str:
        """Writes what a pod pulls: by digest where it is known, so that a tag that moves changes nothing."""
        return f"{_repository(self.image)}@{self.digest}" if self.digest else self.image


@dataclass(frozen=True, slots=True)
class Pins:
    """The images of a run, by role."""

    roles: Mapping[str, Pin] = field(default_factory=dict)
    presumed: tuple[str, ...] = ()
    """Roles of a run that had begun whose image nobody remembers."""

    @property
    def status(self) -> Json:
        """Writes them for the status."""
        return {role: {"image": p.image, **({"digest": p.digest} if p.digest else {})} for role, p in self.roles.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Says which images had to be presumed."""
        names = [self.roles[role].image for role in self.presumed]
        return (_LOST.format("that" if len(names) == 1 else "those", ", ".join(names) + ", count"),) if names else ()

    def used_by(self, images: Images) -> Images:
        """Makes the run's own images of the operator's. What is never pulled lies on nodes by its name."""
        by_name = images.policy == "Never"
        return replace(images, pinned={role: pin.image if by_name else pin.reference for role, pin in self.roles.items()})


def pins(images: Images, asked: Mapping[str, str], entries: Mapping[str, Json], children: Mapping[str, Sequence[Json]]) -> Pins:
    """Finds the images of a run. asked: what its spec names, by role; entries: what its status has, by role; children: by
    kind, of pods only those that its own Jobs and Deployments made: anybody may label one."""
    made = [child for kind in (kinds.DEPLOYMENT, kinds.JOB) for child in children.get(kind.name, ())]
    known = {
        **_of_templates(made),
        **_noted(made),
        **{role: name for role, pin in entries.items() if (name := fields.text(pin, "image"))},
    }
    names = {role: known.get(role) or images.of(role, asked.get(role, "")) for role in ROLES}
    digests = {role: fields.text(pin, "digest") for role, pin in entries.items()}
    pods = children.get(kinds.POD.name, ())
    whole = {role: Pin(image, digests.get(role) or _told_by(pods, role, image)) for role, image in names.items()}
    return Pins(whole, tuple(role for role in ROLES if role not in known) if made or entries else ())


def _noted(made: Iterable[Json]) -> dict[str, str]:
    """What the children's annotations say, the first one of each role."""
    names: dict[str, str] = {}
    for child in made:
        names = {**noted(child), **names}
    return names


def noted(child: Json) -> dict[str, str]:
    """Reads the annotation of one child; anybody may write there."""
    try:
        images = json.loads(child["metadata"].get("annotations", {}).get(IMAGES, "{}"))
    except (ValueError, RecursionError):
        return {}
    pairs = images.items() if isinstance(images, dict) else ()
    return {role: image for role, image in pairs if role in ROLES and isinstance(image, str) and image}


def _of_templates(made: Iterable[Json]) -> dict[str, str]:
    """What the children themselves run: those of releases that wrote no annotation."""
    return {role: image for child in made for role, image in _of_template(child).items()}


def _of_template(child: Json) -> dict[str, str]:
    pod: Json = child.get("spec", {}).get("template", {}).get("spec", {})
    return {c["name"]: c["image"] for c in pod.get("containers", ()) if c.get("name") in ROLES and c.get("image")}


# --- children that exist ---


def of_child(images: Images, child: Json | None) -> Images:
    """Makes the images that a child was made with, and the model's size: what exists is not made anew because one has become
    known."""
    if child is None:
        return images
    return replace(images, pinned={**images.pinned, **_of_template(child), **noted(child)}, model_bytes=_noted_size(child))


def _noted_size(child: Json) -> int:
    text = fields.text(child, "metadata", "annotations", MODEL)
    return min(int(text), LARGEST) if re.fullmatch("[0-9]{1,20}", text) else 0


def has_another_template(child: Json, template: Mapping[str, Any] | None) -> bool:
    """Tells whether a child notes that it was made with another podTemplate than that."""
    now = _digest(template)
    return bool(fields.part(child, "metadata", "annotations").get(TEMPLATE, now) != now)


def _digest(template: Mapping[str, Any] | None) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12] if template else ""


def keeping(wanted: Json, stored: Json, owned: Json) -> Json:
    """Leaves a Job or Deployment that another release made as it is, so that an upgrade restarts nothing; what of its spec may
    change during a run still does. owned: what of its spec is ours, and not a queue's or a webhook's."""
    if RELEASE not in wanted["metadata"].get("annotations", {}) or not _of_another_release(wanted, stored):
        return wanted
    mutable = {name: value for name, value in wanted["spec"].items() if name in _MUTABLE}
    metadata = {key: value for key, value in wanted["metadata"].items() if key != "annotations"}
    names = (*_OURS, *wanted["metadata"]["annotations"])
    ours = {name: text for name, text in stored["metadata"].get("annotations", {}).items() if name in names}
    return {**wanted, "metadata": {**metadata, **({"annotations": ours} if ours else {})}, "spec": {**owned, **mutable}}


def _of_another_release(wanted: Json, stored: Json) -> bool:
    """Whether it is, and its template is not to be another one for the user's sake."""
    now, then = wanted["metadata"]["annotations"], stored["metadata"].get("annotations", {})
    same_template = then.get(TEMPLATE, now[TEMPLATE]) == now[TEMPLATE]
    return bool(now[RELEASE] != then.get(RELEASE) and same_template)


# --- names and digests ---


def _told_by(pods: Iterable[Json], role: str, image: str) -> str:
    """The digest of that image as the first pod that runs it tells it; none where it lies on the node alone."""
    if _DIGEST in image:
        return image.partition("@")[2]
    asking = [pod for pod in pods if _asks(pod, role, image)]
    for pod in sorted(asking, key=lambda p: str(p["metadata"].get("creationTimestamp"))):
        for status in pod.get("status", {}).get("containerStatuses") or ():
            name, separator, digest = str(status.get("imageID") or "").rpartition(_DIGEST)
            if status.get("name") == role and separator and _full(name.rpartition("://")[2]) == _full(_repository(image)):
                return f"sha256:{digest}"
    return ""


def _asks(pod: Json, role: str, image: str) -> bool:
    containers = pod.get("spec", {}).get("containers") or ()
    return any(c.get("name") == role and c.get("image") == image for c in containers)


def _repository(image: str) -> str:
    """The name without tag and digest; a port stands before a slash."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _full(repository: str) -> str:
    """As nodes write it: python is docker.io/library/python."""
    first, slash, _ = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return repository
    return f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
