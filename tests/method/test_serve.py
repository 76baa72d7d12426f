"""vLLM's command line and environment, and what is refused before vLLM starts."""

import socket
import subprocess
import sys

import pytest
from conftest import TINY

from maft.serve import __main__ as serve
from maft.serve import resolver

FLAGS = [
    "--store",
    "file:///s",
    "--run",
    "ns/run",
    "--model",
    str(TINY),
    "--max-lora-rank",
    "8",
    "--max-loras",
    "2",
    "--max-cpu-loras",
    "4",
]


def test_the_command_line_serves_the_base_by_its_name_and_closes_the_routes():
    arguments, extra = serve.parser().parse_known_args([*FLAGS, "--port", "8123", "--gpu-memory-utilization=0.8"])
    line = serve.command(arguments, extra)
    assert line[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(zip(line, line[1:], strict=False))
    assert pairs["--served-model-name"] == "base" and pairs["--port"] == "8123" and pairs["--max-lora-rank"] == "8"
    assert pairs["--middleware"] == "maft.serve.resolver.Closed"
    assert line[-1] == "--gpu-memory-utilization=0.8"


def test_the_environment_tells_the_plugin_where_adapters_are():
    arguments, _ = serve.parser().parse_known_args([*FLAGS, "--adapters", "/a"])
    found = serve.environment(arguments, {"VLLM_CPU_KVCACHE_SPACE": "4", "MAFT_STORE": "elsewhere"})
    assert (found[resolver.STORE], found[resolver.RUN], found[resolver.FOLDER]) == ("file:///s", "ns/run", "/a")
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "4"  # what the user set stays
    assert found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["--model", "/nowhere"], "error: model.source: /nowhere is no model folder"), ([], "Address already in use")],
)
def test_refused_before_vllm_starts(flags, says):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = "0" if flags else str(taken.getsockname()[1])
        command = [sys.executable, "-m", "maft.serve", *FLAGS, *flags, "--host", "127.0.0.1", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_the_plugin_does_nothing_in_other_vllm_servers(monkeypatch):
    monkeypatch.delenv(resolver.STORE, raising=False)
    before = set(sys.modules)
    resolver.register()
    assert not {m for m in set(sys.modules) - before if m.startswith("vllm")}
