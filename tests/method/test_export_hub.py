"""Adapters on a hub: what its own library sends to a small server that speaks as the hub does, large files included."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hubs
import pytest
import yaml
from committed import RUN, adapter_files, put_iteration, put_report, put_run
from conftest import free_port
from small import TINY

from maft.store.files import FileStore

pytestmark = pytest.mark.programs


@pytest.fixture(name="hub")
def hub_fixture() -> Iterator[tuple[str, type[hubs.Hub]]]:
    with hubs.hub() as served:
        yield served


def export(
    tmp_path: Path, url: str, *more: str, to: str = "team/demo", token: str = hubs.TOKEN
) -> subprocess.CompletedProcess[str]:
    return started(
        tmp_path, url, "maft.export", "--store", str(tmp_path / "runs"), "--run", RUN, f"--to=hub={to}", *more, token=token
    )


def started(tmp_path: Path, url: str, *line: str, token: str = hubs.TOKEN) -> subprocess.CompletedProcess[str]:
    variables = hubs.environment(url, tmp_path / "hf", token)
    whole = [sys.executable, "-m", *line]
    return subprocess.run(whole, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120)


def test_every_file_arrives_whole_once_and_again_when_it_is_newer(tmp_path, hub):
    url, handler = hub
    store = FileStore(tmp_path / "runs")
    put_run(store)
    done = export(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"hub: {url}/team/demo (1 new)\n"
    assert handler.files["generator-1/adapter_model.safetensors"] == adapter_files(100)["adapter_model.safetensors"]
    assert all(hashlib.sha256(data).hexdigest() == oid for oid, data in handler.large.items())
    card = handler.files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == str(TINY)
    assert "`critic-2`" in card
    assert handler.made[0].get("visibility", handler.made[0].get("private")) in ("private", True)

    assert export(tmp_path, url).stdout == f"hub: {url}/team/demo (all there before)\n"
    assert handler.commits == [f"{RUN}, iteration 1"]
    put_iteration(store, 2)
    assert export(tmp_path, url).returncode == 0
    assert handler.commits == [f"{RUN}, iteration 1", f"{RUN}, iteration 2"]
    assert handler.files["generator-1/adapter_model.safetensors"] == adapter_files(200)["adapter_model.safetensors"]


def test_the_report_lies_beside_the_adapters_and_follows_what_is_newer(tmp_path, hub):
    url, handler = hub
    store = FileStore(tmp_path / "runs")
    put_run(store)
    assert export(tmp_path, url, "--report").returncode == 0
    assert "report/index.html" not in handler.files["README.md"].decode()
    files = put_report(store)
    assert export(tmp_path, url, "--report").stdout == f"hub: {url}/team/demo (2 new)\n"  # the card names it
    assert {name: handler.files[f"report/{name}"] for name in files} == files
    assert "`report/index.html`" in handler.files["README.md"].decode()
    newer = put_report(store, text="newer")
    assert export(tmp_path, url, "--report").stdout == f"hub: {url}/team/demo (1 new)\n"
    assert handler.files["report/index.html"] == newer["index.html"]
    assert export(tmp_path, url, "--report").stdout == f"hub: {url}/team/demo (all there before)\n"
    assert handler.commits == [f"{RUN}, iteration 1"] * 2 + [f"{RUN}, report"]


@pytest.mark.parametrize("flag", [(), ("--no-report",)], ids=["unasked", "refused"])
def test_the_report_goes_there_where_it_is_asked_for_and_what_is_there_stays(tmp_path, hub, flag):
    url, handler = hub
    store = FileStore(tmp_path / "runs")
    put_run(store)
    files = put_report(store)
    command = ("maft_operator", "export", str(tmp_path / "runs" / RUN), "--to=hub=team/demo")
    assert started(tmp_path, url, *command, *flag).stdout == f"hub: {url}/team/demo (1 new)\n"
    assert "generator-1/adapter_model.safetensors" in handler.files
    assert [name for name in handler.files if "report" in name] == []
    assert "report" not in handler.files["README.md"].decode()
    assert export(tmp_path, url, *flag).stdout == f"hub: {url}/team/demo (all there before)\n"
    assert started(tmp_path, url, *command, "--report").stdout == f"hub: {url}/team/demo (2 new)\n"  # the card names it
    put_report(store, text="newer")
    assert export(tmp_path, url, *flag).stdout == f"hub: {url}/team/demo (1 new)\n"  # the card, which names none
    assert handler.files["report/index.html"] == files["index.html"]


def test_a_hub_that_refuses_or_is_away_is_one_line(tmp_path, hub):
    url, handler = hub
    put_run(FileStore(tmp_path / "runs"))
    wrong = export(tmp_path, url, token="hf_wrong")
    assert (wrong.returncode, "status 401" in wrong.stderr.splitlines()[-1]) == (2, True)
    assert "hf_wrong" not in wrong.stdout + wrong.stderr
    away = export(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (away.returncode, "the hub is away" in away.stderr.splitlines()[-1]) == (1, True)
    name = export(tmp_path, url, to="demo")
    assert (name.returncode, name.stderr) == (2, "error: --to hub=demo: expected OWNER/NAME\n")
    assert handler.commits == []
