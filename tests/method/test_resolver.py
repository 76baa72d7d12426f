"""Adapters on a real vLLM server: fetched by name at their first request, checked, and never loaded in any other way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest
import torch
from conftest import KEY, RUN, TINY, answers, free_port, serve_command, wait_until
from peft import PeftModel
from small import a_spec
from transformers import AutoModelForCausalLM

from maft import adapters, lora, records
from maft.chat_template import load_chat_template
from maft.debate.engine import HttpEngine, Request
from maft.errors import BadInput
from maft.records import Adapter, Message
from maft.store import layout
from maft.store.commits import fetch_folder, publish
from maft.store.files import FileStore
from maft.train.trainer import Trainer

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture(scope="module")
def base():
    return lora.load_base(a_spec().model)


def publish_adapter(base, template, store, folder, agent: int, iteration: int = 1, rank: int = 4, run: str = RUN) -> str:
    """A trained adapter under its name; strong enough to change answers."""
    messages = (Message("user", "What is 7+3*4?"), Message("assistant", f"Agent {agent} says so. Answer: {agent}"))
    training = {
        "lora": {"rank": rank, "alpha": 2 * rank, "dropout": 0},
        "learningRate": 0.01,
        "warmup": 0,
        "weightDecay": 0,
        "epochs": 12,
        "batchSize": 1,
        "batchTokens": 4096,
    }
    spec = a_spec(training=training)
    tokens = [template.tokens(messages, every_turn=False)]
    Trainer(base, spec.training, lambda loss: None).train(tokens, folder, seed=agent, previous=None)
    lora.tidy(folder, spec.model, "# card")
    return commit_adapter(store, folder, agent, iteration, run)


def commit_adapter(store, folder, agent: int, iteration: int = 1, run: str = RUN) -> str:
    import hashlib

    digest = hashlib.sha256((folder / adapters.WEIGHTS).read_bytes()).hexdigest()
    name = adapters.name("generator", agent, iteration, digest)
    made = Adapter("generator", agent, iteration, name, True, 1, 12, 1.0, 0.1)
    prefix = layout.adapter(run, iteration, "generator", agent)
    publish(store, prefix, {p.name: p for p in folder.iterdir()}, meta={"adapter": records.plain(made)})
    return name


def greedy(folder, prompt, template) -> str:
    """What transformers and PEFT say with the adapter in that folder."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32), folder).eval()
    with torch.no_grad():
        ids = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=20)[0, len(prompt) :]
    return template._tokenizer.decode(ids, skip_special_tokens=True)


def complete(url, model, prompt, *, patience=30.0, seed=0, temperature=0.0, max_tokens=20, owner=""):
    async def one():
        async with HttpEngine({"s": [url]}, patience, owner, key=KEY) as engine:
            return await engine.complete("s", Request(model, prompt, seed, temperature, 1.0, max_tokens))

    return asyncio.run(one())


def test_greedy_answers_equal_peft_token_by_token(vllm_url, vllm_store, base, template, tmp_path):
    """Three adapters through a server that holds two at a time, asked in turn: each is the one that PEFT loads."""
    store, prompts = (
        FileStore(vllm_store),
        [template.prompt([Message("user", f"What is {q}?")]) for q in ("7+3*4", "8*9-5", "60-3*3")],
    )
    for agent in range(3):
        folder = tmp_path / str(agent)
        name = publish_adapter(base, template, store, folder, agent)
        for prompt in prompts:
            assert complete(vllm_url, name, prompt).text == greedy(folder, prompt, template)


def test_an_adapter_of_another_run_of_the_namespace(vllm_url, vllm_store, base, template, tmp_path):
    """What `maft compare` asks its one server for: the run's name goes before the adapter's."""
    store, prompt = FileStore(vllm_store), template.prompt([Message("user", "What is 7+3*4?")])
    name = publish_adapter(base, template, store, tmp_path / "a", 4, run="ns/run-union-0")
    call = complete(vllm_url, name, prompt, owner="run-union-0")
    assert (call.model, call.text) == (name, greedy(tmp_path / "a", prompt, template))
    assert complete(vllm_url, "base", prompt, owner="run-union-0").text == complete(vllm_url, "base", prompt).text
    for owner in ("", "run-union-1"):
        with pytest.raises(BadInput, match=r"\(404\)"):
            complete(vllm_url, name, prompt, owner=owner)


def test_an_adapter_is_fetched_once_for_many_first_requests(vllm_url, vllm_store, base, template, tmp_path):
    name = publish_adapter(base, template, FileStore(vllm_store), tmp_path / "a", 5)
    prompt = template.prompt([Message("user", "What is 7+3*4?")])

    async def many():
        async with HttpEngine({"s": [vllm_url]}, key=KEY) as engine:
            return await asyncio.gather(*(engine.complete("s", Request(name, prompt, s, 1.0, 0.9, 5)) for s in range(20)))

    assert len(asyncio.run(many())) == 20


def test_ready_waits_until_each_adapter_has_answered(vllm_url, vllm_store, base, template, tmp_path):
    name = publish_adapter(base, template, FileStore(vllm_store), tmp_path / "a", 6)

    async def ready():
        async with HttpEngine({"s": [vllm_url]}, key=KEY) as engine:
            return await engine.ready("s", [name])

    assert asyncio.run(ready()) == 512
    listing = urllib.request.Request(f"{vllm_url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(listing) as response:
        assert name in {m["id"] for m in json.load(response)["data"]}


@pytest.mark.parametrize("name", ["generator-9-1-000000000000", "generator-0-1-ffffffffffff", "../../etc", "critic-0-1", "x"])
def test_names_of_nothing_are_refused(vllm_url, template, name):
    with pytest.raises(BadInput, match=r"\(404\)"):
        complete(vllm_url, name, template.prompt([Message("user", "hi")]))


def test_a_damaged_adapter_is_not_served_and_the_server_lives(vllm_url, vllm_store, base, template, tmp_path):
    store = FileStore(vllm_store)
    name = publish_adapter(base, template, store, tmp_path / "a", 7)
    prefix = layout.adapter(RUN, 1, "generator", 7)
    weights = store.read(prefix + adapters.WEIGHTS)
    store.write(prefix + adapters.WEIGHTS, weights[:-4] + b"junk")
    prompt = template.prompt([Message("user", "What is 7+3*4?")])
    with pytest.raises(BadInput, match=r"refused a request \(422\): .*adapter generator-7-1-.*damaged"):
        complete(vllm_url, name, prompt)
    assert complete(vllm_url, "base", prompt).text
    store.write(prefix + adapters.WEIGHTS, weights)
    assert complete(vllm_url, name, prompt).text == greedy(tmp_path / "a", prompt, template)


@pytest.mark.parametrize(
    "route",
    [
        *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/x", "/v1/load_lora_adapter/"),
        *("/invocations", "/tokenize", "/docs", "/openapi.json", "/v2/embed", "//v1/models", "/"),  # no key is wanted there
    ],
)
def test_routes_of_administration_and_those_without_a_key_are_closed(vllm_url, route):
    body = json.dumps({"lora_name": "x", "lora_path": "/etc"}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(vllm_url + route, data=body, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 403


def test_a_fetched_folder_that_was_damaged_is_fetched_again(vllm_store, base, template, tmp_path):
    store = FileStore(vllm_store)
    publish_adapter(base, template, store, tmp_path / "a", 8)
    from maft.store.commits import committed

    commit = committed(store, layout.adapter(RUN, 1, "generator", 8))
    folder = fetch_folder(store, commit, tmp_path / "cache")
    (folder / adapters.WEIGHTS).write_bytes(b"junk")
    assert fetch_folder(store, commit, tmp_path / "cache") == folder
    assert (folder / adapters.WEIGHTS).read_bytes() == store.read(commit.prefix + adapters.WEIGHTS)


def test_no_engine_outlives_a_server_killed_with_its_parent(tmp_path):
    """kill -9 of what started the server takes API server, engine and workers with it."""
    port = free_port()
    command = ["setpriv", "--pdeathsig", "KILL", "--", *serve_command(tmp_path, tmp_path / "adapters", port)]
    output = f"stdout=open({str(tmp_path / 'log')!r}, 'w'), stderr=subprocess.STDOUT"
    script = f"import subprocess; subprocess.run({command!r}, {output})"
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "MAFT_DIE_WITH_PARENT": "1"})
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 400, lambda: (tmp_path / "log").read_text()[-3000:])
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 3  # API server, engine, worker
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 20, lambda: str(family))
