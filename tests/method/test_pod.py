"""How many threads compute where a pod has a limit of processors, and where it has none."""

from pathlib import Path

import pytest

from maft import pod
from maft.serve.platform import Platform, threads


@pytest.mark.parametrize(
    ("quota", "wanted", "most"),
    [
        ("400000 100000\n", 64, 4),
        ("150000 100000\n", 64, 2),
        ("10000 100000\n", 64, 1),
        ("400000 100000\n", 2, 2),
        ("max 100000\n", 64, 64),
        ("\n", 64, 64),
        (None, 64, 64),
    ],
)
def test_a_quota_counts_where_it_grants_less_than_the_node_has(tmp_path: Path, quota: str | None, wanted: int, most: int) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert pod.threads(wanted, file) == most


@pytest.mark.parametrize(
    ("kind", "here", "most", "told"),
    [
        ("cpu", 64, 4, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "4"}),
        ("cpu", 2, 2, {}),
        ("cuda", 64, 8, {}),  # there vLLM knows better
        ("", 64, 4, {}),
    ],
)
def test_vllm_binds_no_thread_to_a_processor_that_the_pod_may_not_use(
    kind: str, here: int, most: int, told: dict[str, str]
) -> None:
    assert threads(Platform(kind), here, most) == told
