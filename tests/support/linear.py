"""Limits of processor time for what has to be linear in a text's length."""

import contextlib
import gc
import time
from collections.abc import Iterator


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails where the block takes more processor time. Garbage waits: in a process of thousands of tests one collection of it takes
    longer than what is measured."""
    gc.disable()
    try:
        started = time.process_time()
        yield
        taken = time.process_time() - started
    finally:
        gc.enable()
    assert taken < seconds
