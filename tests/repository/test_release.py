"""What a release is made of: the steps of scripts/release.sh, with a registry on this machine. Signing: `make release-check`."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import helm
import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import release_check

pytestmark = pytest.mark.tools
RELEASE = ROOT / "scripts" / "release.sh"
NOTES = ROOT / "scripts" / "release_notes.py"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PREFIX = "registry.example/somebody/maft"


def call(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    done = call(RELEASE, "packages", folder, PREFIX)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_both_packages_and_the_schema(made):
    with zipfile.ZipFile(made / f"maft-{VERSION}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        crds = {Path(n).name: wheel.read(n) for n in names if n.startswith("maft_operator/crds/")}
    modules = {p.relative_to(root).as_posix() for root in (ROOT / "operator", ROOT / "images") for p in root.rglob("*.py")}
    assert modules <= names
    assert crds == {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}


def test_the_wheel_runs_without_the_sources(made, tmp_path):
    with zipfile.ZipFile(made / f"maft-{VERSION}-py3-none-any.whl") as wheel:
        wheel.extractall(tmp_path)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import maft_operator.__main__ as m; print(m.__file__); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "validate", str(ROOT / "examples" / "arithmetic.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path)) and "is valid" in done.stdout


def test_the_sdist_is_the_repository_without_what_was_made_in_it(made):
    with tarfile.open(made / f"maft-{VERSION}.tar.gz") as sdist:
        names = {n.partition("/")[2] for n in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "CHANGELOG.md", "crds/multiagentfinetunes.yaml", "tests/conftest.py", "Makefile"} <= names
    assert [n for n in names if n.startswith((".venv", ".cache", "runs/"))] == []


def test_the_packaged_chart_runs_the_images_of_its_release(made):
    rendered = yaml.safe_load_all(helm.run("template", "maft", str(made / f"maft-{VERSION}.tgz"), "--namespace", "maft-system"))
    objects = {(o["kind"], o["metadata"]["name"]): o for o in rendered if o}
    (container,) = objects["Deployment", "maft-operator"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{PREFIX}/operator:{VERSION}"
    assert f"--images={PREFIX}" in container["args"]
    definitions = {("CustomResourceDefinition", f"{path.stem}.maft.dev") for path in (ROOT / "crds").glob("*.yaml")}
    assert len(definitions) > 1 and definitions <= set(objects)


def test_the_chart_comes_back_from_a_registry(made, tmp_path):
    with release_check.registry(tmp_path) as address:
        reference = release_check.check_chart(made, f"{address}/maft")
    assert reference.startswith(f"{address}/maft/charts/maft@sha256:")


def test_a_tag_that_is_not_the_version_is_refused():
    done = call(RELEASE, "version", "v9.9.9")
    assert done.returncode == 1
    assert done.stderr == f"release: the tag is v9.9.9, but the version in pyproject.toml is {VERSION}\n"
    assert call(RELEASE, "version", f"v{VERSION}").stdout == f"{VERSION}\n"


def test_notes_are_the_section_of_this_version():
    done = call(sys.executable, NOTES, VERSION)
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert done.returncode == 0 and done.stdout.startswith("### ")
    assert done.stdout in changelog and "\n## " not in done.stdout


def test_a_version_without_notes_is_one_line():
    done = call(sys.executable, NOTES, "9.9.9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "release_notes: CHANGELOG.md has no section '## 9.9.9'\n"


@pytest.mark.parametrize(
    ("changelog", "message"),
    [
        ("# C\n\n## 1.0.0 (unreleased)\n\n- a\n", "CHANGELOG.md still calls 1.0.0 unreleased; put the date there"),
        ("# C\n\n## 1.0.0 (2026-01-01)\n\n## 0.9.0\n- a\n", "CHANGELOG.md says nothing below '## 1.0.0'"),
        ("# C\n\n## 1.0.01\n- a\n", "CHANGELOG.md has no section '## 1.0.0'"),
    ],
)
def test_notes_that_a_release_does_without(changelog, message):
    import release_notes

    with pytest.raises(release_notes.NoNotes) as error:
        release_notes.notes(changelog, "1.0.0", released=True)
    assert str(error.value) == message


def test_notes_end_where_the_next_version_begins():
    import release_notes

    changelog = "# C\n\n## 1.0.0 (2026-01-01)\n\n### Added\n- a\n\n## 0.9.0\n- b\n"
    assert release_notes.notes(changelog, "1.0.0", released=True) == "### Added\n- a\n"
