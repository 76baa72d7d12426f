"""Ten times as many questions take no more memory, in a debate's client and where a trainer reads its examples.

What runs is what benchmarks/many_questions.py measures up to 100,000 questions; each run is a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

FEW, MANY = 500, 5_000
MOST = 12.0  # MiB that many may take beyond few; transcripts of 5,000 questions are twice that as bytes, and more as objects
# VmHWM, and not what getrusage says: that begins with the most that this process had, which started it.
MEASURED = """
import json, sys
import many_sides
made = getattr(many_sides, sys.argv[1])(sys.argv[2])
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({**made, "peak": peak}))
"""


def measured(part: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What few and many questions take, side by side; MiB at most as `peak`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), *sys.path]), "TMPDIR": str(folder)}
    lines = [[sys.executable, "-c", MEASURED, part, str(questions)] for questions in (FEW, MANY)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen(line, env=environment, **pipes) for line in lines]
    said = [program.communicate(timeout=300) for program in programs]
    assert not any(program.returncode for program in programs), said
    few, many = (json.loads(out.splitlines()[-1]) for out, _ in said)
    return few, many


@pytest.mark.nightly
def test_a_debates_client_does_not_grow_with_its_questions(tmp_path: Path) -> None:
    """From the questions to transcripts and datasets, with an engine in the same process."""
    few, many = measured("memory", tmp_path)
    assert many["largest"] > 20  # MB of transcripts, in one file
    assert many["peak"] < few["peak"] + MOST


@pytest.mark.nightly
def test_a_trainers_examples_do_not_grow_with_their_number(tmp_path: Path) -> None:
    """Of 256 tokens each: ids and what counts, as objects, would be some ten kilobytes for an example."""
    few, many = measured("examples", tmp_path)
    assert many["peak"] < few["peak"] + MOST
