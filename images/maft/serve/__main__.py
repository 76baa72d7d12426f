"""`python -m maft.serve`: becomes a vLLM server of the base model that resolves the run's adapters from the store."""

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from maft import flags, models, program
from maft.errors import BadInput
from maft.records import BASE
from maft.serve import resolver

# Eager: compiling takes longer than a small run. Whole prefills: vLLM 0.32 rewinds the generator of a seeded request after a
# partial prefill, which a CPU generator cannot do, and the engine dies ("CPU Generator does not use offset").
CPU = ["--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill"]


def command(arguments: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """vLLM's command line. `python -m`, because the console script of the CPU build lacks package metadata."""
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--model", models.local(arguments.model), "--served-model-name", BASE, "--generation-config", "vllm"]
    line += ["--host", arguments.host, "--port", str(arguments.port)]
    line += ["--enable-lora", "--max-lora-rank", str(arguments.max_lora_rank), "--max-loras", str(arguments.max_loras)]
    line += ["--max-cpu-loras", str(arguments.max_cpu_loras), "--middleware", "maft.serve.resolver.Closed"]
    line += ["--disable-uvicorn-access-log"]
    line += ["--revision", arguments.revision] if arguments.revision else []
    line += ["--trust-remote-code"] if arguments.trust_remote_code else []
    line += ["--max-model-len", str(arguments.max_length)] if arguments.max_length else []
    line += CPU if not Path("/dev/nvidiactl").exists() else []
    return [*line, *extra]


def environment(arguments: argparse.Namespace, inherited: Mapping[str, str]) -> dict[str, str]:
    """What vLLM and the plug-in read."""
    ours = {
        resolver.STORE: arguments.store,
        resolver.RUN: arguments.run,
        resolver.FOLDER: arguments.adapters,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # vLLM asks resolvers only with this; `Closed` shuts what it opens besides
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "INFO", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**defaults, **inherited, **ours}


def free(host: str, port: int) -> None:
    """BadInput if something listens there already; vLLM would say so only after loading the model."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadInput(f"--port {port}: {error.strerror}; choose another port or stop what listens there") from error


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know goes to vLLM."""
    parser_ = program.parser("serve", "Serves the base model and the run's adapters with vLLM. Unknown flags go to vLLM.")
    flags.add_model(parser_)
    group = parser_.add_argument_group("server")
    group.add_argument("--host", default="0.0.0.0", help="address to listen on")
    group.add_argument("--port", type=int, default=8000)
    group.add_argument("--adapters", default=str(models.cache() / "adapters"), help="folder for fetched adapters; it only grows")
    group.add_argument("--max-lora-rank", type=int, required=True)
    group.add_argument("--max-loras", type=int, required=True, help="adapters in one batch")
    group.add_argument("--max-cpu-loras", type=int, required=True, help="adapters kept in memory")
    group.add_argument("--max-length", type=int, default=0, help="context in tokens; 0: the model's own")
    return parser_


def main() -> None:
    """Checks, then replaces this process by vLLM."""
    arguments, extra = parser().parse_known_args()
    try:
        free(arguments.host, arguments.port)
        line = command(arguments, extra)
    except BadInput as error:
        program.write_summary(arguments.summary, {"error": str(error)})
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    os.execve(line[0], line, environment(arguments, os.environ))


if __name__ == "__main__":
    main()
