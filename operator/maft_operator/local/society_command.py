"""The command lines of `maft serve` and `maft ask`."""

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from maft.society_spec import SocietySpec, idle_limit
from maft_operator.local.place import HELP, parse
from maft_operator.spec import files
from maft_operator.spec.schema import GROUP, SOCIETY, VERSION, BadSpec, checked

if TYPE_CHECKING:  # what this imports is an extra, and `maft -h` has to do without it
    from maft_operator.local.society import Wanted

_SERVE = """Serves the finetuned agents of a run behind one OpenAI-compatible URL on this machine, until Ctrl-C. Models: society
(they debate, and vote), society/majority (they vote), society/generator-1 and so on (one agent).
Example: maft serve runs/default/arithmetic"""
_ASK = """Asks the society of a run one question, shows the debate as it goes, and says the answer last. Without --url the server
and the society are started for it, and ended. Example: maft ask runs/default/arithmetic "What is 7+3*4?"
A society that wants an API key gets that of the variable MAFT_API_KEY."""
INTERRUPTED = 130
MOST_GPUS = 8  # of a server, as in inference.gpus


def add(commands: Any) -> None:
    """Adds both subcommands."""
    serve = commands.add_parser("serve", help="serve the finetuned agents of a run on this machine", description=_SERVE)
    serve.add_argument("run", metavar="RUN", help=HELP)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1: this machine alone]")
    serve.add_argument("--port", type=int, default=8080, help="[8080]")
    serve.add_argument("--keys", default="", metavar="FOLDER", help="a file for each API key [anybody may ask]")
    serve.add_argument(
        "--tls-cert", default="", metavar="FILE", help="a certificate (PEM), read anew when it changes: https [http]"
    )
    serve.add_argument("--tls-key", default="", metavar="FILE", help="its key")
    serve.set_defaults(call=_serve)
    ask = commands.add_parser("ask", help="ask the society of a run a question", description=_ASK)
    ask.add_argument("run", metavar="RUN", nargs="?", help="as of maft serve; not with --url")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument("--url", default="", help="of a society that runs, such as http://127.0.0.1:8080")
    ask.add_argument("--model", default="society", help="[society]")
    ask.set_defaults(call=_ask)
    for parser in (serve, ask):
        parser.add_argument(
            "--iteration", type=int, default=0, help="whose adapters answer [the best, else the last that has all of them]"
        )
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="of the society, such as mode=fast; docs/serving.md"
        )
        parser.add_argument("--gpus", type=int, help="of the server; 0: the CPU [as the run had, where they are here]")
        parser.add_argument("--dir", type=Path, default=Path("runs"), help="folder for logs, where the run lies in a bucket [runs]")
        parser.add_argument("--serve", default=os.environ.get("MAFT_SERVE", ""), help=argparse.SUPPRESS)


def _serve(arguments: argparse.Namespace) -> int:
    async def hold(society: Any) -> None:
        print(f"Ready: {society.url}/v1  (models: {', '.join(society.known.models)}); Ctrl-C ends it", flush=True)
        await society.watch()

    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise BadSpec("--tls-cert, --tls-key: one without the other; give both")
    tls = (arguments.tls_cert, arguments.tls_key) if arguments.tls_cert else None
    wanted = _wanted(arguments, arguments.host, arguments.port, arguments.keys, tls)
    if idle := idle_limit(wanted.society, keys=bool(wanted.keys)):
        print(f"warning: --set {idle} (--keys names them)", file=sys.stderr, flush=True)
    return _with_society(wanted, hold)


def _ask(arguments: argparse.Namespace) -> int:
    from maft_operator.local.ask import Unanswered, ask

    async def once(url: str) -> None:
        await ask(
            url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1"),
            arguments.question,
            arguments.model,
            lambda line: print(line, flush=True),
        )

    async def asked(society: Any) -> None:
        await once(society.url)

    _one_place(arguments)
    try:
        if not arguments.url:
            return _with_society(_wanted(arguments), asked)
        return _until_interrupted(once(arguments.url))
    except Unanswered as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets without an end, a port that is none
        return False


def _one_place(arguments: argparse.Namespace) -> None:
    """Raises BadSpec unless exactly one society is named, and the question is one."""
    run, url, question = arguments.run, arguments.url, arguments.question
    if not (run or url):
        raise BadSpec('RUN, QUESTION: one is missing; `maft ask RUN "question"`, or `maft ask --url URL "question"`')
    if run and url:
        raise BadSpec(f"RUN {run}: not with --url, whose society answers; leave one of them out")
    for flag, given in (("set", arguments.set), ("iteration", arguments.iteration), ("gpus", arguments.gpus is not None)):
        if url and given:
            raise BadSpec(f"--{flag}: not with --url; it is for the society's own start, see `maft serve -h`")
    if url and not _is_url(url):
        raise BadSpec(f"--url {url}: expected http://HOST:PORT or https://HOST:PORT, as `maft serve` prints it")
    if not question.strip():
        raise BadSpec("QUESTION: is empty; ask something")


def _wanted(
    arguments: argparse.Namespace, host: str = "127.0.0.1", port: int = 0, keys: str = "", tls: tuple[str, str] | None = None
) -> "Wanted":
    """Reads what is to be started."""
    from maft_operator.local import society

    _within("port", port, 65535)
    _within("gpus", arguments.gpus or 0, MOST_GPUS)
    place = parse(arguments.run)
    return society.Wanted(
        place,
        arguments.iteration,
        fields(arguments.set),
        society.folder(place, arguments.dir),
        host,
        port,
        keys,
        tls,
        arguments.gpus,
        shlex.split(arguments.serve),
    )


def _with_society(wanted: "Wanted", use: Callable[[Any], Coroutine[Any, Any, None]]) -> int:
    """Starts the society, uses it, and ends it."""
    from maft_operator.local import society

    known = society.facts(wanted)

    async def all_() -> None:
        async with society.running(wanted, known, lambda line: print(line, file=sys.stderr, flush=True)) as started:
            await use(started)

    try:
        return _until_interrupted(all_())
    except society.Ended as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code if error.code > 0 else 1


def _within(flag: str, value: int, most: int) -> None:
    """Raises BadSpec before a server is started whose first word it would be."""
    if not 0 <= value <= most:
        raise BadSpec(f"--{flag} {value}: expected a whole number from 0 to {most}")


def fields(settings: list[str]) -> SocietySpec:
    """Reads `--set KEY=VALUE`; BadSpec for a field that is none, or a value that does not fit."""
    given: dict[str, Any] = {}
    for setting in settings:
        files.change({"spec": given}, setting)
    known = SocietySpec.__struct_encode_fields__
    for name in given:
        if name not in known:
            raise BadSpec(f"--set {name}: no field of a society; there are {', '.join(known)}")
    head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": SOCIETY, "metadata": {"name": "asked"}}
    try:
        checked({**head, "spec": {"run": "asked", **given}}, SOCIETY)  # in a cluster's words
    except BadSpec as error:
        raise BadSpec(f"--set {str(error).removeprefix('spec.')}") from None
    return msgspec.convert(given, SocietySpec)


def _until_interrupted(work: Coroutine[Any, Any, None]) -> int:
    """Runs it to its end, or until Ctrl-C or SIGTERM, which end it in order."""

    async def run() -> int:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
            return 0
        return INTERRUPTED

    return asyncio.run(run())
