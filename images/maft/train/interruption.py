"""SIGTERM while something is trained: it ends the program at once, but never between two halves of a step."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """As a context: raises SystemExit where SIGTERM finds the program, or at the end of `held` if it finds it there.

    rescue: called as soon as the signal is there and nothing is held, in a thread of its own: Python's handlers wait until a call
    of a library is over, and a backward pass may take longer than there is time.
    """

    def __init__(self, rescue: Callable[[], None] | None = None) -> None:
        self._rescue = rescue
        self._free = threading.Lock()
        self._holding = False
        self._code = 0

    def __enter__(self) -> Self:
        self._leaving = contextlib.ExitStack()
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._leaving.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, self._stop))
            if self._rescue:
                self._watch(self._rescue)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Does the block to its end. A signal that Python lost in between (in a callback of a library) is minded here, too."""
        self._holding = True
        try:
            with self._free:
                yield
        finally:
            self._holding = False
        if self._code:
            raise SystemExit(self._code)

    @property
    def came(self) -> bool:
        """Tells whether the signal has been there."""
        return bool(self._code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._code = 128 + number
        if not self._holding:
            raise SystemExit(self._code)

    def _watch(self, rescue: Callable[[], None]) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)

        def wait() -> None:
            while number := os.read(reading, 1):
                if number[0] == signal.SIGTERM:
                    with self._free:
                        rescue()

        thread = threading.Thread(target=wait, daemon=True)
        before: Any = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        thread.start()
        # The last comes first: no more signals, the thread's end, what it reads from.
        self._leaving.callback(os.close, reading)
        self._leaving.callback(thread.join)
        self._leaving.callback(os.close, writing)
        self._leaving.callback(signal.set_wakeup_fd, before)
