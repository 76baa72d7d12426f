"""Which of the tensors that lie in a model's files are loaded, by training and by servers: models bring along more. Pure."""

import re
from collections.abc import Mapping
from typing import Any

GIB = 2**30
_AHEAD = re.compile(r"(^|\.)mtp[._]")  # layers that guess tokens ahead: transformers has none, vLLM where it is told to guess
_HEAD = re.compile(r"(^|\.)lm_head\.weight")
_LAYER = re.compile(r"((model|language_model)\.)*layers\.(\d+)\.")  # of the text part; towers have layers as well

Shapes = Mapping[str, tuple[int, ...]]


def is_tied(config: Any) -> bool:
    """Tells whether the head is the embeddings once more. config: as transformers reads it."""
    return any(getattr(part, "tie_word_embeddings", False) for part in (config, config.get_text_config()))


def loaded(shapes: Shapes, config: Any) -> dict[str, tuple[int, ...]]:
    """Leaves out layers that guess tokens ahead, also those that are numbered on as layers of the model (DeepSeek V3, GLM-4.5), and
    a head beside embeddings that it is tied to. shapes: by name; config: as transformers reads it."""
    tied, layers = is_tied(config), getattr(config.get_text_config(), "num_hidden_layers", None)

    def left_out(name: str) -> bool:
        number = _LAYER.match(name)
        beyond = number is not None and isinstance(layers, int) and int(number[3]) >= layers
        return beyond or bool(_AHEAD.search(name)) or (tied and bool(_HEAD.search(name)))

    return {name: shape for name, shape in shapes.items() if not left_out(name)}
