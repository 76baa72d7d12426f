"""Families of models, small and with random weights: trained on their dialogues, and served by vLLM as PEFT says it.

What is verified of each stands in families.json, from which docs/models.md is made; RECORD_FAMILIES=1 writes it anew.
"""

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import family_models
import pytest
import torch
from conftest import ROOT, RUN, free_port, serving
from family_list import FAMILIES, LIKE
from family_models import ARCHITECTURES, QUESTION, Adapter
from family_table import verified
from small import a_spec

from maft import adapters, records
from maft.debate.engine import HttpEngine, Request
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import BASE, Call, Message
from maft.serve.__main__ import check_device
from maft.serve.platform import Platform
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore

MIXTURES = {"qwen3_moe", "mixtral", "gpt_oss", "glm4_moe"}  # vLLM's CPU build serves none of them with adapters
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
IN_THE_GATE = ("llama3_1", "qwen3", "gemma3")
# What else vLLM's CPU build does not serve as transformers does, in float32: linear attention, and (0.32, other logits) LFM2.
NOT_ON_A_CPU = {"qwen3_5_think": "in bfloat16 alone on a CPU, not tried", "lfm2": "other logits than transformers' on a CPU"}
SERVED = [key for key in ARCHITECTURES if key not in MIXTURES and key not in NOT_ON_A_CPU]
LONGEST = 4096
# vLLM lets Cohere's models see a token more than transformers does, as they were trained.
WINDOWS = {"cohere2": 65}
TOKENS = 24
PROMPTS = (
    [QUESTION],
    [QUESTION, Message("assistant", "Answer: 10"), Message("user", "Sure?")],
    [Message("system", "Be brief."), Message("user", "What is 7+3? And what is 8+2? " * 6)],  # longer than sliding windows
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models of two layers are no work for several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(mode=False)


def test_the_page_is_made_of_what_was_verified() -> None:
    """`python scripts/models_reference.py` after the suite wrote families.json."""
    sys.path.append(str(ROOT / "scripts"))
    import models_reference

    assert (ROOT / "docs" / "models.md").read_text() == models_reference.page()
    facts = models_reference.facts()
    assert set(facts) == set(FAMILIES)
    assert {key for key, found in facts.items() if "training" in found} >= {*ARCHITECTURES, *LIKE}
    assert {key for key, found in facts.items() if "served" in found} >= {*ARCHITECTURES, *LIKE}


# --- training ---


@pytest.mark.models
@pytest.mark.parametrize("key", ARCHITECTURES)
def test_an_adapter_is_trained_on_the_familys_dialogues(key: str, tmp_path: Path) -> None:
    """Two steps, and the second knows of the first; of a mixture of experts attention alone gets an adapter."""
    model = family_models.make(key, tmp_path / "model")
    made = family_models.train(model, tmp_path / "adapter", epochs=2)
    assert len(made.curve) == 2
    assert made.curve[1] < made.curve[0]
    assert (made.modules == ATTENTION) == (key in MIXTURES)
    [prompt] = [family_models.template_of(model).prompt(PROMPTS[0])]
    with_adapter, without = (family_models.logits(model, folder, prompt) for folder in (made.folder, None))
    assert not torch.allclose(with_adapter, without, atol=1e-3)
    verified(key, "training", "attention only" if key in MIXTURES else "all linear layers")
    if key in NOT_ON_A_CPU:
        verified(key, "served", NOT_ON_A_CPU[key])


def test_experts_learn_where_servers_take_them(tmp_path: Path) -> None:
    model = family_models.make("gpt_oss", tmp_path / "model")
    made = family_models.train(model, tmp_path / "adapter", epochs=2, experts=True)
    assert made.curve[1] < made.curve[0]
    assert set(ATTENTION) < set(made.modules)


@pytest.mark.models
@pytest.mark.parametrize("key", sorted(MIXTURES - {"gpt_oss"}))
def test_experts_that_no_server_takes(key: str, tmp_path: Path) -> None:
    model = family_models.make(key, tmp_path / "model")
    with pytest.raises(
        BadInput, match=r"^training\.lora\.experts: servers take no adapters of the experts of \w+; set it to false$"
    ):
        family_models.train(model, tmp_path / "adapter", epochs=1, experts=True)


# --- serving ---


def ask(url: str, names: tuple[str, ...], prompts: list[list[int]], stops: tuple[int, ...]) -> list[list[Call]]:
    """Each model's greedy answers."""

    async def all_of_them() -> list[list[Call]]:
        async with HttpEngine({"s": [url]}, 60.0) as engine:
            requests = [
                [Request(name, prompt, 0, 0.0, 1.0, TOKENS, stop_token_ids=stops, skip_special_tokens=False) for prompt in prompts]
                for name in names
            ]
            return [[await engine.complete("s", request) for request in of_a_model] for of_a_model in requests]

    return asyncio.run(all_of_them())


def publish_adapter(store: Path, made: Adapter) -> str:
    digest = hashlib.sha256((made.folder / adapters.WEIGHTS).read_bytes()).hexdigest()
    name = adapters.name("generator", 0, 1, digest)
    described = records.Adapter("generator", 0, 1, name, True, 3, 20, made.curve[0], made.curve[-1])
    files = {p.name: p for p in made.folder.iterdir()}
    publish(FileStore(store), layout.adapter(RUN, 1, "generator", 0), files, meta={"adapter": records.plain(described)})
    return name


def serve_command(model: Path, store: Path, scratch: Path, port: int) -> list[str]:
    """A server of the model as a run starts it."""
    spec = a_spec(model={"source": str(model), "maxLength": LONGEST}, inference={"extraArgs": ["--max-num-seqs=4"]})
    command = [sys.executable, "-m", "maft.serve", "--store", str(store), "--run", RUN, f"--spec={immutable_spec_json(spec)}"]
    command += ["--adapters=2", "--adapter-folder", str(scratch), "--host", "127.0.0.1", "--port", str(port)]
    return command


def check_served(key: str, tmp_path: Path) -> None:
    """Trains, publishes, serves, and compares with PEFT token by token."""
    model = family_models.make(key, tmp_path / "model")
    made = family_models.train(model, tmp_path / "adapter", epochs=family_models.EPOCHS.get(key, 20))
    template = family_models.template_of(model)
    prompts = [template.prompt(messages) for messages in PROMPTS]
    asked = family_models.with_window(model, WINDOWS[key]) if key in WINDOWS else model
    expected = [family_models.greedy(asked, folder, prompts, TOKENS) for folder in (None, made.folder)]
    assert expected[0] != expected[1]
    store, port = tmp_path / "store", free_port()
    name = publish_adapter(store, made)
    command = serve_command(model, store, tmp_path / "fetched", port)
    with serving(command, port, tmp_path / "log.txt", 500, MAFT_DIE_WITH_PARENT="1") as url:
        said = ask(url, (BASE, name), prompts, template.stops)
    for of_model, tokens in zip(said, expected, strict=True):
        assert [list(call.ids) for call in of_model] == tokens
        assert [call.prompt_tokens for call in of_model] == [len(prompt) for prompt in prompts]
    verified(key, "served", "as PEFT says it" + " (window: 1 token longer)" * (key in WINDOWS))


@pytest.mark.parametrize("key", sorted(MIXTURES))
def test_a_mixture_of_experts_is_refused_before_a_server_starts(key: str, tmp_path: Path) -> None:
    """Where there is no GPU. What a GPU server would say to its adapter, vLLM's own validators say: test_preflight.py."""
    model = family_models.make(key, tmp_path / "model")
    assignment = Assignment(store=FileStore(tmp_path), run=RUN, given_spec=family_models.spec_of(model))
    with pytest.raises(
        BadInput, match=r"is a mixture of experts, which vLLM's CPU build does not serve with adapters; its servers"
    ):
        check_device(assignment, Platform("cpu"))
    verified(key, "served", "needs a GPU, not tried")


@pytest.mark.engine
@pytest.mark.parametrize("key", IN_THE_GATE)
def test_what_is_served_is_what_peft_says(key: str, tmp_path: Path) -> None:
    check_served(key, tmp_path)


@pytest.mark.engine
@pytest.mark.nightly
@pytest.mark.parametrize("key", [key for key in SERVED if key not in IN_THE_GATE])
def test_what_is_served_of_every_family(key: str, tmp_path: Path) -> None:
    check_served(key, tmp_path)
