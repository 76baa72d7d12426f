"""`python -m maft.endpoint`: the finetuned agents of a run behind one OpenAI-compatible URL, until it is told to end."""

import argparse
import asyncio
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from maft import pod, program
from maft.certificate import Certificate
from maft.endpoint import agents, served
from maft.endpoint.admission import Admission
from maft.endpoint.app import Endpoint
from maft.endpoint.kept import Kept
from maft.endpoint.keys import Keys
from maft.endpoint.measured import Measured
from maft.errors import BadInput, one_line
from maft.program import Assignment
from maft.society_spec import SocietySpec, decode_society
from maft.spec import UNREADABLE, immutable_spec_json
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT

BACKLOG = 1024  # connections that wait to be taken


@dataclass(frozen=True, slots=True)
class Listening:
    """Where it listens, and for whom."""

    host: str
    port: int
    keys: Keys | None
    """Without them anybody may ask."""
    grace: int
    """Seconds in which requests still come after it was told to end."""
    certificate: Certificate | None = None
    """Without it connections are not encrypted."""


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    flags = program.parser("endpoint", "Answers questions with the finetuned agents of a run.", takes=("spec", "group"))
    flags.add_argument("--iteration", default="0", help="whose adapters answer; 0: the best, else the last that has all of them")
    flags.add_argument("--server", action="append", default=[], metavar="NAME=URL", help="the vLLM server of all agents")
    flags.add_argument("--society", default="{}", metavar="JSON", help="how it answers; docs/serving.md has the fields")
    flags.add_argument("--host", default=pod.everywhere(), help="address to listen on")
    flags.add_argument("--port", default="8080")
    flags.add_argument("--keys", default="", metavar="FOLDER", help="a file for each API key; empty: anybody may ask")
    flags.add_argument(
        "--tls-cert", default="", metavar="FILE", help="its certificate (PEM), read anew when it changes; then https"
    )
    flags.add_argument("--tls-key", default="", metavar="FILE", help="the certificate's key")
    flags.add_argument("--grace", default="0", help="seconds in which requests are still taken after SIGTERM")
    flags.add_argument("--facts", action="store_true", help="print what the run has to serve, as JSON, and end")
    return flags


def decode(given: argparse.Namespace) -> Assignment:
    """Decodes what all programs take. A run says itself what it is, and how far, where that is not given."""
    if given.spec is None:
        given.spec = immutable_spec_json(served.begun(open_store(given.store), given.run))
    assignment = program.pinned(program.decode(given))
    if assignment.iteration:
        return assignment
    return replace(assignment, iteration=served.chosen(assignment.store, assignment.run, assignment.spec))


def decode_asked(text: str) -> SocietySpec:
    """Decodes --society; BadInput naming the field that is wrong."""
    try:
        return decode_society(text)
    except UNREADABLE as error:
        raise BadInput(f"--society: {error}; docs/serving.md has the fields") from None


def listens(given: argparse.Namespace) -> Listening:
    """Decodes the flags about those who ask; BadInput for the first that cannot be read."""
    port, grace = program.number("--port", given.port, most=program.PORTS), program.number("--grace", given.grace, most=3600)
    keys = Keys(Path(given.keys)) if given.keys else None
    return Listening(given.host, port, keys, grace, _certificate(given.tls_cert, given.tls_key))


def _certificate(file: str, key: str) -> Certificate | None:
    if not (file or key):
        return None
    if not (file and key):
        raise BadInput("--tls-cert, --tls-key: one without the other; give both")
    try:
        return Certificate(Path(file), Path(key))
    except OSError as error:  # SSLError is one
        raise BadInput(f"--tls-cert {file}: {one_line(error)}; give a certificate and its key as PEM files") from None


def main() -> None:
    """Checks, then serves until SIGTERM or SIGINT. Exit code 0: told to end; 2: wrong input; 1: a fault that may pass."""
    given = parser().parse_args()
    try:
        assignment, spec, listening = decode(given), decode_asked(given.society), listens(given)
        if given.facts:
            print(served.facts(assignment.store, assignment.run, assignment.spec, assignment.iteration))
        elif not assignment.servers:
            raise BadInput("--server: missing; give NAME=http://HOST:PORT of the vLLM server that has the adapters")
        else:
            asyncio.run(serve(assignment, spec, listening))
    except BadInput as error:
        program.fail(given.summary, error, BAD_INPUT)
    except OSError as error:
        program.fail(given.summary, error, 1)


async def serve(assignment: Assignment, spec: SocietySpec, listening: Listening) -> None:
    """Listens at once, answers as soon as all agents have, and ends when what is under way is done."""
    names = tuple(assignment.servers)
    society = served.load(assignment.store, assignment.run, assignment.spec, assignment.iteration, names, spec)
    measured, ended = Measured(), asyncio.Event()
    kept = Kept(assignment.store, assignment.run, spec, measured)
    endpoint = Endpoint(spec, society.models, listening.keys, kept, measured, Admission(spec, measured))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(endpoint.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        async with asyncio.TaskGroup() as group:
            await _listen(runner, listening)
            always = [agents.answer(assignment, society, endpoint), kept.keep()]
            always += [listening.certificate.follow()] if listening.certificate else []
            beside = [group.create_task(each) for each in always]
            await ended.wait()
            await _finish(endpoint, listening.grace)
            for task in beside:
                task.cancel()
    except ExceptionGroup as failed:  # one cause is enough for the reader
        raise failed.exceptions[0] from None
    finally:
        await runner.cleanup()
        await kept.finish()


async def _listen(runner: web.AppRunner, listening: Listening) -> None:
    try:
        there = await asyncio.to_thread(_socket, listening.host, listening.port)
    except OSError as error:
        raise BadInput(pod.unheard(listening.host, listening.port, error)) from error
    context = listening.certificate.context if listening.certificate else None
    await web.SockSite(runner, there, ssl_context=context, backlog=BACKLOG).start()


def _socket(host: str, port: int) -> socket.socket:
    """Listens at the address; at :: for IPv4 as well, which asyncio would leave out: kubelets and Services come by either."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")


async def _finish(endpoint: Endpoint, grace: int) -> None:
    """Stops being ready; takes what still comes for a while, then waits for what is under way. Questions that wait to be kept do
    not: whoever told it to end may not wait for long answers."""
    endpoint.admission.ending = True
    await asyncio.gather(asyncio.sleep(grace), endpoint.kept.flush())
    await endpoint.admission.idle()


if __name__ == "__main__":
    program.without_torch()
    main()
