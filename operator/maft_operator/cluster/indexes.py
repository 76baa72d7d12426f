"""Of a task that has several pods at a time, an indexed Job: which of them speaks for it, what they say together, and which one
failed by itself. Pure."""

from collections.abc import Mapping, Sequence

from maft.summaries import PEER_LOST, PEERS_MISSING, AnySummary, ShardSummary
from maft_operator.cluster import pods
from maft_operator.cluster.fields import text
from maft_operator.cluster.manifests import COMPONENT
from maft_operator.plan.graph import Graph, Task
from maft_operator.spec.schema import Json

INDEX = "batch.kubernetes.io/job-completion-index"  # of a pod; none where the Job is not indexed


def index(pod: Json) -> str:
    """Reads which of its Job's pods this is; empty where there is but one at a time."""
    return text(pod, "metadata", "labels", INDEX)


def distinct(several: Sequence[Json]) -> set[str]:
    """Lists which indexes these pods have; pods of one index are attempts at the same."""
    return {index(pod) for pod in several}


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


def lacked_peers(pod: Json) -> bool:
    """Tells whether it waited in vain for the others that it trains with."""
    return bool(index(pod)) and pods.exit_code(pod) == PEERS_MISSING


# --- of programs that debate a part of the questions each ---


def _by_index(several: Sequence[Json]) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for pod in speaking(several):
        groups.setdefault(index(pod), []).append(pod)
    return groups


def summary(several: Sequence[Json]) -> AnySummary | None:
    """Reads what the task says at its end. As long as nobody says it for all, the parts that have ended, added up. several: oldest
    first."""
    each = [last for own in _by_index(several).values() if (last := pods.last_summary(own)) is not None]
    parts = [part for part in each if isinstance(part, ShardSummary)]
    whole = [one for one in each if not isinstance(one, ShardSummary)]
    return whole[-1] if whole else ShardSummary(questions=sum(part.questions for part in parts)) if parts else None


def metrics_urls(task: str, several: Sequence[Json]) -> dict[str, str]:
    """Names the URLs of its metrics, by task, or by TASK/INDEX where it has several pods that each know of their part."""
    urls = {number: pods.metrics_url(own) for number, own in _by_index(several).items()}
    return {f"{task}/{number}" if len(urls) > 1 else task: url for number, url in urls.items() if url}


def added_up(
    done: Mapping[str, tuple[float, float]], graph: Graph, summaries: Mapping[str, AnySummary]
) -> dict[str, tuple[float, float]]:
    """Adds up, by task, units of work done and in all. done: as `metrics_urls` names them; summaries: of parts that have ended."""
    own = {name.partition("/")[0]: units for name, units in done.items()}
    several = {task.name: _sum(task, done, summaries) for task in graph.tasks if task.programs > 1 and task.name in own}
    return own | several


def _sum(task: Task, done: Mapping[str, tuple[float, float]], summaries: Mapping[str, AnySummary]) -> tuple[float, float]:
    """Parts are equal but for one question, so those that are not heard of are about as large as the others."""
    parts = [units for name, units in done.items() if name.partition("/")[0] == task.name]
    ended = summaries.get(task.name)
    total = task.programs * sum(expected for _, expected in parts) / len(parts)
    sum_ = sum(units for units, _ in parts) + (ended.questions if isinstance(ended, ShardSummary) else 0)
    return min(sum_, total), total
