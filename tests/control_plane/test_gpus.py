"""GPUs of this machine: which may be used, what is dealt to whom, what is refused, and what programs are told."""

from pathlib import Path

import pytest
from small import resource

from maft import visible
from maft.visible import Shown
from maft_operator.local import gpus
from maft_operator.local.gpus import Found
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import BadSpec


def graph(**spec) -> Graph:
    return plan.graph(parse(resource("r", **spec)), "file:///s")


def of(total: int) -> Found:
    return Found(tuple(map(str, range(total))))


@pytest.mark.parametrize(
    ("environment", "shown", "usable"),
    [
        ({}, 0, ()),
        ({}, 3, ("0", "1", "2")),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, 3, ("2", "0")),
        ({"CUDA_VISIBLE_DEVICES": ""}, 3, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 3, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 3, ()),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, 3, ("1",)),  # what stands behind an entry that is none does not count
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, 3, ("0",)),  # nor behind one that is not there
        ({"CUDA_VISIBLE_DEVICES": "1,1"}, 3, ()),
        ({"CUDA_VISIBLE_DEVICES": "01,1"}, 3, ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"}, 2, ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",)),
        ({"CUDA_VISIBLE_DEVICES": "MIG-GPU-8932f937/7/0,MIG-4f5a2c1e"}, 1, ("MIG-GPU-8932f937/7/0", "MIG-4f5a2c1e")),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 0, ()),
        ({"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "0"}, 2, ("0", "1")),  # AMD's alone
        ({"CUDA_VISIBLE_DEVICES": "+1,0gpu"}, 2, ("1", "0")),  # CUDA reads the number at the beginning
        ({"CUDA_VISIBLE_DEVICES": "0\u0661"}, 2, ("0",)),  # a digit, but not one of CUDA's
        ({"CUDA_VISIBLE_DEVICES": "\u0661"}, 2, ()),
    ],
)
def test_which_gpus_may_be_used(environment, shown, usable) -> None:
    assert visible.usable(environment, Shown(shown)) == usable


@pytest.mark.parametrize(
    ("environment", "usable", "limit"),
    [
        ({}, ("0", "1", "2", "3"), ""),
        ({"HIP_VISIBLE_DEVICES": "1"}, ("1",), "HIP_VISIBLE_DEVICES=1"),
        ({"CUDA_VISIBLE_DEVICES": "2"}, ("2",), "CUDA_VISIBLE_DEVICES=2"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-d3c0ffee"}, ("GPU-d3c0ffee",), "ROCR_VISIBLE_DEVICES=GPU-d3c0ffee"),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "3"}, ("3",), "HIP_VISIBLE_DEVICES=3"),
        ({"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": ""}, (), "HIP_VISIBLE_DEVICES="),
        # indices count among what ROCm's own leaves
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, ("1",), "HIP_VISIBLE_DEVICES=1"),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1,2"}, ("1",), "HIP_VISIBLE_DEVICES=1,2"),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"}, (), "CUDA_VISIBLE_DEVICES=2,3"),
        ({"ROCR_VISIBLE_DEVICES": "2,7", "CUDA_VISIBLE_DEVICES": "0,1"}, ("0",), "CUDA_VISIBLE_DEVICES=0,1"),
    ],
)
def test_gpus_of_amd_are_read_as_rocm_does(environment, usable, limit) -> None:
    assert gpus.find(environment, Shown(4, amd=True)) == Found(usable, limit)


def made(root: Path, *names: str, **contents: str) -> Path:
    for name, text in {**dict.fromkeys(names, ""), **contents}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_gpus_are_counted_by_their_files(tmp_path) -> None:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    assert visible.shown(made(tmp_path / "none", "dev/nvidiactl", "dev/nvidia-uvm")) == Shown()
    assert visible.shown(made(tmp_path / "two", "dev/nvidiactl", "dev/nvidia0", "dev/nvidia10", "dev/nvidia-caps0")) == Shown(2)
    amd = {f"{nodes}/0/gpu_id": "0\n", f"{nodes}/1/gpu_id": "51110\n", f"{nodes}/2/gpu_id": "7\n"}
    assert visible.shown(made(tmp_path / "amd", "dev/kfd", **amd)) == Shown(2, amd=True)
    assert visible.shown(made(tmp_path / "both", "dev/kfd", "dev/nvidia0", **amd)) == Shown(1)
    assert visible.shown(made(tmp_path / "no-access", **amd)) == Shown()
    assert visible.shown(made(tmp_path / "wsl", "usr/lib/wsl/lib/libcuda.so.1")) == Shown(1)


@pytest.mark.parametrize(
    ("spec", "total", "server", "training"),
    [
        ({}, 0, None, None),  # programs look for themselves
        ({"inference": {"gpus": 0}, "training": {"gpus": 0}}, 4, 0, 0),
        ({"inference": {"lifetime": "Phase"}}, 1, 1, 1),
        ({"inference": {"lifetime": "Phase"}}, 4, 1, 4),
        ({"inference": {"lifetime": "Run"}}, 4, 1, 3),
        ({"inference": {"lifetime": "Run"}}, 1, 1, 1),  # one after the other
        ({"inference": {"lifetime": "Run", "gpus": 2}}, 2, 2, 2),
        ({"inference": {"lifetime": "Phase"}}, 8, 1, 6),  # three agents have six adapters
        ({"inference": {"lifetime": "Phase", "replicas": 8}, "agents": 4}, 8, 1, 8),
        ({"inference": {"lifetime": "Phase", "gpus": 4, "replicas": 2}}, 8, 4, 6),
        ({"inference": {"lifetime": "Phase"}, "debate": {"critics": False}}, 8, 1, 3),
        ({"inference": {"lifetime": "Phase"}, "training": {"topology": "PerAgent"}}, 8, 1, 2),
        ({"inference": {"lifetime": "Phase"}, "training": {"topology": "PerAgent"}}, 2, 1, 1),
        ({"inference": {"lifetime": "Phase"}, "training": {"parallelism": "Sharded", "gpus": 8}}, 8, 1, 8),
        ({"training": {"gpus": 2}, "method": "star", "inference": {"lifetime": "Phase"}}, 2, 1, 1),  # it has one adapter
        ({"training": {"base": "nf4"}, "inference": {"lifetime": "Phase"}}, 1, 1, 1),
        ({"inference": {"lifetime": "Phase", "gpus": 2}, "training": {"gpus": 1}}, 8, 2, 1),
        ({"inference": {"lifetime": "Run", "gpus": 0}}, 2, 0, 2),
    ],
)
def test_what_is_left_open_is_what_is_there_and_of_use(spec, total, server, training) -> None:
    dealt = gpus.dealt(graph(**spec), of(total))
    assert {s.gpus for s in dealt.servers} == {server}
    assert {t.gpus for t in dealt.tasks if t.kind == "train"} == {training}
    gpus.fits(dealt, of(total))


@pytest.mark.parametrize(
    ("spec", "total", "says"),
    [
        ({"inference": {"lifetime": "Run"}, "training": {"gpus": 1}}, 1, "lifetime: Run keeps 1 GPUs while training needs 1"),
        ({"inference": {"topology": "PerAgent", "lifetime": "Phase"}}, 2, "inference.topology: the servers need 3 GPUs"),
        ({"inference": {"lifetime": "Phase"}, "training": {"gpus": 4}}, 2, "training.gpus: 4 asked for, this machine has 2 GPUs$"),
        ({"training": {"gpus": 1}}, 0, "training.gpus: 1 asked for, this machine has no GPU; leave it out to use the CPU"),
        ({"training": {"base": "nf4"}}, 0, "training.base: nf4 needs a GPU, this machine has no GPU; set base to full"),
        ({"training": {"parallelism": "Sharded", "gpus": 2}}, 1, "training.gpus: 2 asked for, this machine has 1 GPU$"),
        (
            {"training": {"nodes": 3, "parallelism": "Sharded", "gpus": 1}},
            8,
            "training.nodes: 3 asked for, and this is one machine; set it to 1, or use a cluster$",
        ),
        ({"inference": {"gpus": 2}}, 0, "inference.gpus: 2 asked for, this machine has no GPU; leave it out to use the CPU"),
    ],
)
def test_what_is_not_there_is_refused(spec, total, says) -> None:
    with pytest.raises(BadSpec, match=says):
        gpus.fits(gpus.dealt(graph(**spec), of(total)), of(total))


PARTS = Found(("MIG-1", "MIG-2", "MIG-3"), "CUDA_VISIBLE_DEVICES=MIG-1,MIG-2,MIG-3")


def test_a_process_uses_one_part_of_a_gpu() -> None:
    dealt = gpus.dealt(graph(), PARTS)
    gpus.fits(dealt, PARTS)
    assert {task.gpus for task in dealt.tasks if task.kind == "train"} == {1}


@pytest.mark.parametrize("field", ["training", "inference"])
def test_several_parts_of_a_gpu_for_one_process_are_refused(field) -> None:
    with pytest.raises(BadSpec, match=rf"{field}.gpus: 2 asked for, and a process uses one part of a GPU \(MIG\) of the 3 GPUs"):
        gpus.fits(gpus.dealt(graph(**{field: {"gpus": 2}}), PARTS), PARTS)


def test_a_refusal_names_the_variable_that_hides_gpus() -> None:
    hidden = Found((), "CUDA_VISIBLE_DEVICES=")
    with pytest.raises(BadSpec, match=r"this machine has no GPU \(CUDA_VISIBLE_DEVICES=\); leave it out"):
        gpus.fits(graph(training={"gpus": 1}), hidden)


CPUS = "a server uses the CPU, a training process uses the CPU"


@pytest.mark.parametrize(
    ("spec", "total", "says"),
    [
        ({}, 0, f"Devices: no GPU here; {CPUS}"),
        ({}, 4, "Devices: 4 GPUs here; a server uses 1 GPU, a training process uses 3 GPUs"),
        ({"inference": {"gpus": 0}, "training": {"gpus": 0}}, 1, f"Devices: 1 GPU here; {CPUS}"),
        ({"method": "debate"}, 1, "Devices: 1 GPU here; a server uses 1 GPU"),
        (
            {"inference": {"lifetime": "Run"}},
            1,
            "Devices: 1 GPU here; a server uses 1 GPU, a training process uses 1 GPU, one after the other (inference.lifetime: Run"
            " would leave training none)",
        ),
    ],
)
def test_one_line_says_what_is_used(spec, total, says) -> None:
    assert gpus.device_line(gpus.dealt(graph(**spec), of(total)), of(total)) == says


def test_a_program_sees_the_gpus_that_it_holds_and_no_other() -> None:
    whole = gpus.dealt(graph(training={"gpus": 0}, inference={"gpus": 2}), of(2))
    train = next(t for t in whole.tasks if t.kind == "train")
    debate = next(t for t in whole.tasks if t.kind == "debate")
    [server] = whole.servers
    assert gpus.environment(server, ("MIG-1", "MIG-2"), {}) == {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}
    assert gpus.environment(train, (), {"CUDA_VISIBLE_DEVICES": "0,1"}) == {"CUDA_VISIBLE_DEVICES": ""}
    assert gpus.environment(debate, (), {}) == {}
    [open_] = graph().servers
    assert gpus.environment(open_, (), {"CUDA_VISIBLE_DEVICES": "7"}) == {}


@pytest.mark.parametrize(
    ("inherited", "amd", "names"),
    [
        ({}, True, ["CUDA_VISIBLE_DEVICES"]),
        ({"HIP_VISIBLE_DEVICES": "1,2"}, True, ["HIP_VISIBLE_DEVICES"]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "2"}, True, ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"]),
        ({"ROCR_VISIBLE_DEVICES": "1,2"}, True, ["ROCR_VISIBLE_DEVICES"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,1"}, True, ["HIP_VISIBLE_DEVICES"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}, False, ["CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_a_program_is_told_its_gpus_by_the_variables_that_count(inherited, amd, names) -> None:
    [server] = gpus.dealt(graph(), of(2)).servers
    assert gpus.environment(server, ("1",), inherited, Shown(4, amd)) == dict.fromkeys(names, "1")


def test_what_is_compiled_is_kept_for_the_next_start() -> None:
    assert gpus.compiled({"HOME": "/h", "TRITON_CACHE_DIR": "/fast"}) == {
        "VLLM_CACHE_ROOT": "/h/.cache/vllm",
        "TORCHINDUCTOR_CACHE_DIR": "/h/.cache/inductor",
        "FLASHINFER_WORKSPACE_BASE": "/h",  # of .cache/flashinfer
    }
    elsewhere = gpus.compiled({"MAFT_CACHE": "/c"})
    assert (elsewhere["VLLM_CACHE_ROOT"], elsewhere["FLASHINFER_WORKSPACE_BASE"]) == ("/c/vllm", "/c")


def test_programs_are_told_a_number_that_binds() -> None:
    def flags(made: Graph) -> set[tuple[str, ...]]:
        lines = [plan.command(t, {"r-server": ["http://h"]}) for t in made.tasks]
        return {tuple(word for word in line if word.startswith("--gpus")) for line in [*lines, plan.serve(made.servers[0])]}

    assert flags(graph()) == {()}
    assert flags(graph(training={"gpus": 2}, inference={"gpus": 0})) == {(), ("--gpus=2",), ("--gpus=0",)}
    assert plan.on_cluster(graph().servers[0]).gpus == 1
