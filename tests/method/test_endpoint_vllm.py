"""The society over a real vLLM server, with adapters that the server fetches from the run's commits."""

import asyncio
import hashlib
import sys
from pathlib import Path

import openai
import pytest
from conftest import KEY, TINY, free_port, serving
from small import a_spec
from societies import QUESTION, RUN, ask, post

from maft import adapters, lora, records
from maft.chat_template import load_chat_template
from maft.debate.engine import HttpEngine, Request
from maft.records import Adapter, DatasetCounts, Message
from maft.spec import Spec, immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.train.trainer import Trainer

pytestmark = pytest.mark.engine
ITERATION = 9  # of no other test with this server
AGENTS = 2


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


def committed(store: FileStore, template, folder: Path) -> tuple[Spec, tuple[str, ...]]:
    """Two generators, trained a little, as the iteration of a run."""
    training = {
        "lora": {"rank": 4, "alpha": 8, "dropout": 0},
        "learningRate": 0.01,
        "warmup": 0,
        "weightDecay": 0,
        "epochs": 4,
        "batchSize": 1,
        "batchTokens": 4096,
    }
    spec = a_spec(agents=AGENTS, iterations=ITERATION, debate={"critics": False}, training=training)
    base, names = lora.load_base(spec.model), []
    counts = [DatasetCounts("generator", agent, 9, {}) for agent in range(AGENTS)]
    publish(store, layout.datasets(RUN, ITERATION), {}, meta={"counts": records.plain(counts)})
    for agent in range(AGENTS):
        made = folder / f"adapter-{agent}"
        chat = (Message("user", QUESTION), Message("assistant", f"I am {agent}. First 3*4=12. Then 7+12=19. Answer: 19"))
        tokens = [template.tokens(chat, every_turn=False)]
        Trainer(base, spec.training, lambda loss: None).train(tokens, made, seed=agent, previous=None)
        lora.tidy(made, spec.model, "# card")
        digest = hashlib.sha256((made / adapters.WEIGHTS).read_bytes()).hexdigest()
        names.append(adapters.name("generator", agent, ITERATION, digest))
        described = Adapter("generator", agent, ITERATION, names[-1], True, 1, 4, 1.0, 0.1)
        files = {path.name: path for path in made.iterdir()}
        publish(store, layout.adapter(RUN, ITERATION, "generator", agent), files, meta={"adapter": records.plain(described)})
    return spec, tuple(names)


@pytest.fixture(scope="module")
def answering(vllm_url, vllm_store, template, tmp_path_factory):
    """The society's URL, and the names of its adapters on the server."""
    folder, port = tmp_path_factory.mktemp("society"), free_port()
    spec, names = committed(FileStore(vllm_store), template, folder)
    line = [sys.executable, "-m", "maft.endpoint", f"--store={vllm_store}", f"--run={RUN}", f"--spec={immutable_spec_json(spec)}"]
    line += [f"--iteration={ITERATION}", f"--server=society={vllm_url}", "--host=127.0.0.1", f"--port={port}"]
    with serving(line, port, folder / "log.txt", 120, health="/ready", VLLM_API_KEY=KEY) as url:
        yield url, names


def test_the_finetuned_agents_debate(answering):
    url, names = answering
    status, body, _ = post(url, ask(maft={"transcript": True}))
    vote = body["choices"][0]["maft"]
    turns = vote["transcript"]["turns"]
    assert status == 200 and [[turn["call"]["model"] for turn in agent] for agent in turns] == [[name] * 2 for name in names]
    assert post(url, ask(maft={"transcript": True}))[1]["choices"] == body["choices"]  # equal questions, equal debates
    assert body["usage"]["completion_tokens"] >= sum(turn["call"]["completionTokens"] for agent in turns for turn in agent)


@pytest.mark.parametrize("agent", range(AGENTS))
def test_one_agent_is_what_the_server_says_for_its_adapter(answering, vllm_url, template, agent):
    url, names = answering
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    asked = {**ask(f"society/generator-{agent + 1}"), "temperature": 0, "max_tokens": 30, "seed": 1}
    whole = client.chat.completions.create(**asked).choices[0]
    pieces = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    streamed = "".join(piece.delta.content or "" for piece in pieces)

    async def direct():
        async with HttpEngine({"s": [vllm_url]}, key=KEY) as engine:
            prompt = template.prompt([Message("user", QUESTION)])
            return await engine.complete("s", Request(names[agent], prompt, 1, 0.0, 0.9, 30, template.stops))

    call = asyncio.run(direct())
    assert whole.message.content == streamed.strip() == call.text.strip() and call.text.strip()
    assert whole.finish_reason == pieces[-1].finish_reason == call.finish_reason
