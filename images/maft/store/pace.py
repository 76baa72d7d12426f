"""Bodies that have to come at a pace. The limit of a socket is for a single byte: a store that sends one now and then is waited for
without an end.

boto3 reads through these, too, what it fetches in parts; it and the store's patience try again, as with an answer that breaks off.
"""

import time
from dataclasses import dataclass
from typing import Any

_PIECE = 1 << 20  # bytes that are asked for at once where all are wanted


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a body has to come."""

    rate: float = 1024.0
    """Bytes a second, of each of the connections that there are at a time."""
    seconds: float = 20.0
    """That is the mean of. Shorter than an operation is tried, so that a slow answer is asked for again."""


PACE = Pace()


class TooSlow(TimeoutError):
    """Fewer bytes come than the pace wants."""


class Paced:
    """The stream of an answer (urllib3's), read in what pieces come. What the reader does between them is not the store's time."""

    def __init__(self, stream: Any, pace: Pace) -> None:
        self._stream = stream
        self._pace = pace
        self._waited = 0.0
        self._came = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, amount: int | None = None) -> bytes:
        """Reads so many bytes, fewer at the end; None: all. TooSlow if they do not come."""
        pieces, left = [], amount
        while left is None or left > 0:
            piece = self._piece(_PIECE if left is None else left)
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
        return b"".join(pieces)

    def _piece(self, most: int) -> bytes:
        began = time.monotonic()
        piece: bytes = self._stream.read1(most)
        self._waited += time.monotonic() - began
        self._came += len(piece)
        if piece and self._waited >= self._pace.seconds:
            self._check()
        return piece

    def _check(self) -> None:
        if self._came < self._pace.rate * self._waited:
            wanted = f"{self._pace.rate:g} a second are the least"
            raise TooSlow(f"{self._came} bytes came within {self._waited:.0f} s, {wanted}")
        self._waited, self._came = 0.0, 0
