"""What operator_scale.py does in place of Kubernetes' controllers and kubelet, and how it sees what the operator does.

Children do no work: a Job gets one Pending pod and ends when the benchmark says so, a Deployment is available when it says so.
Moments are those of this process's clock (time.perf_counter), since timestamps of objects are whole seconds.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import aiohttp
from control_plane import ControlPlane

from maft.summaries import (
    DebateSummary,
    EvaluateSummary,
    Exported,
    ExportSummary,
    PreflightSummary,
    PrepareSummary,
    ProgramSummary,
    ReportSummary,
    Score,
    TrainSummary,
    Usage,
    encode_summary,
)

Json = dict[str, Any]
NAMESPACE = "scale"
_HOME = {
    "MultiAgentFinetune": f"/apis/maft.dev/v1alpha1/namespaces/{NAMESPACE}/multiagentfinetunes",
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
}
_STORED = {
    "MultiAgentFinetune": "maft.dev/multiagentfinetunes",
    "Job": "jobs",
    "Pod": "pods",
    "NetworkPolicy": "networkpolicies",
}
_VERSIONS = {"MultiAgentFinetune": "maft.dev/v1alpha1", "Job": "batch/v1", "Pod": "v1", "NetworkPolicy": "networking.k8s.io/v1"}
WATCHED = ("Job", "Deployment", "MultiAgentFinetune")
_TOGETHER = 4  # runs written to etcd in one transaction: below its limits of operations (128) and bytes (1.5 MiB)
_USAGE = Usage(1000, 1_000_000, 200_000)
_SCORE = Score(0.8, 0.01)
_SUMMARIES: dict[str, ProgramSummary] = {  # as the programs of the method leave them
    "prepare": PrepareSummary(train=500, held_out=500),
    "preflight": PreflightSummary(architecture="LlamaForCausalLM", modules=224, context=8192, longest_prompt=3000, thinks=False),
    "debate": DebateSummary(
        questions=500,
        agreement=0.8,
        margins=(50, 0, 0, 450),
        kept={"generator": (310, 290, 305), "critic": (120, 130, 110)},
        abstained=50,
        usage=_USAGE,
    ),
    "train": TrainSummary(adapters=(), trained=6),
    "evaluate": EvaluateSummary(
        questions=500,
        agents=3,
        rounds=2,
        answer=_SCORE,
        majority=_SCORE,
        debate=_SCORE,
        consensus=_SCORE,
        wrong_to_right=50,
        right_to_wrong=20,
        unparsed=0,
        usage=_USAGE,
    ),
    "export": ExportSummary(targets=(Exported(to="mlflow", place="experiment maft", new=4),)),
    "report": ReportSummary(report="report/index.html", results=(), debates=3, in_page=3),
}


class Cluster:
    """Requests, and the moment at which each object was first seen by a watch."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._plane = plane
        self._session = session
        self.seen: dict[str, asyncio.Future[tuple[float, Json]]] = {}

    async def ask(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        """One request; anything but a success is an error."""
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, self._plane.url + path, data=data, headers={"Content-Type": kind}) as response:
            text = await response.text()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {text[:600]}")
            return dict(json.loads(text))

    async def create(self, kind: str, body: Json) -> Json:
        """In the benchmark's namespace."""
        return await self.ask("POST", _HOME[kind], body)

    async def get(self, kind: str, name: str) -> Json:
        """As the API server has it."""
        return await self.ask("GET", f"{_HOME[kind]}/{name}")

    async def labelled(self, kind: str, run: str) -> list[Json]:
        """Children of a run."""
        found = await self.ask("GET", f"{_HOME[kind]}?labelSelector=maft.dev/run={run}")
        return list(found["items"])

    async def set_status(self, kind: str, name: str, status: Json) -> None:
        """Merged into what is there."""
        await self.ask("PATCH", f"{_HOME[kind]}/{name}/status", {"status": status}, "application/merge-patch+json")

    # --- seeing ---

    async def appears(self, kind: str, name: str, limit: float = 120.0) -> tuple[float, Json]:
        """The object, and when it was first seen."""
        async with asyncio.timeout(limit):
            return await asyncio.shield(self._first(f"{kind}/{name}"))

    def _first(self, key: str) -> "asyncio.Future[tuple[float, Json]]":
        return self.seen.setdefault(key, asyncio.get_running_loop().create_future())

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches as long as the block lasts; what is there already is not told."""
        tasks = [asyncio.create_task(self._watch(kind, await self._version(kind))) for kind in WATCHED]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if not isinstance(error, asyncio.CancelledError):
                    raise RuntimeError(f"a watch of the benchmark ended: {error!r}")

    async def _version(self, kind: str) -> str:
        return str((await self.ask("GET", f"{_HOME[kind]}?limit=1"))["metadata"]["resourceVersion"])

    async def _watch(self, kind: str, version: str) -> None:
        url = f"{self._plane.url}{_HOME[kind]}?watch=1&resourceVersion={version}&timeoutSeconds=3600"
        async with self._session.get(url, read_bufsize=2**21, timeout=aiohttp.ClientTimeout()) as response:
            async for line in response.content:
                moment = time.perf_counter()
                event = json.loads(line)
                self._note(kind, event["object"], moment)

    def _note(self, kind: str, body: Json, moment: float) -> None:
        name = body["metadata"]["name"]
        keys = [f"{kind}/{name}"]
        keys += [f"{c['type']}/{name}" for c in body.get("status", {}).get("conditions", ()) if c["status"] == "True"]
        for key in keys:
            if not (first := self._first(key)).done():
                first.set_result((moment, body))

    # --- being Kubernetes ---

    async def start_pod(self, job: Json) -> None:
        """What the Job controller does with a new Job; the pod finds no node."""
        name = job["metadata"]["name"]
        await self.create("Pod", _pod(job))
        await self.set_status("Job", name, {"active": 1, "startTime": _now()})

    async def finish(self, job: Json, summary: ProgramSummary | None = None) -> float:
        """Ends a Job well, whose program says that, or what it usually says; the moment at which it was said."""
        name, stage = job["metadata"]["name"], job["metadata"]["labels"]["app.kubernetes.io/component"]
        container, result = job["spec"]["template"]["spec"]["containers"][0], summary or _SUMMARIES[stage]
        await self.set_status("Pod", f"{name}-x", _ended(container, encode_summary(result).decode(), 0))
        moment = time.perf_counter()
        await self.set_status("Job", name, _complete())
        return moment

    async def fail(self, job: Json, message: str, code: int = 1) -> None:
        """Ends its pod with that exit code, one attempt of those that the Job has; the program said so."""
        name = job["metadata"]["name"]
        await self.set_status("Pod", f"{name}-x", _ended(job["spec"]["template"]["spec"]["containers"][0], message, code))
        await self.set_status("Job", name, {"active": 1, "failed": 1})

    async def make_available(self, deployment: str) -> float:
        """Its replica answers; the moment at which it was said."""
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
        moment = time.perf_counter()
        await self.set_status("Deployment", deployment, {**dict.fromkeys(counts, 1), "conditions": [_condition("Available")]})
        return moment

    # --- many copies of one run ---

    async def copy(self, run: str, names: Iterable[str]) -> None:
        """Copies of a run with all that it has, byte by byte but for names and uids, into etcd: 23 requests each otherwise."""
        found = {"MultiAgentFinetune": [await self.get("MultiAgentFinetune", run)]}
        found |= {kind: await self.labelled(kind, run) for kind in ("Job", "Pod", "NetworkPolicy")}
        objects = [{**body, "apiVersion": _VERSIONS[kind], "kind": kind} for kind, bodies in found.items() for body in bodies]
        for body in objects:
            del body["metadata"]["resourceVersion"]
        texts = [(f"/registry/{_STORED[o['kind']]}/{NAMESPACE}/{o['metadata']['name']}", json.dumps(o)) for o in objects]
        uids = [body["metadata"]["uid"] for body in objects]
        names = list(names)
        for start in range(0, len(names), _TOGETHER):
            puts = [put for name in names[start : start + _TOGETHER] for put in _renamed(texts, uids, run, name)]
            revision = await self._store(puts)
        for kind in found:
            await self._fresh(kind, revision)

    async def _store(self, puts: list[Json]) -> str:
        async with self._session.post(f"{self._plane.etcd}/v3/kv/txn", json={"success": puts}) as response:
            answer = await response.json()
            if not answer.get("succeeded"):
                raise RuntimeError(f"etcd: {answer}")
            return str(answer["header"]["revision"])

    async def _fresh(self, kind: str, revision: str) -> None:
        """Until the API server knows of that revision."""
        for _ in range(60):
            with contextlib.suppress(RuntimeError):
                await self.ask("GET", f"{_HOME[kind]}?limit=1&resourceVersion={revision}&resourceVersionMatch=NotOlderThan")
                return
            await asyncio.sleep(1)
        raise TimeoutError(f"{kind}: the API server has not caught up with etcd")


@contextlib.asynccontextmanager
async def connected(plane: ControlPlane) -> AsyncIterator[Cluster]:
    """As the administrator."""
    context = ssl.create_default_context(cafile=str(plane.authority))
    connector = aiohttp.TCPConnector(limit=40, ssl=context)
    headers = {"Authorization": f"Bearer {plane.token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Cluster(plane, session)


def _renamed(texts: list[tuple[str, str]], uids: list[str], old: str, new: str) -> list[Json]:
    fresh = {uid: str(uuid.uuid4()) for uid in uids}
    puts = []
    for key, text in texts:
        changed = text.replace(old, new)
        for uid, other in fresh.items():
            changed = changed.replace(uid, other)
        pair = {"key": key.replace(old, new), "value": changed}
        puts.append({"requestPut": {name: base64.b64encode(part.encode()).decode() for name, part in pair.items()}})
    return puts


def _pod(job: Json) -> Json:
    metadata, template = job["metadata"], job["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    about = {"name": f"{metadata['name']}-x", "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]}


def _ended(container: Json, message: str, code: int) -> Json:
    reason, phase = ("Error", "Failed") if code else ("Completed", "Succeeded")
    ended = {"exitCode": code, "reason": reason, "message": message, "startedAt": _now(), "finishedAt": _now()}
    state = {"name": container["name"], "image": container["image"], "imageID": "sha256:0", "ready": False, "restartCount": 0}
    return {"phase": phase, "startTime": _now(), "containerStatuses": [{**state, "state": {"terminated": ended}}]}


def _complete() -> Json:
    conditions = [_condition(kind, "CompletionsReached") for kind in ("SuccessCriteriaMet", "Complete")]
    return {"active": 0, "succeeded": 1, "completionTime": _now(), "conditions": conditions}


def _condition(kind: str, reason: str = "MinimumReplicasAvailable") -> Json:
    times = {"lastTransitionTime": _now(), "lastProbeTime": _now()} if kind != "Available" else {"lastTransitionTime": _now()}
    return {"type": kind, "status": "True", "reason": reason, "message": "", **times}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
