"""The images as the registry has them: user, entry point, labels, size; and that no shell is asked for."""

import json
import urllib.request

import pytest
from installed import ROOT

pytestmark = pytest.mark.cluster
NAMES = ("operator", "debate", "trainer", "inference")
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def fetch(maft, path: str) -> dict:
    host, _, folder = maft.images.partition("/")
    request = urllib.request.Request(f"http://{host}/v2/{folder}/{path}", headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def manifests(maft) -> dict[str, dict]:
    return {name: fetch(maft, f"{name}/manifests/{maft.tag}") for name in NAMES}


@pytest.fixture(scope="module")
def configs(maft, manifests) -> dict[str, dict]:
    return {name: fetch(maft, f"{name}/blobs/{found['config']['digest']}") for name, found in manifests.items()}


@pytest.mark.parametrize("name", NAMES)
def test_user_entry_point_and_labels(configs, name):
    config = configs[name]["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == (["maft", "operator"] if name == "operator" else ["python3"])
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert labels["title"] == f"maft {name}" and labels["licenses"] == "Apache-2.0"
    assert f'"{labels["version"]}"' in version


def test_the_operator_image_is_small(manifests):
    """Compressed, with its base. Without the base and not compressed it is held below 250 MB (docs/performance.md)."""
    assert sum(layer["size"] for layer in manifests["operator"]["layers"]) < 150e6


def test_heavy_layers_are_shared(manifests):
    """The CPU build of vLLM lies on the trainer's packages, so torch is stored and pulled once."""
    trainer, inference = (
        {layer["digest"]: layer["size"] for layer in manifests[name]["layers"]} for name in ("trainer", "inference")
    )
    shared = sum(size for digest, size in trainer.items() if digest in inference)
    assert shared > 0.9 * sum(trainer.values())
