"""What a run has made, handed on as folders and resources: complete, never written twice, refused in one line."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from committed import (
    AGENTS,
    CARD,
    RUN,
    Bucket,
    adapter_files,
    evaluation,
    put_adapter,
    put_iteration,
    put_report,
    put_run,
    put_validations,
)
from conftest import free_port, serving
from peft import PeftModel
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from safetensors.torch import load_file
from small import TINY, a_spec
from transformers import AutoModelForCausalLM, AutoTokenizer

from maft import committed_run, records
from maft.errors import BadInput
from maft.export import __main__ as export
from maft.export import kserve, ledger, numbers, society, targets, vllm_lines
from maft.export.target import Request, Sent
from maft.program import Assignment
from maft.records import Commit, Diversity
from maft.spec import immutable_spec_json
from maft.store import layout, unfinished
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import Gain, Score, Validation
from maft_operator import __main__ as command
from maft_operator.local import stored_run
from maft_operator.spec.schema import BadSpec, checked

NAMES = {f"{role}-{n}" for role in ("generator", "critic") for n in range(1, AGENTS + 1)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "runs")


def request(store: Store, to: object = "", **more: object) -> Request:
    return Request(store, committed_run.read(store, RUN), str(to), **more)  # type: ignore[arg-type]


def hand_on(store: Store, kind: str, to: object, **more: object) -> Sent:
    return targets.send(kind, request(store, to, **more))


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_peft_loads_each_folder_and_a_second_start_writes_nothing(store, tmp_path):
    put_run(store)
    sent = hand_on(store, "peft", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == NAMES
    assert sent.new == sum(len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir())
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), tmp_path / "out" / "critic-2")
    assert model.peft_config["default"].r == 4
    before = times(tmp_path / "out")
    assert hand_on(store, "peft", tmp_path / "out").new == 0
    assert times(tmp_path / "out") == before


def test_what_was_damaged_is_written_again_and_nothing_else(store, tmp_path):
    put_run(store)
    hand_on(store, "peft", tmp_path / "out")
    weights = tmp_path / "out" / "generator-1" / "adapter_model.safetensors"
    weights.write_bytes(b"half")
    assert hand_on(store, "peft", tmp_path / "out").new == 1
    assert weights.read_bytes() == adapter_files(100)["adapter_model.safetensors"]


def test_what_a_killed_start_left_goes_and_what_another_one_writes_stays(store, tmp_path):
    put_run(store)
    hand_on(store, "peft", tmp_path / "out")
    folder = tmp_path / "out" / "generator-1"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    killed, another = (folder / f".tmp-{number:032x}-adapter_model.safetensors.part" for number in (1, 2))
    for part in (killed, another):
        part.write_bytes(b"half")
    os.utime(killed, (time.time(), time.time() - unfinished.STALE - 60))
    assert hand_on(store, "peft", tmp_path / "out").new == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**whole, another.name: b"half"}


def test_nothing_is_left_of_a_file_that_could_not_be_written(store, tmp_path):
    put_run(store)
    for weights in (tmp_path / "runs").rglob("adapter_model.safetensors"):
        weights.write_bytes(b"half")
    with pytest.raises(BadInput, match="damaged"):
        hand_on(store, "peft", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob(".tmp-*")] == []


def test_cards_say_base_data_scores_and_license(store, tmp_path):
    put_run(store)
    hand_on(store, "peft", tmp_path / "out", license="apache-2.0")
    card = (tmp_path / "out" / "generator-1" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["base_model"], head["license"], head["library_name"]) == (str(TINY), "apache-2.0", "peft")
    assert CARD.partition("iteration 1\n")[2] in card
    assert card.split("\n---\n")[1].startswith("# generator-1, iteration 1\n") and "of agent 0" not in card
    problems = committed_run.read(store, RUN).problems
    assert problems and all(file.sha256 in card for file in problems.files)
    assert all(evaluation(i).votes[-1].percent in card for i in (0, 1))


def test_a_license_that_nobody_states_is_in_no_card(store, tmp_path):
    put_run(store)
    hand_on(store, "peft", tmp_path / "out")
    card = (tmp_path / "out" / "generator-1" / "README.md").read_text()
    assert "license" not in yaml.safe_load(card.split("---\n")[1])
    assert "not stated" in card


def test_an_agent_that_learnt_nothing_new_keeps_its_earlier_adapter(store, tmp_path):
    put_run(store, iterations=2, trained=True)
    agents = {agent.name: agent for agent in request(store).agents()}
    assert agents["generator-1"].commit.prefix == f"{RUN}/iterations/2/adapters/generator-0/"
    assert {agent.name: agent.commit.prefix for agent in request(store, iteration=1).agents()}["generator-1"].startswith(
        f"{RUN}/iterations/1/"
    )


def test_the_best_iteration_is_what_others_get(store):
    put_run(store, iterations=2, evaluation={"validation": 8})
    assert society.iteration(committed_run.read(store, RUN), None).number == 2
    put_validations(store, *(Validation(accuracy=Score(0.5, 0.1), gain=gain) for gain in (None, Gain(-0.25, 0.1, 1))))
    assert society.iteration(committed_run.read(store, RUN), None).number == 1
    assert society.iteration(committed_run.read(store, RUN), 2).number == 2


def test_others_load_the_commits_of_the_models_that_the_adapters_were_trained_on():
    """A branch may have moved since."""
    own = [{"agent": 1, "model": {"source": "org/other"}}]
    began = a_spec(model={"source": "org/model", "revision": "main"}, inference={"topology": "PerAgent"}, agentOverrides=own)
    meta = {"spec": json.loads(immutable_spec_json(began)), "revision": "c0ffee", "revisions": {"1": "beef"}}
    spec = society.spec(committed_run.RunCommits(RUN, Commit(f"{RUN}/problems/", (), (), meta), ()))
    assert [spec.model_of(n).revision for n in range(3)] == ["c0ffee", "beef", "c0ffee"]


@pytest.mark.parametrize(
    ("prepare", "more", "line"),
    [
        (lambda store: put_run(store, trained=False), {}, "nothing was trained up to iteration 1"),
        (lambda store: put_run(store, iterations=0), {}, "has no trained adapters; wait for its first iteration"),
        (lambda store: put_run(store), {"iteration": 3}, "has no adapters of it; iterations with all adapters: 1"),
        (lambda store: put_run(store), {"only": ("judge-1",)}, "--only judge-1: no such adapter; there are generator-1"),
        (lambda store: put_adapter(store, "generator", 0, 1), {}, "nothing committed there"),
    ],
)
@pytest.mark.parametrize("kind", ["peft", "vllm", "kserve", "merged", "gguf"])
def test_what_is_not_there_is_one_line(store, tmp_path, kind, prepare, more, line):
    prepare(store)
    with pytest.raises(BadInput, match=line) as error:
        hand_on(store, kind, tmp_path / "out", **more)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nope", "--to nope: no such target; there are peft, vllm, kserve, "),
        ("", "--to : no such target"),
        ("vllm=", r"--to vllm=: expected --to vllm=FOLDER$"),
        ("mlflow", r"--to mlflow: expected --to mlflow=URL\[#EXPERIMENT\]$"),
    ],
)
def test_targets_that_cannot_be(text, line):
    with pytest.raises(BadInput, match=line):
        targets.parse(text)


@pytest.mark.parametrize(
    "text", ["wandb", "peft=out", "trackio=ours", "mlflow=https://ml#a b", "hub=ours/a.b", "oci=[::1]:5000/a/b:v1"]
)
def test_an_address_that_may_be_one(text):
    targets.check(*targets.parse(text))


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        *(("mlflow", address) for address in ("ml:5000", "ftp://ml", "http://u:p@ml", "http://ml?x=1", "http://[1]:5000")),
        *(("otel", address) for address in ("grpc://c:4317", "http://c:4318#x", "http://c d", "http://[::::]:4318")),
        *(
            ("hub", address)
            for address in ("name", "o/n/x", "o/..", "o/a..b", "o/a--b", "o/n.git", "o/n.", "-o/n", "https://hub/o/n")
        ),
        *(("oci", address) for address in ("r/name", "r/Name:v", "u:p@r/n:v", "oci://r/n:v", "r/n@sha256:ab")),
    ],
)
def test_an_address_that_is_none_is_refused_by_the_field_and_the_flag_alike(kind, address):
    """Before a run of hours: its exports are of what it has made."""
    with pytest.raises(BadInput, match=f"^--to {kind}.*(expected|credentials)"):
        targets.check(kind, address)
    spec = {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}, "export": [{"to": kind, "address": address}]}
    run = {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune", "metadata": {"name": "r"}, "spec": spec}
    if not address.startswith("http://["):  # the rule has no list of all addresses of IPv6
        with pytest.raises(BadSpec, match=f"^export: the address of {kind} must be"):
            checked(run)


@pytest.mark.parametrize("project", ["a/b", "-p", "p" * 200])
def test_a_project_of_trackio_that_cannot_be_is_refused_before_a_run(project):
    with pytest.raises(BadInput, match=r"^--to trackio=.*expected a project's name"):
        targets.check("trackio", project)


def test_a_target_whose_package_is_missing_is_refused_before_a_run(monkeypatch):
    lacking = replace(targets.TARGETS["wandb"], packages=("no_such_package",))
    monkeypatch.setattr(targets, "TARGETS", {**targets.TARGETS, "wandb": lacking})
    with pytest.raises(BadInput, match=r"^--to wandb: needs the package no_such_package; pip install 'maft\[wandb\]'$"):
        targets.check_installed("wandb")


@pytest.mark.parametrize("kind", ["wandb", "merged"])
def test_a_target_whose_package_is_missing_leaves_nothing_behind(kind, store, tmp_path, monkeypatch):
    put_run(store)
    before, into = sorted(store.list("")), tmp_path / "out"
    lacking = replace(targets.TARGETS[kind], packages=("no_such_package",))
    monkeypatch.setattr(targets, "TARGETS", {**targets.TARGETS, kind: lacking})
    with pytest.raises(BadInput, match=rf"^--to {kind}: needs the package no_such_package; pip install 'maft"):
        hand_on(store, kind, into)
    assert sorted(store.list("")) == before and not into.exists()


def test_the_help_names_every_target():
    assert tuple(targets.TARGETS) == stored_run.KINDS


def test_a_file_in_the_folders_place(store, tmp_path):
    put_run(store)
    (tmp_path / "out").write_text("mine")
    for kind in ("peft", "vllm", "merged", "gguf"):
        with pytest.raises(BadInput, match=r"^--to [a-z]+=.*/out: no folder; name one, or a place where one can be made"):
            hand_on(store, kind, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_vllms_own_parser_takes_the_line(store, tmp_path):
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    spec = put_run(store)
    agents = request(store).agents()
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(vllm_lines.flags(spec, agents, tmp_path / "a b"))
    assert {module.name: module.path for module in parsed.lora_modules} == {n: str(tmp_path / "a b" / n) for n in NAMES}
    assert (parsed.enable_lora, parsed.max_lora_rank, parsed.max_loras) == (True, 8, len(NAMES))


def test_the_script_starts_from_anywhere(store, tmp_path, monkeypatch):
    monkeypatch.chdir(TINY.parent)
    put_run(store, model={"source": f"./{TINY.name}"})
    hand_on(store, "vllm", tmp_path / "out")
    script = tmp_path / "out" / "serve.sh"
    assert os.access(script, os.X_OK)
    assert f"exec vllm serve {TINY} --served-model-name base " in script.read_text()


@pytest.mark.engine
def test_a_real_server_started_by_the_script_answers_as_each_adapter(store, tmp_path):
    """The script calls `vllm`, whose place the project's own launcher takes: the CPU build's cannot start."""
    put_run(store)
    hand_on(store, "vllm", tmp_path / "out")
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    line = "import sys; from maft.serve import launch; launch.vllm(sys.argv[2:])"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{line}' \"$@\"\n")
    program.chmod(0o755)
    port = free_port()
    script = ["sh", str(tmp_path / "out" / "serve.sh"), "--host=127.0.0.1", f"--port={port}", "--max-num-seqs=8"]
    path = f"{program.parent}:{os.environ['PATH']}"
    variables = {"PATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with serving(script, port, tmp_path / "log.txt", 400, **variables) as url:
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert {model["id"] for model in json.load(answer)["data"]} == {"base", *NAMES}
        assert len({said(url, name) for name in ("base", *sorted(NAMES))}) > 1


def said(url: str, model: str) -> str:
    body = json.dumps({"model": model, "prompt": "2+2=", "max_tokens": 8, "temperature": 0}).encode()
    asked = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)["choices"][0]["text"]


def test_kserve_gets_every_adapter_from_the_bucket(tmp_path):
    store = Bucket(tmp_path / "runs")
    put_run(store, model={"source": "org/model", "revision": "abc"})
    sent = hand_on(store, "kserve", tmp_path / "service.yaml")
    made = yaml.safe_load((tmp_path / "service.yaml").read_text())
    assert (made["kind"], made["metadata"]) == ("LLMInferenceService", {"name": "demo", "namespace": "default"})
    model = made["spec"]["model"]
    assert (model["uri"], model["name"]) == ("hf://org/model:abc", "demo")
    adapters = {a["name"]: a["uri"] for a in model["lora"]["adapters"]}
    assert set(adapters) == NAMES
    assert adapters["critic-2"] == "s3://bucket/prefix/default/demo/iterations/1/adapters/critic-1"
    assert sent.new == 1
    assert hand_on(store, "kserve", tmp_path / "service.yaml").new == 0


def test_kserve_is_not_told_of_folders_of_this_machine(store, tmp_path):
    put_run(store, model={"source": "org/model"})
    with pytest.raises(BadInput, match="pods of KServe cannot reach; run with a bucket"):
        kserve.manifest(request(store), request(store).agents())
    bucket = Bucket(tmp_path / "other")
    put_run(bucket)
    with pytest.raises(BadInput, match=r"model.source .*pods of KServe cannot reach; put it into a bucket"):
        kserve.manifest(request(bucket), request(bucket).agents())


@pytest.mark.s3
def test_a_base_that_is_another_one_by_now_is_not_merged(s3: S3Server, store, monkeypatch, tmp_path):
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    for file in (p for p in TINY.iterdir() if p.suffix in (".json", ".jinja", ".safetensors")):
        s3.client().put_object(Bucket=s3.bucket, Key=f"{tmp_path.name}/{file.name}", Body=file.read_bytes())
    put_run(store, model={"source": s3.url(tmp_path.name)}, revision="files-0123456789abcdef")
    with pytest.raises(BadInput, match=r"^model\.source: the files of s3://\S+ are no longer those that the run began with"):
        hand_on(store, "merged", tmp_path / "out", only=("generator-2",))


def test_a_merged_model_says_what_base_and_adapter_say(store, tmp_path):
    put_run(store)
    hand_on(store, "merged", tmp_path / "out", only=("generator-2",))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["generator-2"]
    hand_on(store, "peft", tmp_path / "peft", only=("generator-2",))
    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    both = PeftModel.from_pretrained(base, tmp_path / "peft" / "generator-2").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "generator-2", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "generator-2")
    ids = tokenizer("What is 7+3*4?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(both(ids).logits, merged(ids).logits, atol=1e-3)
        assert not torch.allclose(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)(ids).logits, merged(ids).logits)
    stored = load_file(TINY / "model.safetensors")
    kept = load_file(tmp_path / "out" / "generator-2" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {tensor.dtype for tensor in stored.values()}
    folder = tmp_path / "out" / "generator-2"
    assert len({(folder / name).stat().st_mode for name in ("config.json", "model.safetensors")}) == 1
    card = (folder / "README.md").read_text()
    assert "A whole model: " in card and "Load it with" not in card
    before = times(tmp_path / "out")
    assert hand_on(store, "merged", tmp_path / "out", only=("generator-2",)).new == 0
    assert times(tmp_path / "out") == before


def test_one_target_that_fails_keeps_no_other_from_its_part(store, tmp_path, capsys):
    put_run(store)
    given = argparse.Namespace(
        to=[f"kserve={tmp_path}/x.yaml", f"peft={tmp_path}/out"], only=[], license="", report=None, check=False
    )
    with pytest.raises(BadInput, match=r"^kserve: model\.source"):
        export.main(Assignment(store, RUN), given)
    assert (tmp_path / "out" / "generator-1").is_dir()
    assert f"peft: {tmp_path}/out" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["peft", "vllm"])
def test_folders_have_no_report_whether_one_is_wanted_or_not(store, tmp_path, kind):
    put_run(store)
    put_report(store)
    hand_on(store, kind, tmp_path / "out")
    assert list(tmp_path.glob("out/**/*report*")) == []
    assert [hand_on(store, kind, tmp_path / "out", report=report).new for report in (True, False)] == [0, 0]


@pytest.mark.parametrize(
    ("text", "fine"), [("apache-2.0", True), ("MIT OR (Apache-2.0 WITH LLVM-exception)", True), ("Apache 2.0", False)]
)
def test_a_license_is_an_spdx_name(store, tmp_path, text, fine):
    put_run(store)
    given = argparse.Namespace(to=[f"peft={tmp_path}/out"], only=[], license=text, report=None, check=False)
    with contextlib.nullcontext() if fine else pytest.raises(BadInput, match=r"^--license 'Apache 2\.0': expected an SPDX name"):
        export.main(Assignment(store, RUN), given)
    assert (tmp_path / "out").is_dir() == fine


def test_the_summary_of_very_many_targets_fits(store, tmp_path):
    many = [("peft", Sent(f"/{'x' * 200}/{n}", 1)) for n in range(60)]
    assert 0 < len(export.summary(many).targets) < 60


@pytest.mark.programs
def test_the_command_as_a_user_has_it(tmp_path):
    store = FileStore(tmp_path / "runs")
    put_run(store)
    line = [sys.executable, "-m", "maft_operator", "export", "runs/default/demo", "--to", "vllm=served", "--only", "critic-1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"vllm: {tmp_path}/served (")
    assert f"--lora-modules critic-1={tmp_path}/served/critic-1" in done.stdout
    put_iteration(store, 2)
    again = subprocess.run([*line, "--to=nope"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stderr.splitlines()[-1][:34]) == (2, "error: --to nope: no such target; ")


@pytest.mark.programs
def test_it_starts_at_once(store, tmp_path):
    """Two seconds are the limit: nothing heavy is imported for what does not need it."""
    put_run(store)
    line = [sys.executable, "-X", "importtime", "-m", "maft.export", "--store", str(tmp_path / "runs"), "--run", RUN]
    begun = time.monotonic()
    done = subprocess.run([*line, f"--to=vllm={tmp_path}/out"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 20  # the machine may be busy; what counts is below
    heavy = {"torch", "transformers", "vllm", "peft", "huggingface_hub", "boto3"}
    assert heavy & {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()} == set()


def test_a_run_that_is_named_badly():
    with pytest.raises(SystemExit) as ended:
        command.main(["export", "demo", "--to", "vllm"])
    assert ended.value.code == 2


def test_what_is_measured_after_a_part_was_sent_goes_as_a_part_of_its_own(store) -> None:
    """Trackers are fed after each evaluation; how far agents are apart is known later, of the untrained ones, too."""
    put_run(store)
    before = ledger.stages(committed_run.read(store, RUN))
    one = Score(1.0, 0.0)
    for iteration, kl in ((0, None), (1, 0.5)):
        measured = Diversity(iteration, 3, ((0.0, 1.5), (2.5, 0.0)), 2.0 + iteration, kl, None, one, one, one)
        publish(store, layout.diversity(RUN, iteration), {layout.DIVERSITY: records.encode(measured)})
    run = committed_run.read(store, RUN)
    after = ledger.stages(run)
    new = [part for part in after if part not in before]
    assert after.items() >= before.items() and new == ["diversity/0", "diversity/1"]
    assert numbers.by_step(run, new) == {0: {"diversity/nll": 2.0}, 1: {"diversity/nll": 3.0, "diversity/kl": 0.5}}


def test_gguf_needs_no_torch() -> None:
    """What the extra installs: docs/exporting.md."""
    assert targets.TARGETS["gguf"].packages == ("gguf",)
