"""Trying again what may pass: for how long, and with which pauses. Called by the S3 side, the probe and publications."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from maft.store.base import Passing

FIRST, LONGEST = 0.5, 15.0  # seconds between two tries; each pause is twice the one before
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long something is tried, and by which clock."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def begin(self) -> "Trying":
        """Starts the clock."""
        return Trying(self, self.clock() + self.seconds)


@dataclass(frozen=True, slots=True)
class Trying:
    """Patience that has begun; several calls may share it."""

    patience: Patience
    end: float

    def call(self, act: Callable[[], T], notify: Callable[[Passing], None] = lambda _: None) -> T:
        """Calls until it succeeds, fails for good, or the time is over: then the last fault is raised. notify: hears of others."""
        pause = FIRST
        while True:
            try:
                return act()
            except Passing as error:
                left = self.end - self.patience.clock()
                if left <= 0:
                    raise
                notify(error)
            self.patience.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST)
