"""Texts as vectors: a sentence encoder of BERT's form in numpy, on the processor and without torch.

Comes in: a folder as sentence-transformers writes it. Goes out: a vector of unit length for a text. Each text is computed alone,
so that its vector is the same in whatever company, and all of it: where it is longer than the encoder reads at a time, by windows.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maft.answers import packaged
from maft.answers.packaged import PACKAGED
from maft.errors import BadInput, one_line

Vector = NDArray[np.float32]
Weights = Mapping[str, Vector]

CONFIG, POOLING, TOKENIZER, WEIGHTS = "config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"
WINDOW = "sentence_bert_config.json"  # says how many tokens are read at a time, where it is there
KEPT = 4096  # vectors of texts; one takes 1.5 KB
_FIELD = "task.semantic.embedder"
_UNKNOWN = "[UNK]"  # of BERT's vocabularies
# erf by Abramowitz and Stegun, 7.1.26: within 1.5e-7, which single precision does not tell from it; numpy has none.
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Encoder:
    """Makes vectors of texts. From any thread: it keeps nothing between two calls."""

    def __init__(self, folder: Path) -> None:
        """Reads the folder; BadInput where it holds no encoder of this form."""
        self._config = _checked(_json(folder / CONFIG), folder)
        self._first_alone = _takes_first(_json(folder / POOLING), folder)
        self._tokenizer = _tokenizer(folder / TOKENIZER)
        self._weights = _weights(folder / WEIGHTS, self._config)
        self._window = _window(folder, self._config["max_position_embeddings"])
        self._try(folder)

    def __call__(self, text: str) -> Vector:
        """Computes the vector of a text."""
        pooled = [states[:1] if self._first_alone else states for states in map(self._states, self._windows(text))]
        mean = np.concatenate(pooled).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _try(self, folder: Path) -> None:
        """Computes the largest window once: files that do not belong together fail here, and not in the middle of a debate."""
        try:
            states = self._states([self._tokenizer.get_vocab_size() - 1] * self._window)
        except (ValueError, IndexError) as error:
            raise BadInput(f"{_FIELD}: the files of {folder} do not fit together: {one_line(error, 200)}") from error
        if not np.isfinite(states).all():
            raise BadInput(f"{_FIELD}: {folder}/{WEIGHTS} gives numbers that are none; copy the folder anew")

    def _windows(self, text: str) -> Iterator[list[int]]:
        """The ids of a text, each window with the tokens that begin and end one."""
        first, last = self._tokenizer.encode("").ids
        ids, room = self._tokenizer.encode(text, add_special_tokens=False).ids, self._window - 2
        for start in range(0, max(1, len(ids)), room):
            yield [first, *ids[start : start + room], last]

    def _states(self, ids: list[int]) -> Vector:
        """[tokens, width]: the last hidden states (Devlin et al., arXiv 1810.04805)."""
        words, places = self._weights["embeddings.word_embeddings.weight"], self._weights["embeddings.position_embeddings.weight"]
        states = words[ids] + places[: len(ids)] + self._weights["embeddings.token_type_embeddings.weight"][0]
        states = self._normal(states, "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            states = self._layer(states, f"encoder.layer.{layer}")
        return states

    def _layer(self, states: Vector, name: str) -> Vector:
        attended = self._linear(self._attention(states, f"{name}.attention.self"), f"{name}.attention.output.dense")
        states = self._normal(states + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(states, f"{name}.intermediate.dense"))
        return self._normal(states + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, states: Vector, name: str) -> Vector:
        """Every token hears every token of its window."""
        heads = self._config["num_attention_heads"]
        query, key, value = (
            self._linear(states, f"{name}.{part}").reshape(len(states), heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[-1]))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heard = shares / shares.sum(axis=-1, keepdims=True) @ value
        return np.asarray(heard.transpose(1, 0, 2).reshape(len(states), -1))

    def _linear(self, states: Vector, name: str) -> Vector:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normal(self, states: Vector, name: str) -> Vector:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self._config["layer_norm_eps"]))
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def load(source: str) -> Callable[[str], Vector]:
    """Loads an encoder: `package` for the one that comes as a Python package, else a folder. Texts that come again are not computed
    again. BadInput if there is none."""
    return lru_cache(KEPT)(Encoder(_folder(source)))


def unknown(source: str, texts: Sequence[str]) -> float:
    """Computes the share of the texts' tokens that the encoder has neither a word nor a letter for: all of them are one to it."""
    tokenizer = _tokenizer(_folder(source) / TOKENIZER)
    ids = [number for encoded in tokenizer.encode_batch(texts, add_special_tokens=False) for number in encoded.ids]
    return ids.count(tokenizer.token_to_id(_UNKNOWN)) / max(1, len(ids))


def _folder(source: str) -> Path:
    return packaged.folder(_FIELD, "install maft[semantic], or name a folder") if source == PACKAGED else Path(source)


def _gelu(values: Vector) -> Vector:
    return np.asarray(values * np.float32(0.5) * (1 + _erf(values / np.float32(math.sqrt(2)))), dtype=np.float32)


def _erf(values: Vector) -> Vector:
    size = np.abs(values)
    step = 1 / (1 + np.float32(0.3275911) * size)
    sum_ = np.zeros_like(step)
    for factor in reversed(_ERF):
        sum_ = (sum_ + np.float32(factor)) * step
    return np.asarray(np.sign(values) * (1 - sum_ * np.exp(-size * size)))


# --- what lies in the folder ---


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{_FIELD}: {path} is missing; name a folder as sentence-transformers writes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{_FIELD}: {path} cannot be read: {one_line(error, 200)}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{_FIELD}: {path} holds no JSON object; copy the folder anew")
    return value


def _checked(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Refuses other forms than the one that is computed here: their numbers would mean something else."""
    known = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, wanted in known.items():
        if (value := config.get(name, wanted if name == "position_embedding_type" else None)) != wanted:
            raise BadInput(f"{_FIELD}: {folder}/{CONFIG} has {name} {value!r}; take an encoder with {wanted!r}, or `{PACKAGED}`")
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise BadInput(f"{_FIELD}: {folder}/{CONFIG} has {name} {config.get(name)!r}; expected a whole number above 0")
    return {"layer_norm_eps": 1e-12, **config}


def _window(folder: Path, most: int) -> int:
    """Tokens that are read at a time."""
    given = _json(folder / WINDOW).get("max_seq_length") if (folder / WINDOW).exists() else None
    window = most if given is None else given
    if not isinstance(window, int) or min(window, most) < 3:  # one, and those that begin and end it
        raise BadInput(f"{_FIELD}: {folder}/{WINDOW} has max_seq_length {given!r}; expected a whole number above 2")
    return min(window, most)


def _takes_first(pooling: dict[str, Any], folder: Path) -> bool:
    """Whether the vector is that of the first token, rather than the mean over all."""
    modes = sorted(name for name, value in pooling.items() if name.startswith("pooling_mode_") and value is True)
    if modes not in (["pooling_mode_cls_token"], ["pooling_mode_mean_tokens"]):
        asked = ", ".join(modes) or "nothing"
        raise BadInput(f"{_FIELD}: {folder}/{POOLING} asks for {asked}; take an encoder of mean or CLS pooling")
    return modes == ["pooling_mode_cls_token"]


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        around = len(tokenizer.encode("").ids) if not tokenizer.padding else 2
    except Exception as error:  # the library raises Exception itself
        raise BadInput(f"{_FIELD}: {path} cannot be read: {one_line(error, 200)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if around != 2 or len(tokenizer.encode("").ids) != 2:
        raise BadInput(f"{_FIELD}: {path} does not put one token before and one after a text, as BERT's does; take another encoder")
    return tokenizer


def _weights(path: Path, config: Mapping[str, Any]) -> Weights:
    """Every tensor in single precision; BadInput where one is missing."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        read = {name.removeprefix("bert."): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError, TypeError, KeyError) as error:  # numpy has no bfloat16
        raise BadInput(f"{_FIELD}: {path} cannot be read, wanted are float32 or float16: {one_line(error, 200)}") from error
    if missing := [name for name in _names(config["num_hidden_layers"]) if name not in read]:
        raise BadInput(f"{_FIELD}: {path} lacks {missing[0]}; take an encoder of BERT's form, or `{PACKAGED}`")
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in read.items()}


def _names(layers: int) -> Iterator[str]:
    yield from (f"embeddings.{part}_embeddings.weight" for part in ("word", "position", "token_type"))
    parts = ["self.query", "self.key", "self.value", "output.dense", "output.LayerNorm"]
    inside = [*(f"attention.{part}" for part in parts), "intermediate.dense", "output.dense", "output.LayerNorm"]
    blocks = ["embeddings.LayerNorm", *(f"encoder.layer.{layer}.{part}" for layer in range(layers) for part in inside)]
    yield from (f"{block}.{kind}" for block in blocks for kind in ("weight", "bias"))
