"""`maft run` as a user has it: real processes, real programs, a deterministic engine in place of vLLM."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import MOCK, TINY, free_port, resource, wait_until, write
from rich.console import Console

from maft.summaries import Failure, PrepareSummary, ProgramSummary, encode_summary
from maft_operator.local.run import exclusive, run_locally
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import BadSpec

pytestmark = pytest.mark.run
MAFT = [sys.executable, "-m", "maft_operator"]
SERVE = ["--serve", f"{sys.executable} {MOCK}"]
LIMIT = 240.0  # seconds for a whole small run on two busy cores


def command(tmp_path: Path, spec: dict, *more: str) -> list[str]:
    return [*MAFT, "run", str(write(tmp_path / "run.yaml", spec)), "--dir", str(tmp_path / "runs"), *SERVE, *more]


def run(tmp_path: Path, spec: dict, *more: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tmp_path, spec, *more),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **environment},
        cwd=tmp_path,
    )


def start(tmp_path: Path, spec: dict, **environment: str) -> subprocess.Popen:
    with (tmp_path / "out.txt").open("a") as output:
        return subprocess.Popen(
            command(tmp_path, spec), stdout=output, stderr=output, env={**os.environ, **environment}, cwd=tmp_path
        )


def products(tmp_path: Path) -> dict[str, str]:
    """sha256 of everything that must be equal between equal runs, by name."""
    hashes = {}
    for path in sorted((tmp_path / "runs" / "default").rglob("_COMMIT.json")):
        commit = json.loads(path.read_text())
        if any(part in commit["prefix"] for part in ("debate/", "datasets/", "adapters/", "evaluation/")):
            hashes.update({commit["prefix"] + f["name"]: f["sha256"] for f in commit["files"]})
    return hashes


def children_of(tmp_path: Path) -> list[psutil.Process]:
    """Live processes that belong to the run in that folder."""

    def mine(process: psutil.Process) -> bool:
        try:
            return str(tmp_path) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [p for p in psutil.process_iter() if p.pid != os.getpid() and mine(p)]


def under_way(tmp_path: Path, stage: str) -> bool:
    """Whether the stage has something to lose: a first journal entry, a first adapter."""
    iteration, program = stage.split("-")
    top = tmp_path / f"runs/default/test/iterations/{iteration}"
    made = {"debate": "debate/journal-*", "train": "adapters/*/_COMMIT.json", "evaluate": "evaluation/journal-*"}[program]
    return next(top.glob(made), None) is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two iterations: what resumed runs are compared with."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, resource(iterations=2))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_run_ends_with_table_report_and_no_process(whole):
    folder, out = whole
    assert re.search(r"multiagent finetuning, iteration 2\s*│\s*\d+\.\d ± \d+\.\d", out)
    for row in ("base (one answer)", "majority of 3", "debate (untrained)"):
        assert row in out
    report = Path(re.search(r"Report: file://(\S+)", out)[1])
    assert report.stat().st_size > 10_000
    assert "peak memory" in out
    assert children_of(folder) == []


def test_every_stage_says_one_line(whole):
    lines = [line for line in whole[1].splitlines() if line.startswith("✓")]
    assert len(lines) == 11  # prepare, preflight, server, three evaluations, two debates, two trainings, report


def test_the_store_has_what_the_readme_promises(whole):
    top = whole[0] / "runs" / "default" / "test"
    names = ["run.json", "problems/_COMMIT.json", "report/index.html"]
    names += [f"iterations/{i}/{part}" for i in (1, 2) for part in ("debate/part-0.jsonl", "datasets/critic-2.jsonl")]
    names += ["iterations/2/adapters/generator-0/_COMMIT.json", "iterations/0/evaluation/evaluation.json"]
    assert [n for n in names if not (top / n).is_file()] == []
    assert not list(top.rglob("journal-*")) and not list(top.rglob(".tmp-*"))


def test_the_same_command_again_does_nothing_and_succeeds(whole):
    folder, _ = whole
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs/default/test/iterations").rglob("*") if p.is_file()}
    again = run(folder, resource(iterations=2))
    assert again.returncode == 0
    after = {p: p.stat().st_mtime_ns for p in (folder / "runs/default/test/iterations").rglob("*") if p.is_file()}
    assert before == after


def test_the_report_can_be_made_again(whole):
    folder, _ = whole
    page = folder / "runs/default/test/report/index.html"
    page.unlink()
    done = subprocess.run([*MAFT, "report", str(folder / "runs/default/test")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {page}\n"
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("stage", "victim"),
    [
        ("1-train", "program"),
        # The same two kills, of the same three programs.
        pytest.param("1-debate", "maft", marks=pytest.mark.nightly),
        pytest.param("1-train", "maft", marks=pytest.mark.nightly),
        pytest.param("1-debate", "program", marks=pytest.mark.nightly),
        pytest.param("2-evaluate", "maft", marks=pytest.mark.nightly),
    ],
)
def test_kill_9_then_the_same_command_ends_with_the_same_bytes(whole, tmp_path, stage, victim):
    process = start(tmp_path, resource(iterations=2), MOCK_LATENCY="0.02")
    wait_until(lambda: under_way(tmp_path, stage) or process.poll() is not None, LIMIT, lambda: (tmp_path / "out.txt").read_text())
    program = next((p for p in children_of(tmp_path) if f"maft.{stage.split('-')[1]}" in " ".join(p.cmdline())), None)
    if victim == "program" and program:
        program.kill()
        process.wait(LIMIT)  # the task is started again within the same command
        assert process.returncode == 0, (tmp_path / "out.txt").read_text()
    else:
        process.kill()
        process.wait()
        wait_until(lambda: not children_of(tmp_path), 20, lambda: str(children_of(tmp_path)))
        done = run(tmp_path, resource(iterations=2))
        assert done.returncode == 0, done.stdout + done.stderr
    assert products(tmp_path) == products(whole[0])


def test_a_killed_debate_repeats_only_what_was_in_flight(tmp_path):
    spec = resource(task={"train": 60, "heldOut": 2}, evaluation={"baselines": []})
    process = start(tmp_path, spec, MOCK_LATENCY="0.05")
    debate = tmp_path / "runs/default/test/iterations/1/debate"
    wait_until(lambda: len(list(debate.glob("journal-*"))) >= 3 or process.poll() is not None, LIMIT)
    assert process.poll() is None
    process.kill()
    process.wait()
    wait_until(lambda: not children_of(tmp_path), 20)
    kept = {json.loads(line)["index"]: line for p in debate.glob("journal-*") for line in p.read_text().splitlines()}
    assert kept
    times = {p: p.stat().st_mtime_ns for p in debate.glob("journal-*")}
    process = start(tmp_path, spec, MOCK_LATENCY="0.05")
    wait_until(lambda: len(list(debate.glob("journal-*"))) > len(times) or process.poll() is not None, LIMIT)
    again = [json.loads(line)["index"] for p in debate.glob("journal-*") if p not in times for line in p.read_text().splitlines()]
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT)
    assert set(again).isdisjoint(kept)


def test_ctrl_c_stops_cleanly_and_can_be_resumed(whole, tmp_path):
    process = start(tmp_path, resource(iterations=2), MOCK_LATENCY="0.02")
    wait_until(lambda: (tmp_path / "runs/default/test/local/test-1-debate/log.txt").exists(), LIMIT)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert "goes on from what is committed" in (tmp_path / "out.txt").read_text()
    assert "Traceback" not in (tmp_path / "out.txt").read_text()
    assert children_of(tmp_path) == []
    assert run(tmp_path, resource(iterations=2)).returncode == 0
    assert products(tmp_path) == products(whole[0])


def test_a_budget_of_seconds_is_over_all_runs_of_the_command(tmp_path):
    spec = resource(budget={"seconds": 2})
    ended = run(tmp_path, spec)
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[-1] == (
        "error: spec.budget.seconds (2) are over: 0:00 h; to go on from what is committed, raise it"
    )
    assert not children_of(tmp_path)
    local = tmp_path / "runs" / "default" / "test" / "local"
    began = {file: file.stat().st_mtime_ns for file in local.glob("*/log.txt")}
    assert run(tmp_path, spec).returncode == 2  # nothing is left, so nothing is started
    assert {file: file.stat().st_mtime_ns for file in local.glob("*/log.txt")} == began
    assert json.loads((local / "spent.json").read_text())["seconds"] < 30
    raised = start(tmp_path, resource(budget={"seconds": 2000}))
    wait_until(lambda: {file: file.stat().st_mtime_ns for file in local.glob("*/log.txt")} != began, 60)
    raised.send_signal(signal.SIGINT)
    assert raised.wait(60) == 130


def test_what_is_complete_has_spent_nothing_more(whole):
    done = run(whole[0], resource(iterations=2, budget={"seconds": 1}))
    assert done.returncode == 0, done.stdout


def test_a_server_that_dies_is_started_again(tmp_path):
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "die").touch()
    done = run(tmp_path, resource(), MOCK_FAULTS=str(tmp_path / "faults"))
    assert done.returncode == 0, done.stdout
    assert "test-server failed (1): the server was killed by signal 9" in done.stdout


def test_a_server_that_never_starts_ends_the_run_with_its_log(tmp_path):
    bad = [*MAFT, "run", str(write(tmp_path / "run.yaml", resource(backoffLimit=0))), "--dir", str(tmp_path / "runs")]
    bad += ["--serve", f"{sys.executable} -c \"print('out of luck'); raise SystemExit(1)\""]
    done = subprocess.run(bad, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert "error: test-server: the server ended with exit code 1; the last lines of" in done.stdout
    assert "out of luck" in done.stdout
    assert children_of(tmp_path) == []


def test_answers_that_never_parse_end_the_run_early(tmp_path):
    done = run(tmp_path, resource(), MOCK_TEXT="I cannot say.")
    assert done.returncode == 2
    assert re.search(r"error: test-\d-(debate|evaluate): task.answer: none of the answers to the first \d+ questions", done.stdout)
    assert not list((tmp_path / "runs").rglob("datasets/_COMMIT.json"))


def test_another_spec_under_the_same_name_is_refused(whole):
    folder, _ = whole
    done = run(folder, resource(iterations=1))
    assert done.returncode == 2
    assert "spec.iterations: was 2 when this run began, is 1" in done.stderr


def test_one_run_at_a_time(tmp_path):
    process = start(tmp_path, resource(), MOCK_LATENCY="0.2")
    try:
        wait_until(lambda: (tmp_path / "runs/default/test/local/run.json").exists(), 60)
        done = run(tmp_path, resource())
        assert done.returncode == 2 and "default/test is running already" in done.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130


def test_two_agents_with_a_server_and_a_trainer_each_handing_over(tmp_path):
    spec = resource(agents=2, inference={"topology": "PerAgent", "lifetime": "Phase"}, training={"topology": "PerAgent"})
    done = run(tmp_path, spec)
    assert done.returncode == 0, done.stdout
    assert "test-server-1 is ready" in done.stdout and "training of agent 1" in done.stdout
    assert children_of(tmp_path) == []


@pytest.mark.parametrize(
    "debate",
    [
        {"mode": "fast", "rounds": 3, "minAgreement": 2},
        # What is asked in these is shown in test_debate.py.
        pytest.param({"summarize": False, "cooperative": True}, marks=pytest.mark.nightly),
        pytest.param({"rounds": 1, "critics": False}, marks=pytest.mark.nightly),
    ],
    ids=["fast", "cooperative-without-summaries", "one-round"],
)
def test_variants_run_to_their_end(tmp_path, debate):
    done = run(tmp_path, resource(debate=debate, task={"train": 12, "heldOut": 4}))
    assert done.returncode == 0, done.stdout + done.stderr


# --- wrong input: exit code 2, one line that names the field or object, nothing half-written ---


def refused(tmp_path: Path, spec: dict, *more: str, **environment: str) -> str:
    started = time.monotonic()
    done = run(tmp_path, spec, *more, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("_COMMIT.json"))
    assert time.monotonic() - started < 120
    assert children_of(tmp_path) == []
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stdout + done.stderr
    return errors[0]


NO_NUMBER = "is damaged: Expected `int`, got "


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is damaged: Expecting value"),
        (b'{"format": 1, "spec": {', "is damaged: Expecting property name"),
        (b"\xff\xfe{", "is damaged: "),
        (b"[]", "is damaged: Expected `object`, got `array`"),
        (b'{"format":1,"store":"s"}', "is damaged: Object missing required field `spec`"),
        (b'{"format":1,"spec":' + b"[" * 100_000, "is damaged: maximum recursion depth"),
        (b'{"spec":{},"store":"s"}', "made before formats had numbers, by maft 0.1 or older"),
        (b'{"format":2,"spec":"a new shape"}', "is of format 2, this release reads 1"),
        (b'{"format":"1"}', f"{NO_NUMBER}`str`"),
        (b'{"format":null}', f"{NO_NUMBER}`null`"),
        (b'{"format":1.0,"spec":{},"store":"s"}', f"{NO_NUMBER}`float`"),
        (b'{"format":"\\n\\u001b[31m"}', f"{NO_NUMBER}`str`"),
        (None, "Is a directory"),
    ],
)
def test_what_another_release_or_a_broken_disk_left_here_is_left_alone(tmp_path, data, says):
    one = parse(resource())
    file = tmp_path / one.key / "local" / "run.json"
    file.parent.mkdir(parents=True)
    file.mkdir() if data is None else file.write_bytes(data)
    with pytest.raises(BadSpec) as caught:
        asyncio.run(run_locally(one, str(tmp_path), tmp_path, Console()))
    assert str(caught.value).startswith(f"{file}: {says}")
    assert str(caught.value).isprintable()
    assert {path.name for path in file.parent.iterdir()} == {"run.json", "lock"}
    assert data is None or file.read_bytes() == data


def test_a_run_goes_on_under_a_release_with_other_fields(tmp_path):
    """One more or less of them is no other spec, nor is another number of GPUs."""
    one = parse(resource())
    with exclusive(tmp_path, one, "/s"):
        noted = json.loads((tmp_path / "run.json").read_text())
    del noted["spec"]["training"]["checkpointMinutes"]
    noted["spec"]["inference"].update(gpus=1, former=2)
    (tmp_path / "run.json").write_text(json.dumps(noted))
    with exclusive(tmp_path, one, "/s"):
        pass
    noted["spec"]["training"]["epochs"] = 99
    (tmp_path / "run.json").write_text(json.dumps(noted))
    ended(tmp_path, "prepare", PrepareSummary(train=1, held_out=1))
    with pytest.raises(BadSpec, match=r"^spec\.training\.epochs: was 99 when this run began"), exclusive(tmp_path, one, "/s"):
        pass


def test_what_is_noted_when_a_run_begins_is_written_once(tmp_path):
    """Whole, and never again: a kill at a later start cannot damage it."""
    one = parse(resource())
    with exclusive(tmp_path, one, "/s"):
        noted = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(noted))  # in one line
    with exclusive(tmp_path, one, "/s"):
        assert (tmp_path / "run.json").read_text() == json.dumps(noted)
    ended(tmp_path, "prepare", PrepareSummary(train=1, held_out=1))
    with pytest.raises(BadSpec, match=r"^store: was '/s' when this run began, is '/t'; a run keeps its spec"):
        exclusive(tmp_path, one, "/t").__enter__()
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "lock", "prepare"}


def test_a_folder_has_many_names(tmp_path, monkeypatch):
    """Whoever began a run with `--dir runs` goes on with it by its whole path, as the Python client does, and by a link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "my runs")
    one, local = parse(resource()), tmp_path / "local"
    with exclusive(local, one, "my runs"):
        pass
    ended(local, "prepare", PrepareSummary(train=1, held_out=1))
    for name in ("./my runs", str(tmp_path / "my runs"), f"file://{tmp_path}/my%20runs", "link"):
        with exclusive(local, one, name):
            pass


def ended(local: Path, task: str, summary: ProgramSummary) -> None:
    (local / task).mkdir()
    (local / task / "summary.json").write_bytes(encode_summary(summary))


def test_a_run_that_was_refused_at_once_may_be_corrected(tmp_path):
    with exclusive(tmp_path, parse(resource(seed=1)), "/s"):
        ended(tmp_path, "prepare", Failure(error="task.source: no such file"))
    with exclusive(tmp_path, parse(resource(seed=2)), "/t"):
        noted = json.loads((tmp_path / "run.json").read_text())
    assert (noted["spec"]["seed"], noted["store"]) == (2, "/t")


@pytest.mark.parametrize("place", ["lock", "default"])
def test_a_folder_that_is_no_place_for_a_run_is_one_line(tmp_path, place):
    one = parse(resource())
    local = tmp_path / "default" / "test" / "local"
    (local / "lock").mkdir(parents=True) if place == "lock" else (tmp_path / "default").touch()
    with pytest.raises(BadSpec, match=rf"^--dir {local}: (Is|Not) a directory; choose a folder that can be written$"):
        exclusive(local, one, "/s").__enter__()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"agent": 3}, "spec.agent: unknown field; did you mean agents?"),
        ({"agents": "three"}, "spec.agents: is the text 'three'; expected an integer"),
        ({"agents": 1}, "debate.rounds: one agent has nobody to debate with"),
        ({"debate": {"rounds": 1}}, "debate.critics: with one round nobody is corrected"),
        ({"task": {"train": 5000}}, "task.train + task.heldOut: 5016 questions asked for"),
        ({"model": {"source": "/nowhere"}}, "model.source: /nowhere is no model folder (it has no config.json)"),
        ({"task": {"source": "nothing.jsonl"}}, "nothing.jsonl: No such file or directory; give a jsonl file"),
    ],
)
def test_wrong_specs(tmp_path, spec, says):
    assert says in refused(tmp_path, resource(**spec))


def test_a_corrupt_model(tmp_path):
    folder = copy_of_tiny(tmp_path)
    (folder / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:5000])
    assert re.search(r"model\.source: \S+model\.safetensors is damaged", refused(tmp_path, resource(model={"source": str(folder)})))


def test_a_foreign_model(tmp_path):
    folder = copy_of_tiny(tmp_path)
    (folder / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    assert "is a vit model, not a causal language model" in refused(tmp_path, resource(model={"source": str(folder)}))


def test_a_model_without_chat_template(tmp_path):
    folder = copy_of_tiny(tmp_path)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "has no chat template" in refused(tmp_path, resource(model={"source": str(folder)}))


def copy_of_tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in TINY.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"question": "1+1?", "answer": "2"}\n{"question": \n', "questions.jsonl line 2: not JSON"),
        ('{"question": "1+1?"}\n', "questions.jsonl line 1: answer is missing"),
        ("", "questions.jsonl holds no questions"),
    ],
)
def test_malformed_questions(tmp_path, text, says):
    (tmp_path / "questions.jsonl").write_text(text)
    assert says in refused(tmp_path, resource(task={"source": str(tmp_path / "questions.jsonl")}))


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    says = refused(tmp_path, resource(), "--store", f"file://{tmp_path}/file/below")
    assert "a part of the path is a file; choose a folder" in says


def test_an_unreachable_store(tmp_path):
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}
    url = f"s3://bucket/x?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
    assert "store s3://bucket/x: unreachable" in refused(tmp_path, resource(), "--store", url, **credentials)


def test_no_credentials(tmp_path):
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    says = refused(tmp_path, resource(), "--store", f"s3://bucket/x?endpoint=http://127.0.0.1:{free_port()}", **nowhere)
    assert "store s3://bucket/x: Unable to locate credentials" in says


def test_an_unreachable_hub(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    assert "model.source: some-org/some-model" in refused(tmp_path, resource(model={"source": "some-org/some-model"}), **offline)


def test_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "bad.yaml").write_text("spec: {agents: 3\nkind: x")
    done = subprocess.run([*MAFT, "run", str(tmp_path / "bad.yaml")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and re.search(r"error: \S+bad\.yaml line \d+: not YAML", done.stderr)


def test_set_changes_a_field(tmp_path):
    file = str(write(tmp_path / "run.yaml", resource()))
    done = subprocess.run([*MAFT, "plan", file, "--set", "debate.rounds=3"], capture_output=True, text=True, timeout=60)
    assert '"rounds": 3,' in done.stdout
    done = subprocess.run([*MAFT, "plan", file, "--set", "debate.round=3"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "spec.debate.round: unknown field; did you mean rounds?" in done.stderr


def test_a_plan_with_preflight_says_what_the_run_will_take(whole, tmp_path):
    """Requests to the servers as they were made; bytes in the store as they were kept, within a factor of two."""
    file = str(write(tmp_path / "run.yaml", resource(iterations=2)))
    done = subprocess.run([*MAFT, "plan", file, "--preflight"], capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
    first, second, third, fourth = done.stdout.splitlines()[:4]
    assert first == "# prepare: checks and questions: 24 training and 16 held-out questions"
    numbers = re.search(r"training needs about \S+ GiB; at most (\S+) requests, (\S+) tokens written, (\S+) GiB kept", second)
    summaries = [json.loads(file.read_text()) for file in (whole[0] / "runs" / "default" / "test" / "local").glob("*/summary.json")]
    spent = [summary["usage"] for summary in summaries if "usage" in summary]
    assert int(numbers[1].replace(",", "")) == sum(usage["calls"] for usage in spent)
    assert int(numbers[2].replace(",", "")) >= sum(usage["completionTokens"] for usage in spent)
    kept = sum(f.stat().st_size for f in (whole[0] / "runs").rglob("*") if f.is_file() and "iterations" in f.parts)
    assert kept / 2 < float(numbers[3]) * 2**30 < kept * 2
    assert third == "# disk of a node, at least and at most: a server 0.1 to 15.8 GiB, a training task 0.1 to 15.1 GiB"
    assert fourth.startswith("# default/test: ") and list(tmp_path.iterdir()) == [tmp_path / "run.yaml"]


def test_a_plan_with_preflight_ends_with_what_cannot_work(tmp_path):
    file = str(write(tmp_path / "run.yaml", resource(debate={"maxTokens": 9000})))
    done = subprocess.run([*MAFT, "plan", file, "--preflight"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and done.stderr.startswith("error: debate.maxTokens: the longest of the train questions takes ")
    assert done.stderr.count("\n") == 1


@pytest.mark.s3
def test_a_run_in_a_bucket_leaves_the_same_bytes(whole, tmp_path):
    """The same programs on a real S3 server: transcripts, datasets and adapters equal those of a folder."""
    from s3server import running

    from maft.store import layout
    from maft.store.commits import committed
    from maft.store.urls import open_store

    with running(tmp_path / "objects") as s3:
        credentials = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
        url = f"s3://{s3.bucket}/runs?endpoint={s3.endpoint}&region=us-east-1"
        done = run(tmp_path, resource(iterations=2), "--store", url, **credentials)
        assert done.returncode == 0, done.stdout + done.stderr
        expected = products(whole[0])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in credentials.items():
                patch.setenv(name, value)
            store = open_store(url)
            keys = list(store.list("default/"))
            commits = [committed(store, key.removesuffix("_COMMIT.json")) for key in keys if key.endswith("_COMMIT.json")]
            assert store.read(f"default/test/{layout.REPORT}index.html").startswith(b"<!DOCTYPE html>")
            assert not [key for key in keys if "journal-" in key]
    hashes = {c.prefix + f.name: f.sha256 for c in commits for f in c.files if "iterations/" in c.prefix}
    assert hashes == expected
