"""The `maft` command."""

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from maft.society_spec import SocietySpec, idle_limit
from maft.spec import immutable_spec_json
from maft.summaries import BAD_INPUT
from maft_operator import __version__, completion
from maft_operator.bundle import command as bundle
from maft_operator.clean import command as clean
from maft_operator.cluster import flags
from maft_operator.local import society_command, stored_run
from maft_operator.plan import accelerators, best, exports, shards
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph, Server, Task
from maft_operator.spec import comparison, files
from maft_operator.spec.parse import ARGUMENT_BYTES, Run, parse, store_url
from maft_operator.spec.schema import COMPARISON, KIND, SOCIETY, BadSpec, Json, checked


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one subcommand and exits with its code; wrong input is one line and exit code 2, Ctrl-C is 130."""
    arguments = _parser().parse_args(argv)
    try:
        code = arguments.call(arguments)
    except BadSpec as error:
        print(f"error: {error}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:  # before there was something to end
        code = society_command.INTERRUPTED
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maft",
        description="Multiagent finetuning: N copies of a model debate, learn from the majority, and debate again.",
        epilog="Start with: maft run examples/arithmetic.yaml",
    )
    parser.add_argument("--version", action="version", version=f"maft {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "run a resource on this machine", _RUN_HELP)
    _run_command(run)
    stored_run.add_export(run)
    _compare_command(_command(commands, "compare", _compare, "run many methods on the same questions", _COMPARE_HELP))
    _plan_command(
        _command(commands, "plan", _plan, "show the tasks and command lines of a resource, without running anything", _PLAN_HELP)
    )
    _command(commands, "validate", _validate, "check a resource as the API server would", _VALIDATE_HELP)
    flags.add(commands.add_parser("operator", help="run the operator of a cluster", description=flags.HELP))
    stored_run.add(commands)
    society_command.add(commands)
    bundle.add(commands)
    clean.add(commands)
    completion.add(commands, _parser)
    return parser


_RUN_HELP = """Runs a MultiAgentFinetune on this machine: vLLM servers, debates, training as processes, on its GPUs or the CPU.
Ctrl-C stops cleanly; the same command goes on from what is committed.
Exit code 0: complete, 2: failed (the reason is the last line), 130: interrupted."""
_COMPARE_HELP = """Runs methods and baselines of the paper on the same questions, base model and server, and prints their table.
Of a MultiAgentComparison the file itself says which methods, seeds and fields.
Ctrl-C stops cleanly; the same command goes on. What the base says once is not asked again."""
_PLAN_HELP = """Prints every task with what it waits for, every server, and the command line of each. Nothing is started.
With --preflight the checks that come first are made here, in a folder of their own: seconds, no GPU, no bucket."""
_VALIDATE_HELP = "Checks fields, bounds and rules with the schema of the CustomResourceDefinition; names the first mistake."
Commands = argparse._SubParsersAction  # argparse has no public name for it


def _command(
    commands: "Commands[argparse.ArgumentParser]", name: str, call: object, text: str, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=description)
    also = {"compare": " or MultiAgentComparison", "validate": ", MultiAgentComparison or Society"}
    also["plan"] = also["compare"]
    parser.add_argument("file", type=Path, metavar="FILE", help=f"a MultiAgentFinetune{also.get(name, '')} in YAML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the spec, such as iterations=2 or debate.rounds=3; may be repeated",
    )
    if call is not _validate:
        parser.add_argument(
            "--store", metavar="URL", help="file:///folder or s3://bucket/prefix?endpoint=URL [spec.storage, --dir]"
        )
        parser.add_argument(
            "--dir", type=Path, default=Path("runs"), help="folder for logs and, without a store, everything else [runs]"
        )
    parser.set_defaults(call=call)
    return parser


def _run_command(parser: argparse.ArgumentParser) -> None:
    # For tests and for other OpenAI-compatible servers; it gets the flags of `python -m maft.serve`.
    parser.add_argument("--serve", default=os.environ.get("MAFT_SERVE", ""), help=argparse.SUPPRESS)


def _plan_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preflight", action="store_true", help="draw the questions and try the model, as the run will: prompts, memory, cost"
    )


def _compare_command(parser: argparse.ArgumentParser) -> None:
    _run_command(parser)
    parser.add_argument("--methods", metavar="NAMES", help="some with commas between, or all; docs/methods.md [all]")
    parser.add_argument("--seeds", type=int, help="runs of each method [3]")
    parser.add_argument(
        "--precision", type=float, metavar="POINTS", help="refuse too few held-out questions for this standard error"
    )


def _compare(arguments: argparse.Namespace) -> int:
    from maft_operator.local.run import run_locally
    from maft_operator.plan import compare
    from maft_operator.plan.step import Observed
    from maft_operator.plan.trials import Trials

    resource = files.load(arguments.file, arguments.set, (KIND, COMPARISON))
    wanted = compare.read(resource, arguments.methods, arguments.seeds)
    group = wanted.group
    store = arguments.store or store_url(group.spec.storage) or str(arguments.dir)
    compare.enough(group, arguments.precision)
    console = Console()
    if group.spec.export:
        line = "warning: spec.export: `maft compare` sends nothing; `maft export RUN --to KIND=WHERE` does, run by run"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    trials = Trials(wanted.searched, store) if wanted.searched else None
    graph = trials.graph(Observed()) if trials else compare.graph(group, wanted.compared, store)
    serve = shlex.split(arguments.serve)
    return asyncio.run(run_locally(group, store, arguments.dir, console, serve=serve, graph=graph, trials=trials))


def _load(arguments: argparse.Namespace) -> tuple[Run, str]:
    run = parse(files.load(arguments.file, arguments.set))
    return run, arguments.store or store_url(run.spec.storage) or str(arguments.dir)


def _run(arguments: argparse.Namespace) -> int:
    from maft_operator.local import exports as local_exports
    from maft_operator.local.run import run_locally

    run, store = _load(arguments)
    targets = local_exports.wanted(arguments.export, run)
    if local_exports.refused(targets, store, run):
        return BAD_INPUT
    serve = shlex.split(arguments.serve)
    return asyncio.run(run_locally(run, store, arguments.dir, Console(), serve=serve, export=targets))


def _warnings(run: Run, graph: plan.Graph) -> list[str]:
    """Lists what the resource says and nothing of the run uses."""
    return [f"warning: {line}" for line in [plan.idle_gpus(graph, run)] if line]


def _plan(arguments: argparse.Namespace) -> int:
    resource = files.load(arguments.file, arguments.set, (KIND, COMPARISON))
    if resource.get("kind") == COMPARISON:
        one = comparison.read(resource)
        accelerators.check_all(one)
        print("\n".join(comparison.listed(one)))
        return 0
    run, store = _load(arguments)
    accelerators.check(run)
    if arguments.preflight:
        from maft_operator.local.preflight import tried

        for line in tried(run):
            print(f"# {line}", flush=True)
    graph = plan.graph(run, store)
    for line in _warnings(run, graph):
        print(f"# {line}")
    print(described(run, graph if run.spec.storage else shards.spread(graph)), end="")
    return 0


SHELL_VARIABLE = "SPEC"  # stands for the spec in what `maft plan` prints


def described(run: Run, graph: Graph) -> str:
    """Writes the whole plan as a shell takes it: the spec once, then a line for each server and task; equal resources give equal
    text."""
    names = ", ".join(f"{s.name} × {s.replicas}" for s in graph.servers)
    spec = immutable_spec_json(run.spec)
    indented = msgspec.json.format(spec, indent=1)
    spec = indented if len(indented.encode()) <= ARGUMENT_BYTES else spec
    urls = {s.name: [f"http://{s.name}:{plan.PORT}"] for s in graph.servers}
    lines = [f"# {run.key}: {len(graph.tasks)} tasks; servers {names} (lifetime {run.spec.inference.lifetime})"]
    lines += [f"{SHELL_VARIABLE}={shlex.quote(spec)}", ""]
    # What has a bucket of its own is for a cluster, which is asked for one GPU where the spec leaves it open.
    servers = [plan.on_cluster(server) if run.spec.storage else server for server in graph.servers]
    tasks = [plan.on_cluster(task) if run.spec.storage else task for task in graph.tasks]
    for server in servers:
        line = plan.serve(server, f"--port={plan.PORT}", spec=f"${SHELL_VARIABLE}")
        lines.append(f"{_shown(line)}  # server {server.name}{_open(server)}")
    for task in tasks:
        waits = f", after {', '.join(task.needs)}" if task.needs else ""
        asks = f", asks {', '.join(task.servers)}" if task.servers else ""
        line = plan.command(task, urls, spec=f"${SHELL_VARIABLE}")
        lines.append(f"{_shown(line)}  # task {task.name}{waits}{asks}{_open(task)}{_together(task)}{_perhaps(task)}")
    lines += [_beside(exports.last(graph, target)) for target in run.spec.export]
    return "\n".join(lines) + "\n"


def _beside(task: Task) -> str:
    when = "after each evaluated iteration and at the end, beside the run"
    return f"{_shown(plan.command(task, {}))}  # export, {when}"


def _perhaps(task: Task) -> str:
    return f", if iteration {task.iteration} is the best" if best.of_the_best(task) else ""


def _open(item: Task | Server) -> str:
    return ", on the GPUs there are or the CPU" if item.gpus is None else ""


def _together(task: Task) -> str:
    if task.nodes > 1:
        return f", in {task.nodes} pods together"
    return f", in {task.programs} pods, each with a part of the questions" if task.programs > 1 and task.shard is None else ""


def _shown(command: Sequence[str]) -> str:
    """A command line that a shell takes; the variable stays one."""
    quoted = (f'"{part}"' if part == f"--spec=${SHELL_VARIABLE}" else shlex.quote(part) for part in command)
    return " ".join(["python", *quoted])


def _validate(arguments: argparse.Namespace) -> int:
    resource = files.load(arguments.file, arguments.set, (KIND, COMPARISON, SOCIETY))
    if resource.get("kind") == SOCIETY:
        return _validated_society(arguments.file, checked(resource, SOCIETY))
    if resource.get("kind") == COMPARISON:
        one = comparison.read(resource)
        accelerators.check_all(one)
        print(f"{arguments.file}: {one.template.key}, a comparison of {comparison.number(one)}, is valid")
        return 0
    run = parse(resource)
    accelerators.check(run)
    print(f"{arguments.file}: {run.key} is valid")
    for line in _warnings(run, plan.graph(run, "")):
        print(line)
    return 0


def _validated_society(file: Path, resource: Json) -> int:
    metadata, spec = resource["metadata"], resource["spec"]
    print(f"{file}: {metadata.get('namespace') or 'default'}/{metadata['name']}, a society, is valid")
    if idle := idle_limit(msgspec.convert(spec, SocietySpec), keys="apiKeysSecret" in spec):
        print(f"warning: spec.{idle} (spec.apiKeysSecret names keys)")
    return 0


if __name__ == "__main__":
    main()
