"""What the pod allows: open files, connections, questions at once."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MOCK, a_spec, free_port, serving
from conftest import resource as run_of
from hypothesis import given
from hypothesis import strategies as st

from maft import records
from maft.debate.limits import MOST, OF_WORKER, RESERVED, connections, questions
from maft.errors import BadInput
from maft.pod import processors
from maft.records import Problem
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish, required
from maft.store.urls import open_store
from maft.summaries import DebateSummary, decode_summary
from maft_operator.plan import graph as plan
from maft_operator.spec.parse import parse

RUN = "default/test"
ASKED = 1500  # more than fit at once, three requests each


@given(st.integers(0, 2**31), st.integers(1, 999), st.integers(0, 256))
def test_the_window_fits_the_limit(files: int, agents: int, workers: int) -> None:
    reserved = RESERVED + OF_WORKER * workers
    if files < reserved + agents:
        with pytest.raises(BadInput, match=f"open files: the limit is {files}, .* {reserved + agents} of them at least"):
            connections(files, agents, workers=workers)
        return
    allowed = connections(files, agents, workers=workers)
    assert agents <= allowed <= min(MOST, files - reserved)
    assert agents <= questions(allowed, agents) * agents <= allowed


def limited(soft: int, hard: int, memory: int = resource.RLIM_INFINITY) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def command(folder: Path, url: str) -> list[str]:
    """The line of the first debate, its questions committed."""
    store = open_store(str(folder))
    asked = [Problem(f"{i:016x}", f"What is {i}+1?", str(i + 1)) for i in range(ASKED)]
    publish(store, f"{RUN}/{layout.PROBLEMS}", {"train.jsonl": records.encode_lines(asked)})
    graph = plan.graph(parse(run_of(debate={"rounds": 1, "critics": False}, agents=3)), str(folder))
    task = next(t for t in graph.tasks if (t.kind, t.iteration) == ("debate", 1))
    return [sys.executable, "-m", *plan.command(task, {server.name: [url] for server in graph.servers})[1:]]


def test_a_thousand_open_files_and_a_gigabyte_are_enough(tmp_path: Path) -> None:
    """The soft limit is raised as far as it goes, and no more requests are under way than it allows. The gigabyte bounds the
    address space of each process, which is more than it holds."""
    port, summary = free_port(), tmp_path / "summary.json"
    server = [sys.executable, str(MOCK), "--port", str(port), f"--spec={immutable_spec_json(a_spec())}"]
    with serving(server, port, tmp_path / "log.txt", 60, MOCK_LATENCY="0.8") as url:
        line = [*command(tmp_path / "store", url), f"--summary={summary}"]
        done = subprocess.run(line, preexec_fn=lambda: limited(256, 1024, 10**9), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    said = decode_summary(summary.read_bytes())
    assert isinstance(said, DebateSummary)
    assert (said.questions, said.usage.calls) == (ASKED, 3 * ASKED)
    store = open_store(str(tmp_path / "store"))
    assert required(store, layout.debate(RUN, 1), "the test").has(layout.TRANSCRIPTS)
    assert not list(store.list(f"{layout.debate(RUN, 1)}journal-"))


def test_too_few_open_files_are_said_in_one_line(tmp_path: Path, mock_url: str) -> None:
    line = command(tmp_path / "store", mock_url)
    done = subprocess.run(line, preexec_fn=lambda: limited(64, 102), capture_output=True, text=True, timeout=120)
    least = RESERVED + OF_WORKER * processors() + 3
    expected = f"error: open files: the limit is 102, and 3 agents need {least} of them at least; raise it (ulimit -n)"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, expected)
