"""What preflight left for the servers of a run: which layers have adapters, and a small adapter for vLLM to judge where it was not
asked yet."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from maft import vllm_rules
from maft.program import Assignment
from maft.records import Commit
from maft.spec import Spec
from maft.store import trials
from maft.store.commits import fetch_folder
from maft.variants import named, variants


def targets(assignment: Assignment, agent: int | None = None) -> tuple[str, ...]:
    """Reads which layers have adapters, as vLLM's --lora-target-modules takes them; empty: nobody tried. agent: whose base is
    served; None: the spec's model.

    Where vLLM has not seen the small adapter, asks it: BadInput if it refuses.
    """
    layers: set[str] = set()
    spec = assignment.spec
    served = spec.model if agent is None else spec.model_of(agent)
    for variant in (each for each in variants(spec) if each.spec.model == served):
        commit = trials.found(assignment.store, assignment.run, assignment.spec, variant.agents[0])
        if commit is None:
            return ()
        with named(assignment.spec, variant):
            _check(assignment, commit, variant.spec)
        listed = commit.meta.get("targets", ())
        if not isinstance(listed, (list, tuple)):
            return ()
        layers |= {str(name) for name in listed}
    return tuple(sorted(layers))


def _check(assignment: Assignment, commit: Commit, spec: Spec) -> None:
    """Asks vLLM unless somebody did."""
    if commit.files and not commit.meta.get("vllm"):
        with tempfile.TemporaryDirectory(prefix="maft-serve-") as scratch:
            folder = fetch_folder(assignment.store, commit, Path(scratch) / "tried")
            _ask(folder, spec.training.lora.rank, spec.model.source)


def _ask(folder: Path, rank: int, source: str) -> None:
    """In a process of its own: asking leaves settings behind that a server must not have."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            process.submit(vllm_rules.ask, folder, rank, source).result()
        except BrokenProcessPool as error:
            raise OSError(f"model.source: vLLM ended while it was asked about {source}; is there memory enough?") from error
