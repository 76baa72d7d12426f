"""Finds out early whether a store can keep a run: it is there, permits what programs do, and honours conditional writes.

Whether two conditional writes at the same time are kept apart as well, nobody can find out by asking: docs/stores.md lists servers.
"""

import contextlib
import re
import time
import uuid

from maft.errors import BadInput
from maft.store.base import Missing, Passing, Store
from maft.store.patience import Patience, Trying

PATIENCE = Patience(30.0)
OLD = 3600  # seconds after which a probe's object is no longer anybody's
_HINT = "check the storage settings, and that the store is up"
_TIME = re.compile(r".*\.probe-(\d{1,12})-[0-9a-f]{32}")


def check(store: Store, prefix: str, patience: Patience = PATIENCE) -> None:
    """Does below `prefix` what programs do; BadInput unless the store permits it and honours conditional writes.

    What may pass is tried again until the patience ends, then it is Passing: nobody here can tell a store that is away from one
    that never was there, and a run that has begun is not to end because its store is away when it looks again.
    """
    now = int(time.time())
    probe = _Probe(store.impatient(), f"{prefix}.probe-", f"{prefix}.probe-{now}-{uuid.uuid4().hex}", patience.begin())
    try:
        try:
            probe.write()
            probe.compare(now)
        except BaseException:
            with contextlib.suppress(Exception):
                probe.remove([probe.key])
            raise
        probe.remove([probe.key])
    except Passing as error:
        raise Passing(f"{error}; {_HINT}") from error
    except OSError as error:
        raise BadInput(f"{error}; {_HINT}") from error


class _Probe:
    """One object, what is done with it, and the time that all of it has."""

    def __init__(self, store: Store, stem: str, key: str, trying: Trying) -> None:
        self._store, self._stem, self.key, self._try = store, stem, key, trying

    def write(self) -> None:
        self._try.call(lambda: self._store.create(self.key, b"maft"))

    def compare(self, now: int) -> None:
        """BadInput where the store does not do what it says. Removes what probes left that could not tidy up."""
        if self._read(self.key) != b"maft":
            raise BadInput(f"{self._what}: does not give back what was written; is it an S3 server? check the storage settings")
        if self._try.call(lambda: self._store.create(self.key, b"other")) or self._read(self.key) != b"maft":
            raise BadInput(
                f"{self._what}: ignores conditional writes (PutObject with If-None-Match: *), so two writers could mix; "
                "use another store"
            )
        if self._read(f"{self.key}-none") is not None:
            raise BadInput(f"{self._what}: gives something for an object that is not there (GetObject); use another store")
        self._try.call(lambda: self._store.clean(self.key))
        there = self._try.call(lambda: list(self._store.list(self._stem)))
        if self.key not in there:
            raise BadInput(f"{self._what}: does not list what was written (ListObjectsV2); use another store")
        self.remove([key for key in there if (match := _TIME.fullmatch(key)) and int(match[1]) < now - OLD])

    def remove(self, keys: list[str]) -> None:
        self._try.call(lambda: self._store.delete(keys))

    @property
    def _what(self) -> str:
        return f"store {self._store.url}"

    def _read(self, key: str) -> bytes | None:
        try:
            return self._try.call(lambda: self._store.read(key))
        except Missing:
            return None
