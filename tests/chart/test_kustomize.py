"""The Kustomize base: what `kubectl kustomize` makes of it, and of an overlay that says where the images are."""

import subprocess
from pathlib import Path

import helm
import pytest
import yaml
from helm import ROOT, Json

from maft_operator.cluster import kinds

pytestmark = pytest.mark.cluster  # for its kubectl
PREFIX = "registry.example.com/maft"


def built(folder: Path) -> list[Json]:
    command = [helm.folder("kube") / "kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def read(path: Path) -> list[Json]:
    return [body for body in yaml.safe_load_all(path.read_text()) if body]


def by_name(objects: list[Json]) -> dict[tuple[str, str], Json]:
    return {(body["kind"], body["metadata"]["name"]): body for body in objects}


def test_the_base_is_the_resource_and_the_manifest() -> None:
    definitions = [body for path in (ROOT / "crds").glob("*.yaml") for body in read(path)]
    plain = definitions + read(ROOT / "deploy" / "operator.yaml")
    assert by_name(built(ROOT / "deploy")) == by_name(plain)


def documented() -> str:
    """The overlay of docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text()
    return next(block.partition("```")[0] for block in page.split("```yaml\n")[1:] if "resources:" in block.partition("```")[0])


def test_the_overlay_of_the_page_sets_all_images(tmp_path: Path) -> None:
    overlay = documented()
    assert "https://github.com/maft-dev/maft//deploy?ref=" in overlay
    here = tmp_path / "overlay"
    here.mkdir()
    (tmp_path / "maft").symlink_to(ROOT)
    lines = [line if "github.com" not in line else "resources: [../maft/deploy]" for line in overlay.splitlines()]
    (here / "kustomization.yaml").write_text("\n".join(lines).replace("REGISTRY/maft", PREFIX))
    [container] = by_name(built(here))["Deployment", "maft-operator"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{PREFIX}/operator:")
    assert f"--images={PREFIX}" in container["args"] and "images.invalid" not in str(container)


def test_kubectl_takes_no_kustomization_for_an_object() -> None:
    """`kubectl apply -f crds/` reads all files of that folder that end in .yaml, .yml or .json."""
    named = sorted(path.name for path in (ROOT / "crds").iterdir() if path.suffix)
    assert named == sorted(f"{kind.plural}.yaml" for kind in kinds.PARENTS)
