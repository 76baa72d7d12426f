"""`kubectl maft ask`: one question to a Society, through a port-forward: the API server's own proxy drops the key's header."""

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import condition, part, text
from maft_operator.cluster.user_api import Unanswered, place
from maft_operator.kubectl.asked import Where
from maft_operator.local import ask as local
from maft_operator.spec.schema import BadSpec, Json

PORT, SECURED = 80, 443  # of a Society's Service
PATIENCE = 30.0  # seconds until a port-forward stands
_STANDS = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of which of the society's models."""

    text: str
    model: str


async def ask(where: Where, name: str, question: Question, context: str, *, secret: bool) -> int:
    """Asks, with the debate shown as it goes and the answer last. secret: with a key of the Society's own Secret."""
    society = await _society(where, name)
    if secret:
        os.environ[local.KEY] = await _key(where, society)
    secured = _is_secured(society)
    async with _forwarded(where.namespace, name, context, SECURED if secured else PORT) as address:
        url = f"https://{address}" if secured else f"http://{address}"
        try:  # the API server led us to the pod, by a name that no certificate has
            await local.ask(url, question.text, question.model, lambda line: print(line, flush=True), anybody=secured)
        except local.Unanswered as error:
            raise Unanswered(str(error)) from None
    return 0


def _is_secured(society: Json) -> bool:
    """Whether its pods speak HTTPS: while they are replaced for spec.tls its own URL says what those speak that answer."""
    if part(society, "spec", "ingress"):
        return bool(part(society, "spec", "tls"))  # the URL is that of what stands before them
    return text(society, "status", "url").startswith("https:")


async def _society(where: Where, name: str) -> Json:
    try:
        society = await where.api.json(place(kinds.SOCIETY, where.namespace, name))
    except Unanswered as error:
        if error.code != _NOT_FOUND:
            raise
        raise BadSpec(f"society {where.namespace}/{name}: there is none of that name; docs/serving.md makes one of a run") from None
    ready = condition(society, "Ready")
    if text(ready, "status") != "True":
        why = f"{text(ready, 'reason') or 'Pending'}: {text(ready, 'message')}"
        raise BadSpec(f"society {where.namespace}/{name}: does not answer yet: {why}")
    return society


async def _key(where: Where, society: Json) -> str:
    """The first key of the Society's Secret: each of its entries is one."""
    name = text(society, "spec", "apiKeysSecret", "name")
    if not name:
        raise BadSpec("--secret: the society names no spec.apiKeysSecret; leave it out: it wants no key")
    data = part(await where.api.json(f"/api/v1/namespaces/{where.namespace}/secrets/{name}"), "data")
    if not data:
        raise BadSpec(f"--secret: the Secret {where.namespace}/{name} holds no key")
    return base64.b64decode(data[min(data)]).decode(errors="replace")


@contextlib.asynccontextmanager
async def _forwarded(namespace: str, name: str, context: str, port: int) -> AsyncIterator[str]:
    """A port of this machine that leads to the Society, as long as the block lasts."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise BadSpec("kubectl: not on the PATH; `kubectl maft ask` reaches the society by its port-forward")
    line = _command(kubectl, namespace, name, context, port)
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stderr is not None
        first = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                first = await process.stdout.readline()
        stands = _STANDS.match(first)
        if stands is None:
            _end(process)
            raise Unanswered(f"kubectl port-forward: {' '.join((await process.stderr.read()).decode(errors='replace').split())}")
        yield f"127.0.0.1:{stands[1].decode()}"
    finally:
        _end(process)
        await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    """Not with terminate(): that collects a process that has just ended, and asyncio warns that somebody took its child away."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _command(kubectl: str, namespace: str, name: str, context: str, port: int = PORT) -> Sequence[str]:
    chosen = [f"--context={context}"] if context else []
    return [kubectl, *chosen, "--namespace", namespace, "port-forward", "--address=127.0.0.1", f"service/{name}", f":{port}"]
