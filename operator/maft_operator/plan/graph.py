"""A run as a graph of tasks and servers: what there is to do, in which order, and the command line of each. Pure.

Fields say what a task is; they are written out as flags last, and nothing reads a flag back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import msgspec

from maft.spec import Compared, ExportSpec, RunSpec, immutable_spec_json, report_flags
from maft.stopping import Decision
from maft_operator.spec.parse import Run

ProgramName = Literal["prepare", "preflight", "debate", "train", "evaluate", "report", "compare", "diversity", "export"]
PORT = 8000  # of servers on a cluster, where each has an address of its own
Flags = tuple[str, ...]
# What a program's command line has beside store and run; a test feeds every one to the program's own parser.
_READS_SPEC: tuple[ProgramName, ...] = ("prepare", "preflight", "debate", "train", "evaluate", "diversity")
_DEBATES: tuple[ProgramName, ...] = ("debate", "evaluate")
_ON_A_DEVICE: tuple[ProgramName, ...] = ("train", "diversity")
_OF_AN_ITERATION: tuple[ProgramName, ...] = ("debate", "train", "evaluate", "diversity")


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a program to its end."""

    name: str
    kind: ProgramName
    run: Run
    store: str
    """URL of the place where the objects of all runs lie."""
    iteration: int
    needs: tuple[str, ...] = ()
    """Tasks whose output it reads."""
    servers: tuple[str, ...] = ()
    """Servers that it asks."""
    gpus: int | None = 0
    """Its own; None: what is there."""
    nodes: int = 1
    """Pods that work at it together, each with so many GPUs."""
    agents: tuple[int, ...] = ()
    """The agents that it trains."""
    group: str = ""
    """NAMESPACE/NAME of the comparison whose questions, servers and calls it shares."""
    compared: tuple[Compared, ...] = ()
    """The runs that it compares."""
    shard: int | None = None
    """Which of its programs this is; None: all of them, or the only one."""
    validates: bool = False
    """It debates the validation questions in place of the held-out ones."""
    export: ExportSpec | None = None
    """The target that gets what the run has made."""

    @property
    def programs(self) -> int:
        """Counts the programs that share its questions; each of them runs to its end."""
        return self.run.spec.debate.shards if self.kind in _DEBATES else 1


@dataclass(frozen=True, slots=True)
class Server:
    """vLLM, as many processes as replicas."""

    name: str
    run: Run
    store: str
    adapters: int
    """Adapters that are asked for at a time."""
    gpus: int | None = None
    """Of each replica; None: what is there."""
    agent: int | None = None
    """Whose base it serves, where agents have several; None: the spec's model."""

    @property
    def replicas(self) -> int:
        """Counts the processes that serve the same."""
        return self.run.spec.inference.replicas


_Item = TypeVar("_Item", Task, Server)


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything a run does."""

    tasks: tuple[Task, ...]
    servers: tuple[Server, ...]
    servers_release_gpus: bool
    """Servers make room before training starts (lifetime Phase)."""
    backoff_limit: int
    suspended: bool = False
    """Nothing may run."""
    patience: int = 0
    """Seconds that servers may wait for nodes while others of the run hold some; 0: for ever."""
    held: bool = False
    """Servers stay away for a while, but for those that somebody asks."""
    spent: str = ""
    """Which budget is spent, in words: nothing goes on."""
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    """By key of a run: what its validation questions have decided (best.py)."""

    @property
    def last(self) -> Task:
        """Returns the task that everything leads to: the report, or the table of a comparison."""
        return self.tasks[-1]

    @property
    def askers(self) -> frozenset[str]:
        """Names the tasks that ask servers."""
        return frozenset(task.name for task in self.tasks if task.servers)


def graph(run: Run, store: str, *, suspended: bool = False, held: bool = False, spent: str = "") -> Graph:
    """Plans all tasks and servers of a run whose objects lie at `store`."""
    spec = run.spec
    servers = tuple(
        Server(name, run, store, adapters(run), spec.inference.gpus, agent=n if spec.has_own_model(n) else None)
        for n, name in enumerate(server_names(run))
    )
    tasks = checks(run, store)
    if spec.evaluated(0):
        tasks.append(_debate(run, store, "evaluate", 0))
    for iteration in range(1, spec.iterations + 1):
        tasks.append(_debate(run, store, "debate", iteration))
        tasks += _train(run, store, iteration)
        tasks += _evaluations(run, store, iteration)
    held_out = [task for task in tasks if task.kind == "evaluate" and not task.validates]
    tasks += [_diversity(task) for task in held_out if _has_a_society(spec, task.iteration)]
    tasks.append(_report(run, store, tasks))
    return Graph(
        tuple(tasks),
        servers,
        spec.inference.lifetime == "Phase",
        spec.backoff_limit,
        suspended,
        patience=spec.inference.placement_seconds,
        held=held,
        spent=spent,
    )


def task_name(run: Run, iteration: int, task: str) -> str:
    """Names a task by nothing but the resource, so that creating it twice is harmless."""
    return f"{run.name}-{iteration}-{task}"


def checks(run: Run, store: str) -> list[Task]:
    """Plans what comes before anything expensive: drawing the questions, then trying the model, which all others wait for.

    The model is tried on random weights and on the CPU, also where training has GPUs."""
    prepare = Task(task_name(run, 0, "prepare"), "prepare", run, store, 0, group=run.group)
    return [prepare, Task(task_name(run, 0, "preflight"), "preflight", run, store, 0, (prepare.name,))]


def server_names(run: Run) -> tuple[str, ...]:
    """Names one server for all agents, or one each."""
    if run.spec.inference.topology == "Shared":
        return (f"{run.name}-server",)
    return tuple(f"{run.name}-server-{n}" for n in range(run.spec.agents))


def train_tasks(run: Run, iteration: int) -> dict[str, tuple[int, ...]]:
    """Lists training tasks by name, with their agents: one task for all of them, or one each."""
    agents = tuple(run.spec.trained_agents)
    if run.spec.training.topology == "Shared":
        return {task_name(run, iteration, "train"): agents}
    return {task_name(run, iteration, f"train-{n}"): (n,) for n in agents}


def _debate(run: Run, store: str, kind: Literal["debate", "evaluate"], iteration: int) -> Task:
    """Training questions are debated by last iteration's adapters, held-out questions by this one's."""
    models_from = iteration - 1 if kind == "debate" else iteration
    needs = tuple(train_tasks(run, models_from)) if models_from else (task_name(run, 0, "preflight"),)
    if kind == "debate" and run.spec.stop_when.patience:  # whether there is another iteration is decided first
        needs += _validation_before(run, iteration)
    return Task(task_name(run, iteration, kind), kind, run, store, iteration, needs, server_names(run), group=run.group)


def _evaluations(run: Run, store: str, iteration: int) -> list[Task]:
    """The debates that measure an iteration. Where validation questions choose among iterations, held-out ones are for one of
    them alone; until it is known, each may be it (best.py)."""
    if not run.spec.evaluated(iteration):
        return []
    held_out = _debate(run, store, "evaluate", iteration)
    if not run.spec.validated(iteration):
        return [held_out]
    needs = (*held_out.needs, *_validation_before(run, iteration))
    return [replace(held_out, name=task_name(run, iteration, "validate"), needs=needs, validates=True), held_out]


def _validation_before(run: Run, iteration: int) -> tuple[str, ...]:
    """The last validation before that iteration: the next one is compared with it."""
    before = [i for i in range(1, iteration) if run.spec.validated(i)][-1:]
    return tuple(task_name(run, i, "validate") for i in before)


def _train(run: Run, store: str, iteration: int) -> list[Task]:
    # Where servers make room for training, the held-out debate of the models they still have comes first.
    waits = run.spec.inference.lifetime == "Phase" and run.spec.evaluated(iteration - 1)
    measured = "validate" if run.spec.validated(iteration - 1) else "evaluate"
    before = (task_name(run, iteration - 1, measured),) if waits else ()
    needs = (task_name(run, iteration, "debate"), *before)
    return [
        Task(
            name,
            "train",
            run,
            store,
            iteration,
            needs,
            gpus=_training_gpus(run, agents),
            nodes=run.spec.training.nodes,
            agents=agents,
        )
        for name, agents in train_tasks(run, iteration).items()
    ]


def _training_gpus(run: Run, agents: tuple[int, ...]) -> int | None:
    """GPUs for one task: what was asked for, or as many as a method that trains less has adapters for."""
    asked, together = run.spec.training.gpus, run.spec.training.parallelism == "Sharded"
    return asked if asked is None or together else min(asked, adapters_of(run, agents))


def idle_gpus(graph: Graph, run: Run) -> str:
    """Writes in a line that no task of the run uses as many GPUs as training.gpus says; empty where one does."""
    asked, used = run.spec.training.gpus or 0, max((task.gpus or 0 for task in graph.tasks), default=0)
    if used >= asked:
        return ""
    how_many, instead = (f"more than {used}", f"set it to {used}") if used else ("one", "leave it out")
    return f"spec.training.gpus: {asked}, and no task of method {run.spec.method} uses {how_many}; {instead}"


def adapters_of(run: Run, agents: tuple[int, ...]) -> int:
    """Counts the adapters of those agents."""
    return len(agents) * (2 if run.spec.debate.critics else 1)


def _has_a_society(spec: RunSpec, iteration: int) -> bool:
    """Whether several agents play that evaluation, and how far they are apart is asked for."""
    return spec.evaluation.diversity > 0 and spec.agents > 1 and not spec.answers_alone(iteration)


def _diversity(evaluated: Task) -> Task:
    """Of the agents that played that evaluation; loads the models itself, as training does."""
    run, iteration = evaluated.run, evaluated.iteration
    name, needs, asked = task_name(run, iteration, "diversity"), (evaluated.name,), run.spec.training.gpus
    return Task(name, "diversity", run, evaluated.store, iteration, needs, gpus=None if asked is None else min(asked, 1))


def _report(run: Run, store: str, tasks: Iterable[Task]) -> Task:
    needs = tuple(t.name for t in tasks if t.kind in ("evaluate", "train", "diversity"))
    return Task(task_name(run, run.spec.iterations, "report"), "report", run, store, run.spec.iterations, needs)


def adapters(run: Run) -> int:
    """Counts the adapters that one server is asked for at a time; vLLM wants room for one at least."""
    agents = tuple(run.spec.trained_agents) if run.spec.inference.topology == "Shared" else (0,)
    return max(1, adapters_of(run, agents))


def on_a_device(item: Task | Server) -> bool:
    """Tells whether it loads the model, on the GPUs or the CPU that the spec says."""
    return isinstance(item, Server) or item.kind in _ON_A_DEVICE


def on_cluster(item: _Item) -> _Item:
    """Decides what the spec leaves open: on a cluster one GPU is asked for, and the program is told so."""
    return replace(item, gpus=1) if item.gpus is None else item


# --- written out ---


def command(task: Task, urls: Mapping[str, Iterable[str]], spec: str | None = None) -> Flags:
    """Writes the arguments after `python` that run a task. urls: of each replica of each server; spec: in place of the run's
    own."""
    flags = [f"--store={task.store}", f"--run={task.run.key}"]
    if task.kind in _READS_SPEC:
        flags.append(f"--spec={immutable_spec_json(task.run.spec) if spec is None else spec}")
    if task.kind in _OF_AN_ITERATION:
        flags.append(f"--iteration={task.iteration}")
    flags += [f"--agent={agent}" for agent in task.agents]
    flags += _gpus(task) if on_a_device(task) else []
    flags += [] if task.shard is None else [f"--shard={task.shard}"]
    flags += ["--part=validation"] if task.validates else []
    flags += [f"--group={task.group}"] if task.group else []
    flags += [f"--compared={msgspec.json.encode(task.compared).decode()}"] if task.compared else []
    flags += _target(task.export) if task.export else []
    flags += [f"--server={name}={url}" for name in task.servers for url in urls[name]]
    return ("-m", f"maft.{task.kind}", *flags)


def serve(server: Server, *where: str, spec: str | None = None) -> Flags:
    """Writes the arguments after `python` that run a server. where: further flags, such as --port; spec: in place of the run's
    own."""
    return ("-m", "maft.serve", *serve_flags(server, *where, spec=spec))


def serve_flags(server: Server, *where: str, spec: str | None = None) -> Flags:
    """Writes the flags alone, for a server that is started by another command."""
    text = immutable_spec_json(server.run.spec) if spec is None else spec
    flags = (f"--store={server.store}", f"--run={server.run.key}", f"--spec={text}", f"--adapters={server.adapters}")
    own = () if server.agent is None else (f"--agent={server.agent}",)
    return (*flags, *own, *_gpus(server), *where)


def _target(export: ExportSpec) -> list[str]:
    license_ = [f"--license={export.license}"] if export.license else []
    return [f"--to={export.target}", *license_, *report_flags(export.report)]


def _gpus(item: Task | Server) -> list[str]:
    return [] if item.gpus is None else [f"--gpus={item.gpus}"]
