"""What a configuration tells by itself: heads, context, kinds of models that are served or trained in no way."""

from typing import Any

from maft import vllm_rules
from maft.errors import BadInput
from maft.spec import ModelSpec, Spec


def context(config: Any, model: ModelSpec) -> int:
    """Tells how many tokens a sequence may have: as the spec limits it, else the model; 0 where neither does."""
    return model.max_length or _positions(config)


def _positions(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)


_TAKE = "take a causal language model"
_WRITES_NOT = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "RewardModel")


def _check_writes(config: Any, source: str) -> None:
    """Raises BadInput for models that answer no chat, though their layers are those of one: readers, graders, transcribers."""
    if getattr(config, "is_encoder_decoder", False):
        raise BadInput(f"model.source: {source} is an encoder with a decoder ({config.model_type}), which serves no chat; {_TAKE}")
    if named := next((name for name in config.architectures or () if name.endswith(_WRITES_NOT)), ""):
        raise BadInput(f"model.source: {source} is a {named}, which writes no answers; {_TAKE}")


def _check_heads(config: Any, spec: Spec) -> None:
    """Raises BadInput where the GPUs among which a server splits a layer cannot share out the attention heads."""
    text, asked = config.get_text_config(), spec.inference.gpus
    gpus = vllm_rules.tensor_size(spec.inference.extra_args, asked) if asked else 0
    field = "inference.gpus" if gpus == asked else "inference.extraArgs: --tensor-parallel-size"
    heads = int(getattr(text, "num_attention_heads", None) or 0)
    if heads and gpus and heads % gpus:  # 0: a CPU, which shards nothing
        possible = ", ".join(str(n) for n in range(1, gpus + 1) if heads % n == 0)
        raise BadInput(f"{field}: {gpus} does not divide the {heads} attention heads of {spec.model.source}; set one of {possible}")
    keys = int(getattr(text, "num_key_value_heads", None) or 0)
    if keys and gpus and keys % gpus and gpus % keys:  # vLLM gives each GPU some of them, or several the same one
        possible = ", ".join(str(n) for n in range(1, gpus) if heads % n == 0 and (keys % n == 0 or n % keys == 0))
        raise BadInput(
            f"{field}: {gpus} GPUs cannot share the {keys} key-value heads of {spec.model.source}; set one of {possible}"
        )


def check(config: Any, spec: Spec) -> None:
    """Raises BadInput for what no server would do."""
    _check_writes(config, spec.model.source)
    _check_heads(config, spec)
    if spec.evaluation.diversity and spec.training.parallelism == "Sharded":
        raise BadInput(
            "evaluation.diversity: is measured with the whole base on one GPU, where training.parallelism Sharded says that it does"
            " not fit; set it to 0, or parallelism to Adapters"
        )
    vllm_rules.served_rank(spec.training.lora.rank)
    limit, asked = _positions(config), spec.model.max_length
    if limit and asked > limit and not _stretched(config.get_text_config()):
        raise BadInput(f"model.maxLength: {asked} is more than the {limit} positions of {spec.model.source}; set {limit} or less")


def _stretched(text: Any) -> bool:
    """Rotary positions that reach further than the model was trained for."""
    rope = getattr(text, "rope_parameters", None) or {}
    return any(each.get("rope_type", "default") != "default" for each in (rope, *rope.values()) if isinstance(each, dict))
