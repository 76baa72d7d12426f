"""Why a run waits or failed: every reason that a condition may give, in one table, with what to do. Pure.

`docs/status.md` is checked against it. A reason is part of the API: alerts and scripts match it, so names stay. At the end: which
reason the words of a program, of Kubernetes or of the API server stand for.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from maft.shortage import MORE_TOKENS
from maft_operator.cluster import fields
from maft_operator.spec.schema import Json

Condition = Literal["Accepted", "Progressing", "Suspended", "Complete", "Failed", "Ready", "Reconciling", "Stalled"]
CONDITIONS: tuple[Condition, ...] = ("Accepted", "Progressing", "Suspended", "Complete", "Failed", "Reconciling", "Stalled")
"""Of a run. A society has Ready in place of the first five."""
SUMMARIES: tuple[Condition, ...] = ("Reconciling", "Stalled")
"""Follow from the others, for tools that read any resource alike (kstatus)."""
MOST = 2000  # characters of what others said


@dataclass(frozen=True, slots=True)
class Reason:
    """A CamelCase word (metav1.Condition.reason) and the hint that follows the message."""

    name: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that keeps a child from its work. child: its name; empty where it is about the whole run."""

    child: str
    reason: Reason
    message: str
    blocking: bool = True
    """It will not pass by itself."""


# --- Accepted ---
ACCEPTED = Reason("Accepted")
INVALID_SPEC = Reason(
    "InvalidSpec",
    "correct the field where it may change, else delete the resource and apply a corrected one, or upgrade the operator",
)
# --- Progressing: nothing is wrong; the reason is the phase ---
WORKING = Reason("Working")
WRONG_MAJORITY = Reason(
    "WrongMajority",
    "training reinforces wrong answers: use a stronger model, easier questions or a higher debate.minAgreement, or suspend the run",
)
NOTHING_TRAINED = Reason(
    "NothingTrained",
    "agents debate on as they were: suspend the run, and apply a resource with another name and what the message asks for",
)
ANSWERS_CUT = Reason("AnswersCut", f"answers that were cut off never train: {MORE_TOKENS}, in a resource with another name")
METRICS_UNREADABLE = Reason(
    "MetricsUnreadable", "the run goes on, its progress is not known: see what else answers at port 9100 of the task's pod"
)
SERVERS_GIVEN_BACK = Reason(
    "ServersGivenBack",
    "add nodes or quota, let a queue admit servers together (docs/kueue.md), or, where nodes take longer, "
    "raise inference.placementSeconds in a resource with another name",
)
DEBATES_LACK_ROOM = Reason(
    "DebatesLackRoom",
    "leave room for debates beside the servers that they ask, more quota or nodes: the run goes on by itself. Where waiting is "
    "usual, raise inference.placementSeconds in a resource with another name (docs/kueue.md)",
)
PEERS_MISSING = Reason(
    "PeersMissing",
    "add nodes or quota, or let a queue admit the pods of a training together (docs/kueue.md): they are tried again within "
    "spec.backoffLimit. Where all of them run and do not meet, let them reach each other (docs/gpus.md)",
)
RETRYING = Reason("Retrying", "it is tried again within spec.backoffLimit; `kubectl logs` of the failed pod says more")
DISRUPTED = Reason("Disrupted", "another pod goes on where it was; such an end does not count against spec.backoffLimit")
# --- Progressing: something outside the run has to change first ---
UNSCHEDULABLE = Reason("Unschedulable", "free or add nodes, or change resources, nodeSelector and tolerations in spec.podTemplate")
QUOTA_EXCEEDED = Reason("QuotaExceeded", "raise the namespace's ResourceQuota or ask for less in spec.podTemplate")
IMAGE_PULL = Reason("ImagePullFailed", "correct the image's name, or name imagePullSecrets in spec.podTemplate")
SECRET_MISSING = Reason("SecretMissing", "create the Secret in the run's namespace; the run goes on by itself")
SECRET_KEY_MISSING = Reason("SecretKeyMissing", "add the key to the Secret; the run goes on by itself")
VOLUME_MISSING = Reason("VolumeMissing", "create the volume's source; the run goes on by itself")
POD_REFUSED = Reason("PodRefused", "correct spec.podTemplate, or the policy that refuses the pod")
FORBIDDEN = Reason("OperatorForbidden", "give the operator's service account this right")
NEWER_SPEC = Reason("NewerSpec", "upgrade the operator: the run began with a newer one, and goes on by itself where it stands")
QUEUED = Reason("Queued", "its queue admits it when there is room")
QUEUE_UNUSABLE = Reason(
    "QueueUnusable",
    "correct the queue or ask for less in spec.podTemplate; while the run is suspended, spec.queueName may name another",
)
WEBHOOK_AWAY = Reason(
    "WebhookUnavailable", "start the controller again that the webhook belongs to, such as Kueue's; the run goes on by itself"
)
NAME_TAKEN = Reason("NameTaken", "delete or rename that object, or apply the run with another name")
TOO_MANY_OBJECTS = Reason(
    "TooManyObjects",
    "delete the objects that carry its label (maft.dev/run, maft.dev/society or maft.dev/comparison) and are not its own",
)
NODE_LOST = Reason(
    "NodeLost",
    "start the node again, or delete its Node object; only then another pod takes the place, so that never two work at once",
)
SIDECAR_RUNS_ON = Reason(
    "SidecarRunsOn",
    "make it a sidecar that ends with the program: in spec.podTemplate, an init container with restartPolicy Always",
)
POD_REJECTED = Reason("PodRejected", "read what the message names; another pod is tried, `kubectl describe pod` says more")
POD_STUCK = Reason("PodStuck", "read what the message names; `kubectl describe` of the child and its pods says more")
# --- Failed, or Progressing while an attempt is left ---
INPUT_INVALID = Reason("InputInvalid", "correct it and apply a resource with another name")
STORE_UNUSABLE = Reason("StoreUnusable", "correct spec.storage, the bucket or the credentials Secret")
MODEL_GATED = Reason("ModelGated", "accept the model's terms on the hub and name a token in spec.model.tokenSecret")
MODEL_UNUSABLE = Reason("ModelUnusable", "correct spec.model")
ADAPTER_UNUSABLE = Reason("AdapterUnusable", "remove that iteration's adapters from the store, then apply the resource again")
OUT_OF_MEMORY = Reason("OutOfMemory", "raise resources.limits.memory in spec.podTemplate, or make batches shorter")
EVICTED = Reason(
    "Evicted", "the node was short of what the message names, or the pod took more than its limit; set it in spec.podTemplate"
)
DEADLINE_EXCEEDED = Reason("DeadlineExceeded", "raise spec.activeDeadlineSeconds in a resource with another name")
BUDGET_SPENT = Reason(
    "BudgetSpent",
    "what is committed stays: to go on from there, delete the resource and apply it again; its spec.budget then counts anew",
)
CRASH_LOOP = Reason("CrashLoop", "read the log of its last container: kubectl logs --previous")
ATTEMPTS_EXHAUSTED = Reason("BackoffLimitExceeded", "read the logs of its failed pods")
# --- Suspended, Complete ---
SUSPENDED = Reason("Suspended", "set spec.suspend to false to go on from the last commit")
RUNNING = Reason("NotSuspended")
COMPLETE = Reason("AllIterationsDone")
UNFINISHED = Reason("Unfinished")
COMPARED = Reason("TableMade")
RUNS_FAILED = Reason(
    "RunsFailed", "see why: kubectl get maft -l maft.dev/comparison=NAME; correct it in a comparison with another name"
)
NO_FAILURE = Reason("NoFailure")
# --- Ready: a society answers, starts, or waits for its run ---
SERVING = Reason("Serving")
STARTING = Reason("Starting")
SCALED_TO_ZERO = Reason("ScaledToZero", "set spec.replicas of the society to 1 or more")
RUN_MISSING = Reason("RunMissing", "apply the run, or correct spec.run; pods that are there go on answering as they are")
RUN_UNUSABLE = Reason("RunUnusable", "correct the run, or name another one in spec.run")
RUN_UNFINISHED = Reason(
    "RunUnfinished", "the society starts by itself once the run has finished; spec.iteration may name one that is trained"
)
ITERATION_UNFINISHED = Reason(
    "IterationUnfinished", "the society starts by itself once it is trained, or name another one in spec.iteration"
)
ITERATION_MISSING = Reason("IterationMissing", "name an iteration that is trained in spec.iteration, or leave it out")
RUN_WITHOUT_ADAPTERS = Reason("RunWithoutAdapters", "name a run in spec.run that trains its agents")
# --- Stalled ---
NOT_STALLED = Reason("NotStalled")
# --- Events alone: status.warnings ---
MODEL_WARNING = Reason("ModelWarning", "the run goes on; if that is not what you want, apply a corrected one with another name")
OPERATOR_WARNING = Reason("OperatorWarning", "the run goes on; docs/versions.md says what releases make of each other's runs")

ALL: tuple[Reason, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Reason))

WAITING = (
    UNSCHEDULABLE,
    QUOTA_EXCEEDED,
    IMAGE_PULL,
    SECRET_MISSING,
    SECRET_KEY_MISSING,
    VOLUME_MISSING,
    POD_REFUSED,
    FORBIDDEN,
    NEWER_SPEC,
    SERVERS_GIVEN_BACK,
    DEBATES_LACK_ROOM,
    PEERS_MISSING,
    QUEUED,
    QUEUE_UNUSABLE,
    WEBHOOK_AWAY,
    NAME_TAKEN,
    TOO_MANY_OBJECTS,
    NODE_LOST,
    POD_REJECTED,
    POD_STUCK,
)
"""Reasons for which a run waits until somebody changes something; the dashboards count such runs."""

WARNINGS = (NOTHING_TRAINED, WRONG_MAJORITY, ANSWERS_CUT, METRICS_UNREADABLE, SIDECAR_RUNS_ON)
"""Reasons that stop nothing, and that somebody should know of."""

OF_INPUT = (INPUT_INVALID, STORE_UNUSABLE, MODEL_GATED, MODEL_UNUSABLE, ADAPTER_UNUSABLE)
"""Reasons of programs that will fail again."""

OF_LIMITS = (DEADLINE_EXCEEDED, BUDGET_SPENT)
"""Reasons of runs that took all that they may. One that is made anew may take it again, so whoever wants that deletes them."""

# Programs begin an error with the field or object that it is about (docs/errors.md): that decides the reason.
_BY_ERROR: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(r"^(task|debate|training|inference|evaluation)\."), INPUT_INVALID),  # whatever else the line is about
    (re.compile(r"^store |^storage\."), STORE_UNUSABLE),
    (re.compile(r"^model\.\w+: .*(\bgated\b|not in the authorized list|awaiting a review)", re.IGNORECASE), MODEL_GATED),
    (re.compile(r"/adapters/.*: (damaged|gone)"), ADAPTER_UNUSABLE),
    (re.compile(r"\badapter\b.*(sha256|damaged|differs|does not fit|refused)|refused a request .*\badapter\b"), ADAPTER_UNUSABLE),
    (re.compile(r"^model\."), MODEL_UNUSABLE),
)
_VOLUME = "MountVolume|volume|configmap|persistentvolumeclaim"
_GONE = "not found|non-?existent|does(?: not|n't) exist|no such"  # not one that another pod holds, or whose server refuses
_BY_TEXT: tuple[tuple[re.Pattern[str], Reason], ...] = (  # the first that matches
    (re.compile(r"failed calling webhook"), WEBHOOK_AWAY),
    (re.compile(r"exists and is not the \w+'s"), NAME_TAKEN),
    (re.compile(r"objects with its label take more than"), TOO_MANY_OBJECTS),
    (re.compile(r"violates PodSecurity|is invalid:|denied (?:the )?request|security context constraint"), POD_REFUSED),
    (re.compile(r"(exceeded|failed) quota"), QUOTA_EXCEEDED),  # failed: it counts what a pod does not name
    (re.compile(r"couldn't find key"), SECRET_KEY_MISSING),
    (re.compile(r'secret "[^"]*" not found', re.IGNORECASE), SECRET_MISSING),
    (re.compile(rf"(?:{_VOLUME})[^\n]{{0,300}}(?:{_GONE})|(?:{_GONE})[^\n]{{0,300}}(?:{_VOLUME})", re.IGNORECASE), VOLUME_MISSING),
)


_BY_EVENT = {"FailedScheduling": UNSCHEDULABLE, "NodeNotReady": NODE_LOST}


def of_input(message: str) -> Reason:
    """Finds the reason for a program that ended with exit code 2 and this line."""
    text = message.removeprefix("error: ")
    return next((reason for pattern, reason in _BY_ERROR if pattern.search(text)), INPUT_INVALID)


def exhausted(message: str) -> Reason:
    """Finds the reason for a program that failed as often as it may, the last time with this line."""
    return STORE_UNUSABLE if message.removeprefix("error: ").startswith("store ") else ATTEMPTS_EXHAUSTED


def text_reason(message: str, otherwise: Reason = POD_REFUSED) -> Reason:
    """Finds the reason for a refusal that Kubernetes puts in words only."""
    return next((reason for pattern, reason in _BY_TEXT if pattern.search(message[:MOST])), otherwise)


def event_reason(name: str, message: str) -> Reason:
    """Finds the reason for a Warning of that name about something that does not start. One that nobody knows is told as well."""
    return _BY_EVENT.get(name) or text_reason(message, POD_REFUSED if name == "FailedCreate" else POD_STUCK)


def refusal_reason(message: str) -> Reason:
    """Finds out whether the API server refuses for our own lack of a right, or for a rule that the object breaks."""
    if "cannot" in message and "resource" in message and "User" in message:
        return FORBIDDEN
    return text_reason(message)


def sentence(reason: Reason, messages: Iterable[str]) -> str:
    """Writes what a condition says: what was found, then what to do."""
    facts = "; ".join(m.strip().rstrip(".;") for m in map(line, messages) if m.strip())
    hint = reason.hint[:1].upper() + reason.hint[1:]
    return (" " if facts[:MOST].endswith("?") else ". ").join(part for part in (facts[:MOST], hint) if part)


def is_at_limit(status: Json) -> bool:
    """Tells whether a run has failed because it took all that it may, or one of a comparison's."""
    of_rows = (fields.text(row, "reason") for row in fields.parts(status, "rows"))
    ended = {fields.text(fields.true_condition({"status": status}, "Failed"), "reason"), *of_rows}
    return any(reason.name in ended for reason in OF_LIMITS)


def line(text: str, limit: int = MOST) -> str:
    """Writes what anybody said on one line, without what steers terminals, in so many characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * limit]).split())[:limit]
