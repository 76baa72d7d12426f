"""`--to otel`: the stages of a run as one OpenTelemetry trace, OTLP over HTTP in JSON, from what the store says of their times.

The trace's id is the run's identity, a span's a hash of it and the stage: what is sent twice is one span. A stage ended when it
was committed, and began so many seconds before as it says itself. Source: the OTLP specification.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from maft import __version__
from maft.committed_run import RunCommits
from maft.errors import BadInput
from maft.export import numbers
from maft.export.ledger import Ledger, digest
from maft.export.target import Request, Sent
from maft.export.times import committed_at
from maft.export.web import Client, sendable, server
from maft.records import Commit
from maft.store.base import Store
from maft.store.timing import read_seconds

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"  # as every exporter reads it: name=value, with commas between
RUN = "run"  # the part that is the whole run


@dataclass(frozen=True, slots=True)
class Stage:
    """One span. Times in seconds since 1970."""

    part: str
    name: str
    commit: Commit
    facts: Mapping[str, float]
    begin: float
    end: float


def stages(store: Store, run: RunCommits) -> Iterator[Stage]:
    """Lists what was committed with a time, in order of iterations."""
    for i in run.iterations:
        numbered = f"iteration {i.number}"
        if i.debate:
            yield from _stage(store, f"debate/{i.number}", f"debate, {numbered}", i.debate)
        for commit in i.training.commits:
            name = commit.prefix.rstrip("/").rpartition("/")[2]
            yield from _stage(store, f"training/{i.number}/{name}", f"training of {name}, {numbered}", commit)
        if i.validation:
            facts = numbers.validated(i.validated) if i.validated else {}
            yield from _stage(store, f"validation/{i.number}", f"validation, {numbered}", i.validation, facts)
        if i.evaluation:
            facts = numbers.evaluated(i.numbers) if i.numbers else {}
            yield from _stage(store, f"evaluation/{i.number}", f"evaluation, {numbered}", i.evaluation, facts)


def _stage(store: Store, part: str, name: str, commit: Commit, facts: Mapping[str, float] | None = None) -> Iterator[Stage]:
    end = committed_at(store, commit.prefix)
    if end is not None:
        yield Stage(part, name, commit, facts or {}, end - (read_seconds(store, commit.prefix) or 0.0), end)


def check(where: str) -> str:
    """Reads the address of the collector; BadInput for what is none."""
    return server("otel", where.rstrip("/").removesuffix("/v1/traces"))  # some copy the whole address


def send(request: Request) -> Sent:
    """Sends the spans that were not sent; that of the whole run once it has ended."""
    url = check(request.to)
    spans = {stage.part: stage for stage in stages(request.store, request.run)}
    parts = {part: digest(stage.commit) for part, stage in spans.items()}
    if spans and request.run.final:
        parts[RUN] = digest(*(stage.commit for stage in spans.values()))
    ledger = Ledger(request.store, request.run.key, "otel", url)
    trace = request.identity()
    ledger.known_as(trace)
    if missing := ledger.missing(parts):
        body = [_whole(request, trace, list(spans.values())) if p == RUN else _span(trace, spans[p]) for p in missing]
        _post(url, request, body)
        ledger.arrived(trace, {part: parts[part] for part in missing})
    return Sent(f"{url} trace {trace}", len(missing))


def _post(url: str, request: Request, spans: list[dict[str, Any]]) -> None:
    scope = {"scope": {"name": "maft", "version": __version__}, "spans": spans}
    resource = {"attributes": _attributes({"service.name": "maft", "maft.run": request.run.key})}
    body = msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})
    answer = Client("otel", headers(os.environ.get(HEADERS, ""))).ask(
        "POST", f"{url}/v1/traces", body, Content_Type="application/json"
    )
    rejected = (answer.json(url) if answer.body.strip() else {}).get("partialSuccess", {})
    if int(rejected.get("rejectedSpans") or 0):
        raise BadInput(f"--to otel: {url} rejected {rejected['rejectedSpans']} spans: {rejected.get('errorMessage', '')}")


def headers(text: str) -> dict[str, str]:
    """Reads the variable; BadInput, without its values, for what is no list of name=value."""
    made = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise BadInput(f"{HEADERS}: expected name=value, with commas between")
        made[sendable(HEADERS, unquote(name.strip()))] = sendable(HEADERS, unquote(value.strip()))
    return made


def _span(trace: str, stage: Stage) -> dict[str, Any]:
    ids = {"traceId": trace, "spanId": _id(trace, stage.part), "parentSpanId": _id(trace, RUN)}
    return {**ids, **_described(stage.name, stage.begin, stage.end, {**stage.facts, "maft.prefix": stage.commit.prefix})}


def _whole(request: Request, trace: str, every: list[Stage]) -> dict[str, Any]:
    begin, end = min(stage.begin for stage in every), max(stage.end for stage in every)
    ids = {"traceId": trace, "spanId": _id(trace, RUN)}
    return {**ids, **_described(f"maft run {request.run.key}", begin, end, numbers.parameters(request.run))}


def _described(name: str, begin: float, end: float, facts: Mapping[str, Any]) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(round(begin * 1e9)), "endTimeUnixNano": str(round(end * 1e9))}
    return {"name": name, "kind": 1, **times, "attributes": _attributes(facts)}


def _attributes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": k, "value": {"stringValue": v} if isinstance(v, str) else {"doubleValue": v}} for k, v in facts.items()]


def _id(trace: str, part: str) -> str:
    return hashlib.sha256(f"{trace}\n{part}".encode()).hexdigest()[:16]
