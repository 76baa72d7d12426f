"""Weights and the configuration beside them: what does not belong together is refused, what was published passes.

Beside test_preflight.py, for here no vLLM is asked: it alters classes of transformers, of which no model is made after that.
"""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from families import FAMILIES, write_weights
from safetensors.torch import load_file, save_file
from small import TINY, a_spec

from maft import lora, models
from maft.errors import BadInput
from maft.preflight import __main__ as preflight
from maft.program import Assignment
from maft.store.files import FileStore

pytestmark = pytest.mark.models


def without_half(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(dict(list(tensors.items())[:3]), folder / "model.safetensors", {"format": "pt"})


def of_other_names(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def configured(folder, **fields):
    made = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**made, **fields}))


UNFIT = {
    "half": (without_half, r"\S+ and \d+ more are missing"),
    "names": (of_other_names, r"\S+ and \d+ more are missing"),
    "deeper": (partial(configured, num_hidden_layers=99), r"\S+ and \d+ more are missing"),
    "wider": (partial(configured, hidden_size=512), r"model.embed_tokens.weight is \(344, 128\), not \(344, 512\)"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_weights_of_another_configuration_are_refused(case, tmp_path):
    """transformers makes up what is missing, and says so in a log: training would learn from noise."""
    change, says = UNFIT[case]
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    change(folder)
    spec = a_spec(model={"source": str(folder)})
    with pytest.raises(BadInput, match=rf"^model\.source: the weights of .* do not fit its config.json, .*: {says}$"):
        preflight.main(Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=spec))
    with pytest.raises(BadInput, match=r"^model\.source: .*"):
        lora.load_base(spec.model)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_as_they_are_published_fit(family, tmp_path, capsys):
    """Tied weights, experts one by one, towers and prefixes: as transformers itself writes and reads them."""
    spec = a_spec(model={"source": str(write_weights(family, tmp_path / "model", None))}).model
    lora.check_fit(models.config(spec), spec)
    assert "not compared" not in capsys.readouterr().out
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    lacking = next(name for name in tensors if "layers.1." in name and not re.search(r"vision|visual|experts", name))
    save_file({name: tensor for name, tensor in tensors.items() if name != lacking}, weights, {"format": "pt"})
    with pytest.raises(BadInput, match=r"do not fit its config\.json"):
        lora.check_fit(models.config(spec), spec)
