"""The society as its users have it: real clients ask a real program, with the stand-in for vLLM behind it."""

import asyncio
import inspect
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import msgspec
import openai
import pytest
from societies import QUESTION, RUN, ask, metrics, mock_server, post, society, trained

from maft import models, records
from maft.answers.equality import Checker
from maft.asked import question_id
from maft.debate import society as players
from maft.debate.engine import HttpEngine
from maft.debate.question import Question
from maft.debate.setup import Setup
from maft.endpoint import request, served
from maft.endpoint.answering import Society
from maft.endpoint.refused import Refused
from maft.records import Problem
from maft.society_spec import SocietySpec
from maft.store.files import FileStore

pytestmark = pytest.mark.programs
AGENTS = [f"society/{role}-{n}" for role in ("generator", "critic") for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return trained(tmp_path_factory.getbasetemp() / "store")


@pytest.fixture(scope="module")
def url(tmp_path_factory, spec):
    with society(tmp_path_factory.getbasetemp(), spec) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def encoded(url: str, body: bytes, coding: str) -> int:
    """The status of a body that says of itself how it is compressed."""
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", body, headers), timeout=20)
    return error.value.code


def said(text: str = QUESTION) -> list[dict]:
    return [{"role": "user", "content": text}]


# --- answers ---


def test_the_openai_client_lists_the_models(client):
    assert [model.id for model in client.models.list()] == ["society", "society/majority", *AGENTS]
    assert client.models.retrieve("society/critic-3").owned_by == "maft"


def test_the_society_answers_with_the_vote(client):
    completion = client.chat.completions.create(model="society", messages=said())
    choice, usage = completion.choices[0], completion.usage
    vote = choice.model_extra["maft"]
    agreeing = [agent for agent in vote["agents"] if agent["agrees"]]
    assert choice.message.content == f"I work it out. Answer: {vote['answer']}" and choice.finish_reason == "stop"
    assert [agent["agent"] for agent in vote["agents"]] == [1, 2, 3]
    assert agreeing and {agent["answer"] for agent in agreeing} == {vote["answer"]}
    assert 0 <= vote["margin"] <= 3 and vote["abstained"] == (vote["margin"] == 0)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens > 0


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_a_debate_is_that_of_a_run(tmp_path, mode):
    """The same question, agents and server: word by word what the code of a run makes of it."""
    spec = trained(tmp_path / "store", debate={"mode": mode})
    with society(tmp_path, spec) as url, mock_server(spec, tmp_path) as server:
        own = asyncio.run(debated(spec, tmp_path / "store", server))
        _, body, _ = post(url, ask(maft={"transcript": True}))
    answered = body["choices"][0]["maft"]["transcript"]
    assert answered == without_right(records.plain(own))
    assert body["usage"]["completion_tokens"] == sum(call.completion_tokens for call in own.calls())


def test_a_request_chooses_the_mode_of_its_debate(tmp_path):
    spec = trained(tmp_path / "store", debate={"mode": "paper"})
    fast = msgspec.structs.replace(spec, debate=msgspec.structs.replace(spec.debate, mode="fast"))
    with society(tmp_path, spec) as url, mock_server(spec, tmp_path) as server:
        own = asyncio.run(debated(fast, tmp_path / "store", server))
        _, as_asked, _ = post(url, ask(maft={"transcript": True, "mode": "fast"}))
        _, as_the_run, _ = post(url, ask(maft={"transcript": True}))
    first, second = (body["choices"][0]["maft"]["transcript"] for body in (as_asked, as_the_run))
    assert first == without_right(records.plain(own)) != second


def test_whoever_asks_for_a_program_hears_how_programs_are_compared(tmp_path):
    spec = trained(tmp_path / "store", task={"answer": "code"})
    with society(tmp_path, spec) as url:
        _, body, _ = post(url, ask())
    assert body["choices"][0]["maft"]["warning"].startswith("programs are compared by their text")


def without_right(value):
    """A transcript, but for whether a turn is right: of a user's question nobody knows."""
    if isinstance(value, dict):
        return {name: without_right(part) for name, part in value.items() if name != "right"}
    return [without_right(part) for part in value] if isinstance(value, list) else value


async def debated(spec, store, server):
    agents = players.load(FileStore(store), "ns/run", spec, 1, spec.agents, ["server"])
    template = models.chat_template(spec.model, spec.debate.thinking)
    rules = players.held_out_rules(spec, 1)
    async with HttpEngine({"server": [server]}) as engine:
        with Checker(rules.answer) as checker, ThreadPoolExecutor(1) as judge:
            setup = Setup(rules, agents, engine, template, checker, {"server": 512}, judge)
            return await Question(setup, 0, Problem(question_id(QUESTION), QUESTION, "")).run()


def test_a_majority_is_one_round(client):
    extra = {"maft": {"transcript": True}}
    choice = client.chat.completions.create(model="society/majority", messages=said(), extra_body=extra).choices[0]
    transcript = choice.model_extra["maft"]["transcript"]
    assert [len(turns) for turns in transcript["turns"]] == [1, 1, 1] and not transcript["summaries"]


@pytest.mark.parametrize("model", AGENTS)
def test_one_agent_answers_alone(client, model):
    completion = client.chat.completions.create(model=model, messages=said(), max_tokens=40, seed=5)
    assert completion.choices[0].message.content.startswith("I work it out. Answer: ")
    assert "maft" not in completion.choices[0].model_extra


def test_one_agent_in_the_words_of_the_task_says_what_it_says_first_in_the_debate(tmp_path):
    spec = trained(tmp_path / "store", task={"prompt": "Work it out. {question}"})
    with society(tmp_path, spec) as url:
        _, whole, _ = post(url, ask(maft={"transcript": True}))
        _, one, _ = post(url, ask("society/generator-2", maft={"prompt": True}))
    first = whole["choices"][0]["maft"]["transcript"]["turns"][1][0]
    assert first["prompt"] == f"Work it out. {QUESTION}"
    assert one["choices"][0]["message"]["content"] == first["call"]["text"]
    assert one["usage"]["prompt_tokens"] == first["call"]["promptTokens"]


def test_seeds_decide(url):
    texts = [[a["answer"] for a in agents(url, seed=seed)] for seed in (1, 1, 2, 3, 4, 5)]
    assert texts[0] == texts[1] and len({tuple(t) for t in texts}) > 1


def agents(url, **fields):
    return post(url, ask("society/majority", "What is 19*3+17?", **fields))[1]["choices"][0]["maft"]["agents"]


def test_a_chat_goes_on(url):
    """Earlier turns stand before the question; neighbours of one role are one turn; texts may come in parts."""
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "7+3*4?"}]
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "user", "content": "Are you there?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": parts, "name": "me"},
    ]
    status, body, _ = post(url, {"model": "society", "messages": turns, "maft": {"transcript": True}})
    problem = body["choices"][0]["maft"]["transcript"]["problem"]
    assert status == 200 and problem["question"] == QUESTION
    assert [(m["role"], m["content"]) for m in problem["history"]] == [
        ("system", "Be brief."),
        ("user", "Hello.\n\nAre you there?"),
        ("assistant", "Yes."),
    ]


def test_ends_cut_the_answer(client):
    for model in ("society", "society/majority"):
        choice = client.chat.completions.create(model=model, messages=said(), stop=["Answer", "nothing"]).choices[0]
        assert choice.message.content == "I work it out. " and choice.finish_reason == "stop"


def test_a_limit_of_tokens_is_of_each_answer(client):
    choice = client.chat.completions.create(model="society", messages=said(), max_completion_tokens=3).choices[0]
    assert choice.finish_reason == "length"


# --- streams ---


def test_a_debate_is_streamed(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="society", messages=said(), stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("I work it out. Answer: ") and chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].choices[0].model_extra["maft"]["answer"] in text
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_debate_is_shown_as_it_goes(client):
    extra = {"maft": {"progress": True}}
    chunks = client.chat.completions.create(model="society", messages=said(), stream=True, extra_body=extra)
    turns = [c.choices[0].model_extra["maft"]["turn"] for c in chunks if "turn" in (c.choices[0].model_extra or {}).get("maft", {})]
    assert sorted((turn["round"], turn["agent"]) for turn in turns) == [(m, n) for m in (1, 2) for n in (1, 2, 3)]
    assert all(turn["answer"] in turn["text"] for turn in turns)


def test_one_agent_is_streamed_as_it_speaks(client):
    chunks = list(client.chat.completions.create(model="society/critic-1", messages=said(), stream=True))
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert words[:4] == ["I", " work", " it", " out."] and chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_as_the_page_has_it(url):
    line = ["curl", "-sN", "--fail-with-body", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    whole = subprocess.run([*line, "-d", json.dumps(ask())], capture_output=True, text=True, timeout=60, check=True)
    stream = subprocess.run([*line, "-d", json.dumps(ask(stream=True))], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(whole.stdout)["choices"][0]["maft"]["agents"]
    assert stream.stdout.startswith("data: {") and stream.stdout.endswith("data: [DONE]\n\n")
    none = subprocess.run([*line, "-d", json.dumps(ask("gpt-5"))], capture_output=True, text=True, timeout=60)
    assert none.returncode == 22 and "society/generator-1" in json.loads(none.stdout)["error"]["message"]


# --- what is refused ---

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
REFUSED = {
    "an image": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]}]}, "messages[0].content[1]"),
    "sound": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
    "tools": ({"tools": [TOOL]}, "tools"),
    "a forced tool": ({"tool_choice": "required"}, "tool_choice"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "a tool's answer": ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].role"),
    "a call of a tool": ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages[0].tool_calls"),
    "several answers": ({"n": 2}, "n"),
    "n that is no number": ({"n": True}, "n"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "a bias": ({"logit_bias": {"1": 2}}, "logit_bias"),
    "JSON as a format": ({"response_format": {"type": "json_object"}}, "response_format"),
    "speech": ({"modalities": ["text", "audio"]}, "modalities"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty"),
    "an unknown field": ({"top_k": 4}, "top_k"),
    "an unknown field of ours": ({"maft": {"votes": 3}}, "maft.votes"),
    "a mode that is none": ({"maft": {"mode": "slow"}}, "maft.mode"),
    "no time": ({"maft": {"timeoutSeconds": 0}}, "maft.timeoutSeconds"),
    "progress without a stream": ({"maft": {"progress": True}}, "maft.progress"),
    "our own field": ({"turns": []}, "turns"),
    "heat": ({"temperature": 2.5}, "temperature"),
    "no mass": ({"top_p": 0}, "top_p"),
    "no room": ({"max_tokens": 0}, "max_tokens"),
    "words for a number": ({"max_tokens": "ten"}, "max_tokens"),
    "a long seed": ({"seed": 2**64}, "seed"),
    "an empty end": ({"stop": ["a", ""]}, "stop[1]"),
    "a model that is no name": ({"model": 5}, "model"),
    "no messages": ({"messages": []}, "messages"),
    "messages that are none": ({"messages": "What is 1+1?"}, "messages"),
    "a message that is none": ({"messages": ["hi"]}, "messages[0]"),
    "nobody's message": ({"messages": [{"role": "robot", "content": "?"}]}, "messages[0].role"),
    "no words": ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    "a last word of the assistant": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "messages",
    ),
    "a late system": ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages"),
    "a system alone": ({"messages": [{"role": "system", "content": "b"}]}, "messages"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_society_does_not_take_is_refused_by_its_field(case):
    changes, field = REFUSED[case]
    with pytest.raises(Refused) as refused:
        request.read(json.dumps({**ask(), **changes}).encode())
    assert (refused.value.status, refused.value.param) == (400, field), refused.value
    assert field in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"temperature": -1}, "temperature: -1; expected a number >= 0.0"),
        ({"max_tokens": "ten"}, "max_tokens: 'ten'; expected a whole number or null"),
        ({"maft": {"transcript": "yes"}}, "maft.transcript: 'yes'; expected true or false"),
        ({"stop": ["a", ""]}, "stop[1]: expected a text of length >= 1"),
        ({"maft": {"votes": 3}}, "maft.votes: no field that the society knows; leave it out"),
    ],
)
def test_a_refusal_says_what_the_field_holds_and_what_to_do(changes, line):
    with pytest.raises(Refused) as refused:
        request.read(json.dumps({**ask(), **changes}).encode())
    assert str(refused.value) == line


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"\xff"', b'{"model": "\\ud800"}', b"[" * 100_000, b"{}"])
def test_what_is_no_request_is_refused(body):
    with pytest.raises(Refused, match=r"JSON|model: missing; give it"):
        request.read(body)


NEUTRAL = {
    "n": 1,
    "tools": [],
    "logprobs": False,
    "tool_choice": "auto",
    "presence_penalty": 0,
    "response_format": {"type": "text"},
}


@pytest.mark.parametrize("fields", [NEUTRAL, dict.fromkeys(NEUTRAL), {"user": "me", "metadata": {"a": "b"}, "temperature": 0}])
def test_fields_that_ask_for_nothing_are_taken(fields):
    assert request.read(json.dumps({**ask(), **fields}).encode()).turns[0].content == QUESTION


def test_errors_are_those_of_the_openai_client(client):
    with pytest.raises(openai.NotFoundError, match="there are society, society/majority, society/generator-1") as unknown:
        client.chat.completions.create(model="gpt-5", messages=said())
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="tools") as tools:
        client.chat.completions.create(model="society", messages=said(), tools=[TOOL])
    assert tools.value.param == "tools"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize("model", ["society", "society/majority", "society/critic-1"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", [600, 20_000])
def test_a_question_beyond_the_context_is_refused(client, model, stream, words):
    with pytest.raises(openai.BadRequestError, match="the context has 512") as refused:
        client.chat.completions.create(model=model, messages=said("7 + " * words + "1?"), stream=stream)
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "messages"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", [52, 60, 75, 95])
def test_a_question_whose_debate_has_no_room_is_refused_and_may_be_voted_on(client, words, stream):
    """It stands in each round's prompt again, so what fits once may not fit twice."""
    question = said("word " * words + QUESTION)
    with pytest.raises(openai.APIError, match=r"the last prompt of the debate.*the context has 512") as refused:
        answer = client.chat.completions.create(model="society", messages=question, stream=stream)
        list(answer)
    assert refused.value.code == "context_length_exceeded"
    assert client.chat.completions.create(model="society/majority", messages=question).choices[0].model_extra["maft"]["answer"]


@pytest.mark.parametrize("words", range(1, 110, 3))
def test_whatever_its_length_a_question_is_answered_or_refused(url, words):
    status, body, _ = post(url, ask(question="word " * words + QUESTION))
    assert status == 400 if "error" in body else body["choices"][0]["maft"]["answer"] is not None, body


def test_a_prompt_is_measured_by_the_context_of_those_who_are_asked(spec, tmp_path):
    """Servers of agents with several bases have contexts of their own."""
    trained(tmp_path)
    there = served.load(FileStore(tmp_path), RUN, spec, 1, ["a", "b", "c"], SocietySpec())
    template = models.chat_template(spec.model, "Auto")
    setup = Setup(there.rules, there.players, None, template, None, {"a": 4096, "b": 40, "c": 4096}, None)
    asked = {n: request.read(json.dumps(ask(f"society/generator-{n}", "word " * 20)).encode()) for n in (1, 2)}
    made = Society(spec, there, setup, None)
    assert len(made.prompt(asked[1])) > 40
    with pytest.raises(Refused, match="the context has 40"):
        made.prompt(asked[2])


def test_other_paths_and_bodies(url):
    status, body, _ = post(url, ask(), path="/v1/embeddings")
    assert status == 404 and body["error"]["message"].endswith("there are POST /v1/chat/completions and GET /v1/models")
    assert post(url, ask(), path="/v1/models")[0] == 405
    assert encoded(url, b"no gzip", "gzip") == 400
    status, body, _ = post(url, b"x" * (5 << 20))
    assert status == 413 and body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"] == "the request has more than 4,194,304 bytes; send a shorter chat"
    assert post(url, b"{")[0] == 400


def test_every_field_of_openais_client_is_taken_passed_over_or_refused_by_name():
    of_the_transport = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    fields = set(inspect.signature(openai.resources.chat.completions.Completions.create).parameters) - of_the_transport
    assert fields <= {*request.Asked.__struct_fields__, *request._PASSED_OVER, *request._UNABLE}
    assert request.read(json.dumps({**ask(), **dict.fromkeys(request._PASSED_OVER, "x")}).encode()).model == ask()["model"]


def test_requests_are_measured(url):
    post(url, ask())
    post(url, ask("gpt-5"))
    text = metrics(url)
    assert 'maft_society_requests_total{model="",status="404"}' in text
    for name in ("request_seconds_count", "answer_tokens_sum", "margin_ratio_bucket", "abstentions_total"):
        assert f'maft_society_{name}{{model="society"' in text or f'maft_society_{name}{{le="0.0",model="society"' in text, name
    assert "maft_society_ready 1.0" in text and "maft_society_requests_active 0.0" in text


def test_a_mode_of_its_own(tmp_path):
    """A society may debate faster than its run did: agents share one summary, and unanimity ends the debate."""
    spec = trained(tmp_path / "store")
    with society(tmp_path, spec, SocietySpec(mode="fast")) as url:
        bodies = [post(url, ask(question=f"What is {n}+3*4?", maft={"transcript": True}))[1] for n in range(8)]
    transcripts = [body["choices"][0]["maft"]["transcript"] for body in bodies]
    assert {s["agent"] for t in transcripts for s in t["summaries"]} <= {None}
    assert {len(t["votes"]) for t in transcripts} == {1, 2}
