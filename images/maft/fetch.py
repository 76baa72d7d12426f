"""`python -m maft.fetch`: copies objects of a store into a folder, or prints them. `kubectl maft` starts it."""

import argparse
import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from maft.errors import BadInput, one_line
from maft.store.base import Entry, Missing, Store
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT


def main() -> None:
    """Decodes the flags, copies or prints, and exits: 2 wrong input, or nothing there; 1 a fault that may pass."""
    arguments = _flags().parse_args()
    try:
        store = open_store(arguments.store).impatient()
        chosen = list(_chosen(store, arguments.prefix, arguments.name))
        if not chosen:
            raise BadInput(f"{store.url}: nothing lies below {arguments.prefix} under the name {arguments.name}")
        if arguments.to:
            _copy(store, chosen, arguments.prefix, arguments.to)
        else:
            _print(store, chosen, arguments.tail)
    except (BadInput, Missing, ModuleNotFoundError) as error:
        raise SystemExit(_failed(error, BAD_INPUT)) from None
    except OSError as error:
        raise SystemExit(_failed(error, 1)) from None


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="python -m maft.fetch", description="Objects of a store, in a folder or printed.")
    flags.add_argument("--store", required=True, help="a folder or s3://bucket/prefix?endpoint=URL&region=NAME")
    flags.add_argument("--prefix", required=True, help="what the keys begin with, such as default/arithmetic/report/")
    flags.add_argument("--name", default="*", help="pattern of what follows [*]")
    flags.add_argument("--to", type=Path, help="the folder [they are printed, oldest first]")
    flags.add_argument("--tail", type=int, help="print the last lines of each [all]")
    return flags


def _chosen(store: Store, prefix: str, name: str) -> Iterator[Entry]:
    entries = (entry for entry in store.entries(prefix) if fnmatchcase(entry.key.removeprefix(prefix), name))
    yield from sorted(entries, key=lambda entry: (entry.modified, entry.key))


def _copy(store: Store, entries: list[Entry], prefix: str, folder: Path) -> None:
    for entry in entries:
        path = folder / entry.key.removeprefix(prefix)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{store.url}: {entry.key!r} leads out of {folder}; nobody but a stranger writes such a key")
        path.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(entry.key, path)
        print(path, flush=True)


def _print(store: Store, entries: list[Entry], tail: int | None) -> None:
    for entry in entries:
        lines = store.read(entry.key).splitlines(keepends=True)
        sys.stdout.buffer.write(f"==> {entry.key.rpartition('/')[2]} <==\n".encode() if len(entries) > 1 else b"")
        sys.stdout.buffer.writelines(lines if tail is None else lines[max(0, len(lines) - tail) :])
        sys.stdout.buffer.flush()


def _failed(error: BaseException, code: int) -> int:
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, ModuleNotFoundError):
        error = BadInput(f"the package {error.name} is missing; pip install 'maft[s3]'")
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
