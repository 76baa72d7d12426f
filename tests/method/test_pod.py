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
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert pod.threads(wanted, tmp_path) == most


@pytest.mark.parametrize(("quota", "period", "most"), [("400000", "100000", 4), ("150000", "100000", 2), ("-1", "100000", 64)])
def test_an_old_kernel_writes_it_elsewhere(tmp_path: Path, quota: str, period: str, most: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    assert pod.threads(64, tmp_path) == 64  # half of what it writes
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")
    assert pod.threads(64, tmp_path) == most


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
