"""The workflows in .github, without GitHub: actionlint, and what they have in common with the rest of the repository."""

import re
import subprocess

import helm
import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
ALL = [*WORKFLOWS, ROOT / ".github" / "actions" / "environment" / "action.yaml"]
JOBS = [
    pytest.param(job, id=f"{path.stem}-{name}")
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
]


@pytest.mark.tools
def test_actionlint_has_nothing_to_say():
    done = subprocess.run([helm.folder("actionlint") / "actionlint", *WORKFLOWS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_actions_are_pinned(path):
    """By commit, since a tag can be moved; the version behind it is for people, and for dependabot."""
    used = re.findall(r"uses: *(.+)", path.read_text())
    loose = [u for u in used if not u.startswith("./") and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)]
    assert used and loose == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_has_no_rights_of_its_own(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {}


@pytest.mark.parametrize("job", JOBS)
def test_jobs_say_their_rights_and_limits(job):
    assert job["permissions"]["contents"] in ("read", "write")
    assert "timeout-minutes" in job or "uses" in job  # a called workflow has its own


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_scripts_and_paths_that_they_name_exist(path):
    named = re.findall(r"\b((?:scripts|tests|images|\.github)/[\w./-]+\w)", path.read_text())
    assert [n for n in named if not (ROOT / n).exists()] == []


@pytest.mark.parametrize("module", ["helm.sh/helm/v3", "github.com/sigstore/cosign/v3"])
def test_a_release_is_made_with_the_versions_that_were_tried(module):
    name = module.split("/")[-2]
    required = re.search(rf"{re.escape(module)} (v[\d.]+)", (ROOT / "tests" / "support" / "tools" / name / "go.mod").read_text())
    release = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    used = {"helm": r"\bversion: (v\S+)", "cosign": r"cosign-release: (v\S+)"}[name]
    assert required and set(re.findall(used, release)) == {required[1]}


def test_with_cuda_trainer_and_inference_are_one_image(monkeypatch):
    """Which a node fetches once: built here by the same file, target and arguments, in a release once under two names."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "cluster")
    import images

    def built(inference):
        return {b.name: (b.file, b.target, b.arguments) for b in images.builds("p", "1", "python:3.11", inference)}

    assert built("cuda")["p/trainer:1"] == built("cuda")["p/inference:1"]
    assert built("cpu")["p/trainer:1"] != built("cpu")["p/inference:1"]
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())
    made = {one["name"]: one for one in release["jobs"]["images"]["strategy"]["matrix"]["include"]}
    assert made["inference"] == {"name": "inference", "file": built("cuda")["p/trainer:1"][0], "also": "trainer"}
    assert set(images.NAMES) == {*made, made["inference"]["also"]} and "trainer" not in made
