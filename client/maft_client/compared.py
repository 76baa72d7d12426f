"""Comparisons of this machine: processes of `maft compare`, and the table that they leave."""

from collections.abc import Sequence

import msgspec

from maft import stopping, summaries, validation
from maft.errors import one_line
from maft.records import Evaluation
from maft.spec import Compared
from maft.store import commits, layout
from maft.store.base import Missing
from maft_client.client import Client, key
from maft_client.local import NAMESPACE, LocalClient, explained
from maft_client.results import COMPLETE, FAILED, RUNNING, STOPPED, Json, MaftError, NoSuchRun, Results, Score, Status
from maft_operator.spec import comparison
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import COMPARISON, BadSpec

WAITING = "Waiting"  # of a run of which nothing is committed, as in a comparison's status


class Best(msgspec.Struct, frozen=True):
    """A row of the table, as far as it is read here."""

    accuracy: summaries.Score


class Table(msgspec.Struct, frozen=True):
    """What `maft.compare` has written, the best row first."""

    rows: tuple[Best, ...] = ()
    runs: tuple[Compared, ...] = ()


class LocalComparisons(LocalClient):
    """Comparisons below one store."""

    command, kind = "compare", COMPARISON

    @property
    def comparisons(self) -> Client:
        """Returns this client."""
        return self

    def _checked(self, whole: Json) -> Run:
        return comparison.read(whole).template

    @explained()
    def status(self, run: str) -> Status:
        """Reads it from the process, its lock and the table."""
        name = "/".join(key(run, NAMESPACE))
        runs_on, table = self._is_running(name), self._table(name)
        if not (runs_on or table.runs or self._local(name).is_dir()):
            raise NoSuchRun(f"{name}: {self._store.url} has no comparison of that name")
        message = "" if runs_on else self._failure(name)
        best = table.rows[0].accuracy if table.rows else None
        return Status(
            name,
            self._phase(name, table, runs_on=runs_on, failed=bool(message)),
            over=not runs_on,
            accuracy=Score(best.mean, best.stderr) if best else None,
            message=message,
            report=self._place(f"{name}/{layout.COMPARE}index.html") if table.rows else "",
        )

    @explained()
    def results(self, run: str) -> Results:
        """Reads the runs: method, seed, and the accuracy that counts once that debate is committed."""
        name = "/".join(key(run, NAMESPACE))
        phase, table = self.status(name).phase, self._table(name)
        known = {_which(one): one for one in table.runs}  # with the iteration that was chosen
        runs = [known.get(_which(one), one) for one in self._noted(name) or table.runs]
        return Results(name, tuple(self._row(name.partition("/")[0], one, phase) for one in runs))

    def _phase(self, name: str, table: Table, *, runs_on: bool, failed: bool) -> str:
        if runs_on or failed:
            return RUNNING if runs_on else FAILED
        return COMPLETE if is_whole(table, self._noted(name)) else STOPPED

    def _table(self, name: str) -> Table:
        file = f"{name}/{layout.COMPARE}compare.json"
        try:
            return msgspec.json.decode(self._store.read(file), type=Table)
        except Missing:
            return Table()
        except ValueError as error:
            raise MaftError(f"{self._store.url}/{file}: {one_line(error)}") from None

    def _noted(self, name: str) -> Sequence[Compared]:
        """Which runs `maft compare` makes; nothing where it was never started in this folder, or by an older release."""
        try:
            return comparison.in_note((self._local(name) / comparison.NOTE).read_bytes())
        except FileNotFoundError:
            return ()
        except BadSpec as error:
            raise MaftError(f"{self._local(name)}: {error}") from None

    def _row(self, namespace: str, one: Compared, phase: str) -> Json:
        """phase: of the comparison, which is that of a run that has begun and is not evaluated."""
        run, row = f"{namespace}/{one.run}", {"method": one.method, "seed": one.seed, "run": one.run}
        best = stopping.best(validation.known(self._store, run, range(1, one.iteration + 1)))
        commit = commits.committed(self._store, layout.evaluation(run, one.iteration if best is None else best))
        if commit is None:
            return {**row, "phase": phase if self._iterations(run) else WAITING}
        debate = commits.fetch_record(self._store, commit, layout.EVALUATION, Evaluation).votes[-1]
        return {**row, "phase": COMPLETE, "accuracy": debate.mean, "accuracyStderr": debate.stderr}


def is_whole(table: Table, noted: Sequence[Compared]) -> bool:
    """Tells whether the table has the runs that were asked for last; where nobody knows these, whether there is one."""
    return bool(table.runs) and (not noted or set(map(_which, noted)) == set(map(_which, table.runs)))


def _which(one: Compared) -> tuple[str, int, str]:
    return one.method, one.seed, one.run
