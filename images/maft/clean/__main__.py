"""`python -m maft.clean`: lists what runs that are gone have left in a store and, told so, deletes it. `maft clean` starts it.

Which runs are there comes as a line of JSON on standard input: only the control plane knows a cluster. It is asked
again about each run before that goes: `--questions` gets its name as a line of JSON, standard input a line that says why it stays.
"""

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from maft.clean.choose import Kept, Stored, stored, unknown, why_kept
from maft.errors import BadInput, one_line
from maft.spec import Head, foreign_format
from maft.store import layout
from maft.store.base import Store
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT


class Given(msgspec.Struct, frozen=True):
    """What is known outside of the store; runs are NAMESPACE/NAME. there: None where no cluster was asked."""

    there: tuple[str, ...] | None = None
    named: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


def main() -> None:
    """Decodes the flags, lists, deletes if told so, and exits: 2 wrong input, 1 a fault that may pass."""
    flags = argparse.ArgumentParser(prog="python -m maft.clean", description="What runs that are gone have left in a store.")
    flags.add_argument("--store", required=True, help="a folder or s3://bucket/prefix?endpoint=URL&region=NAME")
    flags.add_argument("--days", type=float, default=30.0, help="younger runs stay [30]")
    flags.add_argument("--yes", action="store_true", help="delete")
    flags.add_argument("--questions", type=int, help="the open file for questions about runs that are to go [none are asked]")
    arguments = flags.parse_args()
    try:
        given = msgspec.json.decode(sys.stdin.buffer.readline() or b"{}", type=Given)
        there = None if given.there is None else frozenset(given.there)
        kept = Kept(there, frozenset(given.named), frozenset(given.namespaces), arguments.days)
        clean(open_store(arguments.store), kept, yes=arguments.yes, why=_asking(arguments.questions))
    except BadInput as error:
        raise SystemExit(_failed(error, BAD_INPUT)) from None
    except OSError as error:
        raise SystemExit(_failed(error, 1)) from None


def _asking(questions: int | None) -> Callable[[str], str]:
    """Asks whoever started this program why a run stays after all; without an answer it does."""

    def ask(run: str) -> str:
        if questions is None:
            return ""
        os.write(questions, msgspec.json.encode(run) + b"\n")
        answer = sys.stdin.buffer.readline().decode()
        return answer.strip() if answer else "nobody says whether its resource is there"

    return ask


def clean(store: Store, kept: Kept, *, yes: bool, why: Callable[[str], str] = lambda run: "") -> None:
    """Prints a line a run, deletes those that are gone if `yes`, and says what that frees. why: one stays, asked before it goes."""
    parts = urlsplit(store.url)
    if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
        raise BadInput(f"store {store.url}: no such folder; name the one that `maft run` was given with --dir")
    runs = list(stored(store.entries("")))
    if missing := unknown([run.name for run in runs], kept):
        raise BadInput(f"--run {missing[0]}: {store.url} has no run.json of that run; the runs there: {_some(runs)}")
    freed = count = 0
    for run in runs:
        if reason := why_kept(run, kept, time.time()) or _foreign(store, run.name):
            print(f"kept  {run.name}: {reason}")
            continue
        with _idle(store, run.name) as idle:
            if not idle:
                print(f"kept  {run.name}: `maft run` works at it")
                continue
            print(f"gone  {run.name}: {_described(run)}", flush=True)
            if yes and (reason := _delete(store, run, kept, why)):
                print(f"kept  {run.name}: {reason}")
                continue
        freed, count = freed + run.size, count + 1
    print(f"{'freed' if yes else 'would free'} {_bytes(freed)} of {count} runs{'' if yes or not count else '; --yes deletes it'}")


def _delete(store: Store, listed: Stored, kept: Kept, why: Callable[[str], str]) -> str:
    """Deletes what is there now: the listing of a large store is minutes old. Says why the run stays, where it has come back."""
    run = next(stored(store.entries(f"{listed.name}/")), None)
    if run is None:
        return "somebody else deletes it"
    if reason := why_kept(run, kept, time.time()) or why(run.name):
        return reason
    store.delete([entry.key for entry in run.ours])
    store.clean(f"{run.name}/")
    if folder := _folder(store, run.name):
        for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # somebody else's files
                path.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
    return ""


def _foreign(store: Store, run: str) -> str:
    """Why that run.json is none that this release knows: what another wrote it does not take away."""
    try:
        number = msgspec.json.decode(store.read(f"{run}/{layout.RUN}"), type=Head).format
    except msgspec.DecodeError:
        return f"its {layout.RUN} is none of maft's"
    return reason if (reason := foreign_format(number)) else ""


@contextlib.contextmanager
def _idle(store: Store, run: str) -> Iterator[bool]:
    """Holds the lock of `maft run` meanwhile; False where somebody else does. In a bucket there is none."""
    folder = _folder(store, run)
    if folder is None or not (lock := folder / "local" / "lock").exists():
        yield True
        return
    with lock.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _folder(store: Store, run: str) -> Path | None:
    parts = urlsplit(store.url)
    return Path(unquote(parts.path)) / run if parts.scheme == "file" else None


def _described(run: Stored) -> str:
    written = time.strftime("%Y-%m-%d", time.gmtime(run.newest))
    others = f"; {run.others} objects there that maft has not written stay" if run.others else ""
    return f"{_bytes(run.size)}, {len(run.ours)} objects, last written {written}{others}"


def _some(runs: list[Stored]) -> str:
    names = [run.name for run in runs]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} others" if len(names) > 5 else "") if names else "none"


def _bytes(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _failed(error: BaseException, code: int) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
