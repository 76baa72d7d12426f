"""The end of a program's own log, kept in the bucket beside what it made: pods go, and with them why something was odd.

What Python code writes to standard output and standard error; what libraries in C write there stays in the pod's log alone, as does
all of it where a program is killed: its streams are copied, never redirected, so that the last words are where they always were.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from maft.errors import one_line
from maft.redaction import REMOVED, is_secret_variable, text
from maft.store import layout
from maft.store.urls import open_store

KEPT = 1 << 20  # characters of one log, from its end
SHORTEST = 8  # characters of a secret: shorter values stand in many words
PATIENCE = 3.0  # seconds that a log is worth: a pod has 20 to end in, of training 60, and a checkpoint may have needed most of them


class Tail:
    """The last characters of what is written."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._pieces: deque[str] = deque()
        self._size = 0

    def add(self, text: str) -> None:
        """Takes in a piece and forgets what is too long ago; one character more is kept: it says whether a line begins there."""
        self._pieces.append(text[-self._most - 1 :])
        self._size += len(self._pieces[-1])
        while self._size - len(self._pieces[0]) > self._most:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """Returns what is kept; a line that has lost its beginning is left out: it may have said that the rest is a secret."""
        whole = "".join(self._pieces)
        return whole if len(whole) <= self._most else whole[-self._most - 1 :].partition("\n")[2]


class _Copied:
    """A stream that also keeps what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO, tail: Tail) -> None:
        self._stream, self._tail = stream, tail

    def write(self, text: str) -> int:
        """Writes to the stream, then keeps it."""
        count = self._stream.write(text)
        self._tail.add(text)
        return count

    def writelines(self, lines: Any) -> None:
        """Writes each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def kept(url: str, run: str, name: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Copies what is written meanwhile, and leaves its end in the bucket, however the block ends. run: NAMESPACE/NAME; name: of the
    program. In a folder nothing is left: `maft run` has the logs beside it."""
    if not url.startswith("s3://"):
        yield
        return
    tail, streams = Tail(), (sys.stdout, sys.stderr)
    started = time.gmtime()
    sys.stdout, sys.stderr = (_Copied(stream, tail) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        moment = time.strftime("%Y%m%dT%H%M%SZ", started)
        with _undisturbed():
            key = f"{layout.logs(run)}{name}-{moment}-{socket.gethostname()}-{os.getpid()}.log"
            _leave(url, key, tail.text(), environment)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores meanwhile what would end the program: it has ended, with the exit code that it has. Then a signal ends it as before:
    the interpreter waits for threads, and one may hang."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()  # others get none
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def redacted(log: str, environment: Mapping[str, str]) -> str:
    """Takes out the values of variables whose names look secret, and what else looks like one."""
    secrets = {value for name, value in environment.items() if is_secret_variable(name) and len(value) >= SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):
        log = log.replace(secret, REMOVED)
    return text(log)


def _leave(url: str, key: str, log: str, environment: Mapping[str, str]) -> None:
    """Writes it, once and without patience: what the program did is done, and a log changes nothing about it."""
    if not log:
        return
    faults: list[str] = []
    # The program does not wait for it, neither for the store nor for what looks for secrets.
    writing = threading.Thread(target=_write, args=(url, key, log, environment, faults), daemon=True)
    writing.start()
    writing.join(PATIENCE)
    if why := "the store does not answer" if writing.is_alive() else "".join(faults):
        print(f"this log is not kept in the bucket: {why}", file=sys.stderr, flush=True)


def _write(url: str, key: str, log: str, environment: Mapping[str, str], faults: list[str]) -> None:
    try:
        open_store(url).impatient().write(key, redacted(log, environment).encode(errors="replace"))
    except BaseException as error:  # whatever it is, it must not decide how the program ended
        faults.append(one_line(error, 300))
