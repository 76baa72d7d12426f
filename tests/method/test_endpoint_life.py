"""A society from its start to its end: who may ask, how much at a time, what happens when clients, servers and it itself go."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import openai
import pytest
from conftest import answers, free_port, wait_until
from societies import QUESTION, RUN, ask, endpoint, metrics, mock_server, post, society, trained

from maft import pod, records
from maft.endpoint import served
from maft.endpoint.keys import INTERVAL, Keys
from maft.errors import BadInput
from maft.prepare.tasks import load, of_task
from maft.society_spec import SocietySpec
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import Gain, Score, Validation

pytestmark = pytest.mark.programs


@pytest.fixture
def spec(tmp_path):
    return trained(tmp_path / "store")


@contextlib.contextmanager
def started(command: list[str], log: Path):
    """The program, ended with the block; readiness is not waited for."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def held(tmp_path):
    """A file that keeps the answers of the stand-in back while it is there, and what the stand-in has to know of it."""
    folder = tmp_path / "faults"
    folder.mkdir()
    yield folder / "wait", {"MOCK_FAULTS": str(folder)}


def at_work(url: str) -> int:
    (line,) = (line for line in metrics(url).splitlines() if line.startswith("maft_society_requests_active"))
    return int(float(line.split()[1]))


def asked_of(server: str) -> int:
    """Requests under way at the stand-in."""
    return int(metrics(server).split("running{", 1)[1].split("} ", 1)[1].split()[0])


# --- who may ask ---


def test_only_who_has_a_key_may_ask(tmp_path, spec):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text("key-of-alice\n")
    (keys / "bob").write_text("key-of-bob")
    (keys / "nobody").write_text(" \n")
    with society(tmp_path, spec, None, f"--keys={keys}") as url:
        assert post(url, ask(), key="key-of-alice")[0] == post(url, ask(), key="key-of-bob")[0] == 200
        for key in ("", "key-of-carol", "key-of-alic", "key-of-alice2", "KEY-OF-ALICE"):
            status, body, _ = post(url, ask(), key=key)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key"), key
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
        assert answers(f"{url}/health") and answers(f"{url}/ready") and answers(f"{url}/metrics")
        (keys / "alice").unlink()
        (keys / "carol").write_text("key-of-carol")
        wait_until(lambda: post(url, ask(), key="key-of-carol")[0] == 200, 20)
        assert post(url, ask(), key="key-of-alice")[0] == 401
        assert "key-of" not in (tmp_path / "endpoint.txt").read_text()


def test_keys_of_a_mounted_secret(tmp_path):
    """As kubelet lays them down: names are links into a folder of the moment, which is another one after a change."""
    for moment, text in (("..one", b"first"), ("..two", b"second")):
        (tmp_path / moment).mkdir()
        (tmp_path / moment / "team").write_bytes(text)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "team").symlink_to("..data/team")
    keys = Keys(tmp_path)
    assert keys.name("Bearer first") == keys.name("bearer  first") == "team"
    assert keys.name("Basic first") is keys.name("first") is keys.name("") is keys.name("Bearer ") is keys.name("Bearer é") is None
    (tmp_path / "..new").symlink_to("..two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    wait_until(lambda: keys.name("Bearer second") == "team", 5 * INTERVAL)
    assert keys.name("Bearer first") is None
    (tmp_path / "team").unlink()
    wait_until(lambda: keys.name("Bearer second") is None, 5 * INTERVAL)


def test_where_it_is_not_told_it_listens_for_both_families(tmp_path, spec):
    """As in a pod, where kubelets and Services come by either; asyncio leaves IPv4 out at ::."""
    with society(tmp_path, spec, None, f"--host={pod.everywhere()}") as url:
        port = url.rpartition(":")[2]
        hosts = ["127.0.0.1", *(["[::1]"] if pod.everywhere() == "::" else [])]
        assert [urllib.request.urlopen(f"http://{host}:{port}/ready").status for host in hosts] == [200] * len(hosts)


def test_requests_beyond_the_cap_are_refused(tmp_path, spec):
    asked = SocietySpec(max_concurrent_debates=3, max_concurrent_per_key=2)
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("a", "b"):
        (keys / name).write_text(f"key-{name}")
    with (
        held(tmp_path) as (hold, environment),
        society(tmp_path, spec, asked, f"--keys={keys}", **environment) as url,
        ThreadPoolExecutor(3) as threads,
    ):
        hold.touch()
        one = [threads.submit(post, url, ask(), key="key-a") for _ in range(2)]
        wait_until(lambda: at_work(url) == 2, 20)
        status, body, headers = post(url, ask(), key="key-a")
        assert (status, headers["Retry-After"]) == (429, "1") and "maxConcurrentPerKey" in body["error"]["message"]
        other = threads.submit(post, url, ask("society/generator-1"), key="key-b")
        wait_until(lambda: at_work(url) == 3, 20)
        with pytest.raises(openai.RateLimitError, match="maxConcurrentDebates"):
            openai.OpenAI(base_url=f"{url}/v1", api_key="key-b", max_retries=0).chat.completions.create(**ask())
        hold.unlink()
        assert [future.result()[0] for future in (*one, other)] == [200] * 3
        assert at_work(url) == 0 and post(url, ask("society/generator-1"), key="key-b")[0] == 200


# --- who goes ---


@pytest.mark.parametrize("model", ["society", "society/majority", "society/generator-1"])
@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_goes_the_servers_stop(tmp_path, spec, model, stream):
    port = free_port()
    with (
        held(tmp_path) as (hold, environment),
        mock_server(spec, tmp_path, **environment) as server,
        started(endpoint(tmp_path / "store", port, server), tmp_path / "endpoint.txt"),
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/ready"), 60)
        hold.touch()

        async def go() -> None:
            async with aiohttp.ClientSession() as session:
                request = asyncio.create_task(session.post(f"{url}/v1/chat/completions", json=ask(model, stream=stream)))
                while not await asyncio.to_thread(asked_of, server):
                    await asyncio.sleep(0.02)
                request.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await request).close()

        asyncio.run(asyncio.wait_for(go(), 30))
        wait_until(lambda: asked_of(server) == 0 and at_work(url) == 0, 10)
        wait_until(lambda: f'requests_total{{model="{model}",status="499"}} 1.0' in metrics(url), 10)


def test_a_request_has_its_time(tmp_path, spec):
    with held(tmp_path) as (hold, environment), society(tmp_path, spec, SocietySpec(timeout_seconds=2), **environment) as url:
        assert post(url, ask())[0] == 200
        hold.touch()
        status, body, headers = post(url, ask())
        assert (status, body["error"]["code"], headers["x-should-retry"]) == (408, "timeout", "false")
        with pytest.raises(openai.APIError, match="timeoutSeconds"):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
            list(client.chat.completions.create(**ask(stream=True)))
        assert at_work(url) == 0


def test_a_request_asks_for_less_time_than_the_society_allows(tmp_path, spec):
    with held(tmp_path) as (hold, environment), society(tmp_path, spec, SocietySpec(timeout_seconds=300), **environment) as url:
        hold.touch()
        status, body, _ = post(url, ask(maft={"timeoutSeconds": 1}))
        assert (status, body["error"]["message"]) == (408, "the answer took longer than the 1 s of timeoutSeconds; ask for less")
        status, body, _ = post(url, ask(maft={"timeoutSeconds": 301}))
        assert (status, body["error"]["param"]) == (400, "maft.timeoutSeconds")


def test_at_the_end_what_is_under_way_is_answered(tmp_path, spec):
    """SIGTERM: no longer ready, what was asked is answered, what still comes is answered in the time of grace, then it ends."""
    port = free_port()
    command = [*endpoint(tmp_path / "store", port, "{server}"), "--grace=3"]
    with held(tmp_path) as (hold, environment), mock_server(spec, tmp_path, **environment) as server:
        command = [part.format(server=server) if "{server}" in part else part for part in command]
        with started(command, tmp_path / "log.txt") as process, ThreadPoolExecutor(2) as threads:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{url}/ready"), 60)
            hold.touch()
            early = threads.submit(post, url, ask())
            wait_until(lambda: at_work(url) == 1, 20)
            process.terminate()
            wait_until(lambda: not answers(f"{url}/ready"), 3)
            late = threads.submit(post, url, ask("society/critic-2"))
            wait_until(lambda: at_work(url) == 2, 3)
            hold.unlink()
            assert early.result()[0] == late.result()[0] == 200
            assert process.wait(20) == 0, (tmp_path / "log.txt").read_text()


def test_readiness_waits_for_the_agents_and_follows_their_server(tmp_path, spec):
    port, place = free_port(), free_port()
    with started(endpoint(tmp_path / "store", port, f"http://127.0.0.1:{place}"), tmp_path / "endpoint.txt"):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/health"), 60)
        assert not answers(f"{url}/ready")
        status, body, headers = post(url, ask())
        assert (status, body["error"]["type"], headers["Retry-After"]) == (503, "server_error", "5")
        count = tmp_path / "count"
        with mock_server(spec, tmp_path, port=place, MOCK_COUNT=str(count)):
            wait_until(lambda: answers(f"{url}/ready"), 60)
            names = {line.rsplit("-", 1)[0] for line in count.read_text().split()}
            assert names == {"base", *(f"{role}-{n}-1" for role in ("generator", "critic") for n in range(3))}
            assert post(url, ask())[0] == 200
        wait_until(lambda: not answers(f"{url}/ready"), 60)
        assert answers(f"{url}/health") and post(url, ask())[0] == 503
        with mock_server(spec, tmp_path, port=place):
            wait_until(lambda: answers(f"{url}/ready"), 60)
            assert post(url, ask())[0] == 200


# --- questions that are kept ---


def test_questions_are_kept_for_the_next_run(tmp_path, spec):
    """What users asked is a task: the next run's program takes the folder's rows as they are."""
    asked = SocietySpec(keep_questions=True)
    old = tmp_path / "store" / RUN / "asked" / "2026-01-01-host-1-1.jsonl"
    old.parent.mkdir()
    old.write_text("{}\n")
    os.utime(old, (1e9, 1e9))
    decided = []
    with society(tmp_path, spec, asked) as url:
        for question in (f"What is {n}+3*4?" for n in range(9)):
            status, body, _ = post(url, ask(question=question))
            assert status == 200
            decided += [] if body["choices"][0]["maft"]["abstained"] else [question]
        chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": QUESTION}]
        assert post(url, {"model": "society/majority", "messages": chat})[0] == 200
        assert post(url, ask(question="What is 50+1*1?", store=False))[0] == 200
        assert post(url, ask("society/generator-1", "What is 51+1*1?"))[0] == 200
        wait_until(lambda: not old.exists(), 20)
    (kept,) = old.parent.glob("*.jsonl")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert 4 < len(decided) < 9, "some have a majority, and some have none"
    assert [row["question"] for row in rows] == [*decided, chat] and all(row["vote"] for row in rows)
    again = trained(tmp_path / "again", task={"source": str(kept.parent), "train": len(decided) - 1, "heldOut": 2})
    split = load(of_task(again.task))
    assert {p.question for p in (*split.train, *split.held_out)} == {*decided, QUESTION}


def test_questions_are_kept_before_long_answers_are_waited_for(tmp_path, spec):
    """Who ends it may kill it after a while: what was asked before is in the store by then."""
    port = free_port()
    with held(tmp_path) as (hold, environment), mock_server(spec, tmp_path, **environment) as server:
        command = endpoint(tmp_path / "store", port, server, SocietySpec(keep_questions=True))
        with started(command, tmp_path / "log.txt") as process, ThreadPoolExecutor(1) as threads:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{url}/ready"), 60)
            assert post(url, ask())[0] == 200
            hold.touch()
            late = threads.submit(post, url, ask(question="What is 1+2*3?"))
            wait_until(lambda: at_work(url) == 1, 20)
            process.terminate()
            wait_until(lambda: list((tmp_path / "store" / RUN).glob("asked/*.jsonl")), 20)
            assert at_work(url) == 1 and not late.done()
            hold.unlink()
            assert late.result()[0] == 200 and process.wait(20) == 0
    rows = [file.read_text().count("\n") for file in (tmp_path / "store" / RUN).glob("asked/*.jsonl")]
    assert rows == [1, 1]


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path, spec):
    with society(tmp_path, spec) as url:
        assert post(url, ask())[0] == 200
    assert not (tmp_path / "store" / RUN / "asked").exists()


# --- what cannot be served ---

WRONG = {
    "no run": ({}, ["--run=ns/other"], "no run is there"),
    "an unfinished first iteration": ({"unfinished": 1, "iterations": 0}, [], "no adapters yet; the training of iteration 1"),
    "the unfinished iteration": ({"unfinished": 2}, ["--iteration=2"], "no adapter committed; the training task of iteration 2"),
    "an iteration that is not planned": ({}, ["--iteration=7"], "the run has the iterations 1 to 1"),
    "no adapter": ({"untrained": True}, [], "iteration 1 trained no adapter"),
    "a run that trains none": ({"method": "debate"}, [], "the run trains no adapters"),
    "a mode that is none": ({}, ['--society={"mode": "slow"}'], "--society: Invalid enum value 'slow' - at `$.mode`"),
    "a cap of nothing": ({}, ['--society={"maxConcurrentDebates": 0}'], "--society: Expected `int` >= 1"),
    "no folder of keys": ({}, ["--keys=/nowhere"], "--keys /nowhere"),
    "an address of nobody here": ({}, ["--host=192.0.2.1"], "--host 192.0.2.1: Cannot assign requested address"),
    "an address that is none": ({}, ["--host=300.1.1.1"], "--host 300.1.1.1: "),
    "a port that is none": ({}, ["--port=70000"], "--port '70000'"),
    "grace in words": ({}, ["--grace=long"], "--grace 'long'"),
    "a server that is none": ({}, ["--server=there"], "--server there: expected NAME=http://HOST:PORT"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_served_is_said_in_a_line(tmp_path, case):
    made, flags, message = WRONG[case]
    trained(tmp_path / "store", **made)
    summary = tmp_path / "summary.json"
    command = [*endpoint(tmp_path / "store", free_port(), "http://127.0.0.1:9"), *flags, f"--summary={summary}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert message in json.loads(summary.read_text())["error"]


def test_the_best_iteration_is_served(tmp_path):
    """Of three iterations the validation questions chose the second; its adapters answer, not the last ones."""
    spec = trained(tmp_path / "store", iterations=3, evaluation={"validation": 4})
    store, gains = FileStore(tmp_path / "store"), {1: None, 2: Gain(0.2, 0.1, 1), 3: Gain(-0.1, 0.1, 2)}
    for iteration, gain in gains.items():
        meta = {"validation": records.plain(Validation(accuracy=Score(0.5, 0.1), gain=gain))}
        publish(store, layout.validation(RUN, iteration), {}, meta=meta)
    assert served.chosen(store, RUN, spec) == 2


def test_an_iteration_after_the_end_of_a_run_that_stopped_early_is_refused(tmp_path):
    spec = trained(tmp_path / "store", iterations=3, evaluation={"validation": 4}, stopWhen={"patience": 1})
    store = FileStore(tmp_path / "store")
    for iteration, gain in {1: None, 2: Gain(-0.1, 0.1, 1)}.items():
        meta = {"validation": records.plain(Validation(accuracy=Score(0.5, 0.1), gain=gain))}
        publish(store, layout.validation(RUN, iteration), {}, meta=meta)
    says = r"--iteration 3: the run stopped after iteration 2 \(stopWhen\); it has the iterations 1 to 2"
    with pytest.raises(BadInput, match=says):
        served.load(store, RUN, spec, 3, ["server"], SocietySpec())


def test_a_folder_without_a_key_is_told(tmp_path, capsys):
    """Starting before there is one is no mistake, and nobody is let in."""
    keys = Keys(tmp_path)
    assert capsys.readouterr().err == f"warning: --keys {tmp_path}: holds no key, so nobody may ask until one is there\n"
    assert keys.name("Bearer ") is None and keys.name("") is None


def test_the_last_whole_iteration_is_served(tmp_path):
    spec = trained(tmp_path / "store", iterations=2, unfinished=3)
    command = [sys.executable, "-m", "maft.endpoint", f"--store={tmp_path / 'store'}", f"--run={RUN}", "--facts"]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert (facts["iteration"], facts["adapters"]) == (2, 6)
    assert json.dumps(facts["spec"], sort_keys=True) == json.dumps(json.loads(immutable_spec_json(spec)), sort_keys=True)
