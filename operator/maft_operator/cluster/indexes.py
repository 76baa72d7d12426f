"""Of a task that has several pods at a time, an indexed Job: which of them speaks for it, and which one failed by itself. Pure."""

from collections.abc import Sequence

from maft_operator.cluster import pods
from maft_operator.cluster.fields import text
from maft_operator.cluster.manifests import COMPONENT
from maft_operator.plan.step import PEER_LOST
from maft_operator.spec.schema import Json

INDEX = "batch.kubernetes.io/job-completion-index"  # of a pod; none where the Job is not indexed


def index(pod: Json) -> str:
    """Reads which of its Job's pods this is; empty where there is but one at a time."""
    return text(pod, "metadata", "labels", INDEX)


def speaking(several: Sequence[Json]) -> list[Json]:
    """Picks the pods whose summary and progress are the task's: of those that train together the first."""
    trains = [pod for pod in several if text(pod, "metadata", "labels", COMPONENT) == "train"]
    return [pod for pod in several if pod not in trains or index(pod) in ("", "0")]


def newest(several: Sequence[Json]) -> list[Json]:
    """Picks the newest pod of each index. several: oldest first."""
    return list({index(pod): pod for pod in several}.values())


def by_themselves(failed: Sequence[Json]) -> list[Json]:
    """Picks the failed pods that say why; others ended because those did. All, where nobody says it."""
    return [pod for pod in failed if pods.exit_code(pod) != PEER_LOST] or list(failed)
