"""`python -m maft.report.reader`: files of reports for the live page, by a Unix socket, with a key that it alone has.

In: the path /BUCKET/KEY of a file. Out: its bytes, with headers under which a browser runs none but the scripts of this release,
and these in no page's origin: what lies in a bucket was made in a tenant's pod. What is outside of --read is not asked for.
"""

import argparse
import asyncio
import functools
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlencode

from aiohttp import web

from maft.errors import BadInput, one_line
from maft.readable import Readable, is_place
from maft.report.scripts import DEBATES, THEME, packaged, sha256
from maft.store.base import Missing, Store
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT

LARGEST = 32 << 20  # bytes of a file: debates in a page are cut off at 8 MB, charts and tables come beside them
AT_A_TIME = 2  # files, each of which is held as a whole until the last of it is sent
_TYPES = {"html": "text/html", "json": "application/json", "csv": "text/csv", "md": "text/plain", "txt": "text/plain"}
_SCRIPTS = " ".join(f"'{sha256(packaged(name))}'" for name in (THEME, DEBATES))
POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    f"frame-ancestors 'none'; script-src {_SCRIPTS}"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def main() -> None:
    """Serves until a signal comes; wrong input is one line and exit code 2."""
    arguments = _flags().parse_args()
    try:
        if wrong := [place for place in arguments.read if not is_place(place)]:
            raise BadInput(f"--read {wrong[0]}: expected BUCKET or BUCKET/PREFIX, without empty parts, . and ..")
        readable = Readable(arguments.endpoint, tuple(arguments.read))
        asyncio.run(_serve(app(readable, arguments.region), arguments.socket))
    except (BadInput, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="python -m maft.report.reader", description="Reads files of reports for the live page.")
    flags.add_argument("--socket", required=True, help="the Unix socket to listen on")
    flags.add_argument("--endpoint", default="", help="of the S3 server [AWS]")
    flags.add_argument("--region", default="", help="of the buckets")
    flags.add_argument("--read", action="append", required=True, metavar="BUCKET[/PREFIX]", help="may be read; may be repeated")
    return flags


async def _serve(made: web.Application, socket: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(made, access_log=None, handle_signals=False)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, socket).start()
        await stop.wait()


def app(readable: Readable, region: str) -> web.Application:
    """Makes the server: files of reports, and nothing else."""
    room = asyncio.Semaphore(AT_A_TIME)

    @functools.cache
    def bucket(name: str) -> Store:
        options = {name: value for name, value in (("endpoint", readable.endpoint), ("region", region)) if value}
        return open_store(f"s3://{name}" + (f"?{urlencode(options)}" if options else "")).impatient()

    async def file(request: web.Request) -> web.Response:
        path = request.match_info["path"]
        if not readable.allows(path):
            return _refused(404, "no file of a report that may be read")
        async with room:
            made = await asyncio.to_thread(answer, path, bucket)
            await made.prepare(request)
            await made.write_eof()
            return made

    made = web.Application()
    made.add_routes([web.get("/{path:.+}", file, allow_head=False)])
    return made


def answer(path: str, bucket: Callable[[str], Store]) -> web.Response:
    """Reads one file. Why it cannot is said in the log: the words are for whoever gave the key."""
    name, _, key = path.partition("/")
    try:
        data = bucket(name).read_part(key, 0, LARGEST + 1)
    except Missing:
        return _refused(404, "there is no such file: the run has not written it, or it was deleted")
    except (BadInput, OSError) as error:
        print(f"s3://{path}: {one_line(error)}", file=sys.stderr, flush=True)
        return _refused(502, "the page's key does not reach it; the log of its container `reports` says why")
    if len(data) > LARGEST:
        return _refused(502, f"more than {LARGEST >> 20} MiB; fetch it with kubectl maft report")
    return web.Response(body=data, content_type=_TYPES[key.rpartition(".")[2]], charset="utf-8", headers=HEADERS)


def _refused(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=f"{why}\n", headers=HEADERS)


if __name__ == "__main__":
    main()
