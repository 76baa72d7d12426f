"""`--to gguf`: whole models, each the base with one adapter added up, as one GGUF file for llama.cpp and what is built on it.

Weights go from file to file a tensor at a time. Adapters of GGUF would be smaller, but not every program that reads GGUF takes
them, and none quantises them along with the base.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from maft import model_files, models
from maft.export import gguf_family, gguf_tokens, whole
from maft.export.added import Added, added
from maft.export.cards import CARD, card
from maft.export.folders import put_adapter, write
from maft.export.gguf_family import Family
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.spec import ModelSpec, Spec
from maft.store import unfinished
from maft.store.base import explained

MADE_OF = "maft_gguf.json"  # written last: which weights the folder was made of
_FILE_TYPES = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
    Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
}
_WANTED = ["*.safetensors", "*.json"]


def send(request: Request) -> Sent:
    """Writes a folder with one file for each adapter; those that are whole already stay."""
    return whole.send(request, "gguf", MADE_OF, _put, lambda into: f"llama-server -m {path(into)}")


def path(into: Path) -> Path:
    """Names the file in an agent's folder: programs show a model by the name of its file."""
    return into / f"{into.name}.gguf"


def _put(request: Request, spec: Spec, agent: Agent, into: Path) -> None:
    model = spec.model_of(agent.adapter.agent)
    config = models.config(model)
    family = gguf_family.of(config, model.source)
    base = model_files.weight_files(_folder(model))
    with TemporaryDirectory() as scratch, explained(f"folder {into}"):
        adapter = Path(scratch) / agent.name
        put_adapter(request, agent, adapter)
        weights = added(base, adapter)
        names = gguf_family.names(family, config, weights.tensors, model.source)
        with _writer(family, path(into)) as writer:
            _describe(writer, request, agent, model)
            gguf_family.write(writer, config)
            template = models.template_of(spec, agent.adapter.agent)
            gguf_tokens.write(writer, template, config.vocab_size, model.source)
            _write_weights(writer, family, config, weights, names)
        write(into / CARD, card(request, agent, "gguf").encode())
        write(into / MADE_OF, whole.made_of(agent))


def _folder(model: ModelSpec) -> Path:
    """Where the base lies; one of the hub is fetched into its cache."""
    source = models.local(model.source)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=model.revision or None, allow_patterns=_WANTED))


@contextlib.contextmanager
def _writer(family: Family, target: Path) -> Iterator[gguf.GGUFWriter]:
    """Writes beside the target, which appears whole or not at all."""
    unfinished.remove_stale(target.parent, target.name)  # they may be large
    with unfinished.appearing(target) as part:
        writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[family.arch])
        try:
            yield writer
        finally:
            writer.close()
        (target.parent / MADE_OF).unlink(missing_ok=True)


def _describe(writer: gguf.GGUFWriter, request: Request, agent: Agent, model: ModelSpec) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"{request.name} {agent.name}")
    writer.add_description(f"{agent.name} of {request.run.key}, iteration {agent.adapter.iteration}; base {model.source}")
    if request.license:
        writer.add_license(request.license)


def _write_weights(writer: gguf.GGUFWriter, family: Family, config: Any, weights: Added, names: dict[str, str]) -> None:
    """Writes the directory of tensors, then each behind the other. Vectors in float32: llama.cpp computes with no others."""
    kinds = {n: weights.kind(n) if len(weights.tensors[n].shape) > 1 else Kind.F32 for n in names}
    factors = gguf_family.rope_factors(config)
    writer.add_file_type(_FILE_TYPES[next(kind for n, kind in kinds.items() if names[n] == "token_embd.weight")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if factors is not None:
        writer.add_tensor_info(gguf_family.ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for name, called in names.items():
        shape, (_, size) = weights.tensors[name].shape, gguf.GGML_QUANT_SIZES[kinds[name]]
        writer.add_tensor_info(called, shape, np.dtype(np.float32), math.prod(shape) * size, raw_dtype=kinds[name])
    assert writer.path is not None
    writer.path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name in names:
        values = gguf_family.arranged(family, config, name, weights.values(name))
        writer.write_tensor_data(gguf.quantize(values, kinds[name]))
