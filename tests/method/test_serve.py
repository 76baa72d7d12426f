"""vLLM's command line and environment, and what is refused before vLLM starts."""

import socket
import subprocess
import sys

import pytest
from small import a_spec

from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.serve import resolver
from maft.serve.__main__ import Listening
from maft.spec import immutable_spec_json
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
