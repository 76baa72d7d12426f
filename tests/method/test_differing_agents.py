"""Agents that differ in what they are made of: their adapters, who summarizes, their models."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import free_port, serving
from msgspec.structs import replace as change
from other_model import other_model
from safetensors.torch import load_file
from small import TINY, a_spec, resource
from societies import QUESTION, ask, endpoint, mock_server, post, trained

from maft import adapters, lora, models, program, records, revision
from maft.answers.equality import Checker
from maft.debate import lessons, society
from maft.debate.cache import CachingEngine
from maft.debate.engine import Request
from maft.debate.question import Question
from maft.debate.replica import Load
from maft.debate.setup import Setup
from maft.debate.society import Society, training_rules
from maft.device import Device
from maft.diversity import bases
from maft.diversity.likelihoods import Generators, likelihoods
from maft.endpoint import served
from maft.errors import BadInput
from maft.preflight import __main__ as preflight
from maft.prepare import __main__ as prepare
from maft.program import Assignment
from maft.records import Call, Example, Message, Problem
from maft.serve import __main__ as serve
from maft.serve import tried
from maft.serve.platform import Platform
from maft.society_spec import SocietySpec
from maft.spec import LoraSpec, immutable_spec_json
from maft.store import layout, trials
from maft.store.commits import fetch_folder, publish, required
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.variants import variants
from maft_operator.local import gpus
from maft_operator.local import society as local_society
from maft_operator.local.place import Place
from maft_operator.plan import compare
from maft_operator.plan import graph as plan
from maft_operator.spec.files import relocate
from maft_operator.spec.parse import parse

WIDE = {"agent": 1, "lora": {"rank": 12, "alpha": 24, "targetModules": ["q_proj"]}}


def assigned(store, agents=(0, 1, 2), **spec) -> Assignment:
    return Assignment(FileStore(store), "ns/run", a_spec(**spec), iteration=1, agents=tuple(agents))


# --- adapters ---


def test_an_agent_has_adapters_of_its_own_kind():
    spec = a_spec(agentOverrides=[WIDE, {"agent": 2, "lora": {"dropout": 0.1}}])
    assert spec.training_of(0).lora == spec.training.lora
    assert spec.training_of(1).lora == LoraSpec(rank=12, alpha=24, dropout=0.0, target_modules=("q_proj",), experts=False)
    assert (spec.training_of(2).lora.rank, spec.training_of(2).lora.dropout) == (4, 0.1)
    assert spec.largest_rank == 12


@pytest.mark.parametrize(
    ("method", "largest"), [("multiagent", 12), ("single-agent", 4), ("debate", 4), ("star", 4), ("without-critics", 12)]
)
def test_room_is_kept_for_the_adapters_that_there_will_be(method, largest):
    """Of one model for all agents, those of agent 0."""
    assert a_spec(method=method, agentOverrides=[WIDE]).largest_rank == largest


def test_agents_that_are_alike_are_one_variant():
    assert [(each.agents, each.spec) for each in variants(a_spec())] == [((0, 1, 2), a_spec())]
    sampling = a_spec(agentOverrides=[{"agent": 1, "temperature": 0.2, "learningRate": 0.1}])
    assert [each.spec for each in variants(sampling)] == [sampling]
    same = a_spec(agentOverrides=[{"agent": 2, "lora": {"rank": 4}}])
    assert [each.agents for each in variants(same)] == [(0, 1, 2)]
    several = variants(a_spec(agents=4, agentOverrides=[WIDE, {**WIDE, "agent": 3, "system": "Be brief."}]))
    assert [each.agents for each in several] == [(0, 2), (1, 3)]
    assert [each.spec.training.lora.rank for each in several] == [4, 12]
    assert [override.system for override in several[1].spec.agent_overrides] == [None, "Be brief."]


def test_copies_of_one_model_are_tried_as_each_is_asked():
    """They have the adapters of agent 0, and their own prompts: what no template can do is known before anybody debates."""
    thinks = {**WIDE, "thinking": "Enabled"}
    several = variants(a_spec(method="union", agentOverrides=[thinks]))
    assert [(each.agents, each.spec.debate.thinking) for each in several] == [((0, 2), "Auto"), ((1,), "Enabled")]
    assert {each.spec.training.lora.rank for each in several} == {4}


def some_data(store: FileStore, agents=3):
    chats = [(Message("user", f"What is {i}+2*3?"), Message("assistant", f"Answer: {i + 6}")) for i in range(8)]
    rows = records.encode_lines(Example(str(i), chat) for i, chat in enumerate(chats))
    files = {layout.dataset_file(role, n): rows for role in ("generator", "critic") for n in range(agents)}
    publish(store, layout.datasets("ns/run", 1), files)


def test_each_trains_its_own_kind_and_no_other_changes(tmp_path):
    hashes = []
    for overrides in ([], [WIDE]):
        given = assigned(tmp_path / str(len(overrides)), agentOverrides=overrides, debate={"critics": False})
        some_data(given.store)
        train.main(given)
        commits = [required(given.store, layout.adapter("ns/run", 1, "generator", n), "test") for n in range(3)]
        hashes.append([commit.file(adapters.WEIGHTS).sha256 for commit in commits])
    folder = fetch_folder(given.store, commits[1], tmp_path / "fetched")
    made = json.loads((folder / "adapter_config.json").read_text())
    assert (made["r"], made["lora_alpha"], made["target_modules"]) == (12, 24, ["q_proj"])
    assert "| 12 | 24 " in (folder / "README.md").read_text()
    assert [one == other for one, other in zip(*hashes, strict=True)] == [True, False, True]


def test_a_server_keeps_room_for_the_largest(tmp_path):
    listening = serve.Listening("::", 8000, 6, str(tmp_path))
    line = serve.command(assigned(tmp_path, agentOverrides=[WIDE]), listening, Platform("cpu", 0, 4 << 30))
    assert line[line.index("--max-lora-rank") + 1] == "16"


@pytest.mark.models
def test_preflight_tries_each_kind(tmp_path):
    given = assigned(tmp_path, agentOverrides=[WIDE, {"agent": 2, "lora": {"targetModules": ["v_proj"]}}])
    summary = preflight.main(given)
    one = preflight.main(assigned(tmp_path / "alike"))
    assert summary.modules == one.modules and summary.stored_bytes < one.stored_bytes and summary.requests == one.requests
    assert preflight.main(given) == summary
    left = [trials.found(given.store, "ns/run", given.spec, n) for n in range(3)]
    assert [commit.meta["targets"] for commit in left[1:]] == [["q_proj"], ["v_proj"]]
    assert set(tried.targets(given)) == {"q_proj", "v_proj", *left[0].meta["targets"]}


@pytest.mark.models
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"targetModules": ["no_such"]}, r"agentOverrides\[agent=1\]\.lora\.targetModules: .*no_such"),
        ({"targetModules": ["lm_head"]}, r"agentOverrides\[agent=1\]\.lora\.targetModules: lm_head reads or writes tokens"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_its_field(override, line, tmp_path):
    with pytest.raises(BadInput, match=rf"^{line}") as caught:
        preflight.main(assigned(tmp_path, agentOverrides=[{"agent": 1, "lora": override}]))
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match=r"^training\.lora\.targetModules"):
        preflight.main(assigned(tmp_path, training={"lora": override}, agentOverrides=[{"agent": 1, "lora": {"rank": 8}}]))


# --- models ---


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return str(other_model(tmp_path_factory.mktemp("other") / "model"))


def several(other, **spec) -> dict:
    """Agent 2 has another model."""
    return {"inference": {"topology": "PerAgent"}, "agentOverrides": [{"agent": 2, "model": {"source": other}}], **spec}


def test_what_belongs_to_a_model_is_not_another_ones():
    first = {"source": "org/a", "revision": "v1", "trustRemoteCode": True, "maxLength": 512, "chatTemplateArguments": {"a": 1}}
    own = {"agent": 1, "model": {"source": "org/b", "revision": "v2"}}
    spec = a_spec(model=first, inference={"topology": "PerAgent"}, agentOverrides=[own, {"agent": 2, "model": {"source": "org/b"}}])
    assert spec.model_of(0) is spec.model and spec.bases_differ and [spec.has_own_model(n) for n in range(3)] == [False, True, True]
    for agent, tag in ((1, "v2"), (2, "")):
        model = spec.model_of(agent)
        assert (model.source, model.revision, model.trust_remote_code) == ("org/b", tag, False)
        assert (model.max_length, model.chat_template_arguments, model.date) == (512, {}, spec.model.date)
    assert spec.of_base(1).model == spec.model_of(1) and not spec.of_base(1).agent_overrides
    same = a_spec(model=first, inference={"topology": "PerAgent"}, agentOverrides=[{"agent": 1, "model": first}])
    assert not same.bases_differ


def test_a_model_that_is_named_twice_is_one_base_also_when_its_commit_is_known():
    """An agent may be given the spec's model by name; else it would be loaded as the branch is by then."""
    own = [{"agent": 0, "model": {"source": "org/a", "maxLength": 0}}, {"agent": 2, "model": {"source": "org/b"}}]
    spec = a_spec(model={"source": "org/a", "maxLength": 0}, inference={"topology": "PerAgent"}, agentOverrides=own)
    pinned = revision.with_own(revision.with_revision(spec, "abc"), {"2": "def"})
    assert [pinned.model_of(n).revision for n in range(3)] == ["abc", "abc", "def"]
    assert [pinned.has_own_model(n) for n in range(3)] == [spec.has_own_model(n) for n in range(3)] == [False, False, True]


def test_a_server_of_a_base_has_room_for_the_adapters_of_all_who_have_it():
    """`maft serve` starts one for each base, whose first agent names it."""
    own = [{"agent": n, "model": {"source": "org/b"}, "lora": {"rank": rank}} for n, rank in ((1, 2), (2, 64))]
    spec = a_spec(inference={"topology": "PerAgent"}, agentOverrides=own)
    assert spec.of_base(1).largest_rank == 64 and spec.of_base(0).largest_rank == 4
    assert spec.of_base(9).model == spec.model  # none of ours: as the others


@pytest.mark.parametrize(
    ("method", "topology", "own"),
    [
        ("multiagent", "PerAgent", True),
        ("debate", "PerAgent", True),
        ("majority", "PerAgent", True),
        ("without-summary", "PerAgent", True),
        ("dpo", "PerAgent", True),
        ("base", "Shared", False),
        ("equal-sample-majority", "Shared", False),
        ("reflection", "Shared", False),
        ("star", "Shared", False),
        ("single-agent", "Shared", False),
        ("union", "Shared", False),
        ("distill", "Shared", False),
    ],
)
def test_copies_of_one_model_are_the_specs(method, topology, own):
    spec = a_spec(**several("org/other"), method=method)
    assert (spec.inference.topology, spec.bases_differ) == (topology, own)


def test_what_goes_with_a_model_goes_where_it_does_not():
    """Layers and thoughts of another model would be refused as the spec's model's."""
    own = {"agent": 0, "model": {"source": "org/b"}, "thinking": "Enabled", "lora": {"targetModules": ["c_attn"]}, "topP": 0.5}
    plain = {"agent": 1, "thinking": "Disabled", "lora": {"rank": 2}}
    spec = a_spec(inference={"topology": "PerAgent"}, agentOverrides=[own, plain], method="union")
    assert (spec.training_of(0).lora, spec.debate_of(0).thinking) == (spec.training.lora, "Auto")
    assert (spec.debate_of(0).top_p, spec.debate_of(1).thinking, spec.training_of(1).lora.rank) == (0.5, "Disabled", 2)
    kept = a_spec(inference={"topology": "PerAgent"}, agentOverrides=[own, plain])
    assert (kept.training_of(0).lora.target_modules, kept.debate_of(0).thinking) == (("c_attn",), "Enabled")


def test_a_server_has_the_base_of_its_agent(other):
    run = parse(resource(**several(other)))
    servers = plan.graph(run, "file:///s").servers
    assert [server.agent for server in servers] == [None, None, 2]
    assert [[flag for flag in plan.serve(server) if flag.startswith("--agent")] for server in servers] == [[], [], ["--agent=2"]]
    plain = plan.graph(parse(resource(inference={"topology": "PerAgent"})), "file:///s").servers
    assert not [server for server in plain if server.agent is not None]


def test_what_servers_are_told_their_program_takes(other, tmp_path):
    """With and without an agent's base."""
    for asked in (several(other), {"inference": {"topology": "PerAgent"}}):
        for server in plan.graph(parse(resource(**asked)), tmp_path.as_uri()).servers:
            given = serve.parser().parse_args(plan.serve(server, "--port=8000")[2:])
            assignment = program.decode(given)
            assert assignment.agents == () and given.base_of == (None if server.agent is None else str(server.agent))
            assert assignment.spec.bases_differ == ("agentOverrides" in asked)


class Bases:
    """Servers with a base each: what they were asked, with the words of their own tokenizer."""

    def __init__(self, tokenizers):
        self.tokenizers, self.asked = tokenizers, []

    async def complete(self, server, request):
        text = self.tokenizers[server].decode(request.prompt)
        self.asked.append((server, request, text))
        say = "They disagree." if "Summarize" in text else f"Answer: {server[-1]}"
        ids = tuple(self.tokenizers[server](say, add_special_tokens=False)["input_ids"])
        return Call(request.model, request.seed, len(request.prompt), len(ids), "stop", say, ids=ids)

    async def load(self):
        return Load(0, 0)


def debated(spec, society, *, contexts=512):
    template, own = models.template_of(spec, 0), models.own_templates(spec, 3)
    engine = Bases({server: own.get(n, template).tokenizer for n, server in enumerate(society.servers)})
    with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
        rules = training_rules(spec, 1)
        setup = Setup(rules, society, engine, template, checker, dict.fromkeys(society.servers, contexts), judge, own)
        problem = Problem("id", "What is 2+3*4?", "14")
        return engine, asyncio.run(Question(setup, 0, problem).run())


def a_society(spec, generators=("g0", "g1", "g2")) -> Society:
    loaded = society.load(FileStore(Path("/nowhere")), "ns/run", spec, 0, 3, ("s0", "s1", "s2"))
    return replace(loaded, generators=generators, critics=("c0", "c1", "c2"))


def test_each_agent_is_asked_in_its_own_words(other):
    spec = a_spec(**several(other))
    engine, transcript = debated(spec, a_society(spec))
    for server, request, text in engine.asked:
        foreign = server == "s2"
        assert ("[user]" in text) == foreign and ("<|user|>" in text) != foreign
        assert request.stop_token_ids == models.own_templates(spec, 3).get(int(server[-1]), models.template_of(spec, 0)).stops
    assert {(server, request.model) for server, request, _ in engine.asked if request.model[0] in "gc"} == {
        (f"s{n}", f"{role}{n}") for n in range(3) for role in "gc"
    }
    assert [turns[0].parsed for turns in transcript.turns] == ["0", "1", "2"]


def test_the_base_that_summarizes_is_the_specs(other):
    """For an agent of another base it is asked at the server of one that has it."""
    spec = a_spec(**several(other))
    engine, _ = debated(spec, a_society(spec))
    summaries = [server for server, request, text in engine.asked if request.model == "base"]
    assert len(summaries) == 3 and set(summaries) <= {"s0", "s1"}
    named = a_spec(**several(other, debate={"summarizer": {"agent": 2}}))
    engine, _ = debated(named, a_society(named))
    assert [(s, "[user]" in text) for s, request, text in engine.asked if "Summarize" in text] == [("s2", True)] * 3


@pytest.mark.parametrize("seed", range(8))
def test_verdicts_and_shared_summaries_are_the_specs_bases(seed, other):
    players = a_society(a_spec(**several(other)))
    assert (
        players.host(seed) == seed % 2 and [players.host(seed, n) for n in range(2)] == [0, 1] and players.host(seed, 2) == seed % 2
    )
    alike = a_society(a_spec(inference={"topology": "PerAgent"}))
    assert alike.host(seed) == seed % 3 and [alike.host(seed, n) for n in range(3)] == [0, 1, 2]


def test_tokens_of_another_model_train_nobody(other):
    """Of a pair the other's answer is learnt by its text."""
    spec = a_spec(**several(other, debate={"minAgreement": 1, "critics": False}, training={"method": "dpo"}))
    _, transcript = debated(spec, a_society(spec))
    votes = tuple(change(vote, answer="0", votes=2, runner_up=1, tied=False) for vote in transcript.votes)
    turns = tuple(tuple(change(turn, agrees=n == 0) for turn in own) for n, own in enumerate(transcript.turns))
    decided = change(transcript, votes=votes, turns=turns)
    lesson = lessons.pair(decided, 2, spec)
    assert isinstance(lesson, Example) and lesson.messages[-1].content == "Answer: 0" and not lesson.messages[-1].ids
    assert lesson.rejected and lesson.rejected.ids == transcript.turns[2][0].call.ids
    alike = lessons.pair(decided, 1, spec)
    assert isinstance(alike, Example) and alike.messages[-1].ids == transcript.turns[0][0].call.ids


def test_calls_of_several_bases_are_kept_apart(tmp_path):
    class Engine:
        def __init__(self):
            self.asked = []

        async def complete(self, server, request):
            self.asked.append(server)
            return Call(request.model, request.seed, 1, 1, "stop", server)

    request = Request("base", [1, 2], 3, 1.0, 1.0, 8)
    engine = Engine()
    cache = CachingEngine(engine, FileStore(tmp_path), "ns/group", "task", {"s2": "org/other v1"})
    texts = [asyncio.run(cache.complete(server, request)).text for server in ("s0", "s1", "s2", "s2")]
    assert texts == ["s0", "s0", "s2", "s2"] and engine.asked == ["s0", "s2"]


def test_each_base_trains_its_own_agents(tmp_path, other):
    """The others' weights are those of a run without it."""
    hashes = []
    for n, overrides in enumerate(({}, several(other, inference={"topology": "PerAgent"}))):
        given = assigned(tmp_path / str(n), debate={"critics": False}, **overrides)
        some_data(given.store)
        train.main(given)
        commits = [required(given.store, layout.adapter("ns/run", 1, "generator", n), "test") for n in range(3)]
        hashes.append([commit.file(adapters.WEIGHTS).sha256 for commit in commits])
    assert [one == two for one, two in zip(*hashes, strict=True)] == [True, True, False]
    folder = fetch_folder(given.store, commits[2], tmp_path / "fetched")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == other
    assert f"base_model: {other}" in (folder / "README.md").read_text() and commits[2].meta["model"] == other
    widths = {tensor.shape[1] for name, tensor in load_file(folder / adapters.WEIGHTS).items() if "q_proj.lora_A" in name}
    assert widths == {32}


def test_likelihoods_of_several_bases_are_per_byte(tmp_path, other):
    spec = a_spec(**several(other))
    _, transcript = debated(spec, a_society(spec))
    one = Device("cpu", 0, "float32", "")
    nll, kl = bases.measured(spec, [transcript], [None, None, None], one)
    assert kl == 0.0  # agents 0 and 1 are one base
    assert nll[0][0] == nll[0][1] and nll[0][2] > 0 and nll[2][0] == nll[2][1] > 0
    only = a_spec(agents=2, **{**several(other), "agentOverrides": [{"agent": 1, "model": {"source": other}}]})
    pair = change(transcript, turns=(transcript.turns[0], transcript.turns[2]))
    assert bases.measured(only, [pair], [None, None], one)[1] is None
    tokens = models.template_of(spec, 2).tokens(transcript.dialogue(2, 1), every_turn=False)
    counted = sum(tokens.completion)
    alone, _ = likelihoods(Generators(lora.load_base(spec.model_of(2), one), [None]), [[tokens]])
    assert nll[2][2] * len("Answer: 2") == pytest.approx(alone[0][0] * counted)


@pytest.mark.models
def test_preflight_tries_each_model(tmp_path, other):
    given = assigned(tmp_path, **several(other))
    summary = preflight.main(given)
    assert summary.architecture == "LlamaForCausalLM" and summary.context == 512
    assert trials.found(given.store, "ns/run", given.spec, 2) and not trials.found(given.store, "ns/run", given.spec, 1)


@pytest.mark.models
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"maxLength": 5000}, r"agentOverrides\[agent=2\]\.model\.maxLength: 5000 is more than the 1024 positions of "),
        ({"source": "./nowhere"}, r"agentOverrides\[agent=2\]\.model\.source: \./nowhere is no model folder"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_its_field(override, line, tmp_path, other):
    own = {"agent": 2, "model": {"source": other, **override}}
    with pytest.raises(BadInput, match=rf"^{line}") as caught:
        preflight.main(assigned(tmp_path, inference={"topology": "PerAgent"}, agentOverrides=[own]))
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_think_is_refused_by_its_field(tmp_path):
    with pytest.raises(BadInput, match=r"^agentOverrides\[agent=1\]\.thinking: "):
        preflight.main(assigned(tmp_path, agentOverrides=[{"agent": 1, "thinking": "Enabled"}]))


def test_prepare_looks_at_each_model(tmp_path, other):
    given = assigned(tmp_path, **several(str(tmp_path / "gone")))
    with pytest.raises(BadInput, match=r"^agentOverrides\[agent=2\]\.model\.source: .* is no model folder"):
        prepare.main(given)
    drawn = prepare.main(assigned(tmp_path, **several(other)))
    assert drawn.model_bytes == max((Path(folder) / "model.safetensors").stat().st_size for folder in (TINY, other))


def test_prepare_finds_each_revision_once(tmp_path, other):
    spec = a_spec(**several("org/other"))
    pinned = revision.with_own(spec, {"2": "abc", "1": "def"})
    assert (pinned.model_of(2).revision, pinned.model_of(1)) == ("abc", spec.model)
    store = FileStore(tmp_path)
    publish(store, f"ns/run/{layout.PROBLEMS}", {}, meta={revision.OWN: {"2": "abc"}})
    assert program.pinned(Assignment(store, "ns/run", spec)).spec.model_of(2).revision == "abc"
    assert program.pinned(Assignment(store, "ns/run", a_spec())).spec == a_spec()
    for strange in (None, [], "2", {"2": 7}, {"x": "abc"}):
        assert revision.with_own(spec, strange) == spec


def test_a_society_of_several_bases_wants_a_server_for_each_agent(tmp_path, other):
    spec = trained(tmp_path, **several(other))
    with pytest.raises(BadInput, match=r"^--server: 1 given; the 3 agents of ns/run have several base models"):
        served.load(FileStore(tmp_path), "ns/run", spec, 1, ["s"], SocietySpec())
    loaded = served.load(FileStore(tmp_path), "ns/run", spec, 1, ["a", "b", "c"], SocietySpec())
    assert loaded.players.servers == ("a", "b", "c") and loaded.players.based == (0, 1)
    assert json.loads(served.facts(FileStore(tmp_path), "ns/run", spec, 1))["adapters"] == 6


@pytest.mark.programs
def test_a_society_of_several_bases_answers(tmp_path, other):
    """All agents debate, and each answers alone, in its model's own tokens."""
    spec = trained(tmp_path / "store", **several(other))
    one, port = replace_model(spec, spec.model_of(2)), free_port()
    with mock_server(spec, tmp_path) as base, mock_server(one, tmp_path) as own:
        more = [f"--server=s{n}={url}" for n, url in enumerate((base, base, own))]
        command = [part for part in endpoint(tmp_path / "store", port, base) if not part.startswith("--server=")]
        with serving([*command, *more], port, tmp_path / "endpoint.txt", 120, health="/ready") as url:
            status, whole, _ = post(url, ask(maft={"transcript": True}))
            alone = {n: post(url, ask(f"society/generator-{n}")) for n in (1, 3)}
    transcript = whole["choices"][0]["maft"]["transcript"]
    assert status == 200 and len(transcript["turns"]) == 3
    assert [turns[0]["call"]["promptTokens"] for turns in transcript["turns"]][2] == len(f"[user]{QUESTION}[/user]")
    for code, body, _ in alone.values():
        assert code == 200 and body["choices"][0]["message"]["content"].startswith("I work it out. Answer: ")
    assert alone[3][1]["usage"]["prompt_tokens"] == len(f"[user]{QUESTION}[/user]") > alone[1][1]["usage"]["prompt_tokens"]


def replace_model(spec, model):
    return change(spec, model=model, agent_overrides=())


def test_a_society_on_one_machine_has_a_server_for_each_base(tmp_path, other):
    spec = a_spec(**several(other))
    where = Place(str(tmp_path), "ns", "run", str(tmp_path))
    wanted = local_society.Wanted(where, 0, SocietySpec(), tmp_path)
    for asked, names in ((spec, {(0, 1): ("society-server", None, 4), (2,): ("society-server-2", 2, 2)}), (a_spec(), ONE)):
        known = local_society.Facts(json.loads(immutable_spec_json(asked)), 1, 6, ())
        servers = local_society.servers(wanted, known, gpus.Found(()))
        assert {agents: (each.name, each.agent, each.adapters) for agents, each in servers.items()} == names
        urls = {agents: f"http://{each.name}" for agents, each in servers.items()}
        line = [flag for flag in local_society.command(wanted, known, urls, 80) if flag.startswith("--server=")]
        own = [f"--server=society-server-{n}=http://society-server{'-2' * (n == 2)}" for n in range(3)]
        assert line == (own if asked.bases_differ else ["--server=society-server=http://society-server"])


ONE = {(0, 1, 2): ("society-server", None, 6)}


@pytest.mark.parametrize(
    ("own", "servers", "shared"),
    [
        ((), {"test-server": (None, 6)}, "test-server"),
        ((2,), {"test-server-0": (None, 2), "test-server-1": (None, 2), "test-server-2": (2, 2)}, "test-server-0"),
        ((0,), {"test-server-0": (0, 2), "test-server-1": (None, 2), "test-server-2": (None, 2)}, "test-server-1"),
    ],
)
def test_a_comparison_on_one_machine_has_the_servers_that_its_runs_ask(other, own, servers, shared):
    """Runs of several models one for each agent; runs of the spec's model alone the first that serves it."""
    whole = resource(inference={"topology": "PerAgent"}, agentOverrides=[{"agent": n, "model": {"source": other}} for n in own])
    runs = compare.runs(whole, ["base", "majority", "union", "multiagent"], 1)
    made = compare.graph(parse(whole), runs, "file:///s")
    assert {one.name: (one.agent, one.adapters) for one in made.servers} == servers
    of_agents = tuple(f"test-server-{n}" for n in range(3)) if own else (shared,)
    asked = {task.run.name: task.servers for task in made.tasks if task.servers}
    assert asked == {
        "test-base-0": (shared,),
        "test-majority-0": of_agents,
        "test-union-0": (shared,),
        "test-multiagent-0": of_agents,
    }
    [tried] = [task for task in made.tasks if task.kind == "preflight"]
    assert tried.run.spec.bases_differ == bool(own) and all(one.run == tried.run for one in made.servers)


@pytest.mark.parametrize(
    ("methods", "own", "rank", "served"),
    [
        (["majority", "union"], [{"agent": 0, "lora": {"rank": 64}}], 16, 64),  # what has both models trains nothing
        (["majority", "union"], [], 32, 32),
        (["multiagent", "union"], [{"agent": n, "lora": {"rank": 8}} for n in (1,)], 16, 16),
    ],
)
def test_a_comparison_of_several_bases_has_room_for_the_largest_adapters_of_any_row(other, methods, own, rank, served):
    overrides = [*own, {"agent": 2, "model": {"source": other}, "lora": {"rank": 8}}]
    whole = resource(inference={"topology": "PerAgent"}, training={"lora": {"rank": rank}}, agentOverrides=overrides)
    made = compare.graph(parse(whole), compare.runs(whole, methods, 1), "file:///s")
    [tried] = [task.run.spec for task in made.tasks if task.kind == "preflight"]
    assert tried.bases_differ and tried.iterations and tried.debate.rounds == 2
    assert {one.run.spec.largest_rank for one in made.servers} == {served}


def test_what_each_agent_has_of_its_own_makes_no_server_smaller_than_the_spec(other):
    """Of agents that all have adapters of their own, whose first has another model: a row of the spec's model has the spec's."""
    overrides = [{"agent": n, "lora": {"rank": 8}, **({"model": {"source": other}} if n == 0 else {})} for n in range(3)]
    whole = resource(inference={"topology": "PerAgent"}, training={"lora": {"rank": 16}}, agentOverrides=overrides)
    runs = compare.runs(whole, ["union", "multiagent"], 1)
    assert [run.spec.largest_rank for run in runs.values()] == [16, 8]
    made = compare.graph(parse(whole), runs, "file:///s")
    assert {one.run.spec.largest_rank for one in made.servers} == {16}


def test_what_comparisons_prepare_once_pins_the_models_of_all_rows(tmp_path):
    spec = a_spec(**several("org/b"))
    store = FileStore(tmp_path)
    publish(store, f"ns/group/{layout.PROBLEMS}", {}, meta={revision.OWN: {"2": "abc"}})
    assert revision.pinned(store, "ns/group", "ns/row", spec).model_of(2).revision == "abc"
    assert revision.pinned(store, "ns/row", "ns/row", spec).model_of(2).revision == ""


def test_folders_are_named_from_where_we_stand(tmp_path):
    whole = resource(**several("./other"))
    relocate(whole, tmp_path / "there", tmp_path)
    assert whole["spec"]["agentOverrides"][0]["model"]["source"] == "./there/other"
