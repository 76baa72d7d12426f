"""Sentence embeddings for diversity: a small encoder, mean over its tokens, unit length (sentence-transformers, "Pooling")."""

from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from maft.answers import packaged
from maft.errors import BadInput, one_line


def load(source: str) -> Callable[[list[str]], torch.Tensor]:
    """Loads an encoder: texts → [texts, width]. source: a folder, a hub id, or `package` for the one that comes as a Python
    package."""
    from transformers import AutoModel, AutoTokenizer

    own = source == packaged.PACKAGED
    path = str(packaged.folder("evaluation.embedder", "install maft[diversity]")) if own else source
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
