"""Runs of this machine: processes of `maft run`, and what they leave in a folder or a bucket."""

import contextlib
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maft import adapters, stopping, validation
from maft.errors import BadInput, one_line
from maft.records import Evaluation
from maft.store import commits, layout
from maft.store.base import Missing, Store
from maft.store.urls import open_store
from maft_client.client import Client, key
from maft_client.evaluated import row_of, score_in
from maft_client.results import (
    COMPLETE,
    FAILED,
    RUNNING,
    STOPPED,
    Event,
    Json,
    MaftError,
    NoSuchRun,
    Refused,
    Results,
    Status,
)
from maft_operator import run_folder
from maft_operator.spec import files
from maft_operator.spec.parse import Run, parse, store_url
from maft_operator.spec.schema import KIND, BadSpec

NAMESPACE = "default"
LOG = "client.log"  # what `maft run` has said, in the run's folder of logs
_MAFT = (sys.executable, "-m", "maft_operator")
_ENDING = 90.0  # seconds that `maft run` may take to end its servers, and training that writes a checkpoint


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what a store says into a MaftError of one line."""
    try:
        yield
    except (BadInput, OSError) as error:
        raise MaftError(one_line(error)) from None


class LocalClient(Client):
    """Runs below one store. folder: of their logs; None: the store's own."""

    command, kind = "run", KIND

    def __init__(self, store: str, folder: Path | None) -> None:
        try:
            self._store: Store = open_store(store)
        except (BadInput, ModuleNotFoundError) as error:
            raise MaftError(one_line(error)) from None
        self._url = store
        self._folder = (folder or Path("runs" if "://" in store else store)).absolute()
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @functools.cached_property
    def comparisons(self) -> Client:
        """Opens the comparisons of this store."""
        from maft_client.compared import LocalComparisons

        return LocalComparisons(self._url, self._folder)

    def submit(self, resource: Mapping[str, Any] | str | Path) -> str:
        """Starts `maft run` or `maft compare`, a process that goes on when this one ends; what it says lies in the run's folder."""
        asked = self._read(resource)
        run, local = asked.key, self._local(asked.key)
        if self._is_running(run):
            raise Refused(f"{run}: is running already; wait for it, or give another metadata.name")
        self._check_unchanged(asked)
        try:
            local.mkdir(parents=True, exist_ok=True)
            file = _written(local, resource) if isinstance(resource, Mapping) else Path(resource)
            log = (local / LOG).open("wb")
        except OSError as error:
            raise MaftError(f"{local}: {error.strerror}; choose a folder that can be written") from None
        line = [
            *_MAFT,
            self.command,
            str(file),
            "--dir",
            str(self._folder),
            *(["--store", self._url] if "://" in self._url else []),
        ]
        with log:
            self._started[run] = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return run

    @explained()
    def status(self, run: str) -> Status:
        """Reads it from the process, its lock and what is committed."""
        run = "/".join(key(run, NAMESPACE))
        numbers, runs_on = self._iterations(run), self._is_running(run)
        rows = self._rows(run, numbers)
        message = "" if runs_on else self._failure(run)  # of the last start, whatever report there is of those before
        complete = not (runs_on or message) and self._is_reported(run)
        if not (rows or runs_on or complete or self._local(run).is_dir() or self._has(f"{run}/{layout.RUN}")):
            also = f", nor has {self._folder}" if "://" in self._url else ""
            raise NoSuchRun(f"{run}: {self._store.url} has no run of that name{also}")
        phase = RUNNING if runs_on else COMPLETE if complete else FAILED if message else STOPPED
        adapters = self._adapters(run, numbers)
        return Status(
            run,
            phase,
            over=not runs_on,
            iteration=str(rows[-1]["iteration"]) if rows else "",
            accuracy=score_in(rows[-1], "accuracy") if rows and rows[-1]["iteration"] else None,
            base=score_in(rows[0], "answer") if rows and not rows[0]["iteration"] else None,
            message=message,
            report=self._place(f"{run}/{layout.REPORT}index.html") if complete else "",
            adapters=self._place(f"{run}/{layout.ITERATIONS}{adapters}/adapters/") if adapters else "",
        )

    def events(self, run: str) -> Sequence[Event]:
        """Reads what `maft run` has said, a line each."""
        lines = self._log("/".join(key(run, NAMESPACE)))
        if not lines:
            self.status(run)  # NoSuchRun where there is none
        return [Event("", "", line.strip(), line.startswith(("✗", "error:", "warning:"))) for line in lines if line.strip()]

    @explained()
    def results(self, run: str) -> Results:
        """Reads the committed evaluations."""
        run = "/".join(key(run, NAMESPACE))
        rows = self._rows(run, self._iterations(run))
        return Results(run if rows else self.status(run).run, tuple(rows))  # without any there may be no such run

    def stop(self, run: str) -> None:
        """Ends the process, if this client has started it."""
        run = "/".join(key(run, NAMESPACE))
        process = self._started.get(run)
        if process is None:
            raise MaftError(f"{run}: was not started here; press Ctrl-C where it was")
        process.send_signal(signal.SIGTERM)  # one that was started from a shell's background does not hear SIGINT before it asks to
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            raise MaftError(f"{run}: is still ending after {_ENDING:g} seconds; wait, or end process {process.pid}") from None

    def _read(self, resource: Mapping[str, Any] | str | Path) -> Run:
        """Reads and checks it, as `maft validate` does."""
        try:
            if isinstance(resource, Mapping):
                whole = json.loads(json.dumps(resource))
                files.relocate(whole, Path.cwd())  # named as `maft run` will
            else:
                whole = files.load(Path(resource), kinds=(self.kind,))
            return self._checked(whole)
        except (BadSpec, ValueError, TypeError, RecursionError) as error:
            raise Refused(one_line(error)) from None

    def _checked(self, whole: Json) -> Run:
        return parse(whole)

    @explained()
    def _check_unchanged(self, run: Run) -> None:
        """Refused where `maft run` would refuse it, for the run began with something else."""
        store = self._url if "://" in self._url else store_url(run.spec.storage) or str(self._folder)
        try:
            run_folder.is_unchanged(self._local(run.key), run_folder.beginning(run, store))
        except BadSpec as error:
            raise Refused(one_line(error)) from None

    # --- what lies there ---

    def _local(self, run: str) -> Path:
        return self._folder / run / layout.LOCAL

    def _place(self, name: str) -> str:
        bucket = self._url.partition("?")[0].rstrip("/")
        return f"{bucket}/{name}" if "://" in self._url else str(self._folder / name) + ("/" if name.endswith("/") else "")

    def _has(self, name: str) -> bool:
        try:
            return bool(self._store.read(name))
        except Missing:
            return False

    def _is_reported(self, run: str) -> bool:
        """Tells whether there is a report of a finished run: one of an unfinished run says that it is one."""
        try:
            report = json.loads(self._store.read(f"{run}/{layout.REPORT}report.json"))
            return isinstance(report, dict) and not report.get("unfinished")
        except (Missing, ValueError):
            return False

    def _iterations(self, run: str) -> list[int]:
        top = f"{run}/{layout.ITERATIONS}"
        numbers = {name.removeprefix(top).partition("/")[0] for name in self._store.list(top)}
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _adapters(self, run: str, numbers: Sequence[int]) -> int | None:
        """Names the iteration whose adapters count: the best on the validation questions, else the last; None without any."""
        trained = [n for n in numbers if adapters.are_all_there(self._store, run, n)]
        return stopping.best(validation.known(self._store, run, trained)) or max(trained, default=None)

    def _rows(self, run: str, numbers: Sequence[int]) -> list[Json]:
        prefixes = [layout.evaluation(run, number) for number in numbers]
        there = [commit for prefix in prefixes if (commit := commits.committed(self._store, prefix))]
        return [row_of(commits.fetch_record(self._store, commit, layout.EVALUATION, Evaluation)) for commit in there]

    def _is_running(self, run: str) -> bool:
        process = self._started.get(run)
        return (process is not None and process.poll() is None) or _is_locked(self._local(run))

    def _failure(self, run: str) -> str:
        """Why the last start ended: the last line of what it said, where it ended with an error. Nothing where `maft run` was
        started since by somebody else, whose words are not here."""
        lines = self._log(run)
        failed = bool(lines) and lines[-1].startswith("error: ")
        return lines[-1].removeprefix("error: ") if failed and not _is_older(self._local(run)) else ""

    def _log(self, run: str) -> list[str]:
        try:
            return (self._local(run) / LOG).read_text(errors="replace").splitlines()
        except OSError:
            return []


def _written(local: Path, resource: Mapping[str, Any]) -> Path:
    """Writes it as JSON, which is YAML; files that it names from here are named from there."""
    whole, file = json.loads(json.dumps(resource)), local / "client.yaml"
    files.relocate(whole, Path.cwd(), local)
    file.write_text(json.dumps(whole, indent=1))
    return file


def _is_older(local: Path) -> bool:
    """Tells whether what was written last by a client's start is older than a start: each opens the lock anew."""
    try:
        return (local / LOG).stat().st_mtime_ns < (local / run_folder.LOCK).stat().st_mtime_ns
    except OSError:
        return False


def _is_locked(local: Path) -> bool:
    """Tells whether `maft run` holds the run."""
    try:
        lock = os.open(local / run_folder.LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)
