"""Preflight: what models of every family go through before a server starts, and what is refused there in one line."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from families import COMPOSITE, FAMILIES, MIXTURES, config, write
from s3server import s3_fixture  # noqa: F401 - the fixture `s3`
from small import a_spec
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from maft import lora, targets, vllm_rules
from maft.debate.society import training_rules
from maft.errors import BadInput
from maft.preflight import __main__ as preflight
from maft.preflight import facts, longest, room
from maft.preflight.shrink import shrunk
from maft.program import Assignment
from maft.spec import immutable_spec_json
from maft.store import trials
from maft.store.files import FileStore
from maft.store.urls import open_store
from maft.summaries import PreflightSummary

pytestmark = pytest.mark.models
ALTERED = ("glm", "phi", "starcoder2", "seed_oss", "arcee", "nemotron", "gpt_neox")  # and olmo3, smollm3
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def tried(folder, store, **spec) -> PreflightSummary:
    given = a_spec(model={"source": str(folder)}, **spec)
    return preflight.main(Assignment(store=FileStore(store), run="ns/run", given_spec=given))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_vllm_takes_its_adapter(family, tmp_path):
    threads = torch.get_num_threads()
    summary = tried(write(config(family), tmp_path / "model"), tmp_path / "store")
    assert torch.get_num_threads() == threads  # the trial takes one; what comes after it in the program may want all
    assert summary.modules >= 2 and summary.training_bytes > 0
    assert not [line for line in summary.warnings if "could not be asked" in line], summary.warnings


# Over these vLLM alters transformers' own classes in this process: each goes through one test alone.
@pytest.mark.parametrize("family", ALTERED)
def test_memory_is_predicted_where_vllm_alters_the_classes_of_transformers(family, tmp_path):
    folder = write(config(family, num_key_value_heads=8), tmp_path / "model")
    assert tried(folder, tmp_path / "store").training_bytes > 0


def test_two_kinds_of_adapters_are_tried_where_vllm_alters_the_classes_of_transformers(tmp_path):
    override = [{"agent": 1, "lora": {"rank": 8, "alpha": 16}}]
    summary = tried(write(config("olmo3"), tmp_path / "model"), tmp_path / "store", agentOverrides=override)
    assert summary.training_bytes > 0
    assert not [line for line in summary.warnings if "could not be asked" in line], summary.warnings


# --- M3: configurations of several parts ---


@pytest.mark.parametrize("family", COMPOSITE)
def test_of_a_model_of_several_parts_the_text_part_alone_is_trained(family, tmp_path):
    base = lora.new_base(shrunk(config(family)), a_spec().model)
    inside = targets.text_part(base)
    assert inside
    adapted = lora.adapt(base, a_spec().training.lora, None)
    names = [name.removeprefix("base_model.model.") for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert names and all(name.startswith(f"{inside}.") for name in names)
    assert not [name for name, _ in base.named_modules() if "vision_tower" in name or ".visual." in name]


# --- M4: experts ---


def adapted_layers(family, **lora_fields):
    base = lora.new_base(shrunk(config(family)), a_spec().model)
    model = lora.adapt(base, a_spec(training={"lora": {"rank": 16, "alpha": 32, **lora_fields}}).training.lora, None)
    return {name for name, _ in model.named_parameters() if "lora_" in name}, model.peft_config["default"]


@pytest.mark.parametrize("family", MIXTURES)
def test_no_expert_and_no_router_gets_an_adapter_unasked(family):
    layers, made = adapted_layers(family)
    assert layers and not [name for name in layers if "expert" in name or "router" in name or ".gate." in name or ".mlp." in name]
    assert made.r == 16 and not made.rank_pattern and not made.target_parameters


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_5_moe"])
def test_experts_get_adapters_where_the_server_takes_them(family, tmp_path):
    layers, made = adapted_layers(family, experts=True)
    assert [name for name in layers if ".experts." in name] and [name for name in layers if "attn" in name]
    assert made.r == 16 and not made.rank_pattern
    tried(
        write(config(family), tmp_path / "model"), tmp_path / "store", training={"lora": {"experts": True, "rank": 4, "alpha": 8}}
    )


@pytest.mark.parametrize(
    ("family", "fields", "said"),
    [
        ("qwen3_moe", {"experts": True}, "training.lora.experts: servers take no adapters of the experts of qwen3_moe"),
        ("llama", {"experts": True}, "training.lora.experts: llama has no experts"),
        ("gpt_oss", {"experts": True, "dropout": 0.1}, "training.lora.dropout: 0.1 is not possible with training.lora.experts"),
        ("qwen3_moe", {"targetModules": ["q_proj", "down_proj"]}, "training.lora.targetModules: down_proj is no attention layer"),
        ("mixtral", {"targetModules": ["w1", "w2", "w3"]}, "training.lora.targetModules: w1 is no attention layer"),
        ("qwen3", {"targetModules": ["no_such"]}, "targetModules: no layer of this model is named no_such; there is .*q_proj"),
        ("qwen3", {"targetModules": ["q_proj", "q_projj"]}, "targetModules: no layer .* named q_projj; did you mean q_proj"),
        ("qwen3", {"targetModules": ["mlp"]}, "targetModules: mlp is a block of layers; name those in it: down_proj, gate_"),
        ("qwen3", {"targetModules": ["lm_head"]}, "training.lora.targetModules: .*lm_head"),
        ("qwen3", {"targetModules": ["embed_tokens"]}, "training.lora.targetModules: .*embed_tokens"),
    ],
)
def test_adapters_that_cannot_be_had_are_refused(family, fields, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        tried(write(config(family), tmp_path / "model"), tmp_path / "store", training={"lora": {"rank": 4, "alpha": 8, **fields}})


# --- what vLLM says ---


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("mamba", "MambaForCausalLM, which vLLM serves without adapters; use another model"),
        ("mamba2", "Mamba2ForCausalLM, which vLLM serves without adapters"),
        ("codegen", "CodeGenForCausalLM, which vLLM does not serve"),
    ],
)
def test_of_a_model_of_which_there_is_no_small_copy_vllm_is_asked_all_the_same(family, says, tmp_path):
    with pytest.raises(BadInput, match=rf"^model\.source: \S+ is a {says}"):
        tried(write(config(family), tmp_path / "model"), tmp_path / "store")


@pytest.mark.parametrize(
    ("family", "fields", "says"),
    [
        ("whisper", {}, r"encoder with a decoder \(whisper\), which serves no chat; take a causal language model"),
        ("bart", {}, r"encoder with a decoder \(bart\)"),
        ("bert", {"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, which writes no answers; take a causal language model"),
        ("qwen2", {"architectures": ["Qwen2ForRewardModel"]}, "Qwen2ForRewardModel, which writes no answers"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification, which writes"),
    ],
)
def test_models_that_write_no_answers_are_refused(family, fields, says, tmp_path):
    """Of all of these transformers makes a causal model, and vLLM serves most of them, as something else."""
    made = config(family)
    made.update(fields)
    with pytest.raises(BadInput, match=rf"^model\.source: \S+ is an? {says}"):
        tried(write(made, tmp_path / "model"), tmp_path / "store")


def test_a_class_that_vllm_takes_from_transformers_is_served(tmp_path):
    summary = tried(write(config("helium"), tmp_path / "model"), tmp_path / "store")
    assert [line for line in summary.warnings if "training was not tried" in line]
    assert not [line for line in summary.warnings if "could not be asked" in line], summary.warnings


def test_where_vllm_takes_no_adapter_of_a_layer_it_is_said_what_to_set(tmp_path):
    """GLM-4's projections in one, which vLLM has apart."""
    folder = write(config("glm4"), tmp_path / "model")
    says = r"^training\.lora\.targetModules: vLLM takes no adapter of gate_up_proj in this model; set it to "
    with pytest.raises(BadInput, match=says) as refused:
        tried(folder, tmp_path / "store")
    taken = str(refused.value).partition("set it to ")[2].split(", ")
    tried(folder, tmp_path / "store", training={"lora": {"rank": 4, "alpha": 8, "targetModules": taken}})


# --- M5: attention ---


def test_a_model_gets_the_attention_that_it_has(tmp_path):
    assert lora.new_base(shrunk(config("gpt_oss")), a_spec().model).config._attn_implementation == "eager"
    assert lora.new_base(shrunk(config("qwen3")), a_spec().model).config._attn_implementation == "sdpa"


# --- M6: quantised bases ---


def quantised(family, tmp_path, told):
    folder = write(config(family), tmp_path / "model")
    made = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**made, "quantization_config": told}))
    return folder


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (AWQ, "is quantised with awq; training it needs gptqmodel, not installed here"),
        (GPTQ, "is quantised with gptq; training it needs gptqmodel and optimum"),
        (BNB, "is quantised with bitsandbytes, which vLLM does not serve; use one that is not quantised"),
        ({"load_in_8bit": True}, "is quantised with bitsandbytes"),
        ({"quant_method": "aqlm"}, "is quantised with aqlm, which does not train"),
        ({"quant_method": "of-tomorrow"}, "is quantised with of-tomorrow, which does not train"),
        ({"bits": 4}, "is quantised with a method that is not named, which does not train"),
        ({}, "the quantization_config of its config.json is empty; take it out of the file"),
    ],
)
def test_a_quantised_base_is_said_in_one_line(told, said, tmp_path):
    with pytest.raises(BadInput, match=rf"model\.source: .* {said}") as caught:
        tried(quantised("llama", tmp_path, told), tmp_path / "store")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", [{"quant_method": "mxfp4"}, {"quant_method": "fp8", "weight_block_size": [128, 128]}])
def test_what_is_dequantised_for_training_passes(told, tmp_path):
    assert tried(quantised("gpt_oss", tmp_path, told), tmp_path / "store").architecture == "GptOssForCausalLM"


# --- tensor parallel, rank, context ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inference": {"gpus": 3}}, r"inference\.gpus: 3 does not divide the 32 attention heads of .*; set one of 1, 2"),
        ({"model": {"maxLength": 4096}}, r"model\.maxLength: 4096 is more than the 2048 positions"),
        ({"debate": {"maxTokens": 2048}}, r"debate\.maxTokens: the longest of the train questions takes \d+ tokens"),
        ({"debate": {"thinking": "Enabled"}}, r"debate\.thinking: Enabled"),
    ],
)
def test_what_no_server_would_do_is_refused(fields, said, tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    model = {"source": str(folder), **fields.get("model", {})}
    with pytest.raises(BadInput, match=said):
        spec = a_spec(**{**fields, "model": model})
        preflight.main(Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=spec))


@pytest.mark.parametrize(("keys", "gpus", "fits"), [(10, 4, "1, 2"), (8, 4, ""), (2, 4, ""), (1, 8, ""), (10, 2, "")])
def test_key_value_heads_are_shared_out_as_well(keys, gpus, fits, tmp_path):
    """Phi-4 has 40 heads and 10 of keys: vLLM would end with an assertion on four GPUs."""
    made, spec = config("llama", num_attention_heads=40, num_key_value_heads=keys), a_spec(inference={"gpus": gpus})
    if not fits:
        return facts.check(made, spec)
    with pytest.raises(BadInput, match=rf"^inference\.gpus: {gpus} GPUs cannot share the {keys} key-value heads .* one of {fits}$"):
        facts.check(made, spec)


def test_a_base_in_parts_is_not_measured_as_a_whole():
    spec = a_spec(evaluation={"diversity": 4}, training={"parallelism": "Sharded", "gpus": 2})
    with pytest.raises(BadInput, match=r"^evaluation\.diversity: .* training\.parallelism Sharded"):
        facts.check(config("llama"), spec)


@pytest.mark.parametrize("rounds", [2, 4])
def test_the_limit_that_is_advised_goes_all_the_way(rounds, tmp_path):
    """Neither refused nor in the way of a later round."""
    folder = write(config("llama"), tmp_path / "model")
    with pytest.raises(BadInput, match=r"set debate\.maxTokens to \d+ or less, or set model\.maxLength") as caught:
        tried(folder, tmp_path / "store", debate={"maxTokens": 4000, "rounds": rounds})
    advised = int(str(caught.value).partition("set debate.maxTokens to ")[2].split()[0])
    summary = tried(folder, tmp_path / "again", debate={"maxTokens": advised, "rounds": rounds})
    assert not [line for line in summary.warnings if line.startswith("debate.rounds: ")]


def test_where_no_limit_would_do_other_questions_are_advised(tmp_path):
    folder = write(config("llama", max_position_embeddings=64), tmp_path / "model")
    with pytest.raises(BadInput, match="take shorter questions or prompts, or fewer rounds"):
        tried(folder, tmp_path / "store", debate={"maxTokens": 60, "rounds": 4})


@pytest.mark.parametrize(("tokens", "warned"), [(0, False), (64, True)])
def test_room_for_thoughts_that_a_template_does_not_know_is_warned_of(tokens, warned, tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    summary = tried(folder, tmp_path / "store", debate={"maxTokens": 32, "thinkingTokens": tokens})
    says = "debate.thinkingTokens: the chat template knows no thoughts, so answers may have 96 tokens; leave it out"
    assert any(line.startswith(says) for line in summary.warnings) == warned


def test_words_of_later_rounds_alone_that_leave_no_room_are_refused(tmp_path):
    folder = write(config("llama", max_position_embeddings=256), tmp_path / "model")
    says = r"^debate\.prompts: the longest of .* takes .*, \d+ with what debate\.prompts says in round 2, an answer 1; .* 256: "
    with pytest.raises(BadInput, match=says + "take shorter questions or prompts, or fewer rounds, or set model.maxLength"):
        tried(
            folder,
            tmp_path / "store",
            debate={"maxTokens": 1, "rounds": 2, "prompts": {"revise": "{summary} {question}" + " word" * 300}},
        )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--gpu-memory-utilisation=0.8"], "unrecognized arguments: .*; did you mean --gpu-memory-utilization"),
        (["--nothing-like-it"], "unrecognized arguments: --nothing-like-it$"),
        (["--help"], r"unrecognized arguments: --help; did you mean --headless\?$"),
        (["--block-size", "many"], "argument --block-size: invalid int value: 'many'"),
        (["--port=1"], "--port is set by maft, which asks the server by it; leave it out"),
        (["--served-model", "x"], "--served-model-name is set by maft"),
        (["--api_key=secret"], "--api-key is set by maft"),
        (["--headless"], "--headless is set by maft"),
        (["--max-model-len=32"], r"--max-model-len is set by maft, from model\.maxLength; set that"),
        (["--max-lora-rank", "8"], r"--max-lora-rank is set by maft, from training\.lora\.rank; set that"),
        (["--dtype=half", "another"], "'another' is no flag of vLLM; write --name=value in one line"),
    ],
)
def test_flags_that_vllm_does_not_take_are_said_before_a_server_starts(flags, says, tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    with pytest.raises(BadInput, match=rf"^inference\.extraArgs: (vLLM says: )?{says}"):
        tried(folder, tmp_path / "store", inference={"extraArgs": flags})


@pytest.mark.parametrize(
    ("gpus", "flags", "says"),
    [
        (1, ["--tensor-parallel-size=8"], "8 × 1 × 1, and inference.gpus is 1"),
        (4, ["-tp", "2"], "2 × 1 × 1, and inference.gpus is 4"),
        (4, ["--pipeline-parallel-size=2"], "1 × 2 × 1, and inference.gpus is 4"),
        (4, ["--tensor-parallel-size=2", "--pipeline-parallel-size=2"], ""),
        (2, ["--data-parallel-size=2"], ""),
        (0, ["--tensor-parallel-size=2"], ""),  # of a processor's parts
        (None, ["--tensor-parallel-size=2"], ""),
    ],
)
def test_flags_share_a_model_among_as_many_gpus_as_it_has(gpus, flags, says):
    if says:
        with pytest.raises(BadInput, match="tensor × pipeline × data parallel sizes are " + says):
            vllm_rules.check_flags(flags, gpus)
    else:
        vllm_rules.check_flags(flags, gpus)


def test_flags_that_it_takes_pass(tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    flags = ["--max-num-seqs=12", "--enable-prefix-caching", "--gpu_memory_utilization=0.7", "--max-num-batched-tokens", "1k"]
    assert tried(folder, tmp_path / "store", inference={"extraArgs": flags}).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "given", [[], ["--data-parallel-size=2"], ["-dp", "4"], ["--pipeline_parallel_size", "4"], ["-tp=2", "-pp=2"]]
)
def test_a_servers_whole_line_shares_it_among_as_many_gpus_as_it_has(given):
    pytest.importorskip("vllm")
    own = vllm_rules.tensor_size(given, 4)
    line = [*given, f"--tensor-parallel-size={own}"]
    if given == ["--data-parallel-size=2"]:  # refused as it was written, not made into one of eight
        with pytest.raises(BadInput, match=r"1 × 1 × 2, and inference\.gpus is 4"):
            vllm_rules.check_flags(line, 4)
    else:
        vllm_rules.check_flags(line, 4)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "inference.gpus: 3 does not divide the 32"),
        (["--tensor-parallel-size", "3"], "inference.gpus: 3 does not divide the 32"),
        (["--tensor_parallel_size=5"], "inference.extraArgs: --tensor-parallel-size: 5 does not divide the 32"),
        (["--data-parallel-size=3"], ""),
        (["-pp", "3"], ""),
    ],
)
def test_heads_are_shared_among_the_gpus_of_a_layer(flags, says):
    made, spec = config("llama", num_attention_heads=32), a_spec(inference={"gpus": 3, "extraArgs": flags})
    with pytest.raises(BadInput, match=f"^{says}") if says else nullcontext():
        facts.check(made, spec)


@pytest.mark.parametrize(("gpus", "refused"), [(0, True), (None, False), (2, False)])
def test_a_mixture_of_experts_whose_servers_are_to_have_no_gpu_is_refused(gpus, refused, tmp_path):
    folder = write(config("mixtral"), tmp_path / "model")
    asked = {} if gpus is None else {"inference": {"gpus": gpus}}
    if refused:
        with pytest.raises(BadInput, match=r"is a mixture of experts.*; set inference\.gpus, or take another model"):
            tried(folder, tmp_path / "store", **asked)
    else:
        assert any("mixture of experts" in line for line in tried(folder, tmp_path / "store", **asked).warnings)


def test_a_mixture_of_experts_is_refused_where_the_servers_would_start_beside(tmp_path, monkeypatch):
    monkeypatch.setenv("MAFT_WATCHED", "1")
    with pytest.raises(BadInput, match=r"is a mixture of experts.*; its servers need a GPU; set inference\.gpus, or take another"):
        tried(write(config("mixtral"), tmp_path / "model"), tmp_path / "store")


def test_code_that_comes_with_a_model_is_named_by_its_field(tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    made = json.loads((folder / "config.json").read_text())
    made |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(made))
    with pytest.raises(BadInput, match=r"^model\.trustRemoteCode: .* comes with Python code of its own"):
        tried(folder, tmp_path / "store")


@pytest.mark.parametrize("gpus", [0, 2])
def test_servers_on_a_cpu_share_no_heads(gpus, tmp_path):
    summary = tried(write(config("llama"), tmp_path / "model"), tmp_path / "store", inference={"gpus": gpus})
    assert summary.architecture == "LlamaForCausalLM"


def test_what_is_clipped_is_said(tmp_path):
    """Row M8: six agents, a context of 4k, 1024 new tokens."""
    folder = write(config("llama", max_position_embeddings=4096), tmp_path / "model")
    summary = tried(folder, tmp_path / "store", agents=6, debate={"maxTokens": 1024, "rounds": 2})
    assert summary.context == 4096 and summary.longest_prompt > 5 * 1024
    assert any(f"up to {summary.longest_prompt - 3072} tokens of what others said are clipped" in line for line in summary.warnings)
    enough = write(config("llama", max_position_embeddings=131072), tmp_path / "long")
    assert tried(enough, tmp_path / "other", agents=6, debate={"maxTokens": 1024, "rounds": 2}).warnings == ()


def test_answers_of_its_own_that_fill_the_context_are_said(tmp_path):
    folder = write(config("llama", max_position_embeddings=4096), tmp_path / "model")
    summary = tried(folder, tmp_path / "store", debate={"maxTokens": 1500, "rounds": 4})
    assert any("in the last round an agent's own 3 answers can fill the context" in line for line in summary.warnings)


def test_arguments_that_the_template_does_not_know_are_told_with_the_nearest(tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text() if (folder / "chat_template.jinja").exists() else None
    made = json.loads((folder / "tokenizer_config.json").read_text())
    template = template or made.get("chat_template")
    (folder / "chat_template.jinja").write_text("{% if shorter_thoughts is defined %}{% endif %}" + template)
    given = {"source": str(folder), "chatTemplateArguments": {"shorter_thought": True, "zzz": 1}}
    spec = a_spec(model=given)
    summary = preflight.main(Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=spec))
    assert [line for line in summary.warnings if "does not read shorter_thought; did you mean shorter_thoughts?" in line]
    assert [line for line in summary.warnings if "does not read zzz; it reads " in line]


# --- tokenizers ---


def with_tokenizer(folder, pre_tokenizer, decoder):
    """The demo's tokenizer, made to split and to join in another way."""
    made = json.loads((folder / "tokenizer.json").read_text())
    made["pre_tokenizer"], made["decoder"] = pre_tokenizer, decoder
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return folder


def test_a_tokenizer_that_loses_spaces_is_refused(tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    split = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    with_tokenizer(folder, split, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True})
    with pytest.raises(BadInput, match=r"model\.source: the tokenizer of .* loses spaces: 'What is 12 .*' becomes 'Whatis12"):
        tried(folder, tmp_path / "store")


def test_tokens_that_the_model_does_not_know_are_refused(tmp_path):
    folder = write(config("llama", vocab_size=8, eos_token_id=1), tmp_path / "model")
    with pytest.raises(BadInput, match=r"uses token \d+, and the model knows 8; they do not belong together"):
        tried(folder, tmp_path / "store")


# --- once ---


def test_what_was_tried_is_not_tried_again(tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    first = tried(folder, tmp_path / "store")
    (folder / "tokenizer.json").unlink()
    assert tried(folder, tmp_path / "store") == first
    with pytest.raises(BadInput):
        tried(folder, tmp_path / "store", seed=7)


def test_dpo_and_every_turn_are_tried_as_they_train(tmp_path):
    folder = write(config("qwen3"), tmp_path / "model")
    for number, training in enumerate(({"method": "dpo"}, {"method": "kto"}, {"lossOn": "all"})):
        assert tried(folder, tmp_path / str(number), training=training).modules


def meta_shapes(made):
    """Of the whole model."""
    with torch.device("meta"):
        return {name: list(tensor.shape) for name, tensor in AutoModelForCausalLM.from_config(made).state_dict().items()}


@pytest.mark.s3
def test_of_a_model_in_a_bucket_no_weights_are_fetched(s3, tmp_path, monkeypatch):
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    url = s3.url("preflight-model")
    for file in write(config("llama"), tmp_path / "model").iterdir():
        open_store(url).write(file.name, file.read_bytes())
    shapes = meta_shapes(config("llama"))
    header = json.dumps(
        {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    ).encode()
    open_store(url).write("model.safetensors", len(header).to_bytes(8, "little") + header)  # and no tensor
    spec = a_spec(model={"source": url})
    assert preflight.main(Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=spec)).modules
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    header = header.replace(b"layers.31.", b"layers.99.")
    open_store(url).write("model.safetensors", len(header).to_bytes(8, "little") + header)
    with pytest.raises(BadInput, match=r"do not fit its config\.json"):
        preflight.main(Assignment(store=FileStore(tmp_path / "other"), run="ns/run", given_spec=spec))


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
    def __init__(self, config):
        if config.num_hidden_layers < 30:
            raise ValueError("too small for me")
        super().__init__(config)
"""


@pytest.mark.parametrize("refuses", [True, False])
def test_code_of_a_models_makers_is_tried_as_far_as_it_lets_itself(refuses, tmp_path):
    folder = write(config("llama"), tmp_path / f"model{refuses}")
    made = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**made, "model_type": "own", "architectures": ["OwnModel"], "auto_map": names}))
    (folder / "own.py").write_text(CODE if refuses else CODE.replace("< 30", "< 0"))
    spec = a_spec(model={"source": str(folder), "trustRemoteCode": True})
    assignment = Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=spec)
    summary = preflight.main(assignment)
    assert summary.architecture == "OwnModel" and summary.modules > 0
    assert any("too small for me" in line for line in summary.warnings) is refuses


@pytest.mark.parametrize(("tokens", "warned"), [(0, False), (10, False), (5000, True)])
def test_thoughts_that_do_not_fit_are_said(tokens, warned):
    spec = a_spec(debate={"thinkingTokens": tokens})
    rules = training_rules(spec, 1)
    found = longest.warnings(rules, longest.Lengths(first=20, own=20, longest=20), 4096, "train")
    assert any(line.startswith("debate.thinkingTokens: thought and answer may take 5080 tokens") for line in found) == warned
    assert room.longest_answer(spec) == 80 + tokens
    assert room.longest_answer(a_spec(debate={"thinkingTokens": tokens}, training={"trainThoughts": False})) == 80


# --- a build of vLLM for GPUs where there is none ---

NO_PLATFORM = """
import sys
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform
vllm.platforms._current_platform = UnspecifiedPlatform()  # what such a build finds on a machine without a GPU
from maft.preflight import __main__ as preflight
from maft.program import run
sys.argv = ["preflight", *sys.argv[1:]]
run(preflight.main, preflight.PARSER)
"""


def test_where_vllm_sees_no_device_its_servers_ask_it_later(tmp_path):
    spec = a_spec()
    flags = [f"--store={tmp_path}", "--run=ns/run", f"--spec={immutable_spec_json(spec)}"]
    done = subprocess.run([sys.executable, "-c", NO_PLATFORM, *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    commit = trials.found(FileStore(tmp_path), "ns/run", spec)
    assert commit and commit.files and commit.meta["vllm"] is False  # serve/tried.py asks then


@pytest.mark.parametrize("named", [[5], "LlamaForCausalLM", {"a": 1}])
def test_architectures_that_are_no_names_are_told(named, tmp_path):
    folder = write(config("llama"), tmp_path / "model")
    made = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**made, "architectures": named}))
    with pytest.raises(
        BadInput, match=r"^model\.source: .*: the architectures of its config\.json are .*; expected names of classes"
    ):
        tried(folder, tmp_path / "store")


def test_layers_of_a_list_are_named_as_wholes():
    """PEFT would take `0` for the first block of the model, too."""
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    )
    model.model.layers[0].mlp.adapters = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    made = targets.chosen(model, a_spec().training.lora)["target_modules"]
    assert {f"model.layers.0.mlp.adapters.{n}" for n in range(2)} < set(made) and not {"0", "1"} & set(made)
