"""Several GPUs in one training task: how many workers, which adapters each of them trains, what each of them is told.

A worker is the same program once more, with a GPU of its own. It is told its place by an environment variable and says the loss of
every step through a pipe.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from maft import pod, visible
from maft.errors import BadInput

HOST = "127.0.0.1"
PLACE = "MAFT_TRAIN_PLACE"
WORKERS = "MAFT_TRAIN_WORKERS"
Report = Callable[[float], None]


class Place(msgspec.Struct, frozen=True):
    """What a worker is told."""

    adapters: tuple[str, ...]
    """Those that it trains, as ROLE-AGENT."""
    pipe: int = -1
    """Where it says its losses: an open file's number."""
    rank: int = 0
    """Of ranks that hold one base together."""
    ranks: int = 1
    host: str = HOST
    port: int = 0
    """Where they meet."""

    @property
    def leads(self) -> bool:
        """Tells whether it publishes."""
        return self.rank == 0


def _unseen(loss: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Started:
    """How the program was started, as far as workers are concerned."""

    command: tuple[str, ...] = ()
    """The whole command line; workers are started by it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    """Of a worker."""
    report: Report = _unseen
    """Is told the loss of every step."""


def started(command: Sequence[str], environment: Mapping[str, str]) -> Started:
    """Reads the place of a worker, if this is one; it ends when the program that started it does."""
    if PLACE not in environment:
        return Started(tuple(command), dict(environment))
    pod.die_with_parent()
    place = msgspec.json.decode(environment[PLACE], type=Place)

    def report(loss: float) -> None:
        os.write(place.pipe, f"{loss!r}\n".encode())

    return Started(tuple(command), dict(environment), place, report)


def count(asked: int | None, visible: int, adapters: int, environment: Mapping[str, str]) -> int:
    """Decides how many workers a task of so many adapters gets. asked: training.gpus; visible: GPUs that are there; BadInput for
    more than there is work for. MAFT_TRAIN_WORKERS, of tests and of machines without a GPU, stands above both."""
    if workers := _asked_workers(environment):
        asked = visible = workers
    if asked is not None and asked > adapters:
        here = f"{asked} GPUs and {adapters} adapter{'s' * (adapters != 1)} in this task"
        raise BadInput(f"training.gpus: {here}; set gpus to at most {adapters}, topology to Shared, or parallelism to Sharded")
    return max(1, min(visible, adapters if asked is None else asked))


def _asked_workers(environment: Mapping[str, str]) -> int:
    value = environment.get(WORKERS, "")
    if value and not (value.isdecimal() and int(value)):
        raise BadInput(f"{WORKERS}={value!r}: expected a number of workers, 1 or more")
    return int(value or 0)


def count_ranks(asked: int | None, visible: int, environment: Mapping[str, str], nodes: int = 1) -> int:
    """Decides how many processes of this pod hold one base together with those of others; BadInput for fewer than 2 in all. nodes:
    pods, of which each has one process where there is no GPU."""
    ranks = _asked_workers(environment) or (visible if asked is None else min(asked, visible))
    if ranks < 2 and nodes == 1:
        raise BadInput(f"training.parallelism: Sharded is for 2 GPUs or more, and {ranks} can be used here; use Adapters")
    return max(1, ranks)


def dealt(tokens: Mapping[str, int], workers: int) -> list[tuple[str, ...]]:
    """Deals adapters to workers by their tokens: the longest first, each to whoever has least. As many as there are adapters."""
    shares: list[list[str]] = [[] for _ in range(min(workers, len(tokens)))]
    for name in sorted(tokens, key=lambda name: (-tokens[name], name)):
        least = min(shares, key=lambda share: sum(tokens[other] for other in share))
        least.append(name)
    return [tuple(share) for share in shares]


def device(environment: Mapping[str, str], index: int, *, amd: bool = False) -> dict[str, str]:
    """Names the GPU of a worker as the program itself was given it: by its entry, which may be a UUID."""
    entry, setting = str(index), visible.given(environment, amd=amd)
    if setting is not None:
        entries = visible.entries(setting.partition("=")[2])
        entry = entries[index] if index < len(entries) else ""
    return dict.fromkeys(visible.variables(environment, amd=amd), entry)


def environments(
    environment: Mapping[str, str], workers: int, *, gpus: bool, cores: int, amd: bool = False
) -> list[dict[str, str]]:
    """Writes what each worker finds in its environment: a GPU of its own, and its part of the cores unless it is set already."""
    common = {**environment, "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS") or str(max(1, cores // workers))}
    return [{**common, **(device(environment, index, amd=amd) if gpus else {})} for index in range(workers)]
