"""`--to mlflow`: one MLflow run for each run of maft, over its REST API: parameters, metrics by iteration, files.

Without MLflow's own client: it takes seconds to import and asks for versions of packages that others refuse. A comparison's runs
are children of one that has its name. Source: MLflow's REST API reference.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from maft.export import folders, numbers, reports, society
from maft.export.identity import identity
from maft.export.ledger import Ledger, digest, stages
from maft.export.target import Request, Sent
from maft.export.times import committed_at
from maft.export.web import Client, authorization, server
from maft.store import layout
from maft.store.commits import committed

DEFAULT = "maft"  # the experiment where none is named
RUN, ORIGIN, PARENT = "maft.run", "maft.origin", "mlflow.parentRunId"  # tags
PROXIED = "mlflow-artifacts:"  # how artifact URIs begin that the server takes itself
BATCH = 100  # parameters of one request
SEVERAL = 100  # runs of one name that may have been made at a time
_EXISTS = 400  # status, among others of what cannot be made
ARTIFACTS = "artifacts"  # how parts of the ledger begin that are files


@dataclass(frozen=True, slots=True)
class Tracker:
    """One experiment of an MLflow server."""

    url: str
    client: Client

    def post(self, call: str, **body: Any) -> Any:
        """Calls the API with a JSON body."""
        url = f"{self.url}/api/2.0/mlflow/{call}"
        return self.client.ask("POST", url, msgspec.json.encode(body), Content_Type="application/json").json(url)

    def experiment(self, name: str) -> str:
        """Returns the id of the experiment of that name, made where there is none. Runs of a comparison may make it at a time, and
        one is told that it is there."""
        if there := self._experiment(name):
            return there
        url = f"{self.url}/api/2.0/mlflow/experiments/create"
        body = msgspec.json.encode({"name": name})
        made = self.client.ask("POST", url, body, accept=(_EXISTS,), Content_Type="application/json")
        if made.status != _EXISTS:
            return str(made.json(url)["experiment_id"])
        return self._experiment(name) or str(self.post("experiments/create", name=name)["experiment_id"])  # which says why not

    def _experiment(self, name: str) -> str:
        url = f"{self.url}/api/2.0/mlflow/experiments/get-by-name"
        answer = self.client.ask("GET", f"{url}?{urlencode({'experiment_name': name})}", accept=(404,))
        return "" if answer.status == 404 else str(answer.json(url)["experiment"]["experiment_id"])

    def run(self, experiment: str, key: str, began: float, parent: str = "", origin: str = "") -> str:
        """Returns the id of the MLflow run of that run of maft, made where there is none. began: in seconds since 1970; origin:
        what tells it from every other, of one name, too."""
        if there := self._run(experiment, key, origin):
            return there
        pairs = {RUN: key, ORIGIN: origin, "mlflow.runName": key.rpartition("/")[2], PARENT: parent}
        tags = _pairs({name: value for name, value in pairs.items() if value})
        made = self.post(
            "runs/create", experiment_id=experiment, run_name=pairs["mlflow.runName"], start_time=_ms(began), tags=tags
        )
        return self._run(experiment, key, origin) or str(made["run"]["info"]["run_id"])

    def _run(self, experiment: str, key: str, origin: str) -> str:
        """The id of the run that counts, of several that were made at a time; empty where there is none."""
        same = f" AND tags.`{ORIGIN}` = '{origin}'" if origin else ""
        query = f"tags.`{RUN}` = '{key}'{same}"
        there = self.post("runs/search", experiment_ids=[experiment], filter=query, max_results=SEVERAL).get("runs", [])
        return min((str(run["info"]["run_id"]) for run in there), default="")

    def artifacts(self, run: str) -> str:
        """Returns the URL below which the run's artifacts are put; empty where the server does not take them itself."""
        url = f"{self.url}/api/2.0/mlflow/runs/get"
        info = self.client.ask("GET", f"{url}?run_id={run}").json(url)["run"]["info"]
        kind, _, path = str(info.get("artifact_uri", "")).partition(":")
        return f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path.strip('/')}" if f"{kind}:" == PROXIED else ""


def check(where: str) -> tuple[str, str]:
    """Reads the address: the server and the experiment. BadInput for what is none."""
    url, _, name = where.partition("#")
    return server("mlflow", url), name or DEFAULT


def send(request: Request) -> Sent:
    """Sends what the tracker does not have yet."""
    url, experiment = check(request.to)
    headers = authorization("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    ledger = Ledger(request.store, request.run.key, "mlflow", f"{url}#{experiment}")
    parts = {**stages(request.run), **_files(request)}
    missing = ledger.missing(parts)
    if missing:
        tracker = Tracker(url, Client("mlflow", headers))
        number = tracker.experiment(experiment)
        began = committed_at(request.store, f"{request.run.key}/{layout.PROBLEMS}") or 0.0
        parent = tracker.run(number, request.group, began, origin=_origin(request)) if request.group else ""
        ledger.known_as(tracker.run(number, request.run.key, began, parent, request.identity()))
        if parent:  # another one than the run was made with counts where several were made at a time
            tracker.post("runs/set-tag", run_id=ledger.remote, key=PARENT, value=parent)
        missing = ledger.missing(parts)
        for part in missing:
            _send(tracker, request, ledger.remote, part)
            ledger.note(part, parts[part])
        _finish(tracker, request, ledger.remote)
    return Sent(f"{url} experiment {experiment} run {ledger.remote}", len(missing))


def _origin(request: Request) -> str:
    """What tells the comparison from every other, where it has questions that its runs share."""
    questions = committed(request.store, f"{request.group}/{layout.PROBLEMS}")
    return identity(request.store, request.group, questions) if questions else ""


def _files(request: Request) -> dict[str, str]:
    """Parts that are files: the report, and the adapters that count if they are no longer the base model."""
    parts = reports.part(request.report_files(), f"{ARTIFACTS}/{reports.REPORT}")
    trained = any(i.training.complete for i in request.run.iterations)
    if trained and not society.iteration(request.run, request.iteration).training.all_base:
        agents = request.agents()
        parts[f"{ARTIFACTS}/adapters/{agents[0].adapter.iteration}"] = digest(*(agent.commit for agent in agents))
    return parts


def _send(tracker: Tracker, request: Request, run: str, part: str) -> None:
    if part == "spec":
        for batch in _batches(_pairs(numbers.parameters(request.run))):
            tracker.post("runs/log-batch", run_id=run, params=batch)
    elif part.startswith(f"{ARTIFACTS}/"):
        _upload(tracker, request, run, part)
    else:
        step, values = numbers.of_stage(request.run, part)
        tracker.post("runs/log-batch", run_id=run, metrics=list(_metrics(request, part, step, values)))


def _batches(pairs: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    return [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]


def _metrics(request: Request, part: str, step: int, values: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    stage = part.partition("/")[0]
    kind = "datasets" if stage == "training" else stage
    when = _ms(committed_at(request.store, f"{request.run.key}/iterations/{step}/{kind}/") or 0.0)
    yield from ({"key": name, "value": value, "timestamp": when, "step": step} for name, value in values.items())


def _upload(tracker: Tracker, request: Request, run: str, part: str) -> None:
    """Puts files below the run's artifacts; where the server keeps none, the run says where they lie."""
    base = tracker.artifacts(run)
    if not base:
        tracker.post("runs/set-tag", run_id=run, key="maft.store", value=f"{request.store.url}/{request.run.key}/")
        return
    with TemporaryDirectory() as scratch:
        top = Path(scratch)
        if part == f"{ARTIFACTS}/{reports.REPORT}":
            folders.put_files(request.report_files(), top / reports.REPORT)
        else:
            folders.put_adapters(request, request.agents(), top / part.removeprefix(f"{ARTIFACTS}/"))
        for path in _all(top):
            tracker.client.ask("PUT", f"{base}/{quote(str(path.relative_to(top)))}", path, Content_Type="application/octet-stream")


def _all(top: Path) -> Iterable[Path]:
    return sorted(path for path in top.rglob("*") if path.is_file())


def _finish(tracker: Tracker, request: Request, run: str) -> None:
    """Says that the run has ended once it has the held-out debate that it ends with."""
    if final := request.run.final:
        when = committed_at(request.store, final.prefix)
        tracker.post("runs/update", run_id=run, status="FINISHED", end_time=_ms(when or 0.0))


def _pairs(facts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts.items()]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
