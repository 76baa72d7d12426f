"""Preflight: what models of every family go through before a server starts, and what is refused there in one line."""

import os

import pytest
from families import FAMILIES, config, write
from small import a_spec

from maft.preflight import __main__ as preflight
from maft.program import Assignment
from maft.store.files import FileStore
from maft.summaries import PreflightSummary

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def tried(folder, store, **spec) -> PreflightSummary:
    given = a_spec(model={"source": str(folder)}, **spec)
    return preflight.main(Assignment(store=FileStore(store), run="ns/run", given_spec=given))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_vllm_takes_its_adapter(family, tmp_path):
    summary = tried(write(config(family), tmp_path / "model"), tmp_path / "store")
    assert summary.modules >= 2
    assert not [line for line in summary.warnings if "vLLM" in line], summary.warnings
