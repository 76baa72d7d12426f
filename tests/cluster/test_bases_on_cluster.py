"""A run whose agents have two base models, as pods on a real cluster, equal to `maft run` of the same file; and its Society.

What such a run is made of: test_differing_agents.py. The same on one machine: test_run_differing.py. The engine is deterministic.
"""

import json
from pathlib import Path

import pytest
from installed import BUCKET, Installed
from other_model import other_model
from products import made_here, products
from test_society_on_cluster import QUESTION, answering, client

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(1500)]
LIMIT = 900.0  # seconds for a small run with three servers, on two cores that others use as well


@pytest.fixture(name="other")
def other_fixture(maft: Installed, tmp_path: Path) -> str:
    """The second base, in the bucket beside the first one."""
    for path in other_model(tmp_path / "other").iterdir():
        maft.objects.put_object(Bucket=BUCKET, Key=f"other/{path.name}", Body=path.read_bytes())
    return maft.url("other")


def test_a_run_of_two_bases_equals_the_same_file_on_one_machine(
    maft: Installed, namespace: str, other: str, tmp_path: Path
) -> None:
    spec = {
        **maft.mocked(),
        "iterations": 1,
        "inference": {**maft.mocked()["inference"], "topology": "PerAgent"},
        "debate": {"minAgreement": 1},
        "evaluation": {"baselines": []},
        "agentOverrides": [{"agent": 2, "model": {"source": other}, "lora": {"rank": 8}}],
    }
    maft.kube.apply(maft.resource("bases", namespace, **spec))
    expected = made_here(maft, tmp_path, "bases", **spec)
    status = maft.kube.wait_complete(namespace, "bases", LIMIT)
    assert products(maft, namespace, "bases") == expected
    adapters = {key.split("/")[3] for key in expected if "/adapters/" in key}
    assert status["iterations"][-1]["trained"] == len(adapters) and {name[-1] for name in adapters} == {"0", "1", "2"}
    first, second = (maft.url("tiny"), 4), (other, 8)
    assert {name: made_for(maft, namespace, name) for name in adapters} == {
        name: second if name.endswith("-2") else first for name in adapters
    }
    its_agents_answer(maft, namespace)


def its_agents_answer(maft: Installed, namespace: str) -> None:
    """A pod has a server for each base."""
    metadata = {"name": "s", "namespace": namespace}
    spec = {"run": "bases", "gpus": 0}
    maft.kube.apply({"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": metadata, "spec": spec})
    answering(maft, namespace)
    [pod] = maft.kube.list("Pod", namespace, "maft.dev/society=s")
    assert {c["name"] for c in pod["spec"]["containers"]} == {"inference", "inference-2", "debate"}
    asking = client(maft, namespace)
    answer = asking.chat.completions.create(model="society", messages=[QUESTION])
    assert len(answer.choices[0].maft["agents"]) == 3  # type: ignore[attr-defined]
    for model in ("society/generator-1", "society/generator-3"):
        assert asking.chat.completions.create(model=model, messages=[QUESTION]).choices[0].message.content


def made_for(maft: Installed, namespace: str, adapter: str) -> tuple[str, int]:
    """Base and rank of an adapter, as PEFT reads them."""
    config = json.loads(maft.read(f"runs/{namespace}/bases/iterations/1/adapters/{adapter}/adapter_config.json"))
    return config["base_model_name_or_path"], config["r"]
