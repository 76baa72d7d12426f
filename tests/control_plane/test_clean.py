"""`maft clean`: what runs that are gone left in a store goes if told so, and nothing else ever does."""

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from test_bundle import api_server, kubeconfig

from maft.clean.__main__ import clean as erase
from maft.clean.choose import DAY, Kept, Stored, stored, why_kept
from maft.spec import FORMAT
from maft.store.base import Entry, Store
from maft.store.files import FileStore
from maft.store.urls import open_store
from maft_operator.clean import command

RUN = json.dumps({"format": FORMAT, "spec": {}}).encode()
FORGET = ("--days", "0", "--yes")  # delete at once, however lately it was written
COMMIT = "iterations/1/adapters/generator-0/_COMMIT.json"
OF_A_RUN = (
    "run.json",
    "problems/train.jsonl",
    "models/0123456789ab/_COMMIT.json",
    COMMIT,
    "iterations/1/adapters/generator-0/adapter_model.safetensors",
    "report/index.html",
    "asked/2026-01-01-host-1-1.jsonl",
)
OTHERS = (
    "models/tiny/config.json",  # no run.json: a model
    "ns/gone/notes.txt",  # somebody's own, below a run
    "ns/unfinished/problems/train.jsonl",
    "run.json",
    "ns/run.json",
    "deep/er/still/run.json",
)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Store]:
    """The URL of a store of three runs and things that are none, and the store."""
    url = str(tmp_path / "store")
    if request.param == "bucket":
        s3: S3Server = request.getfixturevalue("s3")
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        url = s3.url(f"clean/{tmp_path.parent.name}-{tmp_path.name}")
    made = open_store(url)
    for run in ("ns/gone", "ns/there", "other/gone"):
        for key in OF_A_RUN:
            made.write(f"{run}/{key}", RUN if key == "run.json" else b"x" * 1000)
    for key in OTHERS:
        made.write(key, b"theirs")
    made.write("ns/newer/run.json", b'{"format": 99}')
    made.write("ns/odd/run.json", b"not JSON")
    return url, made


def clean(url: str, *flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "maft_operator", "clean", url, *flags]
    return subprocess.run(line, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def all_of(run: str) -> set[str]:
    return {f"{run}/{key}" for key in OF_A_RUN}


@pytest.mark.programs
def test_what_is_named_goes_and_nothing_else(store: tuple[str, Store]) -> None:
    url, made = store
    before = set(made.list(""))
    flags = ("--no-cluster", "--run", "ns/gone", "--days", "0")

    shown = clean(url, *flags)
    assert shown.returncode == 0, shown.stderr
    assert "gone  ns/gone: 6 KB, 7 objects, last written 20" in shown.stdout
    assert "1 objects there that maft has not written stay" in shown.stdout
    assert shown.stdout.endswith("would free 6 KB of 1 runs; --yes deletes it\n")
    assert set(made.list("")) == before

    young = clean(url, *flags[:-1], "1", "--yes")
    assert "kept  ns/gone: it was written to 0.0 days ago; --days 1" in young.stdout and set(made.list("")) == before

    done = clean(url, *flags, "--yes")
    assert done.returncode == 0 and done.stdout.endswith("freed 6 KB of 1 runs\n"), done.stdout + done.stderr
    assert set(made.list("")) == before - all_of("ns/gone")
    assert {f"ns/gone/{key}" for key in OF_A_RUN} & set(made.list("")) == set() and "ns/gone/notes.txt" in set(made.list(""))

    again = clean(url, *flags, "--yes")
    assert again.returncode == 2
    assert again.stderr.startswith("error: --run ns/gone: ") and "ns/newer, ns/odd, ns/there, other/gone" in again.stderr


@pytest.mark.programs
def test_without_a_cluster_nothing_goes_unnamed(store: tuple[str, Store]) -> None:
    url, made = store
    before = set(made.list(""))
    done = clean(url, "--no-cluster", *FORGET)
    assert done.returncode == 0 and "kept  ns/gone: it is not named; --run NAMESPACE/NAME names it" in done.stdout
    assert done.stdout.endswith("freed 0 bytes of 0 runs\n") and set(made.list("")) == before


def asked(folder: Path, answers: dict, url: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    """`maft clean` with a cluster whose API server answers so."""

    others = ("societies", "multiagentcomparisons")
    known = {path.replace("multiagentfinetunes", kind): listed() for path in answers for kind in others} | answers

    async def scenario() -> "subprocess.CompletedProcess[str]":
        async with api_server(known, {}, []) as address:
            config = str(kubeconfig(folder, address))
            return await asyncio.to_thread(lambda: clean(url, *flags, KUBECONFIG=config))

    return asyncio.run(scenario())


def listed(*runs: str) -> dict:
    items = [{"metadata": {"namespace": r.split("/")[0], "name": r.split("/")[1], "resourceVersion": "1"}} for r in runs]
    return {"metadata": {}, "items": items}


ALL = "/apis/maft.dev/v1alpha1/multiagentfinetunes"
OF_NS = "/apis/maft.dev/v1alpha1/namespaces/ns/multiagentfinetunes"
OF_OTHER = "/apis/maft.dev/v1alpha1/namespaces/other/multiagentfinetunes"


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_a_cluster_says_which_runs_are_there(store: tuple[str, Store], tmp_path: Path) -> None:
    url, made = store
    before = set(made.list(""))

    unsure = asked(tmp_path, {ALL: listed("ns/there")}, url, *FORGET)
    assert (unsure.returncode, unsure.stdout) == (2, "") and set(made.list("")) == before
    assert unsure.stderr.endswith("name runs with --run, or say --only-this-cluster\n")

    shown = asked(tmp_path, {ALL: listed("ns/there")}, url, "--days", "0")
    assert shown.returncode == 0 and f"warning: {url.partition('?')[0]}: runs of other clusters" in shown.stderr

    refused = asked(tmp_path, {}, url, *FORGET, "--only-this-cluster")
    assert refused.returncode == 2 and "error: the cluster does not say which runs there are: may not get" in refused.stderr
    assert "with -n NAMESPACE it need not be all" in refused.stderr and set(made.list("")) == before

    named = asked(tmp_path, {ALL: listed("ns/there")}, url, "--run", "ns/there", *FORGET)
    assert "kept  ns/there: its resource is there" in named.stdout and set(made.list("")) == before

    one = asked(tmp_path, {OF_NS: listed("ns/there")}, url, "-n", "ns", *FORGET, "--only-this-cluster")
    assert "warning: " not in one.stderr  # who says so has answered it
    assert one.returncode == 0, one.stderr
    assert "kept  other/gone: its namespace was not asked for" in one.stdout
    assert "kept  ns/newer: is of format 99, this release reads" in one.stdout
    assert "kept  ns/odd: its run.json is none of maft's" in one.stdout
    assert set(made.list("")) == before - all_of("ns/gone")

    rest = asked(tmp_path, {ALL: listed("ns/there"), OF_OTHER: listed()}, url, *FORGET, "--only-this-cluster")
    assert rest.stdout.startswith("the cluster of the kubeconfig has 1 run\n")
    assert set(made.list("")) == before - all_of("ns/gone") - all_of("other/gone")


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_the_adapters_of_a_run_that_is_gone_stay_while_a_society_serves_them(store: tuple[str, Store], tmp_path: Path) -> None:
    url, made = store
    before = set(made.list(""))
    society = {"metadata": {"namespace": "ns", "name": "s"}, "spec": {"run": "gone"}}
    answers = {ALL: listed("ns/there", "other/gone"), ALL.replace("multiagentfinetunes", "societies"): {"items": [society]}}
    done = asked(tmp_path, answers, url, *FORGET, "--only-this-cluster")
    assert done.returncode == 0 and "kept  ns/gone: its resource is there, or a society serves it" in done.stdout, done.stderr
    assert set(made.list("")) == before


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_a_run_that_was_made_again_meanwhile_stays(store: tuple[str, Store], tmp_path: Path) -> None:
    """The cluster is asked about each run right before it goes: one whose stages are all committed writes nothing new."""
    url, made = store
    before = set(made.list(""))
    answers = {ALL: listed("ns/there"), OF_NS: listed("ns/there", "ns/gone"), OF_OTHER: listed("other/go", "other/gone2")}
    done = asked(tmp_path, answers, url, *FORGET, "--only-this-cluster")
    assert done.returncode == 0, done.stderr
    assert "kept  ns/gone: its resource is there by now, or a society serves it\n" in done.stdout and done.stdout.endswith(
        "freed 6 KB of 1 runs\n"
    )
    assert set(made.list("")) == before - all_of("other/gone")

    unsure = asked(tmp_path, {ALL: listed("ns/there")}, url, *FORGET, "--only-this-cluster")
    assert unsure.returncode == 0 and "kept  ns/gone: the cluster does not say which runs there are: may not get" in unsure.stdout
    assert set(made.list("")) == before - all_of("other/gone")


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_what_a_comparison_shares_stays_as_long_as_it_is_there(store: tuple[str, Store], tmp_path: Path) -> None:
    """Its name is that of its runs' group, below which questions, calls and table lie; no right to ask about it: nothing goes."""
    url, made = store
    before = set(made.list(""))
    flags = (*FORGET, "--only-this-cluster")
    there = {ALL: listed("ns/there", "other/gone"), ALL.replace("finetunes", "comparisons"): listed("ns/gone")}
    done = asked(tmp_path, there, url, *flags)
    assert done.returncode == 0 and "kept  ns/gone: its resource is there" in done.stdout, done.stdout + done.stderr
    assert set(made.list("")) == before


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_what_no_resource_can_be_called_is_asked_about_nowhere(store: tuple[str, Store], tmp_path: Path) -> None:
    url, made = store
    before = set(made.list(""))
    for run in ("n s/a\nb", "ns/x?y"):
        made.write(f"{run}/run.json", RUN)
    answers = {ALL: listed("ns/there", "ns/gone", "other/gone"), OF_NS: listed("ns/there")}
    done = asked(tmp_path, answers, url, *FORGET, "--only-this-cluster")
    assert done.returncode == 0 and set(made.list("")) == before, done.stdout + done.stderr


@pytest.mark.programs
@pytest.mark.s3
@pytest.mark.parametrize("store", ["bucket"], indirect=True)
def test_without_an_answer_nothing_goes(store: tuple[str, Store]) -> None:
    """Whoever asked for it is gone: standard input ends before the answer."""
    url, made = store
    before = set(made.list(""))
    asking, questions = os.pipe()
    line = [sys.executable, "-m", "maft.clean", "--store", url, "--days", "0", "--yes", "--questions", str(questions)]
    done = subprocess.run(line, input=b'{"there": []}\n', capture_output=True, pass_fds=[questions], timeout=120)
    os.close(questions)
    with open(asking, "rb") as lines:
        assert b'"ns/gone"\n' in list(lines)
    assert done.returncode == 0 and b"kept  ns/gone: nobody says whether its resource is there" in done.stdout, done.stderr
    assert set(made.list("")) == before


@pytest.mark.programs
@pytest.mark.parametrize("answer", [None, str])
@pytest.mark.parametrize("runs", [1, 100_000])
def test_a_program_that_ends_unasked_says_why(answer, runs: int) -> None:
    assert command._answering([sys.executable, "-c", "raise SystemExit(3)"], {"there": ["ns/x"] * runs}, answer) == 3


@contextlib.contextmanager
def working(folder: Path) -> Iterator[None]:
    """As `maft run` holds its run."""
    (folder / "local").mkdir()
    with (folder / "local" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.programs
@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_a_run_of_this_machine_that_is_under_way_stays(store: tuple[str, Store], tmp_path: Path) -> None:
    url, made = store
    flags = ("--run", "other/gone", *FORGET)
    with working(tmp_path / "store" / "other" / "gone"):
        assert "kept  other/gone: `maft run` works at it" in clean(url, *flags).stdout
    assert all_of("other/gone") <= set(made.list(""))
    assert clean(url, *flags).returncode == 0
    assert not (tmp_path / "store" / "other" / "gone").exists()  # its logs and empty folders with it


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run", "gone"), "error: --run gone: expected NAMESPACE/NAME\n"),
        (("--days", "-1"), "error: --days -1: below 0; give a number of days\n"),
        (("--days", "nan"), "error: --days nan: below 0; give a number of days\n"),
        (("--no-cluster", "--run", "a/b"), "error: --run a/b: "),
    ],
)
@pytest.mark.programs
def test_what_makes_no_sense_is_one_line(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = clean(str(tmp_path), *flags)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(message)


class Returning(FileStore):
    """A store where a run comes back while the whole of it is listed."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        yield from super().entries(prefix)
        if not prefix:
            self.write("ns/gone/problems/new.jsonl", b"x")


def test_a_run_that_came_back_meanwhile_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Returning(tmp_path)
    for key in OF_A_RUN:
        made.write(f"ns/gone/{key}", RUN if key == "run.json" else b"x")
        os.utime(tmp_path / "ns" / "gone" / key, (1.0, 1.0))
    erase(made, Kept(frozenset(), frozenset(), frozenset(), 30.0), yes=True)
    assert "kept  ns/gone: it was written to 0.0 days ago; --days 30" in capsys.readouterr().out
    assert set(made.list("")) == all_of("ns/gone") | {"ns/gone/problems/new.jsonl"}


@pytest.mark.programs
def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = clean(str(tmp_path / "rnus"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: store file://{tmp_path}/rnus: no such folder; name the one")


# --- the choice ---

NOW = 100 * DAY
NAMES = st.sampled_from(["a/x", "a/y", "b/x", "a/x-y"])


def of(run: str, age: float = 90.0) -> Stored:
    [one] = stored([Entry(f"{run}/run.json", 10, NOW - age * DAY)])
    return one


@given(NAMES, st.frozensets(NAMES), st.frozensets(NAMES), st.frozensets(st.sampled_from("ab")), st.floats(0, 99), st.floats(0, 99))
def test_nothing_goes_that_may_be_wanted(run, there, named, namespaces, days, age) -> None:
    kept = Kept(there, named, namespaces, days)
    gone = not why_kept(of(run, age), kept, NOW)
    assert not (gone and run in there)
    assert not (gone and named and run not in named)
    assert not (gone and namespaces and run.split("/")[0] not in namespaces)
    assert not (gone and age < days - 1e-6)
    assert why_kept(of(run, age), Kept(None, frozenset(), namespaces, days), NOW)  # nobody was asked, nothing named


@given(st.lists(st.sampled_from([f"{run}/{key}" for run in ("a/x", "a/x-y", "a") for key in (*OF_A_RUN, "mine.txt")]), unique=True))
def test_what_is_found_is_whole_and_in_an_order_that_may_be_interrupted(keys) -> None:
    runs = {run.name: run for run in stored([Entry(key, 1, 0.0) for key in sorted(keys)])}
    assert set(runs) == {"/".join(key.split("/")[:2]) for key in keys if key.count("/") == 2 and key.endswith("/run.json")}
    for name, run in runs.items():
        ours = [entry.key for entry in run.ours]
        assert sorted(ours) == [key for key in sorted(keys) if key.startswith(f"{name}/") and not key.endswith("mine.txt")]
        assert ours[-1] == f"{name}/run.json"
        assert all(key.endswith("_COMMIT.json") for key in ours[: sum(key.endswith("_COMMIT.json") for key in ours)])
