"""A run's folder on this machine: what the run began with, which it keeps, and the summaries that its programs have left there."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from maft.spec import FORMAT, Head, foreign_format, immutable_spec_json
from maft.summaries import AnySummary, Failure, decode_summary
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec, Json

BEGAN = "run.json"
LOCK = "lock"  # held by `maft run` while it works at the run, opened anew by each start


class _Began(msgspec.Struct, frozen=True):
    """What that file says, as far as it has to stay."""

    spec: dict[str, Any]
    store: str


def beginning(run: Run, store: str) -> Json:
    """Says what a run begins with, as its folder keeps it."""
    return {"format": FORMAT, "spec": json.loads(immutable_spec_json(run.spec)), "store": store}


def is_unchanged(local: Path, now: Json) -> bool:
    """Tells whether the run began with this. BadSpec where it did not and anything of it is done, for half-made things must stay
    comparable: what was refused at once may be corrected."""
    path = local / BEGAN
    if not path.exists():
        return False
    before = msgspec.to_builtins(_read(path))
    different = _difference(_placed(before), _placed({name: now[name] for name in before}))
    if different and _is_begun(local):
        raise BadSpec(f"{different}; a run keeps its spec: set metadata.name=another, or remove {local.parent}")
    return not different


def read_summary(path: Path) -> AnySummary | None:
    """Reads what a program wrote at its end; None where there is nothing of this release."""
    try:
        return decode_summary(path.read_bytes())
    except OSError:
        return None


def _placed(began: Json) -> Json:
    """Names a folder in one way: `runs`, `./runs` and the whole path are one store."""
    store = str(began["store"])
    if store.startswith("s3://"):
        return began
    path = unquote(store.removeprefix("file://")) if store.startswith("file://") else store
    return {**began, "store": os.path.realpath(path)}


def _is_begun(local: Path) -> bool:
    return any(summary and not isinstance(summary, Failure) for summary in map(read_summary, local.glob("*/summary.json")))


def _read(path: Path) -> _Began:
    """Reads `run.json`; BadSpec if another release wrote it, or nobody did."""
    try:
        whole = json.loads(path.read_bytes())
        foreign = foreign_format(msgspec.convert(whole, Head).format)
        if not foreign:
            return msgspec.convert(whole, _Began)
    except OSError as error:
        raise BadSpec(f"{path}: {error.strerror}; set metadata.name=another, or remove it") from None
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BadSpec(f"{path}: is damaged: {error}; set metadata.name=another, or remove it") from None
    raise BadSpec(f"{path}: {foreign}; set metadata.name=another for a run of its own")


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        # A release that is newer or older has other fields; how many GPUs there are decides nothing that is computed.
        keys = sorted(name for name in before if name in now and name != "gpus")
        return next((d for k in keys if (d := _difference(before[k], now[k], f"{path}.{k}".lstrip(".")))), "")
    return "" if before == now else f"{path}: was {before!r} when this run began, is {now!r}"
