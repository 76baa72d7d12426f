"""Who looks at a run beside itself, and so is looked at when that changes of it which they see. Pure; in memory alone."""

from collections.abc import Mapping
from typing import Any

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import part, text


class Following:
    """Societies by the run that each names, and what comparisons see of their runs."""

    def __init__(self) -> None:
        self._compared: dict[str, Any] = {}  # by key of a run of a comparison
        self._runs: dict[str, str] = {}  # by key of who follows
        self._seen: dict[str, Any] = {}  # by key of a run that is followed

    def note(self, kind: kinds.Kind, key: str, body: Mapping[str, Any]) -> None:
        """Takes in an object that may name a run."""
        if kind == kinds.SOCIETY and (run := text(dict(body), "spec", "run")):
            self._runs[key] = kinds.key(kinds.RUN, body["metadata"]["namespace"], run)

    def forget(self, key: str) -> None:
        """Drops one that has gone."""
        self._runs.pop(key, None)

    def woken(self, run: str, body: Mapping[str, Any] | None) -> list[str]:
        """Lists who is to look at a run that was told of. body: None where it has gone."""
        if run not in self._runs.values():
            self._seen.pop(run, None)
            return []  # whoever comes to follow it looks by itself
        whole = dict(body or {})
        status, generation = part(whole, "status"), part(whole, "metadata").get("generation")
        state = {name: status.get(name) for name in ("phase", "done", "best", "model")}
        telling = {"gone": body is None, "generation": generation, **state}
        if self._seen.get(run) == telling:
            return []
        self._seen[run] = telling
        return [key for key, followed in self._runs.items() if followed == run]

    def tells(self, run: str, body: Mapping[str, Any], *, gone: bool) -> bool:
        """Tells whether a run of a comparison has changed in what the comparison sees: how far it is by itself is nothing of that,
        and eight hundred runs say it again and again."""
        if gone:
            self._compared.pop(run, None)
            return True
        whole = dict(body)
        metadata, status = part(whole, "metadata"), part(whole, "status")
        state = {name: status.get(name) for name in ("phase", "done", "accuracy", "best")}
        seen = {"uid": metadata.get("uid"), "going": "deletionTimestamp" in metadata, "spec": metadata.get("generation"), **state}
        if self._compared.get(run) == seen:
            return False
        self._compared[run] = seen
        return True
