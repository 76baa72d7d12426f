"""How far agents are from each other: against plain computation, against vLLM's own prompt log-probabilities, and its limits."""

import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KEY, TINY
from msgspec.structs import replace
from peft import PeftModel
from small import a_spec
from test_resolver import publish_adapter
from transformers import AutoModelForCausalLM

from maft import lora, models
from maft.chat_template import load_chat_template
from maft.diversity import __main__ as diversity
from maft.diversity import embeddings, likelihoods
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Call, Message, Problem, Transcript, Turn, Vote
from maft.store.files import FileStore

CHATS = [
    (Message("user", "What is 7+3*4?"), Message("assistant", "7+3*4 = 19. Answer: 19")),
    (Message("user", "What is 8*9-5?"), Message("assistant", "Answer: 67")),
]


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture(scope="module")
def folders(template, tmp_path_factory):
    """Two adapters that differ."""
    root, base = tmp_path_factory.mktemp("adapters"), lora.load_base(a_spec().model)
    for agent in range(2):
        publish_adapter(base, template, FileStore(root / "store"), root / str(agent), agent)
    return [root / "0", root / "1"]


def base():
    return lora.load_base(a_spec().model)


def tokens(template):
    return [template.tokens(chat, every_turn=False) for chat in CHATS]


def plain(folder, sample) -> torch.Tensor:
    """[answer tokens, vocabulary]: log-probabilities by a model of its own, one whole forward pass."""
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    model = model if folder is None else PeftModel.from_pretrained(model, str(folder))
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([sample.ids])).logits[0]
    places = [i - 1 for i, counted in enumerate(sample.completion) if counted]
    return torch.log_softmax(logits[places], dim=-1)


def test_likelihoods_and_divergence_equal_plain_computation(template, folders):
    samples = tokens(template)
    answers = [samples, samples[:1]]
    nll, kl = diversity.likelihoods(diversity.Generators(base(), folders), answers)
    each = {(j, k): plain(folders[j], samples[k]) for j in range(2) for k in range(2)}
    labels = [torch.tensor([t for t, counted in zip(s.ids, s.completion, strict=True) if counted]) for s in samples]
    for i, mine in enumerate(([0, 1], [0])):
        for j in range(2):
            losses = [-each[j, k].gather(1, labels[k][:, None]).sum() for k in mine]
            assert nll[i][j] == pytest.approx(float(sum(losses)) / sum(len(labels[k]) for k in mine), rel=1e-4)
    pairs = [(0, 1, 0), (0, 1, 1), (1, 0, 0)]
    expected = [float((each[i, k].exp() * (each[i, k] - each[j, k])).sum(-1).mean()) for i, j, k in pairs]
    assert kl == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_long_answers_go_through_the_models_in_parts(template, folders, monkeypatch):
    answers = [tokens(template), tokens(template)[:1]]
    whole = diversity.likelihoods(diversity.Generators(base(), folders), answers)
    monkeypatch.setattr(likelihoods, "LOGITS", 3 * 300)  # three targets of a vocabulary of some 300
    in_parts = diversity.Generators(base(), folders)
    assert max(sum(part.completion) for part in in_parts.parts(answers[0][0])) <= 3
    nll, kl = diversity.likelihoods(in_parts, answers)
    assert kl == pytest.approx(whole[1], rel=1e-4) and np.array(nll) == pytest.approx(np.array(whole[0]), rel=1e-4)


def test_agents_that_are_the_same_model_do_not_diverge(template, folders):
    nll, kl = diversity.likelihoods(diversity.Generators(base(), [None, None]), [tokens(template)] * 2)
    assert kl == pytest.approx(0, abs=1e-6) and nll[0][1] == pytest.approx(nll[0][0])
    _, mixed = diversity.likelihoods(diversity.Generators(base(), [None, folders[0]]), [tokens(template)] * 2)
    assert mixed > 0.01


def test_what_an_agent_said_stands_behind_the_prompt_that_it_saw(tmp_path):
    """One that does not think is asked otherwise than the others, by the same model."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    jinja = folder / "chat_template.jinja"
    begins = "%}<|assistant|>{% endif"
    switch = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    jinja.write_text(jinja.read_text().replace(begins, f"%}}<|assistant|>{switch}{{% endif"))
    spec = a_spec(
        agents=2,
        model={"source": str(folder)},
        evaluation={"embedder": ""},
        agentOverrides=[{"agent": 1, "thinking": "Disabled"}],
    )
    debated = transcript(("Answer: 1", True), ("Answer: 1", True))
    nll = diversity.measure(Assignment(FileStore(tmp_path), "ns/run", spec, gpus=0), [debated]).nll
    ways = [[models.template_of(spec, n).tokens(debated.dialogue(n, 1), every_turn=False)] for n in range(2)]
    assert ways[0] != ways[1]
    expected, _ = diversity.likelihoods(diversity.Generators(base(), [None, None]), ways)
    assert [nll[n] == pytest.approx(expected[n]) for n in range(2)] == [True, True] and nll[0][0] != nll[1][1]


def test_the_mean_leaves_out_what_agents_think_of_themselves():
    assert diversity.cross([[1.0, 2.0], [4.0, 8.0]]) == 3.0
    assert diversity.cross([[1.5]]) == 1.5


@pytest.mark.engine
def test_likelihoods_equal_those_of_vllm(vllm_url, vllm_store, template, tmp_path):
    name = publish_adapter(base(), template, FileStore(vllm_store), tmp_path / "a", 11)
    sample = tokens(template)[0]
    body = {"model": name, "prompt": list(sample.ids), "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{vllm_url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        prompt_logprobs = json.load(response)["choices"][0]["prompt_logprobs"]
    answer = [i for i, counted in enumerate(sample.completion) if counted]
    theirs = -sum(prompt_logprobs[i][str(sample.ids[i])]["logprob"] for i in answer) / len(answer)
    nll, _ = diversity.likelihoods(diversity.Generators(base(), [tmp_path / "a"]), [[sample]])
    assert nll[0][0] == pytest.approx(theirs, rel=1e-3)


def transcript(*texts: tuple[str, bool]) -> Transcript:
    def turn(text: str, agrees: bool) -> Turn:
        return Turn("?", Call("base", 0, 1, 1, "stop", text), "1", agrees, agrees)

    votes = (Vote("1", len(texts), 0, False, True),)
    return Transcript(0, Problem("p", "?", "1"), tuple((turn(text, agrees),) for text, agrees in texts), (), votes)


def test_dissimilarity_is_about_answers_that_equal_the_vote():
    def embed(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if text == "a" else [0.0, 1.0] for text in texts])

    two = [transcript(("a", True), ("b", True), ("b", False)), transcript(("a", True), ("a", True))]
    dissimilarity = diversity.dissimilarity(two, embed)
    assert dissimilarity is not None and dissimilarity.mean == 0.5
    assert diversity.dissimilarity([transcript(("a", True), ("b", False))], embed) is None


def test_the_packaged_encoder_tells_paraphrase_from_something_else():
    vectors = embeddings.load("package")(["Add the two numbers first.", "First, sum both numbers.", "The cat sleeps in the sun."])
    assert vectors.shape == (3, 384)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_a_sample_of_questions_is_seeded_and_in_order():
    many = [replace(transcript(("a", True)), index=i) for i in range(50)]
    one, again, other = (diversity.sample(many, 10, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert [t.index for t in one] == sorted(t.index for t in one)
    assert diversity.sample(many, 99, 1) == many


def test_an_encoder_that_is_none_is_told_by_its_field(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^evaluation\.embedder: "):
        embeddings.load(str(tmp_path))
