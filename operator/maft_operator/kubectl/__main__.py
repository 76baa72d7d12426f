"""The `kubectl-maft` command, which kubectl runs as `kubectl maft`."""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from maft.summaries import BAD_INPUT
from maft_operator import __version__, kubeconfig
from maft_operator.spec.schema import BadSpec

if TYPE_CHECKING:
    from maft_operator.kubectl.asked import Where

_HELP = """Runs of multiagent finetuning on the cluster of your kubeconfig, with your rights. Reads KUBECONFIG, contexts and their
namespaces as kubectl does; flags may stand before the command or after it."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # of a run or a namespace: it becomes a part of a path
TASKS = ("prepare", "preflight", "debate", "train", "evaluate", "diversity", "report", "export", "serve")  # of a run
COMPARED = ("compare",)  # of a comparison; all else is done by its runs
FAULT, INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code: 2 for wrong input and failed runs, 1 where the cluster does not answer."""
    arguments = parser().parse_args(argv)
    try:
        code = asyncio.run(_called(arguments))
    except BadSpec as error:
        code = _told(error, BAD_INPUT)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


def _told(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, as kubectl does."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message}; `{self.prog} -h` shows what it takes\n")


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    whole = _Parser(prog="kubectl maft", description=_HELP)
    whole.add_argument("--version", action="version", version=f"maft {__version__}")
    _common(whole, None, "")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, add, call, text in _COMMANDS:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {add.__doc__}")
        _common(command, argparse.SUPPRESS, argparse.SUPPRESS)
        add(command)
        command.set_defaults(call=call)
    return whole


def _common(command: argparse.ArgumentParser, namespace: str | None, context: str) -> None:
    command.add_argument("-n", "--namespace", default=namespace, metavar="NAMESPACE", help="of the runs [the context's]")
    command.add_argument("--context", default=context, metavar="NAME", help="of the kubeconfig [its present one]")


# --- what each takes ---


def _several(command: argparse.ArgumentParser) -> None:
    command.add_argument("-A", "--all-namespaces", action="store_true", help="those of all namespaces")
    command.add_argument("-l", "--selector", default="", metavar="LABELS", help="those with these labels only")
    command.add_argument("--kind", default="runs", choices=("runs", "comparisons", "societies"), help="what to list [runs]")


def _one(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="name of the run, or of the comparison")
    command.add_argument("--kind", default="runs", choices=("runs", "comparisons"), help="what the name is of [runs]")


def _list(command: argparse.ArgumentParser) -> None:
    """The table is the API server's, as that of `kubectl get maft`."""
    _several(command)
    command.add_argument("-o", "--output", choices=("wide", "name"), default="", help="more columns, or names alone")


def _watch(command: argparse.ArgumentParser) -> None:
    """With a name: until that run or comparison has ended; exit code 0 if it completed, 2 if it failed, with the reason."""
    command.add_argument("run", nargs="?", default="", metavar="NAME", help="this one only [all]")
    _several(command)
    command.add_argument("-o", "--output", choices=("wide",), default="", help="more columns")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def _logs(command: argparse.ArgumentParser) -> None:
    """Of the pods there are, oldest first; where none is left, what the bucket keeps, with your keys (the usual AWS places)."""
    _one(command)
    text = f"{', '.join(TASKS)}; of a comparison {', '.join(COMPARED)} [all tasks; serve: servers]"
    command.add_argument("--task", default="", choices=(*TASKS, *COMPARED), metavar="TASK", help=text)
    command.add_argument("--iteration", type=_count, metavar="N", help="of this iteration only")
    command.add_argument(
        "-f", "--follow", action="store_true", help="go on until the run has ended, each line after its pod's name"
    )
    command.add_argument("-c", "--container", default="", metavar="NAME", help="another container of these pods [the program's]")
    command.add_argument("--tail", type=_count, metavar="LINES", help="the last lines of each [all]")
    command.add_argument("-p", "--previous", action="store_true", help="of the containers' start before")
    command.add_argument("--kept", action="store_true", help="what the bucket keeps, also where pods are left")
    _secret(command)


def _report(command: argparse.ArgumentParser) -> None:
    """It is made at the end, of a comparison as its table's page; `maft report` with the store's URL makes one of an unfinished
    run."""
    _one(command)
    command.add_argument(
        "--to", type=Path, metavar="FOLDER", help="fetch it into this folder, with your keys (the usual AWS places)"
    )
    _secret(command)


def _ask(command: argparse.ArgumentParser) -> None:
    """The debate is shown as it goes, the answer last. A society that wants a key gets that of the variable MAFT_API_KEY."""
    command.add_argument("run", metavar="SOCIETY", help="name of the Society")
    command.add_argument("question", metavar="QUESTION")
    command.add_argument("--model", default="society", help="society, society/majority, society/generator-1, … [society]")
    command.add_argument("--secret", action="store_true", help="use a key of the Society's own Secret, if you may read it")


def _page(command: argparse.ArgumentParser) -> None:
    """Serves it to a browser of this machine until Ctrl-C; it shows what you may see."""
    command.add_argument("-A", "--all-namespaces", action="store_true", help="runs of all namespaces")
    command.add_argument("--port", type=int, default=8090, help="on the loopback address [8090]")


def _secret(command: argparse.ArgumentParser) -> None:
    command.add_argument("--secret", action="store_true", help="use the keys of the run's own Secret, if you may read it")


# --- what each does ---


async def _called(arguments: argparse.Namespace) -> int:
    try:
        from maft_operator.cluster.connection import NoCluster, connected
        from maft_operator.cluster.user_api import Unanswered, UserApi
        from maft_operator.kubectl.asked import KINDS, Where
    except ModuleNotFoundError as error:
        raise BadSpec(f"the package {error.name} is missing; pip install 'maft[operator]'") from None
    _checked(arguments)
    try:
        async with connected(in_cluster=False, context=arguments.context) as client:
            everywhere = getattr(arguments, "all_namespaces", False)
            namespace = "" if everywhere else arguments.namespace or kubeconfig.namespace(arguments.context)
            kind = KINDS[getattr(arguments, "kind", "runs")]
            code: int = await arguments.call(Where(UserApi(client), namespace, kind), arguments)
            return code
    except NoCluster as error:
        raise BadSpec(str(error)) from None
    except Unanswered as error:
        return _told(error, FAULT)


def _checked(arguments: argparse.Namespace) -> None:
    run = getattr(arguments, "run", "")
    for flag, name in (("RUN" if arguments.call is not _ask_society else "SOCIETY", run), ("-n", arguments.namespace or "")):
        if name and not _NAME.fullmatch(name):
            raise BadSpec(f"{flag} {name!r}: no name; expected small letters, digits and -")
    if run and getattr(arguments, "all_namespaces", False):
        raise BadSpec("-A: a run of a name is in one namespace; give it with -n")
    task, kind = getattr(arguments, "task", ""), getattr(arguments, "kind", "runs")
    if task and task not in tasks(kind):
        hint = "leave --kind out and name one of its runs" if kind == "comparisons" else "name one with --kind comparisons"
        raise BadSpec(f"--task {task}: no task of {kind}; {hint}")


def tasks(kind: str) -> Sequence[str]:
    """Lists the tasks that one of that kind has, as `--kind` calls it."""
    return COMPARED if kind == "comparisons" else TASKS


async def _show(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.kubectl import watch

    output = arguments.output
    return await watch.show(where, wide=output == "wide", selector=arguments.selector, names=output == "name")


async def _follow(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.kubectl import watch

    return await watch.follow(where, arguments.run, wide=arguments.output == "wide", selector=arguments.selector)


async def _copy_logs(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.kubectl import logs, stored

    a = arguments
    wanted = logs.Wanted(a.run, a.task, a.iteration, a.container, a.tail, a.previous)
    if a.follow and not a.kept:
        await logs.follow(where, wanted)
        return 0
    run = await where.run(a.run)
    if not a.kept and (there := await logs.logs_of(where, run, wanted)):
        await logs.copy(where, there, wanted)
        return 0
    place, store = f"{stored.prefix(run)}/logs/", stored.store(where, run)
    flags = ["--store", store, "--prefix", place, "--name", wanted.kept]
    flags += [] if a.tail is None else ["--tail", str(a.tail)]
    print(f"no pod is left of it; from {store.partition('?')[0]}/{place}:", file=sys.stderr, flush=True)
    return stored.fetch(flags, await stored.credentials(where, run) if a.secret else {})


async def _show_report(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.kubectl import stored

    run = await where.run(arguments.run)
    prefix = stored.report(where, run)
    if not arguments.to:
        print(stored.reported(run) or f"{stored.store(where, run).partition('?')[0]}/{prefix}index.html")
        return 0
    flags = ["--store", stored.store(where, run), "--prefix", prefix, "--to", str(arguments.to)]
    return stored.fetch(flags, await stored.credentials(where, run) if arguments.secret else {})


async def _ask_society(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.kubectl import ask

    question = ask.Question(arguments.question, arguments.model)
    return await ask.ask(where, arguments.run, question, arguments.context, secret=arguments.secret)


async def _serve_page(where: "Where", arguments: argparse.Namespace) -> int:
    from maft_operator.page.__main__ import serve

    try:
        await serve([where.namespace] if where.namespace else [], arguments.port, None, arguments.context)
    except (OSError, OverflowError) as error:
        raise BadSpec(f"--port {arguments.port}: {error}; choose another port") from None
    return 0


_COMMANDS: tuple[tuple[str, Any, Any, str], ...] = (
    ("list", _list, _show, "list runs, comparisons or societies: phase, progress, accuracy"),
    ("watch", _watch, _follow, "list runs, comparisons or societies and go on with every change"),
    ("logs", _logs, _copy_logs, "print the logs of a run's tasks, or of a comparison's"),
    ("report", _report, _show_report, "say where the report of a run or comparison lies, or fetch it"),
    ("ask", _ask, _ask_society, "ask a society a question"),
    ("page", _page, _serve_page, "show runs in a browser, with their curves and costs"),
)

if __name__ == "__main__":
    main()
