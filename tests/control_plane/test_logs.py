"""Lines of the operator's log, as collectors get them with --log-format=json: what a line is about stands in keys of its own."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from kube_objects import IMAGES, writer
from test_cluster_backend import KEY, Server, resource

from maft_operator.cluster import app, kinds
from maft_operator.cluster.api import Refused
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.workers import Workers

NAMESPACE, NAME = KEY.split("/")
OPTIONS = app.Options(Images("x/maft", "1"), (), "default", "maft-operator", elect=False, port=0, log_format="json", verbose=False)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the operator's log goes, in the format that its flag names."""
    root, written = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    app._logging(OPTIONS)
    [made] = [handler for handler in root.handlers if handler not in before]
    assert isinstance(made, logging.StreamHandler)
    made.setStream(written)
    yield written
    root.handlers[:] = before
    root.setLevel(level)


def logged(lines: io.StringIO, server: Server) -> list[Json]:
    """What the operator logs in its first look at the run."""

    async def scenario() -> None:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        controller = Controller(server, IMAGES, keys=keys, writer=writer(server, metrics))  # type: ignore[arg-type]
        await Workers({kinds.RUN.name: controller}, queue=queue, keys=keys, metrics=metrics).attempt(KEY)

    asyncio.run(scenario())
    return [line for line in map(json.loads, lines.getvalue().splitlines()) if line.get("run")]


def test_a_change_of_a_condition(lines: io.StringIO) -> None:
    entries = logged(lines, Server(resource(None)))
    assert {(line["namespace"], line["run"]) for line in entries} == {(NAMESPACE, NAME)}
    accepted = next(line for line in entries if line["condition"] == "Accepted")
    assert (accepted["reason"], accepted["status"], accepted["severity"]) == ("Accepted", "True", "info")
    assert accepted["message"].startswith(f"{KEY}: Accepted=True Accepted: ") and accepted["timestamp"]


def test_what_the_api_server_refuses(lines: io.StringIO) -> None:
    refused = Refused(403, 'jobs.batch is forbidden: User "maft" cannot list resource "jobs"')
    entries = logged(lines, Server(resource(None), refuses={"Job": refused}))
    again = next(line for line in entries if "will look again" in line["message"])
    assert (again["namespace"], again["run"], again["reason"]) == (NAMESPACE, NAME, "OperatorForbidden")
    assert again["severity"] == "warn"


@pytest.mark.parametrize(("error", "reason"), [(OSError("no route"), "ApiUnreachable"), (ValueError("odd"), "Fault")])
def test_a_look_that_fails(lines: io.StringIO, error: Exception, reason: str) -> None:
    entries = logged(lines, Server(resource(None), refuses={"Job": error}))  # type: ignore[dict-item]
    assert [line["reason"] for line in entries if "condition" not in line] == [reason]


def test_lines_of_the_log_as_text_stay_as_they_were(lines: io.StringIO) -> None:
    app._logging(app.Options(**{**{f: getattr(OPTIONS, f) for f in OPTIONS.__dataclass_fields__}, "log_format": "text"}))
    handler = logging.getLogger().handlers[-1]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text := io.StringIO())
    with pytest.raises(json.JSONDecodeError):
        logged(text, Server(resource(None)))
    assert f"{KEY}: Accepted=True Accepted: " in text.getvalue() and "namespace" not in text.getvalue()
