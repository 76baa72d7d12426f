"""`python -m maft_operator.page`: the live page, in a pod of the chart or on the machine of whoever looks, with their rights."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from maft.readable import Readable
from maft.summaries import BAD_INPUT
from maft_operator.cluster.connection import NoCluster, connected
from maft_operator.cluster.user_api import UserApi
from maft_operator.page import server
from maft_operator.page.reports import Reader
from maft_operator.page.server import LOOPBACK, Looked

PORT = 8090
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until a signal comes; wrong input is one line and exit code 2."""
    flags = argparse.ArgumentParser(prog="python -m maft_operator.page", description="Runs of a cluster as a page for a browser.")
    flags.add_argument("--namespace", action="append", default=[], help="runs of this one; may be repeated [all]")
    flags.add_argument("--port", type=int, default=PORT, help=f"of the page, on the loopback address alone [{PORT}]")
    flags.add_argument("--health-port", type=int, help="of /healthz, on all addresses [none]")
    flags.add_argument("--reader", default="", metavar="SOCKET", help="where maft.report.reader listens [reports are not read]")
    flags.add_argument("--endpoint", default="", help="of its S3 server [AWS]")
    flags.add_argument("--read", action="append", default=[], metavar="BUCKET[/PREFIX]", help="what it may read; may be repeated")
    flags.add_argument("--context", default="", help="of the kubeconfig [its present one; in a pod: the pod's account]")
    arguments = flags.parse_args(argv)
    readable = Readable(arguments.endpoint, tuple(arguments.read))
    reader = Reader(arguments.reader, readable) if arguments.reader else None
    try:
        asyncio.run(serve(arguments.namespace, arguments.port, arguments.health_port, arguments.context, reader))
    except (NoCluster, OSError, OverflowError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def _in_a_pod() -> bool:
    return _ACCOUNT.exists()


async def serve(namespaces: Sequence[str], port: int, health: int | None, context: str, reader: Reader | None = None) -> None:
    """Serves the page until a signal comes. reader: of reports that it shows itself; None: it shows none."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(connected(in_cluster=_in_a_pod() and not context, context=context))
        looked = Looked(UserApi(client), namespaces, reader=reader)
        if health is not None:
            await stack.enter_async_context(server.listening(server.health(), None, health))
        chosen = await stack.enter_async_context(server.listening(server.app(looked), LOOPBACK, port))
        print(f"http://localhost:{chosen}/", flush=True)
        await stop.wait()


if __name__ == "__main__":
    main()
