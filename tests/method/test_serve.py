"""vLLM's command line and environment, and what is refused before vLLM starts."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from families import config, write
from safetensors.torch import load_file, save_file
from small import a_spec

from maft.errors import BadInput
from maft.preflight import __main__ as preflight
from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.serve import resolver, tried
from maft.serve.__main__ import Listening
from maft.serve.parts import Parts
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import fetch_folder, publish, required
from maft.store.files import FileStore
from maft.store.urls import open_store

STORE = "file:///s"
LISTENING = Listening("127.0.0.1", 8123, 2, "/a")


def assigned(**spec):
    return Assignment(open_store(STORE), "ns/run", a_spec(**spec))


def pairs(line):
    """Each word with the one after it."""
    return dict(zip(line, line[1:], strict=False))


def test_the_command_line_serves_the_base_by_its_name_and_closes_the_routes():
    line = serve.command(assigned(inference={"extraArgs": ["--gpu-memory-utilization=0.8"]}), LISTENING)
    assert line[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    found = pairs(line)
    assert found["--served-model-name"] == "base" and found["--port"] == "8123" and found["--max-lora-rank"] == "8"
    assert found["--middleware"] == "maft.serve.resolver.Closed"
    assert line[-1] == "--gpu-memory-utilization=0.8"


@pytest.mark.parametrize(
    ("rank", "adapters", "expected"),
    [(4, 2, ("8", "2", "4")), (8, 1, ("8", "1", "2")), (9, 16, ("16", "16", "32")), (64, 64, ("64", "16", "128"))],
)
def test_room_for_adapters(rank, adapters, expected):
    """The next rank that vLLM knows, at most 16 in a batch, and twice as many in memory as are asked for at a time."""
    line = pairs(serve.command(assigned(training={"lora": {"rank": rank}}), Listening("h", 1, adapters, "/a")))
    assert (line["--max-lora-rank"], line["--max-loras"], line["--max-cpu-loras"]) == expected


def test_the_model_is_served_as_the_spec_describes_it():
    model = {"source": "org/model", "revision": "abc", "trustRemoteCode": True, "maxLength": 400}
    line = serve.command(assigned(model=model, inference={"gpus": 2}), LISTENING)
    found = pairs(line)
    assert (found["--model"], found["--revision"], found["--max-model-len"]) == ("org/model", "abc", "400")
    assert {"--trust-remote-code", "--tensor-parallel-size=2"} <= set(line)
    plain = serve.command(assigned(), LISTENING)
    assert not {"--revision", "--max-model-len", "--trust-remote-code"} & set(plain)
    assert not [word for word in plain if word.startswith("--tensor-parallel-size")]


def test_of_a_model_of_several_parts_the_text_part_alone_is_served(tmp_path):
    for family, expected in (("gemma3", True), ("gemma3_text", False)):
        folder = write(config(family), tmp_path / family)
        line = serve.command(assigned(model={"source": str(folder)}), LISTENING)
        assert ("--language-model-only" in line) is expected


def test_a_mixture_of_experts_keeps_room_for_the_layers_that_have_adapters(tmp_path):
    folder = write(config("qwen3_moe"), tmp_path / "model")
    line = serve.command(assigned(model={"source": str(folder)}), LISTENING, ("k_proj", "q_proj"))
    at = line.index("--lora-target-modules")
    assert line[at + 1 : at + 3] == ["k_proj", "q_proj"] and line[at + 3].startswith("--")
    assert "--lora-target-modules" not in serve.command(assigned(), LISTENING, ("k_proj", "q_proj"))


@pytest.mark.parametrize("content", ["[]", "{", '{"text_config": 7}', '{"num_experts": "x", "text_config": {"num_experts": true}}'])
def test_a_strange_configuration_is_left_to_vllm(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert not Parts.of(str(tmp_path)).experts


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="here it is served")
def test_what_vllm_does_not_serve_without_a_gpu_is_refused(tmp_path):
    folder = write(config("mixtral"), tmp_path / "model")
    with pytest.raises(BadInput, match=r"model\.source: .* is a mixture of experts, which vLLM's CPU build does not serve"):
        serve.check_device(assigned(model={"source": str(folder)}))
    serve.check_device(assigned())


def left_by_preflight(store, spec, *, vllm, drop=""):
    """What preflight left, as if vLLM had (not) been there; with an adapter whose names a server does not know, if asked for."""
    source = spec.model.source
    preflight.main(Assignment(store=store, run="ns/tried", given_spec=spec))
    commit = required(store, layout.preflight("ns/tried", immutable_spec_json(spec)), "preflight")
    folder = fetch_folder(store, commit, Path(source).parent / "left")
    weights = {
        name.replace("self_attn", drop or "self_attn"): w for name, w in load_file(folder / "adapter_model.safetensors").items()
    }
    save_file(weights, folder / "adapter_model.safetensors")
    files = {entry.name: folder / entry.name for entry in commit.files}
    publish(store, layout.preflight("ns/run", immutable_spec_json(spec)), files, meta={**commit.meta, "vllm": vllm})


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


def test_the_plugin_does_nothing_in_other_vllm_servers(monkeypatch):
    monkeypatch.delenv(resolver.STORE, raising=False)
    before = set(sys.modules)
    resolver.register()
    assert not {m for m in set(sys.modules) - before if m.startswith("vllm")}
