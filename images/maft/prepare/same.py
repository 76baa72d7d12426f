"""Whether what lies in a store was made by the same spec. Pure but for what it raises."""

from collections.abc import Sequence
from typing import Any

from maft import records
from maft.errors import BadInput
from maft.records import Commit
from maft.spec import TRAINING_PLACES, Spec

# Sections of the spec that decide what is computed, and what in them does not.
_COMPUTING = ("model", "task", "method", "seed", "agents", "debate", "training", "evaluation", "agentOverrides")
_PLACES = (*TRAINING_PLACES, "cacheClaim", "tokenSecret", "baselines", "every", "shards")


def run(commit: Commit, spec: Spec, where: str, sections: Sequence[str] = _COMPUTING) -> None:
    """BadInput if what lies there was made by another spec: its questions and adapters would be taken for this one's."""
    before, now = commit.meta.get("spec", {}), records.plain(spec)
    if not isinstance(before, dict):
        raise BadInput(f"store {where}: its commit does not describe its spec; use another name or prefix")
    for section in sections:
        if section not in before or section not in now:
            continue
        if different := _difference(before.get(section), now.get(section), section):
            raise BadInput(f"store {where}: {different}; use another name or prefix, or remove what lies there")


def _difference(before: Any, now: Any, path: str) -> str:
    """The first field that differs. Where things run and how long (topology, GPUs, iterations) may change."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in before if name in now and name not in _PLACES]
        return next((d for name in names if (d := _difference(before[name], now[name], f"{path}.{name}"))), "")
    return "" if _said(before) == _said(now) else f"made with spec.{path} {before!r}, this is {now!r}"


def _said(value: Any) -> Any:
    """Leaves out of a list's items what they do not say: a release may write that down, another one not."""
    if isinstance(value, dict):
        return {name: _said(one) for name, one in value.items() if one is not None}
    return [_said(one) for one in value] if isinstance(value, list) else value
