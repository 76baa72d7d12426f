"""Adapters by iteration: which model plays which role, and under which name the servers know it.

A name is `<role>-<agent>-<iteration>-<sha256[:12] of the weights>`: never reused for other weights, because vLLM keys its
prefix cache by it, and complete enough for the resolver to find the adapter's commit with one read.
"""

import re
from typing import cast

from maft.errors import BadInput
from maft.records import BASE, Adapter, DatasetCounts, Role, described
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed

WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"(?:([a-z0-9-]+)\.)?(generator|critic)-(\d{1,3})-(\d{1,3})-([0-9a-f]{12})")


def name(role: Role, agent: int, iteration: int, sha256: str) -> str:
    """Makes the adapter's name on the servers."""
    return f"{role}-{agent}-{iteration}-{sha256[:12]}"


def locate(model: str, run: str) -> tuple[str, str] | None:
    """Finds the store prefix of an adapter's commit and the start of its weights' sha256; None if this is no adapter's name.

    `OTHER.NAME` is an adapter of the run OTHER in the same namespace: what a server of several runs is asked for.
    """
    match = _NAME.fullmatch(model)
    if not match:
        return None
    other, role, agent, iteration, digest = match.groups()
    run = f"{run.partition('/')[0]}/{other}" if other else run
    return layout.adapter(run, int(iteration), cast(Role, role), int(agent)), digest


def prefixes(store: Store, run: str, iteration: int) -> list[str]:
    """Lists where the adapters of an iteration lie, or will lie: one for each of its datasets; empty as long as there are none."""
    data = committed(store, layout.datasets(run, iteration))
    counts = described(data, "counts", tuple[DatasetCounts, ...]) if data else ()
    return [layout.adapter(run, iteration, count.role, count.agent) for count in counts]


def are_all_there(store: Store, run: str, iteration: int) -> bool:
    """Tells whether the iteration has datasets, and an adapter is committed for each."""
    places = prefixes(store, run, iteration)
    return bool(places) and all(committed(store, place) for place in places)


def current(store: Store, run: str, iteration: int, role: Role, agent: int) -> Adapter:
    """Reads what the agent uses in that role after `iteration` (0: the base model)."""
    if iteration == 0:
        return Adapter(role, agent, 0, BASE, False, 0, 0, None, None)
    prefix = layout.adapter(run, iteration, role, agent)
    commit = committed(store, prefix)
    if commit is None:
        raise BadInput(
            f"{store.url}/{prefix}: no adapter committed; the training task of iteration {iteration} has to finish first"
        )
    return described(commit, "adapter", Adapter)
