"""SIGTERM while something is trained: it ends the program at once, but never between two halves of a step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """As a context: raises SystemExit where SIGTERM finds the program, or at the end of `held` if it finds it there."""

    def __init__(self) -> None:
        self._before: Any = None
        self._holding = False
        self._code = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Does the block to its end. A signal that Python lost in between (in a callback of a library) is minded here, too."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._code:
            raise SystemExit(self._code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._code = 128 + number
        if not self._holding:
            raise SystemExit(self._code)
