"""What the chosen tests need is made when they are collected, under no test's limit of time; `make test` has made it before.

A session with several workers collects in each: whoever comes second finds all there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("prepare.py")
MARKERS = ("s3", "tools", "tokenizers", "pretrained", "cluster")  # and what prepare.py makes for each is called the same


def pytest_collection_finish(session: pytest.Session) -> None:
    needs = [marker for marker in MARKERS if any(item.get_closest_marker(marker) for item in session.items)]
    if any({"cluster", "nightly"} <= {mark.name for mark in item.iter_markers()} for item in session.items):
        needs.append("nightly")
    if any("pushed" in getattr(item, "fixturenames", ()) for item in session.items):
        needs.append("images")
    if not needs or session.config.option.collectonly or os.environ.get("MAFT_PREPARED"):
        return
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        subprocess.run([sys.executable, str(SCRIPT), *needs], stdin=subprocess.DEVNULL)  # what is missing then, fixtures say
