"""A new hyperparameter is the resource definition, the record and the line that uses it; everything else is generated."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.run


def test_what_a_new_field_takes():
    command = [sys.executable, "scripts/adding_a_field.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    changed = re.findall(r"^ (\S+) +\| +(\d+)", done.stdout, re.MULTILINE)
    assert dict(changed) == {
        "crds/multiagentfinetunes.yaml": "1",
        "images/maft/spec.py": "1",
        "images/maft/train/course.py": "2",
        **{f"examples/{name}.plan": "1" for name in ("arithmetic", "arithmetic-cluster", "gsm8k")},
        "docs/resource.md": "1",
        "charts/maft/files/crds/multiagentfinetunes.yaml": "1",
        **dict.fromkeys(("crds/multiagentcomparisons.yaml", "charts/maft/files/crds/multiagentcomparisons.yaml"), "7"),
    }
    assert '"maxGradNorm": 1.0,' in done.stdout
    default, cut = re.findall(r"^weights with maxGradNorm \S+: (\w{16})$", done.stdout, re.MULTILINE)
    assert default != cut
