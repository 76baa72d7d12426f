"""Bases in 4 bits: refused in one line where they cannot be had. That they train is for a GPU to show (benchmarks/gpu_check.py)."""

import json

import pytest
from small import a_spec
from transformers import LlamaConfig

from maft import lora, models, quantised
from maft.device import Device
from maft.errors import BadInput
from maft.spec import ModelSpec

CPU = Device("cpu", 0, "float32", "device: the CPU")
FP8 = {"quant_method": "fp8"}


@pytest.mark.parametrize(
    ("told", "device", "installed", "said"),
    [
        (
            {},
            "cpu",
            True,
            "training.base: nf4 needs a GPU, and training would use the CPU; set base to full, or give training a GPU",
        ),
        ({}, "cuda", False, "training.base: nf4 needs bitsandbytes, not installed here; install maft[nf4], or set base to full"),
        (FP8, "cuda", True, "training.base: nf4 on org/model, which is quantised with fp8 already; set base to full"),
        ({"load_in_4bit": True}, "cuda", True, "training.base: nf4 on org/model, which is quantised with bitsandbytes already"),
        (FP8, "cpu", False, "training.base: nf4 on org/model, which is quantised with fp8 already; set base to full"),
    ],
)
def test_what_cannot_be_held_in_4_bits(told: dict[str, object], device: str, installed: bool, said: str) -> None:
    config = LlamaConfig(quantization_config=told) if told else LlamaConfig()
    with pytest.raises(BadInput) as refused:
        quantised.check_nf4(config, "org/model", device, lambda package: installed)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"quant_method": "awq", "bits": 4}, True),
        ({"quant_method": "gptq", "bits": 4}, True),
        ({"quant_method": "gptq", "bits": 8}, False),
        ({"load_in_4bit": True}, False),  # refused: vLLM does not serve it
        ({"load_in_8bit": True}, False),
        ({"quant_method": "mxfp4"}, False),
        ({}, False),
    ],
)
def test_memory_is_predicted_for_bases_that_stay_in_4_bits(told: dict[str, object], expected: bool) -> None:
    assert quantised.trains_in_four_bits(LlamaConfig(quantization_config=told) if told else LlamaConfig()) is expected


def test_what_can() -> None:
    quantised.check_nf4(LlamaConfig(), "org/model", "cuda", lambda package: package == "bitsandbytes")
    quantised.check_nf4(LlamaConfig(quantization_config={}), "org/model", "cuda", lambda package: True)


def test_a_cpu_is_told_before_weights_are_read(tmp_path) -> None:
    LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)  # no weights at all
    spec = ModelSpec(source=str(tmp_path), revision="", trust_remote_code=False, max_length=0, cache_claim="",
                     chat_template_arguments={}, date="2026-01-01")  # fmt: skip
    with pytest.raises(BadInput, match=r"training\.base: nf4 needs a GPU"):
        lora.load_base(spec, CPU, "nf4")


def test_how_it_is_held() -> None:
    held = quantised.nf4("bfloat16")["quantization_config"]
    assert (held.load_in_4bit, held.bnb_4bit_quant_type, held.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert str(held.bnb_4bit_compute_dtype) == "torch.bfloat16"


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("config.json", {"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ("quantize_config.json", {"bits": 4, "group_size": 128}, r"GPTQ as of old \(quantize_config\.json\)"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, r"ModelOpt \(hf_quant_config\.json\)"),
    ],
)
def test_what_is_said_elsewhere_than_in_quantization_config_is_read(file, content, named, tmp_path) -> None:
    LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **content}))
    spec = a_spec(model={"source": str(tmp_path)}).model
    with pytest.raises(BadInput, match=rf"^model\.source: \S+ is quantised with {named}, which does not train; use one"):
        lora.load_base(spec, CPU)
    with pytest.raises(BadInput, match=named):
        models.check(spec)


def test_a_file_of_old_beside_a_configuration_that_says_more_changes_nothing(tmp_path) -> None:
    LlamaConfig(hidden_size=64, quantization_config={"quant_method": "gptq", "bits": 4}).save_pretrained(tmp_path)
    (tmp_path / "quantize_config.json").write_text('{"bits": 4}')
    assert quantised.method(models.config(a_spec(model={"source": str(tmp_path)}).model)) == "gptq"
