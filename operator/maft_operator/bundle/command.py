"""The command line of `maft bundle`."""

import argparse
import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maft_operator import kubeconfig
from maft_operator.bundle import archive
from maft_operator.bundle.archive import Bundle
from maft_operator.spec.schema import BadSpec

_HELP = """Collects what somebody who helps needs to know of a run into one archive: the resource, its objects, Events, the end
of its pods' logs, the operator's, what nodes offer; what you may not read is named in its manifest.json. Secrets are not read,
and what looks like one is taken out; look into the archive before you pass it on. With --dir: of a run of this machine."""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("bundle", help="collect what support needs of a run, without secrets", description=_HELP)
    parser.add_argument("run", metavar="NAME", help="of the run")
    parser.add_argument("-n", "--namespace", help="of the run [the kubeconfig's; with --dir: default]")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the archive [maft-bundle-NAMESPACE-NAME.tar.gz]")
    parser.add_argument("--operator-namespace", default="", metavar="NAMESPACE", help="of the operator [looked for in all]")
    parser.add_argument("--dir", type=Path, help="folder of `maft run`, for a run of this machine")
    parser.set_defaults(call=_bundle)


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # of a run or a namespace: it becomes a part of a path


def _bundle(arguments: argparse.Namespace) -> int:
    for flag, name in (
        ("NAME", arguments.run),
        ("-n", arguments.namespace),
        ("--operator-namespace", arguments.operator_namespace),
    ):
        if (name or flag == "NAME") and not _NAME.fullmatch(name):
            raise BadSpec(f"{flag} {name!r}: no name; expected small letters, digits and -")
    bundle = _local(arguments) if arguments.dir else asyncio.run(_remote(arguments))
    path = arguments.output or Path(f"maft-bundle-{bundle.run.replace('/', '-')}.tar.gz")
    archive.write(bundle, path, datetime.now(UTC))
    print(f"{path}: {len(bundle.parts)} files of {bundle.run}; look into it before you pass it on")
    for gap in bundle.missing:
        print(f"not in it: {gap.file}: {gap.why}")
    return 0


def _local(arguments: argparse.Namespace) -> Bundle:
    from maft_operator.bundle import local

    return local.collect(arguments.dir, arguments.namespace or "default", arguments.run)


async def _remote(arguments: argparse.Namespace) -> Bundle:
    try:
        from maft_operator.bundle import cluster
        from maft_operator.cluster.connection import NoCluster, connected
    except ModuleNotFoundError as error:
        raise BadSpec(f"the package {error.name} is missing; pip install 'maft[operator]'") from None
    try:
        async with connected(in_cluster=False) as client:
            namespace = arguments.namespace or kubeconfig.namespace()
            return await cluster.collect(client, namespace, arguments.run, operator=arguments.operator_namespace)
    except NoCluster as error:
        raise BadSpec(f"{error}") from None
