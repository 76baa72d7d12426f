"""How large the base model's weights are as they are stored: pods that load it are given memory and disk by that."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maft import models
from maft.errors import with_kind
from maft.spec import ModelSpec
from maft.store.urls import open_store

_LOADED = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PATIENCE = 30  # seconds for the hub to list a model's files


def weight_bytes(model: ModelSpec, hub: Any = None) -> int:
    """Counts the bytes of the weights without fetching them; 0 where they cannot be seen, which is no mistake of the run's.
    hub: an HfApi, in place of the one that the environment names."""
    try:
        return loaded(_files(model, hub))
    except Exception as error:  # of a store, of a folder, of the hub's library and whatever it uses
        print(f"the size of {model.source} is not known: {with_kind(error, 200)}", flush=True)
        return 0


def loaded(sizes: Mapping[str, int | None]) -> int:
    """Adds up the files that are loaded: a model may lie there in another format as well. 0 where one of them has no size, as a
    mirror may list it: the sum of the others would be too little room."""
    weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors") and "/" not in name}
    named = {name: size for name, size in weights.items() if _LOADED.fullmatch(name)}
    counted = [size for size in (named or weights).values() if size]
    return sum(counted) if len(counted) == len(named or weights) else 0


def _files(model: ModelSpec, hub: Any) -> Mapping[str, int | None]:
    if models.is_stored(model.source):
        return dict(open_store(model.source).sizes(""))
    if models.is_path(model.source):
        return {path.name: path.stat().st_size for path in Path(model.source).iterdir() if path.is_file()}
    return _of_the_hub(model, hub)


def _of_the_hub(model: ModelSpec, hub: Any) -> Mapping[str, int | None]:
    from huggingface_hub import HfApi

    info = (hub or HfApi()).model_info(model.source, revision=model.revision or None, files_metadata=True, timeout=_PATIENCE)
    return {file.rfilename: file.size for file in info.siblings or ()}
