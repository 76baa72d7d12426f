"""The one signature of all targets: what a target is given, and what it says when it is done."""

from dataclasses import dataclass

from maft.committed_run import RunCommits
from maft.export import reports, society
from maft.export.identity import identity
from maft.export.society import Agent
from maft.store.base import Store


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be handed on, and where to."""

    store: Store
    run: RunCommits
    to: str
    """What the user wrote after `--to KIND=`; empty: nothing."""
    iteration: int | None = None
    """Whose adapters; None: the best, or the last that has all of them."""
    only: tuple[str, ...] = ()
    """Names of adapters; none: all."""
    license: str = ""
    """Of the adapters, as an SPDX name; empty: nobody said."""

    report: bool | None = None
    """Whether the report, which holds questions and debates, goes along; None: nobody said, which the kind of target decides."""

    group: str = ""
    """NAMESPACE/NAME of the comparison that the run belongs to; empty: none."""

    @property
    def name(self) -> str:
        """Returns the run's name without its namespace."""
        return self.run.key.rpartition("/")[2]

    def agents(self) -> tuple[Agent, ...]:
        """Lists the adapters that are wanted."""
        return society.agents(self.store, self.run, self.iteration, self.only)

    def report_files(self) -> dict[str, bytes]:
        """Reads the run's report; empty where there is none yet, or it is not to go along."""
        return reports.report_files(self.store, self.run.key) if self.report else {}

    def identity(self) -> str:
        """Returns what tells the run from every other, as 32 hexadecimal digits."""
        return identity(self.store, self.run.key, self.run.problems)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a target has now."""

    place: str
    """Where it is, for people."""
    new: int
    """Parts that were sent or written this time; 0: all was there."""
    lines: tuple[str, ...] = ()
    """What to do with it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Somewhere that results go."""

    takes: str
    """What stands after `=`, in words; in brackets where it may be left out."""
    what: str
    """What it gets."""
    module: str
    """Of this room; its `send` takes a Request and returns what was Sent."""
    extra: str = ""
    """Of the package maft, with what the module imports; empty: it needs nothing more."""
    packages: tuple[str, ...] = ()
    """That the module imports when it sends."""
