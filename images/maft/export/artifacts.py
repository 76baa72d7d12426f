"""What `--to oci` pushes: manifests and the files that they name. A file is a layer, and nothing is packed.

Equal commits give equal bytes: there are no times in them. Source: the OCI image specification, CNCF's model-spec.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maft.export import folders, reports, society
from maft.export.target import Request
from maft.store.uploads import measured

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
REPORT = "application/vnd.maft.report.v1"
EMPTY = "application/vnd.oci.empty.v1+json"  # of what needs no configuration
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
_LAYERS = {".safetensors": "weight", ".json": "weight.config", ".md": "doc"}  # by the end of a file's name
_PAGES = {".html": "text/html", ".json": "application/json"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One manifest, and where its files lie, each with its digest."""

    manifest: bytes
    layers: tuple[tuple[str, Path], ...]
    config: tuple[str, Path]

    @property
    def digest(self) -> str:
        """Returns by what registries know it."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


def adapters(request: Request, scratch: Path) -> Artifact:
    """Makes ModelPack's artifact of the adapters that are wanted, in a folder that is there only for that."""
    top, config = scratch / "adapters", scratch / "config.json"
    folders.put_adapters(request, request.agents(), top)
    layers = [_adapter_file(path, top) for path in _files(top)]
    config.write_bytes(_config(request, layers))
    return _artifact(request, MODEL, _described(config, CONFIG), config, dict(zip(_files(top), layers, strict=True)))


def report(request: Request, files: Mapping[str, bytes], scratch: Path) -> Artifact:
    """Makes an artifact of the report's files."""
    top, config = scratch / "pages", scratch / "empty.json"
    folders.put_files(files, top / reports.REPORT)
    config.write_bytes(b"{}")
    layers = {path: {**_described(path, _PAGES[path.suffix]), "annotations": {TITLE: _name(path, top)}} for path in _files(top)}
    return _artifact(request, REPORT, _described(config, EMPTY), config, layers)


def _artifact(request: Request, kind: str, config: Json, at: Path, layers: Mapping[Path, Json]) -> Artifact:
    notes = {TITLE: request.name, "dev.maft.run": request.run.key}
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": config, "layers": list(layers.values())}
    manifest = json.dumps({**whole, "annotations": notes}, sort_keys=True).encode()
    return Artifact(manifest, tuple((layer["digest"], path) for path, layer in layers.items()), (config["digest"], at))


def _described(path: Path, kind: str) -> Json:
    size, sha256 = measured(path)
    return {"mediaType": kind, "digest": f"sha256:{sha256}", "size": size}


def _adapter_file(path: Path, top: Path) -> Json:
    kind = f"application/vnd.cncf.model.{_LAYERS.get(path.suffix, 'weight.config')}.v1.raw"
    name = _name(path, top)
    return {**_described(path, kind), "annotations": {FILEPATH: name, TITLE: name}}  # ModelPack's clients read one, oras the other


def _files(top: Path) -> list[Path]:
    return sorted(path for path in top.rglob("*") if path.is_file())


def _name(path: Path, top: Path) -> str:
    return str(path.relative_to(top))


def _config(request: Request, layers: list[Json]) -> bytes:
    """What ModelPack says of a model."""
    licenses = {"licenses": [request.license]} if request.license else {}
    sources = ", ".join(society.sources(society.spec(request.run)))
    facts: Mapping[str, Any] = {
        "descriptor": {
            "name": request.name,
            "title": f"Adapters of {sources}",
            "baseModel": sources,
            **licenses,
        },
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
        "config": {"format": "safetensors"},
    }
    return json.dumps(facts, sort_keys=True).encode()
