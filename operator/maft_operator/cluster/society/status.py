"""The status of a Society: phase, conditions, pods, what may be asked, from what was wanted and what is there. Pure."""

from dataclasses import dataclass
from datetime import datetime

from maft.society_spec import idle_limit
from maft_operator.cluster import conditions, reasons
from maft_operator.cluster.children import Child
from maft_operator.cluster.conditions import Wanted
from maft_operator.cluster.fields import count, parts, text
from maft_operator.cluster.observed import is_ready
from maft_operator.cluster.pod_template import DEBATE, SERVE
from maft_operator.cluster.reasons import Reason, Trouble, sentence
from maft_operator.cluster.society import reached
from maft_operator.cluster.society.reading import Asked, Obstacle, Wish
from maft_operator.spec.schema import Json

_KEPT = ("url", "models", "iteration", "images")  # of a Society whose run cannot be looked at, while its pods go on


@dataclass(frozen=True, slots=True)
class Seen:
    """What is there of a Society."""

    child: Child | None = None
    """Its Deployment and pods."""
    troubles: tuple[Trouble, ...] = ()
    """Why pods do not answer, what the API server refused first."""

    @property
    def deployment(self) -> Json:
        """Returns the Deployment; empty where there is none."""
        return (self.child.made if self.child else None) or {}

    @property
    def pods(self) -> tuple[Json, ...]:
        """Returns its pods."""
        return self.child.pods if self.child else ()


def status(asked: Asked, wished: Wish | Obstacle, seen: Seen, old: Json, generation: int, now: datetime) -> Json:
    """Makes the whole status."""
    made, replicas = seen.deployment, asked.served.replicas
    wanted = _wanted(asked, wished, seen)
    about = _about(wished, seen) if isinstance(wished, Wish) else {name: old[name] for name in _KEPT if made and name in old}
    answering = count(made, "status", "availableReplicas")
    return {
        "observedGeneration": generation,
        "phase": _phase(wanted, replicas, made=bool(made) or isinstance(wished, Wish)),
        "conditions": conditions.conditions(wanted, old, generation, now),
        "replicas": count(made, "status", "replicas"),
        "readyReplicas": answering,
        "ready": f"{answering}/{replicas}",
        "selector": ",".join(f"{name}={value}" for name, value in reached.selector(asked).items()),
        **about,
    }


def refused(obstacle: Obstacle, old: Json, generation: int, now: datetime) -> Json:
    """Makes the status of a Society that cannot be read; what it had stays."""
    wanted = _conditions(_cause(obstacle), None, _cause(obstacle))
    made = conditions.conditions(wanted, old, generation, now)
    return {**old, "observedGeneration": generation, "phase": text(old, "phase") or "Waiting", "conditions": made}


def blocked(reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    """Makes the status of a Society that cannot be looked at. What it had stays, Ready too: nobody knows more, and pods go on."""
    cause = reason, sentence(reason, [message])
    ready = [c for c in parts(old, "conditions") if text(c, "type") == "Ready"]
    wanted = {kind: value for kind, value in _conditions(cause, None, cause).items() if kind != "Ready" or not ready}
    made = [*ready, *conditions.conditions(wanted, old, generation, now)]
    return {**old, "observedGeneration": generation, "phase": text(old, "phase") or "Waiting", "conditions": made}


def _about(wish: Wish, seen: Seen) -> Json:
    pods = parts(seen.deployment, "spec", "template", "spec", "containers")
    used = {text(c, "name"): {"image": text(c, "image")} for c in pods if text(c, "name") in (DEBATE, SERVE)}
    return {
        "url": reached.url(wish.asked, seen.pods),
        "models": list(wish.models),
        "iteration": wish.iteration,
        **({"images": used} if used else {}),
    }


# --- conditions ---

_Cause = tuple[Reason, str]


def _wanted(asked: Asked, wished: Wish | Obstacle, seen: Seen) -> Wanted:
    """Ready: a pod answers. Stalled: somebody has to change something; Reconciling: neither that nor all as it should be."""
    made, reason = seen.deployment, _cause(wished) if isinstance(wished, Obstacle) else None
    blocking = next((t for t in seen.troubles if t.blocking), None)
    stalled = reason if isinstance(wished, Obstacle) and not wished.passes else _of(blocking) if blocking else None
    if not asked.served.replicas and made:
        ready = (reasons.SCALED_TO_ZERO, sentence(reasons.SCALED_TO_ZERO, ["no pods are asked for"]))
        moving = None if _is_settled(made) else (reasons.SCALED_TO_ZERO, "the last pods end")
    elif count(made, "status", "availableReplicas"):
        ready, moving = None, reason or (None if _is_settled(made) else (reasons.STARTING, _replaced(asked, seen)))
    else:
        waits = _of(seen.troubles[0]) if seen.troubles else (reasons.STARTING, "no pod answers yet")
        ready = moving = reason or waits
    return _conditions(ready, None if stalled else moving, stalled, _answering(asked, made))


def _is_settled(deployment: Json) -> bool:
    """Tells whether its pods are those that are wanted, and no more; as kstatus has it, one that is being ended is none."""
    return is_ready(deployment) and count(deployment, "status", "replicas") <= count(deployment, "spec", "replicas")


def _conditions(ready: _Cause | None, moving: _Cause | None, stalled: _Cause | None, answering: str = "") -> Wanted:
    serving = (True, reasons.SERVING, answering)
    return {
        "Ready": (False, *ready) if ready else serving,
        "Reconciling": (True, *moving) if moving else (False, *(ready or (reasons.SERVING, ""))),
        "Stalled": (True, *stalled) if stalled else (False, reasons.NOT_STALLED, ""),
    }


def _replaced(asked: Asked, seen: Seen) -> str:
    wanted, answered = reached.port_name(asked), reached.answered(asked, seen.pods)
    until = "" if answered == wanted else f"; clients are answered by {answered} until a pod that speaks {wanted} is ready"
    return f"pods are made, replaced or ended{until}"


def _answering(asked: Asked, made: Json) -> str:
    number, idle = asked.served.replicas, idle_limit(asked.answers, keys=asked.served.api_keys_secret is not None)
    answering = f"{count(made, 'status', 'availableReplicas')} of {number} pod{'s' * (number != 1)} answer{'s' * (number == 1)}"
    return f"{answering}; spec.{idle}" if idle else answering


def _cause(obstacle: Obstacle) -> _Cause:
    return obstacle.reason, sentence(obstacle.reason, [obstacle.message])


def _of(trouble: Trouble) -> _Cause:
    return trouble.reason, sentence(trouble.reason, [trouble.message])


def _phase(wanted: Wanted, replicas: int, *, made: bool) -> str:
    if wanted["Ready"][0]:
        return "Ready"
    if not made:
        return "Waiting"
    return "Starting" if replicas else "Stopped"
