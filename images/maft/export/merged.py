"""`--to merged`: whole models, the adapter's weights added to the base's, for what cannot load adapters."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maft.export import whole
from maft.export.cards import CARD, card
from maft.export.folders import put_adapter, write
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.spec import Spec
from maft.store.base import explained

MADE_OF = "maft_merged.json"  # written last: which weights the folder was made of


def send(request: Request) -> Sent:
    """Writes a model folder for each adapter; those that are whole already stay."""
    return whole.send(request, "merged", MADE_OF, _merge)


def _merge(request: Request, spec: Spec, agent: Agent, into: Path) -> None:
    from peft import PeftModel
    from transformers.utils import logging

    from maft import models
    from maft.device import choose, read
    from maft.lora import load_base

    logging.disable_progress_bar()  # a bar for each file of each model says nothing
    with TemporaryDirectory() as scratch, explained(f"folder {into}"):
        put_adapter(request, agent, Path(scratch))
        # Added up in float32, on the CPU, and only then rounded to what the base is stored in.
        model = spec.model_of(agent.adapter.agent)
        base = load_base(model, choose(0, read()))
        merged: Any = PeftModel.from_pretrained(base, scratch, torch_device="cpu").merge_and_unload()
        stored = getattr(models.config(model), "dtype", None)
        into.mkdir(parents=True, exist_ok=True)
        (into / MADE_OF).unlink(missing_ok=True)
        (merged.to(stored) if stored else merged).save_pretrained(into)
        models.template_of(spec, agent.adapter.agent).tokenizer.save_pretrained(into)
        for weights in into.glob("*.safetensors"):  # written for their owner alone
            weights.chmod((into / "config.json").stat().st_mode)
        write(into / CARD, card(request, agent, "merged").encode())
        write(into / MADE_OF, whole.made_of(agent))
