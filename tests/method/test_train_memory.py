"""Memory of training: a loss without all logits, attention without a mask, rows that are halved where memory ends, a prediction."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import ROOT, TINY
from families import FAMILIES, write_weights
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from small import a_spec
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from maft import lora, pod, tensors
from maft.chat_template import Tokens
from maft.device import Device, Facts
from maft.errors import BadInput
from maft.model_files import folder_shapes
from maft.packing import in_parts, pack
from maft.preflight import room
from maft.preflight.room import Limit
from maft.spec import Spec
from maft.train import attention, forward, memory
from maft.train.forward import Forward
from maft.train.loss import Head, log_probabilities
from maft.train.memory import Needs
from maft.train.objectives import NextToken
from maft.train.trainer import Trainer

SPEC = a_spec(training={"batchSize": 8})
CPU, HALF = Device("cpu", 0, "float32", ""), Device("cuda", 1, "bfloat16", "")
# Of models whose attention is not torch's own, or that mix a row's examples: by a mask, or one by one.
BY_MASK = {"gpt_oss", "llama4", "qwen3_5", "qwen3_5_moe"}
ALL_LOGITS = {"llama4"}  # its inner model says nothing but logits


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def example(length: int, answer: int, seed: int) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 300, (length,), generator=draw).tolist()
    return Tokens(tuple(ids), tuple(position >= length - answer for position in range(length)))


EXAMPLES = [example(length, 4 + length // 3, length) for length in (9, 200, 31, 70, 12, 65, 64, 130, 5)]


def tiny_model(kind: str = "llama", **changes):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16,
             "num_key_value_heads": 2, "vocab_size": 320}  # fmt: skip
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{**sizes, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.requires_grad_(False).eval()


def with_adapter(base):
    model = lora.adapt(base, SPEC.training.lora, None)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.train()


def gradient(model, way: Forward, rows) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    with way.attending(model.get_base_model()):
        for row in rows:
            (-way.log_probabilities(model, row)[1].sum()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).norm() / other.norm()).detach())


# --- the loss ---


@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.125])
@pytest.mark.parametrize("targets", [1, 64, 1000])
def test_a_loss_in_chunks_is_that_of_all_logits(cap, scale, targets):
    torch.manual_seed(0)
    weight, bias = torch.randn(70_000, 32), torch.randn(70_000)
    states, labels = torch.randn(targets, 32, requires_grad=True), torch.randint(0, 70_000, (targets,))
    head = Head(weight, bias, scale, cap)
    assert head.rows() < 1000
    each = log_probabilities(head, states, labels)
    (ours,) = torch.autograd.grad(each.square().sum(), states)  # as dpo does, each target has a weight of its own
    logits = torch.nn.functional.linear(states, weight, bias) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    plain = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    (theirs,) = torch.autograd.grad(plain.square().sum(), states)
    assert apart(each, plain) < 1e-5 and apart(ours, theirs) < 1e-5


def test_in_half_precision_the_loss_is_in_single():
    torch.manual_seed(0)
    head = Head(torch.randn(500, 32).bfloat16())
    states = torch.randn(20, 32).bfloat16().requires_grad_()
    each = log_probabilities(head, states, torch.arange(20))
    each.sum().backward()
    assert each.dtype == torch.float32 and states.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("granite", {"logits_scaling": 4.0}),
        ("cohere", {"logit_scale": 0.5}),
        ("mistral", {"sliding_window": 16}),
    ],
)
def test_gradients_of_a_packed_row_are_those_of_each_example_alone(kind, changes):
    """All shortcuts against none: by example and in chunks, and one at a time with all logits."""
    base = tiny_model(kind, **changes)
    way = forward.fitting(base, EXAMPLES)
    assert way.head is not None and way.packs
    model = with_adapter(base)
    expected = gradient(model, Forward(packs=False), [[each] for each in EXAMPLES])
    assert apart(gradient(model, way, [EXAMPLES]), expected) < 1e-5
    assert apart(gradient(model, way, [EXAMPLES[:4], EXAMPLES[4:]]), expected) < 1e-5


def test_what_a_model_allows_is_tried_with_few_logits_however_long_answers_are():
    base, most = tiny_model(), []
    base.lm_head.register_forward_hook(lambda _, given, made: most.append(made.shape[-2]))
    way = forward.fitting(base, [example(400, 300, 1), example(500, 450, 2)])
    assert way.packs and way.head is not None and 0 < max(most) <= 2 * forward.TRIED


def test_an_example_in_parts_counts_each_target_once():
    whole = example(40, 25, 3)
    parts = list(in_parts(whole, 10))
    assert [sum(part.completion) for part in parts] == [10, 10, 5] and all(part.ids == whole.ids for part in parts)
    assert [any(counts) for counts in zip(*(part.completion for part in parts), strict=True)] == list(whole.completion)
    assert list(in_parts(Tokens((1, 2), (True, False)), 10)) == []  # nothing predicts a first token


def test_a_base_that_float16_does_not_hold_trains_nothing_and_says_so(tmp_path):
    """Steps whose gradients are not finite are left out, so that weights alone would show nothing."""
    base = tiny_model().half()
    base.model.layers[0].mlp.down_proj.weight.mul_(1e7)
    with pytest.raises(BadInput, match=r"^model\.source: the loss is nan: .* float16 does not hold; train on a GPU with bfloat16"):
        Trainer(base, SPEC.training, lambda loss: None).train(EXAMPLES, tmp_path / "adapter", seed=1, previous=None)


def test_steps_that_float16_leaves_out_are_counted(tmp_path, capsys):
    """The scaler starts too high for this loss, and says so by its first steps."""
    base = tiny_model().half()
    curve = Trainer(base, SPEC.training, lambda loss: None, Steep()).train(EXAMPLES, tmp_path / "a", seed=1, previous=None)
    assert all(map(math.isfinite, curve))
    assert re.search(r"^[1-9]\d* of \d+ steps changed nothing: gradients were larger than float16", capsys.readouterr().err, re.M)


class Steep(NextToken):
    """The same loss in units so small that its gradients are large."""

    def loss(self, each, row, part, batch):
        return super().loss(each, row, part, batch) * 100.0


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        ("gemma2", "float16", "float32"),
        ("gemma3", "float16", "float32"),
        ("gemma2", "bfloat16", "bfloat16"),
        ("llama", "float16", "float16"),
    ],
)
def test_models_that_overflow_float16_are_in_single_precision(kind, dtype, expected):
    assert lora.precision(CONFIG_MAPPING[kind](), Device("cuda", 1, dtype, "")) == expected


class OwnHead(torch.nn.Linear):
    """Adds what its weights do not say."""

    def forward(self, hidden):
        return super().forward(hidden) + torch.linspace(-3, 3, self.out_features)


def test_a_head_that_is_not_all_is_found_and_all_logits_are_used(capsys):
    base = tiny_model()
    base.lm_head = OwnHead(64, 320, bias=False).requires_grad_(False)
    way = forward.fitting(base, EXAMPLES)
    assert way.head is None and way.by_example
    assert "from all logits at once" in capsys.readouterr().err
    model = with_adapter(base)
    expected = gradient(model, Forward(packs=False), [[each] for each in EXAMPLES])
    assert apart(gradient(model, way, [EXAMPLES]), expected) < 1e-5


def test_a_scale_that_no_configuration_names_is_found(capsys):
    base = tiny_model()
    plain = base.lm_head.forward
    base.lm_head.forward = lambda hidden: plain(hidden) * 2
    assert forward.fitting(base, EXAMPLES).head is None
    assert "from all logits at once" in capsys.readouterr().err


def tried(family: str, folder: Path) -> tuple[bool, bool, float]:
    """Whether its attention goes by example and its loss in chunks, and how far its gradients then are from the plain way's: all
    logits of one example at a time."""
    base = lora.load_base(replace(SPEC.model, source=str(write_weights(family, folder, None))))
    way, model = forward.fitting(base, EXAMPLES), with_adapter(base)
    rows = [EXAMPLES] if way.packs else [[each] for each in EXAMPLES]
    expected = gradient(model, Forward(packs=False), [[each] for each in EXAMPLES])
    return way.by_example, way.head is not None, apart(gradient(model, way, rows), expected)


TRIED = """
import json, sys, tempfile, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import test_train_memory as tests
for family in sys.argv[1:]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = tests.tried(family, Path(folder))
        except Exception:
            found = traceback.format_exc()
        print(json.dumps({family: found}), flush=True)
"""


@pytest.fixture(scope="module")
def families() -> dict[str, Any]:
    """All of them, tried in a process of their own: a vLLM that other tests imported into this one has changed some of
    transformers' classes, which then want vLLM's configuration."""
    line = [sys.executable, "-c", TRIED, *FAMILIES]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, check=True, timeout=500, env=env, capture_output=True, text=True)
    made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {family: found for one in made for family, found in one.items()}


@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_by_the_plain_way(family, families):
    assert not isinstance(families[family], str), families[family]
    by_example, in_chunks, far = families[family]
    assert by_example == (family not in BY_MASK)
    assert in_chunks == (family not in ALL_LOGITS)
    assert far < 1e-4


# --- attention ---


def test_a_layout_finds_every_token_again():
    lengths = [9, 200, 31, 1, 300, 65]
    made = attention.SideBySide.of(lengths, "cpu")
    laid = torch.cat([group.places for group in made.groups])
    assert laid[made.order].tolist() == list(range(sum(lengths)))
    assert len(laid) <= 2 * sum(max(length, 64) for length in lengths)
    assert sum(group.examples for group in made.groups) == len(lengths)


H100, BFLOAT = (9, 0), torch.bfloat16
TOLD = {
    "a GPU, half precision": (H100, BFLOAT, {64}, 0.0, True),
    "float16 on the first one that has it": ((8, 0), torch.float16, {128}, 0.0, True),
    "the CPU, or ROCm": (None, BFLOAT, {64}, 0.0, False),
    "a GPU before Ampere": ((7, 5), torch.float16, {64}, 0.0, False),
    "single precision": (H100, torch.float32, {64}, 0.0, False),
    "keys wider than values": (H100, BFLOAT, {192, 128}, 0.0, False),
    "wide heads": (H100, BFLOAT, {256}, 0.0, False),
    "odd heads": (H100, BFLOAT, {20}, 0.0, False),
    "dropout": (H100, BFLOAT, {64}, 0.1, False),
}


@pytest.mark.parametrize("case", TOLD)
def test_attention_is_told_where_examples_end_where_torchs_kernel_takes_it(case):
    capability, dtype, widths, dropout, expected = TOLD[case]
    assert attention.knows_ends(capability, dtype, widths, dropout) is expected


def test_a_layout_says_where_examples_end():
    made = attention.Layout([3, 1, 4], "cpu")
    assert (made.ends.tolist(), made.ends.dtype, made.longest, made.capability) == ([0, 3, 4, 8], torch.int32, 4, None)


def test_adapters_of_a_base_in_half_precision_are_given_what_it_computes(tmp_path):
    """PEFT makes single precision of an adapter's input, which autocast halves again: two copies of every activation."""
    base, seen = lora.load_base(SPEC.model).to(torch.bfloat16), set()

    class Looking(Trainer):
        def _save_memory(self, model, examples):
            for name, module in model.named_modules():
                if name.endswith("lora_A.default"):
                    module.register_forward_pre_hook(lambda module, given: seen.add((given[0].dtype, module.weight.dtype)))
            super()._save_memory(model, examples)

    Looking(base, SPEC.training, lambda loss: None).train(EXAMPLES, tmp_path, seed=0, previous=None)
    assert seen == {(torch.bfloat16, torch.float32)}


def test_the_base_attends_as_before_when_training_is_over(tmp_path):
    base = lora.load_base(SPEC.model)
    before, ids = base.config._attn_implementation, torch.tensor([EXAMPLES[1].ids])
    with torch.no_grad():
        expected = base(input_ids=ids).logits
    Trainer(base, SPEC.training, lambda loss: None).train(EXAMPLES, tmp_path, seed=0, previous=None)
    assert base.config._attn_implementation == before
    with torch.no_grad():
        assert torch.equal(base(input_ids=ids).logits, expected)


def test_a_long_row_makes_no_mask():
    """A mask over this row would be 36 million numbers for each layer; by example it is none."""
    base, examples = tiny_model(), [example(60, 20, seed) for seed in range(100)]
    row, given = pack(examples), attention.Layout([60] * 100, "cpu")
    seen = []
    base.model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.no_grad(), attention.by_example(base):
        lora.logits(base, row, examples=given)
    assert seen == [None]


# --- checkpointing ---


def test_checkpointing_ends_with_the_adapter_that_needed_it(tmp_path):
    base = lora.load_base(SPEC.model)
    trainer = Trainer(base, SPEC.training, lambda loss: None)
    model = lora.adapt(base, SPEC.training.lora, None)
    memory.save_activations(model)
    assert base.is_gradient_checkpointing
    memory.keep_activations(model)
    base = model.unload()
    assert not base.is_gradient_checkpointing
    assert not base.get_input_embeddings()(torch.tensor([5])).requires_grad
    trainer.train(EXAMPLES, tmp_path, seed=0, previous=None)


# --- memory that ends ---


def test_what_is_a_shortage():
    cpu = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
    assert memory.is_shortage(RuntimeError(cpu)) and memory.is_shortage(MemoryError())
    assert memory.is_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not memory.is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not memory.is_shortage(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("batch_tokens", "lengths", "expected"),
    [
        (16384, [100, 200, 300], 300),  # the batch is smaller than what was allowed
        (400, [100, 200, 300], 200),
        (299, [100, 200, 300], None),  # each has a row of its own
        (16384, [100], None),
        (3, [1, 1, 1], 1),
        (1, [1, 1, 1], None),
    ],
)
def test_rows_are_halved_until_each_has_one_example(batch_tokens, lengths, expected):
    assert memory.halved(batch_tokens, lengths) == expected


LIMITED = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from maft import lora
from maft.chat_template import Tokens
from maft.errors import BadInput
from maft.spec import decode_spec
from maft.train.trainer import Trainer

spec, examples, folder, room = decode_spec(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
examples = [Tokens(tuple(ids), tuple(counts)) for ids, counts in examples]
base = lora.load_base(spec.model)
short = [Tokens(examples[0].ids[-300:], examples[0].completion[-300:])]
Trainer(base, spec.training, lambda loss: None).train(short, folder / "warm", seed=0, previous=None)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
if room:
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
trainer = Trainer(base, spec.training, lambda loss: None)
try:
    curve = trainer.train(examples, folder / "made", seed=0, previous=None)
except BadInput as error:
    print(json.dumps({"refused": str(error)}))
else:
    print(json.dumps({"curve": curve, "tokens": trainer.batch_tokens, "lowered": trainer.lowered_to}))
"""


def limited(tmp_path, examples, room: int):
    """Trains in a process of its own, with so many bytes of address space beside what a first training took."""
    return in_a_process(LIMITED, a_spec(training={"batchSize": 8, "epochs": 2, "lora": {"rank": 4}}), examples, tmp_path, room)


def in_a_process(script: str, spec, examples, *more, kept: bool = False):
    """Runs a script over a spec and examples; what its last line says, and what it said beside it. kept: the allocator keeps what
    is freed, as for users; else what goes back at once is what is in use, which is the same in each run."""
    from maft.spec import immutable_spec_json

    given = json.dumps([[each.ids, each.completion] for each in examples])
    line = [sys.executable, "-c", script, immutable_spec_json(spec), given, *map(str, more)]
    env = {"PYTHONPATH": str(ROOT / "images"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    env |= {} if kept else {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(line, check=False, timeout=120, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.programs
def test_rows_are_halved_where_memory_ends_and_losses_stay(tmp_path):
    examples = [example(400, 200, seed) for seed in range(8)]
    whole, _ = limited(tmp_path / "a", examples, 0)
    less, said = limited(tmp_path / "b", examples, 100 * 2**20)
    assert whole["tokens"] == 16384 and whole["lowered"] == 0
    assert 400 <= less["tokens"] == less["lowered"] < 3200
    assert less["curve"] == pytest.approx(whole["curve"], rel=1e-5)
    assert "memory ran out" in said and "training.batchTokens is 1,600 from here on" in said


@pytest.mark.programs
def test_one_example_that_does_not_fit_is_refused_in_one_line(tmp_path):
    refused, _ = limited(tmp_path, [example(3000, 10, 1), example(3000, 10, 2)], 6 * 2**20)
    assert refused["refused"].startswith("training.batchTokens: one example of 3,000 tokens does not fit this machine's memory")
    assert "training.base" in refused["refused"] and "\n" not in refused["refused"]


class Starved(NextToken):
    """Never has the memory that its loss needs."""

    def loss(self, *given):
        raise MemoryError


def test_what_is_tried_before_it_is_refused(tmp_path, capsys):
    """Smaller rows down to one example each, then activations computed anew; the next adapter of the base begins as the first."""
    base = lora.load_base(SPEC.model)
    with pytest.raises(BadInput, match=r"^training\.batchTokens: one example of 200 tokens does not fit this machine's memory"):
        Trainer(base, SPEC.training, lambda loss: None, Starved()).train(EXAMPLES, tmp_path, seed=0, previous=None)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("memory ran out")]
    assert len(said) > 3 and "training.batchTokens is" in said[0]
    assert "activations are computed anew" in said[-1] and sum("anew" in line for line in said) == 1
    assert not base.is_gradient_checkpointing and not base.get_input_embeddings()._forward_hooks
    assert base.config._attn_implementation == "sdpa"


# --- what is predicted ---


def test_what_more_memory_is_predicted_for():
    config = CONFIG_MAPPING["llama"]()

    def needs(**more) -> Needs:
        return Needs.of(config, **{"base": 10**9, "adapter": 10**6, "tokens": 4096, "targets": 1000, **more})

    plain = memory.peak(needs())
    assert memory.peak(needs(tokens=8192)) > 1.5 * plain
    assert memory.peak(needs(checkpointing=True)) < 0.5 * plain
    assert memory.peak(needs(value=2, device="cuda")) < plain
    assert memory.weights(needs(value=2, nf4=True)) < 0.5 * memory.weights(needs(value=2))
    tied = memory.weights(needs(value=2, nf4=True, tied=True))  # what is no layer stays in half precision: a head of its own, too
    assert memory.weights(needs(value=2, nf4=True)) - tied == pytest.approx(32_000 * 4096 * (2 - memory.NF4), abs=1)
    fitting = memory.rows_that_fit(needs(), plain // 2)
    assert 0 < fitting < 4096 and memory.peak(needs(tokens=fitting, targets=fitting * 1000 // 4096)) <= plain // 2
    assert memory.rows_that_fit(needs(), 2**20) == 0 and memory.rows_that_fit(needs(), 2**50) == 4096


MEASURED = """
import gc, json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from maft import lora
from maft.chat_template import Tokens
from maft.spec import decode_spec
from maft.train.trainer import Trainer
from msgspec.structs import replace

def resident(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024

def train(model, examples, name):
    base = lora.load_base(model)
    Trainer(base, spec.training, lambda loss: None).train(examples, Path(sys.argv[3]) / name, seed=0, previous=None)

spec, examples = decode_spec(sys.argv[1]), json.loads(sys.argv[2])
examples = [Tokens(tuple(ids), tuple(counts)) for ids, counts in examples]
train(replace(spec.model, source=sys.argv[4]), [Tokens(examples[0].ids[-20:], examples[0].completion[-20:])], "first")
gc.collect()
before = resident("VmRSS")
train(spec.model, examples, "made")
print(json.dumps({"before": before, "most": resident("VmHWM")}))
"""


@pytest.mark.programs
def test_training_takes_no_more_than_is_predicted_and_not_much_less(tmp_path):
    """A model of 21 MiB and a row of 3,200 tokens, beside what a program has that trained the demo's model before."""
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 704, "head_dim": 64, "vocab_size": 8000}
    base = tiny_model(**sizes, num_key_value_heads=4, tie_word_embeddings=True)
    base.save_pretrained(tmp_path / "model")
    spec = a_spec(model={"source": str(tmp_path / "model")}, training={"batchSize": 16, "lora": {"rank": 16}})
    examples = [example(200, 60, seed) for seed in range(16)]
    kept, _ = in_a_process(MEASURED, spec, examples, tmp_path, TINY, kept=True)
    returned, _ = in_a_process(MEASURED, spec, examples, tmp_path, TINY)
    adapted = lora.adapt(base, spec.training.lora, None)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in adapted.parameters()) - trained
    needs = Needs.of(base.config, base=whole, adapter=trained, tokens=16 * 200, targets=16 * 60)
    predicted = memory.peak(needs) - memory.PROGRAM["cpu"]
    most, in_use = (found["most"] - found["before"] for found in (kept, returned))
    assert most <= predicted <= 3 * in_use


@pytest.mark.parametrize(("base", "device", "value"), [("full", CPU, 4), ("full", HALF, 2), ("nf4", HALF, 0.53)])
def test_weights_that_no_device_holds_are_refused_before_they_are_loaded(base, device: Device, value: float, tmp_path):
    """Of the layers; in 4 bits embeddings and head stay as they are."""
    model = tiny_model(hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    model.save_pretrained(tmp_path)
    spec = replace(SPEC.model, source=str(tmp_path))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    layers = sum(n for name, n in sizes.items() if "proj" in name)
    needed = layers * value + (sum(sizes.values()) - layers) * (4 if device is CPU else 2)
    check = partial(memory.check_base, model.config, spec, device, base)
    check(alike=True, total_of=lambda _: (int(needed * 1.01), "the GPU"))
    with pytest.raises(BadInput, match=rf"^model\.source: the weights of {tmp_path} take about .* GiB, the GPU has .*Sharded"):
        check(alike=True, total_of=lambda _: (int(needed * 0.99), "the GPU"))
    with pytest.raises(MemoryError, match=r"^model\.source: the weights of .*, or use a smaller model$"):  # on another node, maybe
        check(alike=False, total_of=lambda _: (int(needed * 0.99), "the GPU"))
    memory.check_base(model.config, spec, CPU, "full", alike=True)  # this machine


@pytest.mark.parametrize(
    ("base", "device", "where", "advised"),
    [
        ("full", HALF, "the GPU", "set training.base to nf4, or training.parallelism to Sharded with more GPUs, or use"),
        ("nf4", HALF, "the GPU", "set training.parallelism to Sharded with more GPUs, and training.base to full, or use"),
        ("full", CPU, "this pod", "raise resources.limits.memory of the container trainer, or use"),
        ("full", CPU, "this machine", "take a machine with more memory, or use"),
    ],
)
def test_what_helps_where_the_weights_do_not_fit_is_what_can_be_done(base, device: Device, where, advised, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(BadInput) as refused:
        spec = replace(SPEC.model, source=str(tmp_path))
        memory.check_base(model.config, spec, device, base, alike=True, total_of=lambda _: (1, where))
    assert f" {where} has 0.0 GiB; {advised} a smaller model" in str(refused.value)


def test_memory_in_all_is_no_more_than_this_machine_has():
    total, where = memory.total_memory(CPU)
    assert 0 < total <= psutil.virtual_memory().total and where in ("this pod", "this machine")


@pytest.mark.parametrize(
    ("family", "more", "kept"),
    [
        ("llama", ("mtp.layers.0.mlp.up_proj.weight", "model.mtp_layers.0.norm.weight", "lm_head.weight"), ("lm_head.weight",)),
        ("qwen3_5", ("mtp.norm.weight", "model.language_model.layers.{}.norm.weight"), ()),
        ("deepseek_v3", ("model.layers.{}.eh_proj.weight", "model.layers.{}.shared_head.head.weight"), ()),
        ("gemma3", ("lm_head.weight", "language_model.lm_head.weight"), ()),
        ("gemma3", ("model.vision_tower.vision_model.encoder.layers.{}.norm.weight",) * 2, None),
    ],
)
def test_tensors_that_nobody_loads_do_not_count(family, more, kept):
    """None: all of them. The last layers of a text part have the highest numbers that count."""
    config = CONFIG_MAPPING[family]()
    layers = config.get_text_config().num_hidden_layers
    names = [name.format(layers) for name in more]
    own = [f"model.layers.{layers - 1}.norm.weight", f"model.language_model.layers.{layers - 1}.norm.weight", "model.norm.weight"]
    assert set(tensors.loaded(dict.fromkeys([*own, *names], (3,)), config)) == {*own, *(names if kept is None else kept)}


@pytest.mark.parametrize("family", ["gemma3_text", "deepseek_v3"])
def test_what_is_counted_is_what_transformers_loads(family, tmp_path):
    """Of layers that are numbered on, and of a head that is stored beside embeddings that are the same."""
    folder = write_weights(family, tmp_path, SPEC.model)
    stored, config = load_file(folder / "model.safetensors"), AutoConfig.from_pretrained(folder)
    more = {name.replace(".0.", f".{config.num_hidden_layers}."): w.clone() for name, w in stored.items() if ".layers.0." in name}
    if config.tie_word_embeddings:
        more["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file({**stored, **more, "mtp.norm.weight": torch.zeros(4)}, folder / "model.safetensors", {"format": "pt"})
    counted = tensors.loaded(folder_shapes(folder), config)
    assert more and counted.keys() == stored.keys()
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict().values()
    assert sum(map(math.prod, counted.values())) == sum({weight.data_ptr(): weight.numel() for weight in weights}.values())


def test_layers_that_differ_count_as_the_widest():
    """Gemma 4's heads are larger in every sixth layer; its configuration refuses to tell one size for all."""
    config = CONFIG_MAPPING["gemma4_text"]()
    needs = Needs.of(config, base=10**9, adapter=10**6, tokens=4096, targets=1000)
    assert needs.query == config.num_attention_heads * max(each.head_dim for each in config.per_layer_config) == 8 * 512


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (0, 0)),
        ({"memory.max": "max\n", "memory.current": "5\n"}, (0, 0)),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, (1000, 400)),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "7\n"}, (0, 0)),
        ({"memory/memory.limit_in_bytes": "1000\n", "memory/memory.usage_in_bytes": "7\n"}, (1000, 7)),
    ],
)
def test_the_limit_of_a_pod_is_read(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pod.memory(tmp_path) == expected


# --- before anything is paid for ---


CPUS = Facts("2.13.0+cpu")
NEW = Facts("2.13.0+cu130", cuda="13.0", driver="580.65", present=1, usable=1, bf16=True)
OLD = dataclasses.replace(NEW, bf16=False)  # before Ampere


def needed(facts: Facts = CPUS, config: Any = None, **training) -> tuple[Needs, Spec]:
    spec = a_spec(training={"batchSize": 64, **training})
    config = config or AutoConfig.from_pretrained(TINY)
    counts = room.parameters(config, spec)
    assert counts
    used = room.computing(spec, facts)
    return room.expected(config, spec, counts, 5000 + room.longest_answer(spec), used, packs=True), spec


@pytest.mark.parametrize(
    ("kind", "facts", "gpus", "device", "precision"),
    [
        ("llama", NEW, 1, "cuda", "bfloat16"),
        ("llama", OLD, 1, "cuda", "float16"),
        ("llama", OLD, None, "cuda", "float16"),
        ("llama", OLD, 0, "cpu", "float32"),  # as the spec says
        ("llama", CPUS, None, "cpu", "float32"),
        ("llama", CPUS, 1, "cuda", "bfloat16"),  # a GPU that is not seen from here
        ("gemma3_text", NEW, 1, "cuda", "bfloat16"),
        ("gemma3_text", OLD, 1, "cuda", "float32"),
        ("gemma2", OLD, None, "cuda", "float32"),
        ("glm4", OLD, 1, "cuda", "float32"),
        ("glm4", CPUS, 1, "cuda", "bfloat16"),
    ],
)
def test_memory_is_predicted_in_the_precision_that_training_takes(kind, facts, gpus, device, precision):
    config = small(kind)
    predicted, spec = needed(facts, config, **({} if gpus is None else {"gpus": gpus}))
    assert lora.precision(config, room.computing(spec, facts)) == precision
    assert (predicted.device, predicted.value) == (device, 4 if precision == "float32" else 2)


def test_what_float16_does_not_hold_takes_more_memory_on_a_gpu_without_bfloat16():
    old, new = (memory.peak(needed(facts, small("gemma2"), gpus=1)[0]) for facts in (OLD, NEW))
    assert 1.5 * new < old < 2 * new


def small(kind: str) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
    return CONFIG_MAPPING[kind](**sizes, num_key_value_heads=2, vocab_size=320, pad_token_id=None)


def test_the_whole_model_is_counted_without_its_weights():
    found, _ = needed()
    base = lora.load_base(SPEC.model)
    assert found.base == sum(p.numel() for p in base.parameters())
    adapted = lora.adapt(base, SPEC.training.lora, None)
    assert found.adapter == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found.tokens == 16384 and found.targets == pytest.approx(16384 * 80 / 5080, abs=1)
    assert needed(batchTokens=100)[0].tokens == 5080  # one example has a row of its own, however long


def test_of_a_base_held_in_parts_embeddings_head_and_adapter_are_whole():
    alone, _ = needed(gpus=1)
    whole = 2 * alone.vocabulary * alone.hidden if not AutoConfig.from_pretrained(TINY).tie_word_embeddings else None
    whole = whole or alone.vocabulary * alone.hidden
    layers = alone.base - whole
    for ranks, told in ((4, {"gpus": 4}), (4, {"gpus": 2, "nodes": 2}), (64, {"gpus": 8, "nodes": 8})):
        found, _ = needed(parallelism="Sharded", **told)
        assert found.adapter == alone.adapter  # with gradients and moments on every rank
        assert found.base == min(alone.base, whole + layers // ranks + 2 * layers // alone.layers)
    big = CONFIG_MAPPING["llama"](vocab_size=128256, hidden_size=8192, num_hidden_layers=80, tie_word_embeddings=False)
    assert room._part(big, 70_553_706_496, 16) == pytest.approx(2.1e9 + 68.4e9 / 16 + 2 * 68.4e9 / 80, rel=0.01)


def test_four_bits_of_a_mixture_whose_experts_are_one_tensor_are_refused():
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16, "num_key_value_heads": 2}
    config = CONFIG_MAPPING["qwen3_moe"](**sizes, vocab_size=320, num_experts=8, moe_intermediate_size=64)
    spec = a_spec(training={"base": "nf4"})
    with pytest.raises(BadInput, match=r"^training\.base: nf4 leaves \d\d% of .* the experts of its mixture; set base to full"):
        room.parameters(config, spec)
    assert room.parameters(config, a_spec(training={"gpus": 1})) and room.parameters(AutoConfig.from_pretrained(TINY), spec)


def test_what_does_not_fit_is_said_or_refused():
    found, _ = needed(gpus=0)
    most = memory.peak(found)
    assert room.check(found, Limit(most, "this pod", binding=True), 5080) == []
    assert room.check(found, Limit(0, "a GPU that is not here", binding=False), 5080) == []
    [said] = room.check(found, Limit(int(most * 0.7), "this pod", binding=True), 5080)
    assert (
        said.startswith("training.batchTokens: rows of 16,384 tokens need about")
        and "this pod has" in said
        and "lower it to" in said
    )
    with pytest.raises(
        BadInput, match=r"^training\.batchTokens: training needs about .* GiB with one example of 5,080 tokens, this pod"
    ):
        room.check(found, Limit(2**29, "this pod", binding=True), 5080)
    [said] = room.check(found, Limit(2**29, "this machine", binding=False), 5080)
    assert "computed anew" in said


def test_a_pods_limit_counts_and_else_the_machines():
    spec = needed(gpus=0)[1]
    assert room.found(spec, CPU, lambda: (2**29, 2**28)) == Limit(2**29, "this pod", binding=True)
    whole = room.found(spec, CPU, lambda: (0, 0))
    assert whole.of == "this machine" and whole.total > 2**30
    assert room.found(spec, CPU, lambda: (2**50, 2**30)) == whole  # more than the node has
    if not torch.cuda.is_available():
        assert not room.found(needed(gpus=2)[1], HALF).total
