"""Collects a bundle from a cluster: asks one question after the other; what is refused or fails is written down."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from kubernetes.aio.client import ApiClient

from maft_operator.bundle import questions, redaction
from maft_operator.bundle.archive import Bundle, Missing, Part
from maft_operator.bundle.questions import Log, Question
from maft_operator.cluster.user_api import ANSWER, Unanswered, UserApi
from maft_operator.spec.schema import BadSpec, Json

LOG = 1024**2  # bytes of a log that are kept, from its end


async def collect(client: ApiClient, namespace: str, name: str, *, operator: str = "") -> Bundle:
    """Collects what the user may read of the run. operator: the namespace of the operator, if it may not be looked for everywhere.

    BadSpec where there is no such run or nobody answers."""
    collector = _Collector(client)
    run = await collector.run(namespace, name)
    children: list[Json] = []
    for question in questions.of_children(namespace, name):
        children += await collector.ask(question) or []
    for question in questions.of_surroundings(namespace, questions.uids_in([run, *children])):
        await collector.ask(question)
    await collector.logs(questions.logs(_pods(children), "logs"))
    if pods := await collector.ask(questions.of_operator(operator)):
        await collector.logs(questions.logs(pods, "maft-operator/logs"))
    return Bundle(f"{namespace}/{name}", tuple(collector.parts), tuple(collector.missing))


def _pods(children: Sequence[Json]) -> list[Json]:
    """Items of a list lack their kind; pods alone have containers in their spec."""
    return [child for child in children if "containers" in (child.get("spec") or {})]


class _Collector:
    """What has been collected so far."""

    def __init__(self, client: ApiClient) -> None:
        self._api = UserApi(client)
        self.parts: list[Part] = []
        self.missing: list[Missing] = []

    async def run(self, namespace: str, name: str) -> Json:
        """Keeps the resource; without it there is no bundle."""
        question = questions.of_run(namespace, name)
        try:
            answer: Json = json.loads(await self._api.get(question.path, {}, ANSWER))
        except Unanswered as error:
            where = f"run {namespace}/{name}: "
            what = "there is none of that name; give its namespace with -n" if error.code == 404 else str(error)
            raise BadSpec(where + what) from None
        self._keep(question.file, answer)
        return answer

    async def ask(self, question: Question) -> Any:
        """Keeps what the question asks for, and returns it as it came; None where it cannot be had."""
        try:
            kept = question.keep(json.loads(await self._api.get(question.path, question.query, ANSWER)))
        except (Unanswered, ValueError) as error:
            self.missing.append(Missing(question.file, redaction.text(str(error))))
            return None
        self._keep(question.file, kept)
        return kept

    async def logs(self, wanted: Iterator[Log]) -> None:
        """Keeps the end of each log."""
        for log in wanted:
            try:
                content = await self._api.get(log.path, log.query, None, keep=2 * LOG)
            except Unanswered as error:
                self.missing.append(Missing(log.file, redaction.text(str(error))))
                continue
            self.parts.append(Part(log.file, redaction.end(content, LOG)))

    def _keep(self, file: str, value: Any) -> None:
        self.parts.append(Part(file, json.dumps(redaction.thing(value), indent=1, sort_keys=True).encode()))
