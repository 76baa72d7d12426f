"""A model's configuration made small: the same classes, kinds of layers and rules, in a few megabytes.

The vocabulary and the size of a head stay, so that real token ids and position encodings fit.
"""

import copy
from typing import Any

LAYERS = 12  # at most; enough for the patterns of hybrid models
# What is made smaller, by its name in configurations; heads keep their size and roughly their ratio.
SMALL = {
    "intermediate_size": 64,
    "intermediate_size_mlp": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "ffn_hidden_size": 64,
    "hidden_size_per_layer_input": 16,
    "n_inner": 64,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "sliding_window": 64,
}
HIDDEN = 64  # units, where heads have a size of their own
WIDEST = 256  # units, where the heads make them: two heads instead of four
WIDTHS = ("hidden_size", "embed_dim", "intermediate_size", "num_attention_heads", "num_heads")  # of towers


def shrunk(config: Any, *, narrow: bool = True) -> Any:
    """Copies the configuration, made small. narrow: towers beside the text part, which are made and never asked, lose not only
    their depth."""
    small = copy.deepcopy(config)
    text = small.get_text_config()
    _shrink_text(text)
    for name in small.sub_configs:
        tower = getattr(small, name, None)
        if tower is not None and tower is not text:
            _set(tower, "num_hidden_layers", 1)
            _set(tower, "depth", 1)
            if narrow:
                _narrow(tower)
    unquantised(small)
    return small


def unquantised(config: Any) -> None:
    """Takes out what says that weights are quantised: there are none."""
    for part in (config, config.get_text_config()):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config


def _shrink_text(text: Any) -> None:
    apart = _taken_apart(text)
    _shrink_alike(text)
    if apart:
        text.per_layer_config = {i: _small_layer(each, text) for i, each in apart.items() if i < text.num_hidden_layers}


def _taken_apart(text: Any) -> dict[int, dict[str, Any]]:
    """Takes out what single layers have of their own, by their numbers (Gemma 4: larger heads in every sixth): while it is there a
    configuration refuses to tell what layers have in common."""
    if not getattr(text, "is_heterogeneous", False):
        return {}
    apart = {int(i): dict(each) for i, each in text.to_dict()["per_layer_config"].items()}
    text.per_layer_config = None
    return apart


def _small_layer(layer: dict[str, Any], text: Any) -> dict[str, Any]:
    """Made no larger than the others are; heads keep their size."""
    most = {name: getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads")} | SMALL
    return {n: min(v, m) if isinstance(v, int) and isinstance(m := most.get(n), int) else v for n, v in layer.items()}


def _shrink_alike(text: Any) -> None:
    head = head_size(text)
    heads = text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    _keep_layers(text, prefix(text))
    for name, value in SMALL.items():
        _set(text, name, value)
    own = bool(getattr(text, "head_dim", None))
    few = 4 if own or 4 * head <= WIDEST else 2
    text.num_attention_heads = few if heads > 1 else 1
    if hasattr(text, "num_key_value_heads"):
        text.num_key_value_heads = text.num_attention_heads if groups == heads else min(groups, few // 2)
    text.hidden_size = HIDDEN if own else head * text.num_attention_heads
    for name in ("block_dim", "conv_dim", "conv_dim_out"):  # of LFM2: the same again
        _set(text, name, text.hidden_size)
    if isinstance(getattr(text, "mamba_n_heads", None), int):
        text.mamba_d_head = 16
        inner = int(getattr(text, "mamba_expand", 2)) * text.hidden_size
        _set(text, "mamba_d_ssm", inner)  # of Falcon-H1: the same again
        text.mamba_n_heads = inner // text.mamba_d_head
    _set(text, "block_ff_dim", SMALL["intermediate_size"])


def _narrow(tower: Any) -> None:
    """Divides widths and heads by the same number, so that a head keeps its size."""
    sizes = {name: value for name in WIDTHS if isinstance(value := getattr(tower, name, None), int) and value > 1}
    by = next((n for n in (8, 4, 2) if all(value % n == 0 for value in sizes.values())), 1)
    for name, value in sizes.items():
        setattr(tower, name, value // by)


def head_size(text: Any) -> int:
    """Computes the units of an attention head."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def prefix(text: Any) -> int:
    """Counts the first layers that show every kind of layer: at least two, where there are as many."""
    layers = int(text.num_hidden_layers)
    kinds = list(zip(*_per_layer(text).values(), strict=True)) or [()] * layers
    whole = next(n for n in range(1, layers + 1) if set(map(str, kinds[:n])) == set(map(str, kinds)))
    return min(layers, LAYERS, max(2, whole, *_periods(text)))


def _per_layer(text: Any) -> dict[str, Any]:
    """What the configuration says layer by layer."""
    layers = int(text.num_hidden_layers)
    return {n: v for n, v in vars(text).items() if isinstance(v, (list, tuple, str)) and len(v) == layers > 2}


def _periods(text: Any) -> list[int]:
    """Every how many layers something happens."""
    ends = ("_period", "_interval", "_sparse_step", "_layer_step", "_pattern")
    return [v for n, v in vars(text).items() if n.endswith(ends) and isinstance(v, int)] + [2]


def _keep_layers(text: Any, count: int) -> None:
    for name, value in _per_layer(text).items():
        setattr(text, name, value[:count])
    text.num_hidden_layers = count


def _set(config: Any, name: str, value: int) -> None:
    """Makes a number smaller, where there is one."""
    current = getattr(config, name, None)
    if isinstance(current, int) and current > value:
        setattr(config, name, value)
