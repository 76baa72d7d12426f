"""Seconds of an export to each kind of target that can be had here without an account, from the program's start to its end.

A run of the tests with small adapters and a report: it is the program that takes its time, and not what it sends. Each export has
a place of its own, so that everything is new there. Called by society.py.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
import hubs  # noqa: E402
import registries  # noqa: E402
import s3server  # noqa: E402
import trackers  # noqa: E402
from collectors import collecting  # noqa: E402
from committed import RUN, put_report, put_run  # noqa: E402

from maft.store.base import Store  # noqa: E402
from maft.store.files import FileStore  # noqa: E402
from maft.store.s3 import S3Store  # noqa: E402

Json = dict[str, Any]
EXPORTS = 9
WHOLE = ("merged", "gguf")  # kinds that write whole models, which is not the program's start


@dataclass(frozen=True, slots=True)
class Place:
    """Where exports of one kind go."""

    to: str
    """Before the number of an export."""
    store: str
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def places() -> Iterator[dict[str, Place]]:
    """Starts what the targets need, over a folder that goes with it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _fill(FileStore(folder / "runs"))
        store, clients = f"file://{folder / 'runs'}", trackers.packages("trackers")
        for name in ("registry", "mlflow"):
            (folder / name).mkdir()
        registry = stack.enter_context(registries.serving(folder / "registry"))
        collector, _ = stack.enter_context(collecting())
        hub, _ = stack.enter_context(hubs.hub())
        mlflow = stack.enter_context(trackers.mlflow(folder / "mlflow"))
        bucket = stack.enter_context(s3server.running(folder / "objects"))
        yield {
            "peft": Place(f"{folder}/peft", store),
            "vllm": Place(f"{folder}/vllm", store),
            "kserve": Place(f"{folder}/kserve", _in(bucket), bucket.environment()),
            "mlflow": Place(f"{mlflow}#own", store),
            "wandb": Place(f"{folder}/wandb", store, clients),
            "trackio": Place("own", store, {**clients, "TRACKIO_DIR": f"{folder}/trackio"}),
            "otel": Place(f"{collector}/own", store),
            "hub": Place("team/demo", store, hubs.environment(hub, folder / "hub")),
            "oci": Place(f"http://{registry}/demo:v", store),
            "merged": Place(f"{folder}/merged", store),
            "gguf": Place(f"{folder}/gguf", store),
        }


def _fill(store: Store, **spec: Any) -> None:
    put_run(store, **spec)
    put_report(store)


def _in(server: s3server.S3Server) -> str:
    """A store that pods of KServe could reach, with a base model that they could."""
    os.environ.update(server.environment())
    _fill(S3Store(server.bucket, "runs", server.endpoint, "us-east-1"), model={"source": "org/model"})
    return server.url("runs")


async def measured() -> Json:
    """Exports to one kind after the other."""
    with places() as several:
        each = {kind: [await _exported(kind, place, n) for n in range(EXPORTS)] for kind, place in several.items()}
    return {
        "exports": EXPORTS,
        "kinds": {kind: {"median": statistics.median(seconds), "most": max(seconds)} for kind, seconds in each.items()},
    }


async def _exported(kind: str, place: Place, number: int) -> float:
    """Counts the seconds of the program."""
    line = [f"--store={place.store}", f"--run={RUN}", f"--to={kind}={place.to}{number}", "--report"]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "maft.export", *line, stdout=DEVNULL, env={**os.environ, **place.environment}
    )
    assert await process.wait() == 0, kind
    return round(time.perf_counter() - began, 2)


def rows(result: Json) -> list[str]:
    """Writes the rows of the table: whole models apart, for writing them is most of their time."""
    quick, whole = ([(k, one) for k, one in result["kinds"].items() if (k in WHOLE) is of] for of in (False, True))
    made = [f"| seconds of an export, from the program's start | none | {_shown(quick)} | ≤ 2 |"]
    return [*made, *([f"| the same, of whole models | none | {_shown(whole)} | |"] if whole else [])]


def _shown(kinds: list[tuple[str, Json]]) -> str:
    return ", ".join(f"{kind} {one['median']:.1f} ({one['most']:.1f} at most)" for kind, one in kinds)
