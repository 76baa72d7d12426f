"""Comparisons of this machine: processes of `maft compare`, and the table that they leave."""

import json
from collections.abc import Mapping
from typing import Any

from maft.records import Evaluation
from maft.store import commits, layout
from maft.store.base import Missing
from maft_client.client import Client, key
from maft_client.local import NAMESPACE, LocalClient, explained
from maft_client.results import COMPLETE, FAILED, RUNNING, STOPPED, Json, MaftError, NoSuchRun, Results, Status, score
from maft_operator.spec import comparison
from maft_operator.spec.schema import COMPARISON


class LocalComparisons(LocalClient):
    """Comparisons below one store."""

    command, kind = "compare", COMPARISON

    @property
    def comparisons(self) -> Client:
        """Returns this client."""
        return self

    def _checked(self, whole: Json) -> str:
        return comparison.read(whole).template.key

    @explained()
    def status(self, run: str) -> Status:
        """Reads it from the process, its lock and the table."""
        name = "/".join(key(run, NAMESPACE))
        runs_on, table = self._is_running(name), self._table(name)
        if not (runs_on or table or self._local(name).is_dir()):
            raise NoSuchRun(f"{name}: {self._store.url} has no comparison of that name")
        message = "" if runs_on else self._failure(name)
        phase = RUNNING if runs_on else FAILED if message else COMPLETE if table else STOPPED
        best = next(iter(table.get("rows", ())), None) if phase == COMPLETE else None
        return Status(
            name,
            phase,
            over=not runs_on,
            accuracy=score(best["accuracy"]) if best else None,
            message=message,
            report=self._place(f"{name}/{layout.COMPARE}index.html") if best else "",
        )

    @explained()
    def results(self, run: str) -> Results:
        """Reads the table's runs: method, seed, and the accuracy that counts."""
        name = "/".join(key(run, NAMESPACE))
        runs = self._table(name).get("runs", ())
        return Results(name if runs else self.status(run).run, tuple(self._row(name.partition("/")[0], one) for one in runs))

    def _table(self, name: str) -> Json:
        try:
            table = json.loads(self._store.read(f"{name}/{layout.COMPARE}compare.json"))
        except Missing:
            return {}
        except ValueError as error:
            raise MaftError(f"{self._store.url}/{name}/{layout.COMPARE}compare.json: {error}") from None
        return table if isinstance(table, dict) else {}

    def _row(self, namespace: str, one: Mapping[str, Any]) -> Json:
        row = {name: one[name] for name in ("method", "seed", "run")}
        commit = commits.committed(self._store, layout.evaluation(f"{namespace}/{one['run']}", one["iteration"]))
        if commit is None:
            return row
        debate = commits.fetch_record(self._store, commit, layout.EVALUATION, Evaluation).votes[-1]
        return {**row, "phase": COMPLETE, "accuracy": debate.mean, "accuracyStderr": debate.stderr}
