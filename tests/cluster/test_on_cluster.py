"""Whole runs on the cluster with real vLLM pods and real training, as the README's user has them."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml
from conftest import ROOT, TINY
from installed import BUCKET, Installed, make_namespace
from kube import Json

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(1500)]
PHASES = ("Pending", "Preparing", "Serving", "Debating", "Evaluating", "Training", "Reporting", "Complete")
LIMIT = 900.0  # seconds for a run with vLLM on two cores


def filled(maft: Installed) -> str:
    """examples/arithmetic-cluster.yaml with this cluster's bucket, endpoint and keys, as docs/operations.md has users fill it in;
    and fewer questions."""
    text = (ROOT / "examples" / "arithmetic-cluster.yaml").read_text()
    for given, ours in (
        ("http://minio.minio:9000", maft.cluster.s3_endpoint),
        ("s3://maft/models/tiny", f"s3://{BUCKET}/tiny"),
        ("bucket: maft", f"bucket: {BUCKET}"),
        ("AWS_ACCESS_KEY_ID: replace-me", f"AWS_ACCESS_KEY_ID: {maft.cluster.s3_access_key}"),
        ("AWS_SECRET_ACCESS_KEY: replace-me", f"AWS_SECRET_ACCESS_KEY: {maft.cluster.s3_secret_key}"),
        ("train: 300", "train: 90"),
        ("heldOut: 300", "heldOut: 60"),
    ):
        assert given in text, f"the example has no {given}"
        text = text.replace(given, ours)
    return text


def example(maft: Installed, namespace: str) -> Json:
    """The run in that file."""
    run = next(d for d in yaml.safe_load_all(filled(maft)) if d["kind"] == "MultiAgentFinetune")
    run["metadata"]["namespace"] = namespace
    return run


def kubectl(maft: Installed, *arguments: str) -> str:
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def watched(maft: Installed, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A namespace, and the file in which `kubectl get maft -w` writes what happens there."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"  # what a bucket has of a run of that name is used again
    make_namespace(maft, namespace)
    lines = tmp_path_factory.mktemp("watched") / "lines"
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), "-n", namespace, "get", "maft", "-w"]
    with lines.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        yield namespace, lines
        process.terminate()
    maft.kube.delete("Namespace", None, namespace)


@pytest.fixture(scope="module")
def shared(maft: Installed, watched: tuple[str, Path]) -> tuple[str, Json]:
    """The first run of docs/operations.md, from `kubectl apply -f` of the file with its Secret to Complete."""
    namespace, lines = watched
    (file := lines.with_name("arithmetic-cluster.yaml")).write_text(filled(maft))
    kubectl(maft, "-n", namespace, "apply", "-f", str(file))
    return namespace, maft.kube.wait_complete(namespace, "arithmetic", LIMIT)


def enough(row: Json, least: int) -> int:
    """How many datasets of an iteration have the least number of examples. Where a society improves, critics may have too few."""
    return sum(count >= least for kept in row["kept"].values() for count in kept["counts"])


def test_the_example_completes(maft, shared):
    _, status = shared
    assert [row["iteration"] for row in status["iterations"]] == [0, 1, 2]
    assert all(0 <= row["accuracy"]["mean"] <= 1 and row["accuracy"]["stderr"] >= 0 for row in status["iterations"])
    for name, row in (("accuracy", status["iterations"][2]["accuracy"]), ("baseAccuracy", status["iterations"][0]["answer"])):
        assert re.fullmatch(r"\d+\.\d ± \d+\.\d", status[name]["text"])
        assert status[name] == {**row, "text": status[name]["text"]}
    assert [row.get("trained") for row in status["iterations"]] == [None, *(enough(row, 8) for row in status["iterations"][1:])]
    assert status["iterations"][1]["trained"] == 6
    assert all(row["completionTokens"] > 0 and row["seconds"] > 0 for row in status["iterations"])
    assert status["progress"] == {"percent": 100, "text": "100 %"}


def test_kubectl_shows_it(maft, shared):
    namespace, status = shared
    table = kubectl(maft, "-n", namespace, "get", "maft").splitlines()
    assert table[0].split() == ["NAME", "PHASE", "ITERATION", "PROGRESS", "ACCURACY", "AGE"]
    assert table[1].split()[:3] == ["arithmetic", "Complete", "2/2"]
    assert status["accuracy"]["text"] in table[1]
    assert "arithmetic" in kubectl(maft, "-n", namespace, "get", "all")
    kubectl(maft, "-n", namespace, "wait", "--for=condition=Complete", "maft/arithmetic", "--timeout=10s")
    described = kubectl(maft, "-n", namespace, "describe", "maft", "arithmetic")
    assert "AllIterationsDone" in described and "Events:" in described


def test_a_watch_shows_phase_after_phase(maft, watched, shared):
    """The listing of docs/operations.md's first run: a run may pass through a short phase between two lines."""
    _, lines = watched
    maft.kube.wait(lambda: " Complete " in lines.read_text(), 30, lines.read_text)
    header, *rows = lines.read_text().splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "PROGRESS", "ACCURACY", "AGE"]
    phases = [row.split()[1] for row in rows if row.split()[1] in PHASES]
    assert {"Preparing", "Serving", "Debating", "Training", "Complete"} <= set(phases)
    assert phases[-1] == "Complete" and rows[-1].split()[2:5] == ["2/2", "100", "%"]


def test_the_servers_are_gone_and_the_jobs_are_there(maft, shared):
    namespace, _ = shared
    maft.kube.wait(lambda: not maft.kube.list("Pod", namespace, "app.kubernetes.io/component=serve"), 60)
    assert not maft.kube.list("Deployment", namespace) and not maft.kube.list("Service", namespace)
    left = {job["metadata"]["name"] for job in maft.kube.list("Job", namespace)}
    assert left == {f"arithmetic-2-{stage}" for stage in ("debate", "train", "evaluate", "report")}


def test_the_adapters_load_in_peft(maft, shared, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, status = shared
    prefix = status["artifacts"]["adapters"].removeprefix(f"s3://{BUCKET}/") + "critic-1/"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(maft.read(prefix + name))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), str(tmp_path))
    changed = [p for name, p in model.named_parameters() if "lora_B" in name and p.abs().sum() > 0]
    assert changed


def test_the_report_is_in_the_bucket(maft, shared):
    _, status = shared
    page = maft.read(status["artifacts"]["report"].removeprefix(f"s3://{BUCKET}/"))
    assert b"<html" in page[:300].lower()


def test_the_debates_were_played_by_the_adapters(maft, shared):
    """Every held-out call of iteration 2 named an adapter that the iteration's training committed."""
    namespace, _ = shared
    top = f"runs/{namespace}/arithmetic/iterations/2"
    asked = {
        call["call"]["model"]
        for line in maft.read(f"{top}/evaluation/part-0.jsonl").decode().splitlines()
        for agent in json.loads(line)["turns"]
        for call in agent
    }
    commits = [
        key for key in maft.keys(namespace, "arithmetic") if key.startswith(f"{top}/adapters/") and key.endswith("_COMMIT.json")
    ]
    assert asked == {json.loads(maft.read(key))["meta"]["adapter"]["name"] for key in commits}


def test_a_settled_run_is_left_alone(maft, shared):
    """No write of any kind to the run or its children once it is Complete: versions stand still while others are worked at."""
    namespace, _ = shared

    def versions():
        kinds = ("MultiAgentFinetune", "Job", "Event")
        return {
            (kind, o["metadata"]["name"]): o["metadata"]["resourceVersion"]
            for kind in kinds
            for o in maft.kube.list(kind, namespace)
        }

    before = versions()
    maft.kube.merge("MultiAgentFinetune", namespace, "arithmetic", {"metadata": {"labels": {"touched": "yes"}}})
    maft.kube.wait(lambda: maft.kube.get("MultiAgentFinetune", namespace, "arithmetic")["metadata"]["labels"], 10)
    written = [
        entry
        for entry in maft.kube.get("MultiAgentFinetune", namespace, "arithmetic")["metadata"]["managedFields"]
        if entry["manager"] == "maft"
    ]
    after = versions()
    changed = {key for key in after if before.get(key) != after[key]}
    assert changed == {("MultiAgentFinetune", "arithmetic")}
    assert [entry["subresource"] for entry in written] == ["status"]


@pytest.mark.nightly  # what a society does beside answering: test_society_on_cluster.py, on the deterministic engine
def test_its_agents_answer_as_a_society(maft, shared):
    """Real vLLM behind one URL, asked by a real client: a debate with its vote, and one agent's words as they come."""
    namespace, _ = shared
    kube, name = maft.kube, "answers"
    metadata, spec = {"name": name, "namespace": namespace}, {"run": "arithmetic", "gpus": 0}
    kube.apply({"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": metadata, "spec": spec})

    def conditions():
        status = (kube.get("Society", namespace, name) or {}).get("status", {})
        return {c["type"]: c for c in status.get("conditions", ())}

    kube.wait(lambda: conditions().get("Ready", {}).get("status") == "True", LIMIT, lambda: str(conditions()))
    address = kube.get("Service", namespace, name)["spec"]["clusterIP"]
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=120)
    question = [{"role": "user", "content": "What is 12+34?"}]
    answer = client.chat.completions.create(model="society", messages=question).choices[0]
    assert answer.message.content and len(answer.maft["agents"]) == 3 and 0 <= answer.maft["margin"] <= 3
    streamed = client.chat.completions.create(model="society/generator-1", messages=question, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    kube.delete("Society", namespace, name)
    kube.wait(lambda: not kube.list("Deployment", namespace) and not kube.list("Service", namespace), 120)


@pytest.mark.nightly  # on one machine: test_run.py
def test_a_damaged_adapter_fails_the_run_with_its_name(maft, shared):
    """The evaluation is asked for again, and finds an adapter of other bytes than were committed."""
    namespace, _ = shared
    top = f"runs/{namespace}/arithmetic"
    weights = f"{top}/iterations/2/adapters/generator-0/adapter_model.safetensors"
    maft.objects.put_object(Bucket=BUCKET, Key=weights, Body=maft.read(weights)[:-4] + b"junk")
    for key in maft.keys(namespace, "arithmetic"):
        if key.startswith((f"{top}/iterations/2/evaluation/", f"{top}/report/")):
            maft.objects.delete_object(Bucket=BUCKET, Key=key)
    maft.kube.delete("MultiAgentFinetune", namespace, "arithmetic")
    maft.kube.wait(lambda: not maft.kube.list("Job", namespace), 60)
    maft.kube.apply(example(maft, namespace))
    failed = maft.kube.wait(
        lambda: (c := maft.kube.condition(namespace, "arithmetic", "Failed")).get("status") == "True" and c,
        300,
        lambda: maft.kube.explain(namespace, "arithmetic"),
    )
    assert failed["reason"] == "AdapterUnusable" and "generator-0-2-" in failed["message"] and "damaged" in failed["message"]
    maft.kube.wait(lambda: not maft.kube.list("Deployment", namespace), 30)


@pytest.mark.nightly  # the same disturbances without vLLM: test_lifecycle.py; an agent each with vLLM: test_vllm_run.py
def test_an_agent_each_with_disturbances(maft, namespace):
    """PerAgent with two agents: a vLLM pod is deleted in mid-debate, a training pod in mid-training, and the run completes."""
    kube = maft.kube
    spec = {
        "agents": 2,
        "task": {"train": 60, "heldOut": 40},
        "training": {"topology": "PerAgent", "lora": {"rank": 8, "alpha": 16}, "epochs": 4, "minExamples": 2},
        "inference": {"topology": "PerAgent", "lifetime": "Phase"},
        "evaluation": {"baselines": []},
    }
    kube.apply(maft.resource("pair", namespace, **spec))
    debating = "maft.dev/child=pair-1-debate"
    kube.wait(lambda: any("journal" in key for key in maft.keys(namespace, "pair")), LIMIT, lambda: kube.explain(namespace, "pair"))
    assert kube.list("Pod", namespace, debating)
    server = kube.list("Pod", namespace, "maft.dev/child=pair-server-1")[0]["metadata"]["name"]
    kube.delete("Pod", namespace, server, grace=0)
    kube.wait(lambda: trained(maft, namespace), LIMIT, lambda: kube.explain(namespace, "pair"))
    assert not kube.list("Pod", namespace, "app.kubernetes.io/component=serve"), "training began beside a server"
    trainer = kube.list("Pod", namespace, "maft.dev/child=pair-1-train-0")[0]["metadata"]["name"]
    kube.delete("Pod", namespace, trainer, grace=0)
    status = kube.wait_complete(namespace, "pair", LIMIT)
    assert status["iterations"][-1]["trained"] == enough(status["iterations"][-1], spec["training"]["minExamples"])
    left = {job["metadata"]["name"] for job in kube.list("Job", namespace)}
    assert left == {f"pair-1-{stage}" for stage in ("debate", "train-0", "train-1", "evaluate", "report")}


def trained(maft: Installed, namespace: str) -> bool:
    """Whether the first agent's training runs."""
    pods = maft.kube.list("Pod", namespace, "maft.dev/child=pair-1-train-0")
    return any(p["status"]["phase"] == "Running" for p in pods)
