"""The command line of `maft clean`."""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from maft_operator.spec.schema import BadSpec

_HELP = """Lists what runs have left in a store that are gone: below NAMESPACE/NAME/ there is a run.json, and the cluster of the
kubeconfig has no such resource. With --yes it is deleted. Of a folder of `maft run`, and with --no-cluster, those alone go that
--run names. What maft has not written stays, and so do runs that were written to in the last days."""

_OTHERS = "runs of other clusters that write there look as if they were gone: no run says of which cluster it is"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # of a namespace


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("clean", help="list or delete what runs that are gone left in a store", description=_HELP)
    parser.add_argument("store", metavar="STORE", help="s3://bucket/prefix?endpoint=URL, or the folder of `maft run`")
    parser.add_argument("--run", action="append", default=[], metavar="NAMESPACE/NAME", help="this one only; may be repeated")
    parser.add_argument("-n", "--namespace", action="append", default=[], help="runs of this one only; may be repeated [all]")
    parser.add_argument("--days", type=float, default=30.0, help="keep what was written to within so many days [30]")
    parser.add_argument("--no-cluster", action="store_true", help="ask no cluster which runs are there; needs --run")
    parser.add_argument(
        "--only-this-cluster", action="store_true", help="no other cluster writes to STORE; --yes needs it or --run"
    )
    parser.add_argument("--yes", action="store_true", help="delete; without it nothing is changed")
    parser.set_defaults(call=_clean)


def _clean(arguments: argparse.Namespace) -> int:
    if not arguments.days >= 0:
        raise BadSpec(f"--days {arguments.days:g}: below 0; give a number of days")
    if wrong := [run for run in arguments.run if len(run.split("/")) != 2 or "" in run.split("/")]:
        raise BadSpec(f"--run {wrong[0]}: expected NAMESPACE/NAME")
    asks = arguments.store.startswith("s3://") and not arguments.no_cluster
    if asks and arguments.yes and not arguments.run and not arguments.only_this_cluster:
        raise BadSpec(f"--yes: {_OTHERS}; name runs with --run, or say --only-this-cluster")
    there = asyncio.run(_there(arguments.namespace)) if asks else None
    if there is not None:
        where = " there" if arguments.namespace else ""
        print(f"the cluster of the kubeconfig has {len(there)} {'run' if len(there) == 1 else 'runs'}{where}", flush=True)
        if not (arguments.run or arguments.only_this_cluster):
            print(f"warning: {arguments.store.partition('?')[0]}: {_OTHERS}", file=sys.stderr, flush=True)
    given = {"there": there, "named": arguments.run, "namespaces": arguments.namespace}
    command = [sys.executable, "-m", "maft.clean", "--store", arguments.store, "--days", str(arguments.days)]
    command += ["--yes"] if arguments.yes else []
    return _answering(command, given, _by_now if asks else None)


def _answering(command: Sequence[str], given: dict[str, Any], answer: Callable[[str], str] | None) -> int:
    """Runs the program and answers what it asks about each run before that goes."""
    asked, questions = os.pipe()
    flags = ["--questions", str(questions)] if answer else []
    program = subprocess.Popen([*command, *flags], stdin=subprocess.PIPE, pass_fds=[questions])
    os.close(questions)
    with contextlib.suppress(BrokenPipeError), program, open(asked) as runs:  # broken: it has ended, and said why
        assert program.stdin is not None
        program.stdin.write(json.dumps(given).encode() + b"\n")
        program.stdin.flush()
        if answer:
            for run in runs:
                program.stdin.write((answer(json.loads(run)) + "\n").encode())
                program.stdin.flush()
    return program.returncode


def _by_now(run: str) -> str:
    """Says why a run is not to go that was gone a while ago: it may have been made again."""
    namespace = run.partition("/")[0]
    if not _NAME.fullmatch(namespace):
        return ""
    try:
        return "its resource is there by now, or a society serves it" if run in asyncio.run(_there([namespace])) else ""
    except BadSpec as error:
        return " ".join(str(error).split())


async def _there(namespaces: Sequence[str]) -> list[str]:
    """Names the runs and comparisons that the cluster has, and runs that a society serves. Nothing is deleted that it could not be
    asked about."""
    try:
        from maft_operator.cluster import kinds
        from maft_operator.cluster.api import FAULTS, Api, Refused
        from maft_operator.cluster.connection import NoCluster, connected
        from maft_operator.cluster.metrics import Metrics
    except ModuleNotFoundError as error:
        raise BadSpec(f"the package {error.name} is missing; pip install 'maft[operator]', or --no-cluster") from None
    try:
        async with connected(in_cluster=False) as client:
            api = Api(client, Metrics())
            if not await api.served(kinds.RUN, namespaces[0] if namespaces else None):
                raise BadSpec("the cluster does not know MultiAgentFinetune; is it the right one? --no-cluster asks none")
            places = namespaces or (None,)
            lists = [await api.versions(kind, place) for kind in (kinds.RUN, kinds.COMPARISON) for place in places]
            societies = [one for place in places for one in await api.list(kinds.SOCIETY, place)]
            # A society that was made before its run was deleted still has the run's adapters to fetch when a pod of it starts.
            served = [f"{s['metadata']['namespace']}/{s['spec']['run']}" for s in societies]
            return [*("/".join(kinds.addressed(key)[1:]) for keys in lists for key in keys), *served]
    except (NoCluster, Refused, *FAULTS) as error:
        what = "; with -n NAMESPACE it need not be all" if isinstance(error, Refused) and not namespaces else ""
        raise BadSpec(f"the cluster does not say which runs there are: {error}{what}; --no-cluster with --run asks none") from None
