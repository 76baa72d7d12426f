"""A Society on a real cluster: a run, its agents behind one URL, a real openai client, a rolling update under load, its end; the
best iteration of a run that stops early, and a run that trains on what users asked."""

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certified as certificates
import entrance
import httpx
import metering
import openai
import pytest
import yaml
from installed import BUCKET, Installed, make_namespace
from kube import Json
from small import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run or a society's start, on two busy cores
SERVING = ROOT / "docs" / "serving.md"
QUESTION: Json = {"role": "user", "content": "What is 2+3?"}


@pytest.fixture(scope="module", name="place")
def place_fixture(maft: Installed) -> Iterator[str]:
    """A namespace with a run that is over, and a Society of its first iteration that answers, on the deterministic engine."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, namespace)
    kube = maft.kube
    try:
        kube.apply(a_society(namespace))  # before its run, as GitOps may
        kube.wait(lambda: reason(maft, namespace) == "RunMissing", 60, lambda: explain(maft, namespace))
        evaluated = {"baselines": [], "every": 2}
        kube.apply(maft.resource("r", namespace, agents=2, iterations=2, evaluation=evaluated, **maft.mocked()))
        kube.wait(lambda: reason(maft, namespace) == "RunUnfinished", 60, lambda: explain(maft, namespace))
        assert not kube.list("Deployment", namespace, "maft.dev/society=s")
        kube.merge("Society", namespace, "s", {"spec": {"iteration": 1}})  # which answers while the run goes on
        kube.wait_complete(namespace, "r", LIMIT)
        answering(maft, namespace)
        yield namespace
    finally:
        kube.delete("Namespace", None, namespace)


def a_society(namespace: str, **spec: object) -> Json:
    metadata = {"name": "s", "namespace": namespace}
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": metadata, "spec": {"run": "r", "gpus": 0, **spec}}


def society(maft: Installed, namespace: str) -> Json:
    return maft.kube.get("Society", namespace, "s") or {}


def condition(maft: Installed, namespace: str, kind: str) -> Json:
    conditions = society(maft, namespace).get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == kind), {})


def reason(maft: Installed, namespace: str) -> str:
    return str(condition(maft, namespace, "Ready").get("reason", ""))


def explain(maft: Installed, namespace: str) -> str:
    pods = maft.kube.list("Pod", namespace, "maft.dev/society=s")
    return "\n".join(
        [str(society(maft, namespace).get("status")), *(str(p["status"].get("containerStatuses"))[:2000] for p in pods)]
    )


def answering(maft: Installed, namespace: str) -> None:
    """Waits until all pods answer, and are of the spec as it is."""

    def so() -> bool:
        thing = society(maft, namespace)
        current = thing.get("status", {}).get("observedGeneration") == thing["metadata"]["generation"]
        still = condition(maft, namespace, "Reconciling").get("status") == "False"
        return current and still and condition(maft, namespace, "Ready").get("status") == "True"

    maft.kube.wait(so, LIMIT, lambda: explain(maft, namespace))


def pods(maft: Installed, namespace: str) -> set[str]:
    return {p["metadata"]["uid"] for p in maft.kube.list("Pod", namespace, "maft.dev/society=s")}


def client(maft: Installed, namespace: str) -> openai.OpenAI:
    """A real client of the Service. Names of the cluster mean nothing on this machine; its addresses do."""
    address = (maft.kube.get("Service", namespace, "s") or {})["spec"]["clusterIP"]
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=60)


def voted(asking: openai.OpenAI, question: str, *, store: bool = True, **more: bool) -> Json:
    """What a debate over the question came to. store: whether it may be kept; more: fields of ours."""
    message: Any = {**QUESTION, "content": question}
    answer = asking.chat.completions.create(model="society", messages=[message], store=store, extra_body={"maft": more})
    return dict(answer.choices[0].maft)  # type: ignore[attr-defined]


def speaking(asking: openai.OpenAI) -> set[str]:
    """Which iterations the adapters that answer are of, by their names."""
    turns = voted(asking, QUESTION["content"], store=False, transcript=True)["transcript"]["turns"]
    return {turn["call"]["model"].split("-")[2] for agent in turns for turn in agent}


def kubectl(maft: Installed, *arguments: str) -> str:
    command = [maft.cluster.kubectl, "--kubeconfig", str(maft.kube.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_client_asks_the_agents_and_all_of_them(maft: Installed, place: str) -> None:
    asking, status = client(maft, place), society(maft, place)["status"]
    assert [model.id for model in asking.models.list().data] == status["models"]
    assert status["models"][:3] == ["society", "society/majority", "society/generator-1"]
    answer = asking.chat.completions.create(model="society", messages=[QUESTION])
    assert answer.choices[0].message.content and len(answer.choices[0].maft["agents"]) == 2  # type: ignore[attr-defined]
    streamed = asking.chat.completions.create(model="society/critic-2", messages=[QUESTION], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    with pytest.raises(openai.NotFoundError):
        asking.chat.completions.create(model="gpt-4", messages=[QUESTION])


def test_kubectl_shows_it(maft: Installed, place: str) -> None:
    header, line = kubectl(maft, "-n", place, "get", "societies").splitlines()
    assert header.split() == ["NAME", "PHASE", "RUN", "ITERATION", "READY", "URL", "AGE"]
    assert line.split()[:6] == ["s", "Ready", "r", "1", "1/1", f"http://s.{place}.svc/v1"]
    assert "Serving" in kubectl(maft, "-n", place, "describe", "society", "s")
    kubectl(maft, "-n", place, "wait", "--for=condition=Ready", "society/s", "--timeout=10s")


@dataclass
class Load:
    """Clients that ask without a pause until they are told to stop."""

    client: openai.OpenAI
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, model: str) -> None:
        while not self.stop.is_set():
            try:
                self.client.chat.completions.create(model=model, messages=[QUESTION])
                self.answers += 1
            except openai.OpenAIError as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")


def test_a_newer_runs_adapters_are_taken_up_under_load_without_a_request_dropped(maft: Installed, place: str) -> None:
    before, load = pods(maft, place), Load(client(maft, place))
    assert (society(maft, place)["status"]["iteration"], speaking(load.client)) == (1, {"1"})
    with ThreadPoolExecutor(4) as pool:
        for model in ("society", "society/majority", "society/generator-1", "society/critic-1"):
            pool.submit(load.ask, model)
        try:
            maft.kube.wait(lambda: load.answers > 4, 60, lambda: str(load.failures))
            maft.kube.merge("Society", place, "s", {"spec": {"iteration": 2}})
            maft.kube.wait(lambda: not before & pods(maft, place), LIMIT, lambda: explain(maft, place))
            answering(maft, place)
            answers = load.answers
            maft.kube.wait(lambda: load.answers > answers + 4, 60, lambda: str(load.failures))
        finally:
            load.stop.set()
    assert load.failures == []
    assert (society(maft, place)["status"]["iteration"], speaking(load.client)) == (2, {"2"})


@pytest.mark.nightly  # what it shows and refuses: test_kubectl_ask.py
def test_kubectl_maft_ask_reaches_it_by_a_real_port_forward(maft: Installed, place: str) -> None:
    path = os.pathsep.join([str(Path(maft.cluster.kubectl).parent), os.environ["PATH"]])
    variables = {**os.environ, "KUBECONFIG": str(maft.kube.kubeconfig), "PATH": path}
    line = [sys.executable, "-m", "maft_operator.kubectl", "-n", place, "ask", "s", QUESTION["content"]]
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    vote = voted(client(maft, place), QUESTION["content"])
    assert first.startswith("round 1, agent ") and str(vote["answer"]) in last


def certified(maft: Installed, namespace: str, secret: str, host: str) -> str:
    """Makes a Secret with a certificate of that name, which signs itself; returns the certificate."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = certificates.certified(Path(folder), host)
        kubectl(maft, "-n", namespace, "create", "secret", "tls", secret, f"--cert={certificate}", f"--key={key}")
        return certificate.read_text()


@pytest.mark.nightly
def test_clients_are_answered_while_pods_are_replaced_for_a_certificate(maft: Installed, place: str) -> None:
    """By the old protocol until the last old pod is to go, by the new one from the first new pod on."""
    kube, before, load = maft.kube, pods(maft, place), Load(client(maft, place))
    certified(maft, place, "c", "s")

    def url() -> str:
        return str(society(maft, place)["status"]["url"])

    with ThreadPoolExecutor(2) as pool:
        for model in ("society/majority", "society/critic-1"):
            pool.submit(load.ask, model)
        try:
            kube.wait(lambda: load.answers > 4, 60, lambda: str(load.failures))
            kube.merge("Society", place, "s", {"spec": {"tls": {"secretName": "c"}}})
            kube.wait(lambda: url().startswith("https:"), LIMIT, lambda: explain(maft, place))
        finally:
            load.stop.set()
    assert load.failures == []
    address = (kube.get("Service", place, "s") or {})["spec"]["clusterIP"]
    with httpx.Client(verify=False) as asking:
        assert asking.get(f"https://{address}/v1/models", timeout=60).status_code == 200
    answering(maft, place)
    kube.wait(lambda: not before & pods(maft, place), LIMIT, lambda: explain(maft, place))
    kube.merge("Society", place, "s", {"spec": {"tls": None}})
    kube.wait(lambda: url().startswith("http:"), LIMIT, lambda: explain(maft, place))
    answering(maft, place)
    kube.wait(lambda: len(pods(maft, place)) == 1, LIMIT, lambda: explain(maft, place))


def test_it_is_scaled(maft: Installed, place: str) -> None:
    before = pods(maft, place)
    kubectl(maft, "-n", place, "scale", "society/s", "--replicas=2")
    answering(maft, place)
    assert len(pods(maft, place)) == 2 and before < pods(maft, place)
    maft.kube.wait(lambda: society(maft, place)["status"]["ready"] == "2/2", LIMIT, lambda: explain(maft, place))
    kubectl(maft, "-n", place, "scale", "society/s", "--replicas=1")
    maft.kube.wait(lambda: len(pods(maft, place)) == 1, LIMIT, lambda: explain(maft, place))


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_an_autoscaler_makes_pods_for_a_load_and_takes_them_back(maft: Installed, place: str) -> None:
    """The one of docs/serving.md, with the real metrics-server. An idle pod takes some thousandths of a processor."""
    kube, load = maft.kube, Load(client(maft, place))
    example = yaml.safe_load(re.findall(r"```yaml\n(apiVersion: autoscaling.*?)```", SERVING.read_text(), re.DOTALL)[0])
    example["metadata"] = {"name": "s", "namespace": place}
    example["spec"] |= {"scaleTargetRef": {**example["spec"]["scaleTargetRef"], "name": "s"}, "maxReplicas": 2}
    # Utilization is of what pods ask for, which on this cluster may be more than there is: here in thousandths of a processor.
    resource = {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "60m"}}
    example["spec"] |= {
        "metrics": [{"type": "Resource", "resource": resource}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }

    def number() -> int:
        return int(society(maft, place)["spec"]["replicas"])

    def why() -> str:
        return f"{kube.get('HorizontalPodAutoscaler', place, 's')} {explain(maft, place)} {load.failures}"

    with metering.metrics_server(maft.cluster, kube), ThreadPoolExecutor(4) as pool:
        kube.apply(example)
        try:
            for _ in range(4):
                pool.submit(load.ask, "society/majority")
            kube.wait(lambda: number() == 2, LIMIT, why)
            answering(maft, place)
            load.stop.set()
            kube.wait(lambda: number() == 1, LIMIT, why)
            kube.wait(lambda: len(pods(maft, place)) == 1, LIMIT, why)
        finally:
            load.stop.set()
            kube.delete("HorizontalPodAutoscaler", place, "s")
    assert load.answers and load.failures == []


HOST = "society.example.com"


def named(address: str, certificate: str, key: str) -> openai.OpenAI:
    """A client of https://HOST/v1, which no name server of this machine knows, at that address."""

    def ask_for(request: httpx.Request) -> None:
        request.headers["Host"] = HOST
        request.extensions["sni_hostname"] = HOST.encode()

    trusted = ssl.create_default_context(cadata=certificate)
    http = httpx.Client(verify=trusted, event_hooks={"request": [ask_for]}, timeout=60)
    return openai.OpenAI(base_url=f"https://{address}/v1", api_key=key, max_retries=0, http_client=http)


@pytest.mark.nightly
@pytest.mark.parametrize("encrypted_inside", [False, True])
def test_clients_from_outside_come_in_by_a_real_ingress_controller(maft: Installed, place: str, *, encrypted_inside: bool) -> None:
    """It ends TLS with the Secret's certificate; where pods want HTTPS as well, it is told so."""
    kube, before = maft.kube, pods(maft, place)
    certificate = certified(maft, place, f"outside-{encrypted_inside}".lower(), HOST)
    kube.apply(secret(place, "keys", {"alice": "k1"}))
    outside = {"host": HOST, "className": entrance.CLASS, "tlsSecretName": f"outside-{encrypted_inside}".lower()}
    inside = {}
    if encrypted_inside:
        certified(maft, place, "inside", "s")
        outside["annotations"] = {"zalando.org/skipper-backend-protocol": "https"}
        inside = {"tls": {"secretName": "inside"}}
    with entrance.ingress_controller(maft.cluster, kube) as address:
        kube.merge("Society", place, "s", {"spec": {"apiKeysSecret": {"name": "keys"}, "ingress": outside, **inside}})
        answering(maft, place)
        kube.wait(lambda: not before & pods(maft, place), LIMIT, lambda: explain(maft, place))  # which want no keys
        assert society(maft, place)["status"]["url"] == f"https://{HOST}/v1"
        client = named(address, certificate, "k1")
        kube.wait(lambda: reaches(client), 60, lambda: explain(maft, place))
        assert [model.id for model in client.models.list().data] == society(maft, place)["status"]["models"]
        streamed = client.chat.completions.create(model="society/critic-1", messages=[QUESTION], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        with pytest.raises(openai.AuthenticationError):
            named(address, certificate, "other").models.list()
        with pytest.raises(openai.NotFoundError):
            client.with_options(base_url=f"https://{address}").get("/metrics", cast_to=str)
        kube.merge("Society", place, "s", {"spec": {"apiKeysSecret": None, "ingress": None, "tls": None}})
        answering(maft, place)
        kube.wait(lambda: len(pods(maft, place)) == 1, LIMIT, lambda: explain(maft, place))
        kube.wait(lambda: not reaches(client), 60, lambda: explain(maft, place))


def reaches(client: openai.OpenAI) -> bool:
    """Whether the controller knows of the Ingress by now."""
    try:
        client.models.list()
    except openai.APIConnectionError:
        return False
    except openai.APIStatusError as error:
        if error.status_code in (404, 502, 503):
            return False
        raise
    return True


def secret(namespace: str, name: str, entries: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": entries}


def test_pods_go_on_where_the_run_is_deleted_and_go_with_the_society(maft: Installed, place: str) -> None:
    kube, before = maft.kube, pods(maft, place)
    kube.delete("MultiAgentFinetune", place, "r")
    kube.wait(lambda: condition(maft, place, "Stalled").get("reason") == "RunMissing", 60, lambda: explain(maft, place))
    assert reason(maft, place) == "Serving" and pods(maft, place) == before
    assert client(maft, place).chat.completions.create(model="society/majority", messages=[QUESTION]).choices
    kube.delete("Society", place, "s")
    for kind in ("Deployment", "Service", "NetworkPolicy", "Pod"):
        kube.wait(lambda kind=kind: not kube.list(kind, place, "maft.dev/society=s"), LIMIT, lambda kind=kind: kind)


# --- the best iteration, and what users ask ---

STOPS: Json = {"iterations": 3, "evaluation": {"validation": 12}, "stopWhen": {"patience": 1, "minGain": 10}}
USERS = [f"What is {a}+{b}?" for a in range(11, 17) for b in range(21, 27)]  # none of them is among the run's own


@pytest.fixture(scope="module", name="stopped")
def stopped_fixture(maft: Installed) -> Iterator[str]:
    """A namespace with a run that stopped after its second iteration, for none gains so much, and a Society of it that keeps
    questions."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, namespace)
    try:
        maft.kube.apply(a_society(namespace, keepQuestions=True))
        maft.kube.apply(maft.resource("r", namespace, agents=2, **STOPS, **maft.mocked()))
        maft.kube.wait_complete(namespace, "r", LIMIT)
        answering(maft, namespace)
        yield namespace
    finally:
        maft.kube.delete("Namespace", None, namespace)


def lines(maft: Installed, key: str) -> list[Json]:
    return [json.loads(line) for line in maft.read(key).decode().splitlines()]


def best_of(maft: Installed, top: str) -> int:
    """The iteration with most validation questions right, of equals the first, by what the debates left in the bucket."""
    debates = {i: lines(maft, f"{top}/iterations/{i}/validation/part-0.jsonl") for i in (1, 2)}
    right = {i: sum(debate["votes"][-1]["right"] for debate in several) for i, several in debates.items()}
    assert {len(several) for several in debates.values()} == {STOPS["evaluation"]["validation"]}
    return max(right, key=lambda i: right[i])


def jobs_made(maft: Installed, namespace: str) -> set[str]:
    """Jobs of an iteration that is over are deleted; the events about them stay."""
    return {e["involvedObject"]["name"] for e in maft.kube.list("Event", namespace) if e["involvedObject"]["kind"] == "Job"}


@pytest.mark.nightly  # what decides: test_best.py
def test_a_run_stops_without_gain_and_its_society_answers_with_the_best_iteration(maft: Installed, stopped: str) -> None:
    top, status = f"runs/{stopped}/r", maft.kube.status(stopped, "r")
    best = best_of(maft, top)
    assert status["best"]["iteration"] == best
    assert status["artifacts"]["adapters"] == f"s3://{BUCKET}/{top}/iterations/{best}/adapters/"
    assert maft.kube.condition(stopped, "r", "Complete")["message"] == (
        f"iteration {best} is the best on the validation questions; stopped after iteration 2 of 3: 1 iteration without gain"
        " of more than 10 standard errors (stopWhen)"
    )
    made, keys = jobs_made(maft, stopped), maft.keys(stopped, "r")
    assert made >= {"r-2-debate", "r-2-validate", f"r-{best}-evaluate"}
    assert {name for name in made if name.startswith("r-3-")} == {"r-3-report"}  # of the whole run
    evaluated = {key.split("/")[4] for key in keys if key.endswith("/evaluation/_COMMIT.json")}
    assert evaluated == {"0", str(best)} and not [key for key in keys if key.startswith(f"{top}/iterations/3/")]
    assert (society(maft, stopped)["status"]["iteration"], speaking(client(maft, stopped))) == (best, {str(best)})


def kept(maft: Installed, namespace: str) -> dict[str, str]:
    """Questions that lie in the bucket, with their answers."""
    keys = [key for key in maft.keys(namespace, "r") if key.startswith(f"runs/{namespace}/r/asked/")]
    return {row["question"]: row["answer"] for key in keys for row in lines(maft, key)}


@pytest.mark.nightly  # what is kept, and when: test_endpoint_kept.py
def test_the_next_run_trains_on_what_users_asked(maft: Installed, stopped: str) -> None:
    """Questions that may be kept and whose vote was decided, with that answer; held-out ones come from elsewhere."""
    asking, kube = client(maft, stopped), maft.kube
    with ThreadPoolExecutor(8) as pool:
        votes = dict(zip(USERS, pool.map(lambda question: voted(asking, question), USERS), strict=True))
    decided = {question: vote["answer"] for question, vote in votes.items() if not vote["abstained"]}
    assert 12 <= len(decided) < len(USERS)
    kube.wait(lambda: len(kept(maft, stopped)) >= len(decided), 120, lambda: explain(maft, stopped))
    assert kept(maft, stopped) == decided
    task = {"source": maft.url(f"runs/{stopped}/r/asked/"), "train": len(decided), "heldOut": 8}
    task |= {"heldOutSource": maft.url("tiny/questions.jsonl")}
    kube.apply(maft.resource("asked", stopped, agents=2, iterations=1, task=task, evaluation={"baselines": []}, **maft.mocked()))
    status = kube.wait_complete(stopped, "asked", LIMIT)
    assert status["iterations"][-1]["trained"] > 0
    top = f"runs/{stopped}/asked"
    debated = {debate["problem"]["question"] for debate in lines(maft, f"{top}/iterations/1/debate/part-0.jsonl")}
    held_out = {debate["problem"]["question"] for debate in lines(maft, f"{top}/iterations/1/evaluation/part-0.jsonl")}
    assert debated == {*decided} and len(held_out) == 8 and not held_out & {*USERS}
