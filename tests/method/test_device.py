"""Where training computes: a decision over facts, of machines that no test has."""

from dataclasses import replace

import pytest

from maft import device
from maft.device import Facts, choose
from maft.errors import BadInput

WHEEL = Facts(torch="2.13.0+cu130", cuda="13.0")
H100 = replace(WHEEL, driver="580.65.06", present=2, usable=2, bf16=True, name="NVIDIA H100")
TURING = replace(H100, bf16=False, name="Tesla T4")
OLD = replace(WHEEL, driver="535.104.05", present=1, error="The NVIDIA driver on your system is too old (found version 12020).")
ROCM = Facts(torch="2.13.0+rocm7.0", hip="7.0.1", present=4, usable=4, bf16=True, name="AMD Instinct MI300X")
CPU_WHEEL = Facts(torch="2.13.0+cpu", present=1, driver="580.65.06")
HIDDEN = replace(H100, usable=0, visible="CUDA_VISIBLE_DEVICES=")
MIG = replace(H100, present=1, usable=1, visible="CUDA_VISIBLE_DEVICES=MIG-GPU-8932f937/7/0")


@pytest.mark.parametrize(
    ("asked", "facts", "expected"),
    [
        (None, H100, ("cuda", 2, "bfloat16")),
        (1, H100, ("cuda", 1, "bfloat16")),
        (2, TURING, ("cuda", 2, "float16")),
        (None, ROCM, ("cuda", 4, "bfloat16")),
        (1, MIG, ("cuda", 1, "bfloat16")),
        (0, H100, ("cpu", 0, "float32")),
        (0, OLD, ("cpu", 0, "float32")),
        (None, WHEEL, ("cpu", 0, "float32")),
        (None, replace(WHEEL, driver="535.104.05"), ("cpu", 0, "float32")),  # the node's driver, and a pod without its GPUs
        (None, Facts(torch="2.13.0+cpu"), ("cpu", 0, "float32")),
        (None, HIDDEN, ("cpu", 0, "float32")),
        (None, replace(HIDDEN, visible="CUDA_VISIBLE_DEVICES=-1"), ("cpu", 0, "float32")),
    ],
)
def test_what_was_asked_for_or_is_there(asked, facts, expected):
    found = choose(asked, facts)
    assert (found.kind, found.count, found.dtype) == expected
    assert found.log_line.startswith("device: ") and found.dtype in found.log_line and "\n" not in found.log_line


VERSIONS = r"driver 535\.104\.05, torch 2\.13\.0\+cu130 built for CUDA 13\.0"


@pytest.mark.parametrize(
    ("asked", "facts", "says"),
    [
        (None, OLD, rf"training\.gpus: CUDA does not come up: the driver is too old \({VERSIONS}, which needs driver 580 or n"),
        (1, OLD, rf"too old \({VERSIONS}"),
        (1, replace(OLD, cuda="12.8", driver="470.1"), r"needs driver 525 or newer"),
        (1, WHEEL, r"CUDA does not come up \(driver none found, torch 2\.13\.0\+cu130 built for CUDA 13\.0, GPUs shown: 0\)"),
        (3, H100, r"training\.gpus: 3 asked for, 2 there \(driver 580.*; ask for no more than that"),
        (2, MIG, r"2 asked for, 1 there with CUDA_VISIBLE_DEVICES=MIG-GPU-8932f937/7/0 \(driver"),
        (1, HIDDEN, r"CUDA_VISIBLE_DEVICES= hides the GPUs \(driver 580.*set 0 to use the CPU"),
        (1, CPU_WHEEL, r"this torch is built for CPUs alone \(driver 580.65.06, torch 2.13.0\+cpu built without CUDA\)"),
        (None, CPU_WHEEL, r"this torch is built for CPUs alone"),  # a GPU is there: silence would cost hours
        (None, replace(ROCM, usable=0, error="no ROCm-capable\ndevice"), r"ROCm does not come up: no ROCm-capable device \(driver"),
        (1, replace(H100, usable=0, error="CUDA unknown error"), r"CUDA does not come up: CUDA unknown error \(driver 580"),
    ],
)
def test_what_is_not_there_is_one_line(asked, facts, says):
    with pytest.raises(BadInput, match=says) as refused:
        choose(asked, facts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("cuda", "driver", "old"),
    [
        ("13.0", "579.99", True),
        ("13.2", "580.65.06", False),
        ("12.9", "525.60", False),
        ("12.0", "515", True),
        ("11.8", "450.80", False),
        ("13.0", None, False),
        (None, "535", False),
        ("99.0", "1", False),
        ("", "x", False),
    ],
)
def test_drivers(cuda, driver, old):
    assert device.too_old(cuda, driver) is old


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)", "580.65.06"),
        ("", None),
        ("GCC version: 12.2.0 ", None),
    ],
)
def test_the_drivers_version_is_read_from_the_kernel(text, version):
    assert device.driver_version(text) == version


def test_this_machine_has_a_device():
    found = choose(None, device.read())
    assert found.kind in ("cuda", "cpu") and (found.count > 0) == (found.kind == "cuda")


@pytest.mark.parametrize(("hip", "limit"), [(None, "CUDA_VISIBLE_DEVICES=0"), ("7.1", "HIP_VISIBLE_DEVICES=1")])
def test_the_limit_is_that_of_the_gpus_that_torch_was_built_for(hip, limit, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    monkeypatch.setattr("torch.version.hip", hip)
    assert device.read().visible == limit


def test_what_rocm_reaches_is_amds():
    assert choose(1, replace(H100, cuda=None, hip="7.1")).amd and not choose(1, H100).amd


def test_a_number_that_binds_comes_as_a_flag():
    from maft import program
    from maft.train.__main__ import PARSER

    line = ["--store", "file:///s", "--run", "n/r", "--spec={}", "--iteration=1", "--agent=0"]
    read = PARSER.parse_args([*line, "--gpus=3"])
    assert program.number("--gpus", read.gpus, most=program.MOST_GPUS) == 3 and PARSER.parse_args(line).gpus is None
    with pytest.raises(BadInput, match=r"--gpus '9': expected a whole number from 0 to 8"):
        program.number("--gpus", "9", most=program.MOST_GPUS)
