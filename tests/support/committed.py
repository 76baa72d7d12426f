"""A finished run in a store, as its programs would have committed it, with real adapters of the tiny model on random weights."""

import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from small import TINY, a_spec

from maft import adapters, records, validation
from maft.records import BASE, ROLES, Adapter, DatasetCounts, Evaluation, Problem, Role, Timing
from maft.spec import RunSpec, immutable_spec_json
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import Score, Usage, Validation

RUN = "default/demo"

AGENTS = 2
CARD = "---\nbase_model: tiny\n---\n\n# generator of agent 0, iteration 1\n\nWritten by training.\n\nLoad it with PEFT.\n"


class Bucket(FileStore):
    """A folder that says it is a bucket: resources name its objects, nobody asks them here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = "s3://bucket/prefix"


def put_run(
    store: Store,
    *,
    run: str = RUN,
    iterations: int = 1,
    trained: bool = True,
    revision: str = "",
    base: Path = TINY,
    **spec: Any,
) -> RunSpec:
    """Commits a run of two agents. trained: else every agent is the base model to the end; revision: of its model; base: the folder
    of the model that its adapters fit."""
    made = a_spec(agents=AGENTS, iterations=max(1, iterations), **{"model": {"source": str(base)}, **spec})
    part = records.encode_lines([Problem("a", "2+2?", "4")] * 3)
    meta = {"spec": json.loads(immutable_spec_json(made)), "version": "0.2.0", "model": str(TINY)}
    meta |= {"revision": revision} if revision else {}
    publish(store, f"{run}/{layout.PROBLEMS}", {"train.jsonl": part, "held-out.jsonl": part}, meta=meta)
    put_evaluation(store, 0, run)
    for iteration in range(1, iterations + 1):
        put_iteration(store, iteration, run, trained=trained, base=base)
    return made


def put_iteration(store: Store, iteration: int, run: str = RUN, *, trained: bool = True, base: Path = TINY) -> None:
    """Commits debate, datasets, adapters and evaluation of one iteration."""
    debate = layout.debate(run, iteration)
    publish(store, debate, {layout.TRANSCRIPTS: b"{}\n"}, meta={"seed": 7})
    store.write(debate + layout.TIMING, records.encode(Timing(12.0)))
    counts = [DatasetCounts(role, n, 11, {}) for role in ROLES for n in range(AGENTS)]
    publish(store, layout.datasets(run, iteration), {}, meta={"counts": records.plain(counts)})
    for role in ROLES:
        for agent in range(AGENTS):
            put_adapter(store, role, agent, iteration, run, trained=trained, base=base)
    put_evaluation(store, iteration, run)


def put_adapter(
    store: Store, role: Role, agent: int, iteration: int, run: str = RUN, *, trained: bool = True, base: Path = TINY
) -> None:
    """Commits an adapter, or that the agent stays the base model."""
    files = adapter_files(agent + 10 * (role == "critic") + 100 * iteration, base) if trained else {}
    digest = hashlib.sha256(files[adapters.WEIGHTS]).hexdigest() if trained else ""
    name = adapters.name(role, agent, iteration, digest) if trained else BASE
    losses = (1.25, 0.5) if trained else (None, None)
    made = Adapter(role, agent, iteration, name, trained, 11, 3 if trained else 0, *losses)
    prefix = layout.adapter(run, iteration, role, agent)
    publish(store, prefix, files, meta={"adapter": records.plain(made), "versions": {"peft": "0.21"}})
    store.write(prefix + layout.TIMING, records.encode(Timing(2.5)))


@functools.cache
def adapter_files(seed: int, base: Path = TINY) -> dict[str, bytes]:
    """A LoRA of rank 4 with random weights, strong enough to change what the tiny model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    with tempfile.TemporaryDirectory() as folder:
        get_peft_model(model, LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules="all-linear")).save_pretrained(
            folder
        )
        made = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {**made, "README.md": CARD.encode()}


def put_report(store: Store, run: str = RUN, text: str = "report") -> dict[str, bytes]:
    """Writes what the program of that name would have; returns its files."""
    files = {"index.html": f"<!doctype html><p>{text}</p>".encode(), "report.json": json.dumps({"run": run, "text": text}).encode()}
    for name, data in files.items():
        store.write(f"{run}/{layout.REPORT}{name}", data)
    return files


def put_evaluation(store: Store, iteration: int, run: str = RUN) -> None:
    """Commits what the held-out debate has given."""
    prefix = layout.evaluation(run, iteration)
    files = {layout.TRANSCRIPTS: b"{}\n", layout.EVALUATION: records.encode(evaluation(iteration))}
    publish(store, prefix, files, meta={"seed": 7})
    store.write(prefix + layout.TIMING, records.encode(Timing(75.0)))


def put_validations(store: Store, *several: Validation, run: str = RUN) -> None:
    """Commits what validation questions have said of iterations 1, 2 and so on."""
    for number, one in enumerate(several, start=1):
        meta = {validation.META: records.plain(one)}
        publish(store, layout.validation(run, number), {layout.TRANSCRIPTS: b"{}\n"}, meta=meta)


def evaluation(iteration: int) -> Evaluation:
    """Numbers that differ by iteration."""
    share = 0.25 + 0.125 * iteration
    answers = (Score(share, 0.01), Score(share + 0.05, 0.02))
    return Evaluation(
        iteration=iteration,
        questions=3,
        answers=answers,
        agents=(answers,) * AGENTS,
        votes=(Score(share + 0.1, 0.03), Score(share + 0.15, 0.04)),
        consensus=Score(0.9, 0.05),
        wrong_to_right=12 + iteration,
        right_to_wrong=7,
        unparsed=5,
        ties=1,
        usage=Usage(10, 200, 30),
    )
