"""Base models: found, fetched from a store where they lie in one, and checked without loading their weights.

Only safetensors and JSON are read; pickled weights are refused.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from maft import model_files, quantised
from maft.chat_template import ChatTemplate, load_chat_template
from maft.errors import BadInput, one_line, passing
from maft.spec import ModelSpec, Spec, Thinking
from maft.store import unfinished
from maft.store.base import Damaged, Entry, Store, explained
from maft.store.uploads import is_plain_name
from maft.store.urls import open_store
from maft.template_facts import Options

_DESCRIBING = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
_WANTED = (*_DESCRIBING, ".safetensors")
_WHOLE = ".complete"
AT_A_TIME = 4  # files of a model that are fetched together, each in several ranges


def is_path(source: str) -> bool:
    """Tells whether the source names a folder rather than a model on the hub."""
    return source.startswith(("/", "./", "../"))


def is_stored(source: str) -> bool:
    """Tells whether the source names a model that lies in a bucket."""
    return source.startswith("s3://")


def cache() -> Path:
    """Tells where models and adapters from stores are kept: MAFT_CACHE, or a folder of the user's cache."""
    return Path(os.environ.get("MAFT_CACHE") or Path.home() / ".cache" / "maft")


def local(source: str) -> str:
    """Returns a folder or hub id that transformers and vLLM take. An s3:// model is downloaded once; BadInput if it is not
    there."""
    if is_stored(source):
        return str(_download(source))
    if is_path(source) and not _is_file(Path(source) / model_files.CONFIG) and not _is_file(Path(source) / model_files.ADAPTER):
        seen = "" if Path(source).is_absolute() else f"; looked for from {Path.cwd()}"
        raise BadInput(f"model.source: {source} is no model folder (it has no {model_files.CONFIG}){seen}")
    return source


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False


def stored_state(source: str) -> str:
    """Names the files of an s3:// model as they lie there now: another name once one of them was written anew, even if its size
    is the same. OSError and BadInput of the store."""
    return _state(_listed(source))


def _listed(source: str) -> list[Entry]:
    """The files of an s3:// model."""
    return sorted((e for e in open_store(source).entries("") if _is_wanted(e.key)), key=lambda e: e.key)


def _state(entries: Sequence[Entry]) -> str:
    files = [(entry.key, entry.size, entry.tag) for entry in entries]
    return f"files-{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"


def _is_wanted(key: str) -> bool:
    """Whether a model has files of that name; what systems put beside them (._config.json) is none of it."""
    return key.endswith(_WANTED) and is_plain_name(key)


def _download(source: str) -> Path:
    entries = _listed(source)
    folder = _folder("models", source, _state(entries))
    _remove_stale(folder)
    if not _is_kept(folder, entries):
        _fetch(source, folder, _WANTED, entries)
        (folder / _WHOLE).touch()
    return folder


def _is_kept(folder: Path, entries: Sequence[Entry]) -> bool:
    """Whether the whole of a model is there: caches are tidied by others, too."""
    return _is_whole(folder) and all(_size(folder / entry.key) == entry.size for entry in entries)


def _folder(kind: str, source: str, state: str) -> Path:
    """One for each state of the model in its store: what was fetched of an earlier one is not what lies there now."""
    return cache() / kind / f"{_plain(source)}-{state}"


def _fetch(source: str, folder: Path, wanted: tuple[str, ...], entries: Sequence[Entry]) -> None:
    """Fetches those files of a model that end so, several at a time; each appears whole. What is here already stays."""
    store, sizes = open_store(source), {entry.key: entry.size for entry in entries}
    model_files.check_names(sizes, store.read, source)
    with explained(f"model.source: {folder}, where {source} is kept"):
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in sizes if name.endswith(wanted) and _size(folder / name) != sizes[name]]
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for fetched in [threads.submit(_fetch_file, store, name, folder, sizes[name]) for name in missing]:
                fetched.result()
        if missing and _state(_listed(source)) != _state(entries):  # of equal size, a file that was written anew looks like the old
            shutil.rmtree(folder)
            raise OSError(f"model.source: {source} was written anew while it was fetched; it is fetched again")


def _stored(store: Store) -> dict[str, int]:
    """The files of a model that lie in a store, with their bytes."""
    return {key: size for key, size in store.sizes("") if _is_wanted(key)}


def _fetch_file(store: Store, name: str, folder: Path, size: int) -> None:
    with unfinished.appearing(folder / name) as part:
        try:
            store.fetch(name, part)
        except Damaged as error:
            raise BadInput(f"model.source: {error}") from None
        if (received := _size(part)) != size:
            raise OSError(f"store {store.url}: {name} has {size} bytes in the listing, and {received} came; is it written anew?")


def _remove_stale(folder: Path) -> None:
    """Removes what downloads that were killed have left, up to the size of the model each."""
    unfinished.remove_stale(folder, "", unfinished.NUMBERED)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _is_whole(folder: Path) -> bool:
    """Tells whether the whole of an s3:// model was downloaded there."""
    return (folder / _WHOLE).exists()


def _plain(source: str) -> str:
    """A name of a folder for it alone: qwen2.5 and qwen2-5 are two models."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in source)[:180] + f"-{digest}"


def described(source: str) -> str:
    """Returns a folder or hub id as `local` does; of an s3:// model that is not here yet, only what describes it, no weights."""
    if not is_stored(source):
        return local(source)
    entries = _listed(source)
    if _is_kept(whole := _folder("models", source, _state(entries)), entries):
        return str(whole)
    folder = _folder("described", source, _state(entries))
    _remove_stale(folder)
    _fetch(source, folder, _DESCRIBING, entries)
    return str(folder)


def shapes(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Reads the shape of each tensor of weights that lie in a folder or in a store; empty: they are not here yet."""
    path = Path(described(model.source))
    if is_stored(model.source) and not _is_whole(path):
        store = open_store(model.source)
        return model_files.shapes(_stored(store), store.read, store.read_part, model.source)
    return model_files.folder_shapes(path) if path.is_dir() else {}


def chat_template(model: ModelSpec, thinking: Thinking) -> ChatTemplate:
    """Loads the chat template of the base model; BadInput if it has none that works, or none that thinks as asked."""
    options = Options(model.chat_template_arguments, model.date, thinking)
    path, trust = described(model.source), model.trust_remote_code
    return load_chat_template(path, model.revision or None, trust_remote_code=trust, options=options)


def template_of(spec: Spec, agent: int) -> ChatTemplate:
    """Loads the chat template that one agent's prompts are written by."""
    return chat_template(spec.model_of(agent), spec.debate_of(agent).thinking)


def own_templates(spec: Spec, agents: int) -> dict[int, ChatTemplate]:
    """Loads the chat templates of those agents, of so many, that have another one than the base."""
    own = [n for n in range(agents) if spec.has_own_model(n) or spec.debate_of(n).thinking != spec.debate.thinking]
    return {n: template_of(spec, n) for n in own}


def check(model: ModelSpec) -> None:
    """Raises BadInput unless it is a causal language model whose weights, where they can be looked at, are whole safetensors.

    Of weights in a store the headers are read; none is fetched."""
    source, path = model.source, described(model.source)
    if Path(path).is_dir():
        model_files.check_texts(Path(path), own_code=model.trust_remote_code)
    config = _config(path, model.revision, trust_remote_code=model.trust_remote_code)
    from transformers.models.auto.modeling_auto import (  # by name: the module itself asks for torch
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    known = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    remote = "AutoModelForCausalLM" in getattr(config, "auto_map", {}) if model.trust_remote_code else False
    if config.is_encoder_decoder or (config.model_type not in known and not remote):
        raise BadInput(f"model.source: {source} is a {config.model_type} model, not a causal language model")
    quantised.check(config, source)
    if is_stored(source) and not _is_whole(Path(path)):
        store = open_store(source)
        model_files.check_stored(_stored(store), store.read, store.read_part, source)
    elif Path(path).is_dir():
        model_files.check_weights(Path(path))


def config(model: ModelSpec) -> Any:
    """Loads the configuration; BadInput if there is none that transformers knows."""
    return _config(described(model.source), model.revision, trust_remote_code=model.trust_remote_code)


def _config(path: str, revision: str, *, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        read = AutoConfig.from_pretrained(path, revision=revision or None, trust_remote_code=trust_remote_code)
    except Exception as error:  # a damaged configuration ends in any exception
        if passing(error):
            raise OSError(f"model.source: {path}: {one_line(error, 300)}; a folder or an s3:// URL needs no hub") from error
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise BadInput(
                f"model.trustRemoteCode: {path} comes with Python code of its own, and that is off; read the code and set true, or"
                " take another model"
            ) from error
        raise BadInput(f"model.source: {path} cannot be read as a model: {one_line(error, 300)}") from error
    named = read.architectures or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise BadInput(f"model.source: {path}: the architectures of its config.json are {named!r:.100}; expected names of classes")
    quantised.mark(read, partial(_has_file, path, revision))
    return read


def _has_file(path: str, revision: str, name: str) -> bool:
    """Tells whether a model has a file beside those that every one has; of one on the hub that cannot be asked: no."""
    return _is_file(Path(path) / name) if Path(path).is_dir() else _of_hub(path, revision, name) is not None


def _of_hub(source: str, revision: str, name: str) -> str | None:
    """Fetches one file; None where there is none, or nobody who answers."""
    from transformers.utils import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file: str | None = cached_file(source, name, revision=revision or None, **quiet)
    return file


def folder_of_config(path: str, revision: str) -> str:
    """Finds the folder with the config.json of what `local` or `described` returned: of a model of the hub that file is fetched,
    and no weights. Empty where it cannot be had."""
    if Path(path).is_dir():
        return path
    file = _of_hub(path, revision, "config.json")
    return str(Path(file).parent) if file else ""
