"""Resource files: read, changed by --set, their relative paths made relative to where we stand."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maft_operator.spec import dialect
from maft_operator.spec.go_yaml import Unreadable
from maft_operator.spec.schema import COMPARISON, KIND, SOCIETY, BadSpec

_TAKEN_BY = {  # resources of ours, by who takes them
    COMPARISON: "`maft compare` runs it here, `kubectl apply` on a cluster",
    SOCIETY: "`kubectl apply` takes it to a cluster; on this machine `maft serve RUN` does the same",
}

_PLACES = (  # fields that may name a folder or a file
    ("model", "source"),
    ("task", "source"),
    ("task", "heldOutSource"),
    ("task", "semantic", "embedder"),
    ("evaluation", "task", "source"),
    ("evaluation", "embedder"),
)


def load(path: Path, settings: Sequence[str] = (), kinds: Sequence[str] = (KIND,)) -> dict[str, Any]:
    """Reads the one resource of these kinds in a file as kubectl does (dialect.py), with `key=value` settings applied; BadSpec with
    file and line if it cannot be read."""
    documents = _documents(path)
    # Secrets and the like may stand beside the run: they are for kubectl.
    ours = [d for d in documents if d.get("kind") in kinds] if len(documents) > 1 else documents
    if not any(d.get("kind") in kinds for d in documents):
        _refuse_others(path, documents)
    if len(ours) != 1:
        what = " or ".join(kinds)
        raise BadSpec(f"{path}: holds {len(documents)} documents, {len(ours)} of them runs; expected one {what}")
    resource: dict[str, Any] = ours[0]
    for setting in settings:
        change(resource, setting)
    relocate(resource, path.parent)
    return resource


def _refuse_others(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    """Says who takes a resource of ours that the command does not take; of strangers it says nothing."""
    for kind, hint in _TAKEN_BY.items():
        if any(d.get("kind") == kind for d in documents):
            raise BadSpec(f"{path}: kind: {kind}; {hint}")


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        documents = dialect.documents(dialect.decoded(path.read_bytes()))
    except OSError as error:
        raise BadSpec(f"{path}: {error.strerror}; give the path of a resource file, such as examples/arithmetic.yaml") from None
    except Unreadable as error:
        raise BadSpec(f"{path}{f' line {error.line}' if error.line else ''}: {error}") from None
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict) or (len(documents) > 1 and not isinstance(document.get("kind"), str)):
            raise BadSpec(
                f"{path}: document {number} of {len(documents)} is no object with a kind; expected one MultiAgentFinetune"
            )
    return documents


def change(resource: dict[str, Any], setting: str) -> None:
    """Changes a field: `debate.rounds=3` is spec.debate.rounds, `metadata.name=x` is meant as it stands. BadSpec where it is no
    setting."""
    key, equals, text = setting.partition("=")
    where = f"--set {' '.join(setting.split())}"
    if not equals or not all(key.split(".")):
        raise BadSpec(f"{where}: expected KEY=VALUE, such as debate.rounds=3")
    path = key.split(".") if key.split(".")[0] in ("metadata", "spec") else ["spec", *key.split(".")]
    target = resource
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise BadSpec(f"{where}: {part} is not a section of the resource")
    try:
        target[path[-1]] = dialect.value(text)
    except Unreadable as error:
        reason = str(error).removeprefix("not YAML: ")
        raise BadSpec(f"{where}: {text!r} is not a YAML value ({reason}); quote it") from None


def relocate(resource: dict[str, Any], folder: Path, start: Path | None = None) -> None:
    """Names folders and files that the resource names from `folder` from where we stand, or from `start`."""
    _relocate(resource.get("spec"), folder, start)


def _relocate(spec: Any, folder: Path, start: Path | None) -> None:
    if not isinstance(spec, dict):
        return
    _relocate(spec.get("template"), folder, start)  # of a comparison
    overrides = spec.get("agentOverrides")
    parts = [(sections, _part(spec, sections), field) for *sections, field in _PLACES]
    parts += [(["model"], _part(each, ["model"]), "source") for each in (overrides if isinstance(overrides, list) else [])]
    for sections, part, field in parts:
        source = part.get(field) if isinstance(part, dict) else None
        if isinstance(source, str) and (source.startswith(("./", "../")) or ("task" in sections and _is_file(source))):
            part[field] = _dotted(os.path.relpath(folder / source, start))


def _part(spec: Any, sections: list[str]) -> Any:
    for section in sections:
        spec = spec.get(section) if isinstance(spec, dict) else None
    return spec


def _is_file(source: str) -> bool:
    return source.endswith(".jsonl") and not source.startswith("/") and "://" not in source


def _dotted(path: str) -> str:
    return path if path.startswith("..") else f"./{path}"
