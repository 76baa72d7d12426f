"""What a run takes on this machine, over all its `maft run`s: seconds, and GPUs held times seconds. It stands beside the logs."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from maft_operator.local import whole_file
from maft_operator.plan.budget import Spent

PERIOD = 5.0  # seconds between two records: so much is not counted where the program is killed


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """As the file has it."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0


class Meter:
    """Counts from look to look. What passes while nothing runs does not count."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._record, self._gpus, self._at, self._kept = _read(file), 0, clock(), clock()

    def look(self, gpus: int) -> Spent:
        """Counts until now. gpus: held now; what was given back since the last look counts until now, too."""
        now, before = self._clock(), self._record
        passed, held = now - self._at, max(gpus, self._gpus)
        self._record = Record(before.seconds + passed, before.gpu_seconds + held * passed)
        self._gpus, self._at = gpus, now
        if now - self._kept >= PERIOD:
            self.keep()
        return Spent(int(self._record.seconds), int(self._record.gpu_seconds))

    def keep(self) -> None:
        """Writes the record, whole or not at all. A full disk ends no run: programs that have to write say so themselves."""
        with contextlib.suppress(OSError):
            whole_file.write(self._file, msgspec.json.encode(self._record))
        self._kept = self._at


def _read(file: Path) -> Record:
    """Reads what was taken before; nothing where there is no record that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeError):
        return Record()
