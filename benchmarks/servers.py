"""A real vLLM server as a run starts it (`python -m maft.serve`), with an adapter for every role and agent, and its counters."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import forgetful
from control_plane import process
from debates import World

from maft import adapters, records
from maft.records import ROLES, Adapter
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft_operator.local.gpus import compiled
from maft_operator.local.ports import free_port

RUN = "bench/run"
START = 600.0  # seconds
_LINE = re.compile(r"^vllm:(\w+?)(?:_total)?(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is, and the names of its adapters by role, agent by agent."""

    url: str
    generators: tuple[str, ...]
    critics: tuple[str, ...]

    def counters(self) -> dict[str, float]:
        """Reads vLLM's counters, summed over their labels; names without `vllm:` and `_total`."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            text = response.read().decode()
        sums: dict[str, float] = {}
        for name, value in _LINE.findall(text):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def forget(self) -> None:
        """Empties the prefix cache, so that no side finds what the other left."""
        request = urllib.request.Request(f"{self.url}{forgetful.ROUTE}", method="POST")
        urllib.request.urlopen(request, timeout=30).close()


@contextlib.contextmanager
def running(world: World, agents: int = 3, extra: Sequence[str] = (), caches: Path | None = None) -> Iterator[Server]:
    """The world's server, ready, as long as the block lasts. extra: vLLM's flags, after those of the example. caches: where it
    keeps what it compiles, in place of the user's."""
    with TemporaryDirectory(prefix="maft-bench-") as scratch:
        port, folder = free_port(), Path(scratch)
        names = _adapters(world, FileStore(folder / "store"), folder / "made", agents)
        line = _command(world, folder, port, 2 * agents, extra)
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "MAFT_DIE_WITH_PARENT": "1"}
        environment |= compiled({"MAFT_CACHE": str(caches)}) if caches else {}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
        with process(line, folder / "log.txt", environment) as started:
            _wait(started, f"http://127.0.0.1:{port}", folder / "log.txt")
            yield Server(f"http://127.0.0.1:{port}", *names)


def _command(world: World, folder: Path, port: int, adapters_: int, extra: Sequence[str]) -> list[str]:
    from msgspec import structs

    forgetting = ("--middleware", "forgetful.Forgetful")
    inference = structs.replace(world.spec.inference, extra_args=(*world.spec.inference.extra_args, *forgetting, *extra))
    spec = immutable_spec_json(structs.replace(world.spec, inference=inference))
    line = [sys.executable, "-m", "maft.serve", f"--store={folder / 'store'}"]
    line += [f"--run={RUN}", f"--spec={spec}", f"--adapters={adapters_}", f"--adapter-folder={folder / 'fetched'}"]
    return [*line, "--host=127.0.0.1", f"--port={port}"]


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + START
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as response:
            if response.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start (exit code {server.poll()}): {log.read_text(errors='replace')[-3000:]}")


def _adapters(world: World, store: FileStore, folder: Path, agents: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Commits an adapter for each role and agent: random A, B of zeros, so texts are the base's and the work is an adapter's."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save
    from transformers import AutoConfig, AutoModelForCausalLM

    lora = world.spec.training.lora
    with torch.device("meta"):  # shapes alone: the base may be large
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(world.spec.model.source))
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        shapes = {name: weight.shape for name, weight in get_peft_model_state_dict(get_peft_model(model, config)).items()}
    config.save_pretrained(str(folder))
    names: dict[str, list[str]] = {role: [] for role in ROLES}
    for number, (role, agent) in enumerate((role, agent) for role in ROLES for agent in range(agents)):
        draw = torch.Generator().manual_seed(number)
        weights = {
            n: torch.randn(s, generator=draw) * s[-1] ** -0.5 if "lora_A" in n else torch.zeros(s) for n, s in shapes.items()
        }
        described = (folder / "adapter_config.json").read_bytes()
        names[role].append(_commit(store, role, agent, {adapters.WEIGHTS: save(weights), "adapter_config.json": described}))
    return tuple(names["generator"]), tuple(names["critic"])


def _commit(store: FileStore, role: records.Role, agent: int, files: dict[str, bytes]) -> str:
    import hashlib

    name = adapters.name(role, agent, 1, hashlib.sha256(files[adapters.WEIGHTS]).hexdigest())
    made = Adapter(role, agent, 1, name, True, 1, 1, None, None)
    publish(store, layout.adapter(RUN, 1, role, agent), files, meta={"adapter": records.plain(made)})
    return name
