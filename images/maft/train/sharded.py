"""One base over several GPUs, for a base that does not fit one of them: FSDP2 (torch.distributed.fsdp.fully_shard).

Each rank holds a part of every layer; embeddings and head are on each of them, and so are adapters and optimizer, which are small.
The first rank has the base in host memory while it is dealt out, keeps the checkpoints and publishes.
"""

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from maft import lora, models, quantised
from maft.device import Device
from maft.errors import BadInput, PeerLost, one_line
from maft.spec import ModelSpec
from maft.train.workers import Place

PATIENCE = timedelta(hours=2)  # of ranks that wait for the first one, which loads the base
STEP = timedelta(minutes=20)  # of ranks that wait for each other from then on
_GLOO = re.compile(r"gloo|Connection (closed|reset) by peer", re.IGNORECASE)
_NO_INTERFACE = re.compile(r"Unable to find (?:address|interface) for: *(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that hold one base together."""

    rank: int
    ranks: int
    device: torch.device
    """Of this one."""

    @property
    def leads(self) -> bool:
        """Tells whether this one keeps checkpoints and publishes."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up, in place, what all ranks have."""
        dist.all_reduce(tensor)
        return tensor

    def agreed(self, value: bool) -> bool:
        """Tells whether it is true of any rank."""
        return bool(self.sum(torch.tensor(float(value), device=self.device)) > 0)

    def raise_if_lost(self, error: Exception) -> None:
        """Raises PeerLost if the error comes of another rank's end."""
        if gone := lost(error):
            raise gone from error

    def from_leader(self, data: bytes) -> bytes:
        """Returns what the first rank has. Bytes alone: torch's collectives of objects unpickle what another rank sends."""
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, 0)
        held = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        if self.leads:
            held.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(held, 0)
        return bytes(held.cpu().numpy())


class Loaded(msgspec.Struct, frozen=True):
    """What the other ranks have to know to make the same model as the first one."""

    precisions: dict[str, str]
    """Of each parameter, as torch names it."""
    attention: Annotated[str, msgspec.Meta(pattern=r"^\w+$")]
    """What transformers has itself: a name with a slash would be code from the Hub."""


@contextlib.contextmanager
def joined(place: Place, *, cuda: bool) -> Iterator[Team]:
    """Meets the other ranks; PeerLost where one is lost. SIGTERM is for the first one, which writes the checkpoint; the others are
    ended by whoever started them. They ignore it: blocked in one thread, it would come to one of a library's."""
    if place.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    device = torch.device("cuda", place.rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    lora.in_one_order(cuda=cuda)
    try:
        meeting = dist.TCPStore(place.host, place.port, is_master=False)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=meeting, rank=place.rank, world_size=place.ranks, timeout=PATIENCE)
        # NCCL meets here at its first collective, which the first rank reaches once it has loaded the base.
        meeting.set_timeout(PATIENCE)
        yield Team(place.rank, place.ranks, device)
    except RuntimeError as error:
        if none := _NO_INTERFACE.search(str(error)):
            why = "has no address here, or is no network interface of this pod; each name of the list has to be one"
            raise BadInput(f"training.nccl.interface: {one_line(none[1], 40)} {why}") from error
        if gone := lost(error):
            raise gone from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def lost(error: Exception) -> PeerLost | None:
    """Reads whether torch says that another rank is gone, or does not answer."""
    message = one_line(error, 300)
    of_torch = isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError)
    return PeerLost(f"another rank is lost: {message}") if of_torch or _GLOO.search(message) else None


def load_base(spec: ModelSpec, team: Team, device: Device) -> Any:
    """Loads the base on the first rank's host, in the precision of the device, and deals it out, tensor by tensor: no device ever
    holds more than its part and one tensor."""
    config = models.config(spec)
    if name := quantised.method(config):
        raise BadInput(f"training.parallelism: Sharded cannot hold a base that is quantised with {name}; use Adapters")
    source = lora.load_base(spec, replace(device, kind="cpu", count=0)) if team.leads else None
    lora.in_one_order(cuda=team.device.type == "cuda")  # the first rank loaded on the CPU, where another order holds
    with torch.device("meta"):
        base = lora.new_base(config, spec)
    _as_loaded(base, msgspec.json.decode(team.from_leader(_described(source)), type=Loaded))
    shard(base, team)
    base.to_empty(device=team.device)
    _fill(base, source, team)
    base.tie_weights()
    dist.distributed_c10d._set_pg_timeout(STEP)
    return base.eval()


def _described(source: Any) -> bytes:
    if source is None:
        return b""
    precisions = {name: str(p.dtype).removeprefix("torch.") for name, p in source.named_parameters()}
    return msgspec.json.encode(Loaded(precisions, source.config.get_text_config()._attn_implementation))


def _as_loaded(base: Any, loaded: Loaded) -> None:
    for name, parameter in base.named_parameters():
        parameter.data = parameter.data.to(getattr(torch, loaded.precisions[name]))
    if base.config.get_text_config()._attn_implementation != loaded.attention:
        base.set_attn_implementation(loaded.attention)


def layers(base: Any) -> tuple[Any, list[Any]]:
    """Finds the model's stack of layers, and the module that it is in."""
    wanted = base.config.get_text_config().num_hidden_layers
    stacks = [
        (name, module) for name, module in base.named_modules() if isinstance(module, torch.nn.ModuleList) and len(module) == wanted
    ]
    if not stacks:
        raise BadInput(f"training.parallelism: Sharded finds no stack of layers in {type(base).__name__}; use Adapters")
    name, stack = stacks[0]
    return base.get_submodule(name.rpartition(".")[0]), list(stack)


def shard(base: Any, team: Team) -> None:
    """Has every layer's parameters held in parts, gathered where the layer is computed and given up behind it."""
    mesh = init_device_mesh(team.device.type, (team.ranks,))
    root, stack = layers(base)
    inside = {p for layer in stack for p in layer.parameters()}
    for layer in stack:
        fully_shard(layer, mesh=mesh)
    # The root has nothing of its own; with it layers are gathered ahead of their turn.
    fully_shard(root, mesh=mesh, ignored_params={p for p in root.parameters() if p not in inside and not isinstance(p, DTensor)})


def _fill(base: Any, source: Any, team: Team) -> None:
    loaded = {**source.state_dict(), **dict(source.named_buffers())} if team.leads else {}
    for name, target in [*base.named_parameters(), *base.named_buffers()]:
        full = loaded[name].to(team.device, target.dtype) if team.leads else _empty(target, team)
        dist.broadcast(full.contiguous(), 0)
        with torch.no_grad():
            _put(target, full, team)


def _empty(target: torch.Tensor, team: Team) -> torch.Tensor:
    return torch.empty(target.shape, dtype=target.dtype, device=team.device)


def _put(target: torch.Tensor, full: torch.Tensor, team: Team) -> None:
    if not isinstance(target, DTensor):
        target.copy_(full)
        return
    parts = full.chunk(team.ranks)  # fewer than ranks, or a last one that is smaller, where the first dimension does not divide
    if team.rank < len(parts):
        target.to_local().copy_(parts[team.rank])
