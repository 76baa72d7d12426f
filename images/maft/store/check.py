"""Finds out early whether a store can keep a run: it is there, permits what programs do, and honours conditional writes."""

import contextlib
import uuid

from maft.errors import BadInput
from maft.store.base import Missing, Store


def check(store: Store, prefix: str) -> None:
    """Does below `prefix` what programs do; BadInput unless the store is there, permits it and honours conditional writes."""
    key = f"{prefix}.probe-{uuid.uuid4().hex}"
    try:
        store.create(key, b"maft")
        try:
            _check(store, key)
        except BaseException:
            with contextlib.suppress(Exception):
                store.delete([key])
            raise
        store.delete([key])
    except OSError as error:
        raise BadInput(f"{error}; check the storage settings, and that the store is up") from error


def _check(store: Store, key: str) -> None:
    if _read(store, key) != b"maft":
        raise BadInput(f"store {store.url}: does not give back what was written; is it an S3 server? check the storage settings")
    if store.create(key, b"other") or _read(store, key) != b"maft":
        raise BadInput(
            f"store {store.url}: ignores conditional writes (If-None-Match: *), so two writers could mix; use another store"
        )
    store.clean(key)
    if list(store.list(key)) != [key]:
        raise BadInput(f"store {store.url}: does not list what was written; use another store")


def _read(store: Store, key: str) -> bytes:
    try:
        return store.read(key)
    except Missing:
        return b""
