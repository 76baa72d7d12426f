"""Decides. A run becomes a graph of tasks and servers; the observed world becomes the next step. Pure: no clock, no I/O.

The same functions drive the cluster, this machine and the tests. A reconcile asks `step` again and again; nothing is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from maft_operator.spec.parse import EvaluationTask, Questions, Run, Spec, as_json

Kind = Literal["prepare", "debate", "train", "evaluate", "report", "compare", "diversity"]
Phase = Literal["Preparing", "Serving", "Debating", "Training", "Evaluating", "Reporting", "Suspended", "Complete", "Failed"]
BAD_INPUT = 2  # exit code of a program that will fail again
PORT = 8000  # of servers on a cluster, where each has an address of its own
Flags = tuple[str, ...]
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's choices for --max-lora-rank


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a program to its end. needs: tasks whose output it reads; servers: what it asks; gpus: its own."""

    name: str
    kind: Kind
    iteration: int
    flags: Flags
    needs: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """vLLM, as many processes as replicas."""

    name: str
    flags: Flags
    extra: Flags
    replicas: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything a run does. hand_over: servers make room before training starts (lifetime Phase). suspended: nothing may run."""

    tasks: tuple[Task, ...]
    servers: tuple[Server, ...]
    hand_over: bool
    backoff_limit: int
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class TaskState:
    """What became of a task: its last attempt, how many failed, and what the last failure said."""

    status: Literal["running", "succeeded", "failed"]
    failures: int = 0
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server that exists. failed: a replica ended or hung and has not been started again yet."""

    ready: bool
    failed: bool = False
    failures: int = 0
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """The world: what exists, by name."""

    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    servers: Mapping[str, ServerState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and what to tell people. Deleting comes before creating. culprit: the child that made the run fail."""

    delete: tuple[str, ...]
    create: tuple[Task | Server, ...]
    phase: Phase
    message: str = ""
    culprit: str = ""


# --- from a run to its graph ---


def graph(run: Run, store: str, *, suspended: bool = False) -> Graph:
    """All tasks and servers of a run whose objects lie at `store`."""
    spec = run.spec
    common = ("--store", store, "--run", run.key)
    servers = tuple(_server(run, common, name) for name in server_names(run))
    tasks = [_prepare(run, common)]
    if _evaluated(spec, 0):
        tasks.append(_debate(run, common, "evaluate", 0))
    for iteration in range(1, spec.iterations + 1):
        tasks.append(_debate(run, common, "debate", iteration))
        tasks += _train(run, common, iteration)
        if iteration % spec.evaluation.every == 0 or iteration == spec.iterations:
            tasks.append(_debate(run, common, "evaluate", iteration))
    societies = [t for t in tasks if t.kind == "evaluate" and spec.agents > 1 and not _alone(run, t.kind, t.iteration)]
    tasks += [_diversity(run, common, task) for task in societies if spec.evaluation.diversity]
    tasks.append(_report(run, common, tasks))
    return Graph(tuple(tasks), servers, spec.inference.lifetime == "Phase", spec.backoff_limit, suspended)


def name(run: Run, iteration: int, task: str) -> str:
    """Child names are made of nothing but the resource, so that creating twice is harmless."""
    return f"{run.name}-{iteration}-{task}"


def server_names(run: Run) -> tuple[str, ...]:
    """One server for all agents, or one each."""
    if run.spec.inference.topology == "Shared":
        return (f"{run.name}-server",)
    return tuple(f"{run.name}-server-{n}" for n in range(run.spec.agents))


def models(run: Run) -> range:
    """The agents that are trained: all, the one whose copies they are, or none."""
    return range(0 if not run.spec.iterations else 1 if run.recipe.one_model else run.spec.agents)


def train_names(run: Run, iteration: int) -> tuple[str, ...]:
    """One training task for all agents, or one each."""
    if run.spec.training.topology == "Shared":
        return (name(run, iteration, "train"),)
    return tuple(name(run, iteration, f"train-{n}") for n in models(run))


def _prepare(run: Run, common: Flags) -> Task:
    task, exam = run.spec.task, run.spec.exam
    flags: Flags = (*common, *_model(run.spec), "--spec", as_json(run.spec), "--kind", task.kind)
    flags += ("--source", task.source) if task.source else ()
    flags += ("--held-out-source", task.held_out_source) if task.held_out_source else ()
    flags += (*_kind(task), "--answer", task.answers, "--train", str(task.train), "--held-out", str(exam.held_out))
    flags += ("--probe", str(task.probe), "--task-seed", str(task.seed), "--operands", str(task.arithmetic.operands))
    flags += (f"--minimum={task.arithmetic.minimum}", f"--maximum={task.arithmetic.maximum}")
    if isinstance(exam, EvaluationTask):
        flags += ("--evaluation-kind", exam.kind, *_kind(exam, "evaluation-"), "--evaluation-answer", exam.answers)
        flags += ("--evaluation-source", exam.source) if exam.source else ()
        flags += ("--shots", str(exam.shots))
    return Task(name(run, 0, "prepare"), "prepare", 0, flags)


def _kind(task: Questions, prefix: str = "") -> Flags:
    """What only one kind of task has."""
    levels = task.levels if task.kind == "math" else ()
    return (*(f"--{prefix}level={level}" for level in levels), *(f"--{prefix}subject={subject}" for subject in task.subjects))


def _debate(run: Run, common: Flags, kind: Literal["debate", "evaluate"], iteration: int) -> Task:
    """Training questions are debated by last iteration's adapters, held-out questions by this one's."""
    spec = run.spec
    models_from = iteration - 1 if kind == "debate" else iteration
    needs = train_names(run, models_from) if models_from else (name(run, 0, "prepare"),)
    asked, alone = (spec.task if kind == "debate" else spec.exam), _alone(run, kind, iteration)
    flags: Flags = (*common, *_model(spec), *_rules(spec, asked, alone=alone))
    flags += ("--iteration", str(iteration), "--models-from", str(models_from))
    flags += ("--one-model",) if run.recipe.one_model and models_from else ()
    if kind == "debate":
        flags += ("--min-agreement", str(spec.debate.min_agreement), "--critic-mix", str(spec.training.critic_mix))
        flags += ("--examples", run.recipe.examples, *(("--pooled",) if run.recipe.one_model else ()))
        flags += (f"--prompt-hint={spec.debate.prompts.hint}",) if run.recipe.examples == "hinted" else ()
    return Task(name(run, iteration, kind), kind, iteration, flags, needs, server_names(run))


def _alone(run: Run, kind: Kind, iteration: int) -> bool:
    """Whether a trained model answers the held-out questions once, without debate."""
    return kind == "evaluate" and run.recipe.alone and iteration > 0


def _rules(spec: Spec, asked: Questions, *, alone: bool) -> Flags:
    debate, prompts = spec.debate, spec.debate.prompts
    flags: Flags = (
        "--agents",
        str(1 if alone else spec.agents),
        "--rounds",
        str(1 if alone else debate.rounds),
        "--mode",
        debate.mode,
        "--answer",
        asked.answers,
    )
    flags += () if debate.summarize else ("--no-summaries",)
    flags += () if debate.critics else ("--no-critics",)
    flags += ("--cooperative",) if debate.cooperative else ()
    flags += ("--temperature", str(debate.temperature), "--top-p", str(debate.top_p), "--max-tokens", str(debate.max_tokens))
    flags += ("--seed", str(spec.seed), f"--prompt-question={asked.prompt}", f"--prompt-summarize={prompts.summarize}")
    flags += (f"--prompt-revise={prompts.revise}", f"--prompt-concatenate={prompts.concatenate}")
    return (*flags, f"--prompt-cooperate={prompts.cooperate}")


def _train(run: Run, common: Flags, iteration: int) -> list[Task]:
    spec = run.spec
    names = train_names(run, iteration)
    per_task = [(n,) for n in models(run)] if len(names) == len(models(run)) else [tuple(models(run))]
    # Where servers make room for training, the held-out debate of the models they still have comes first.
    waits = spec.inference.lifetime == "Phase" and _evaluated(spec, iteration - 1)
    needs = (name(run, iteration, "debate"), *((name(run, iteration - 1, "evaluate"),) if waits else ()))
    return [
        Task(task, "train", iteration, (*common, *_training(spec, iteration, agents)), needs, gpus=spec.training.gpus)
        for task, agents in zip(names, per_task, strict=True)
    ]


def _evaluated(spec: Spec, iteration: int) -> bool:
    if iteration == 0:  # an untrained method has nothing else
        return bool(spec.evaluation.baselines) or spec.iterations == 0
    return iteration % spec.evaluation.every == 0 or iteration == spec.iterations


def _training(spec: Spec, iteration: int, agents: Iterable[int]) -> Flags:
    training, lora = spec.training, spec.training.lora
    flags: Flags = (*_model(spec), "--iteration", str(iteration))
    for agent in agents:
        flags += ("--agent", str(agent))
    flags += () if spec.debate.critics else ("--no-critics",)
    flags += ("--method", "dpo", "--beta", str(training.beta)) if training.method == "dpo" else ("--method", "sft")
    flags += ("--start-from", training.start_from, "--min-examples", str(training.min_examples), "--loss-on", training.loss_on)
    flags += ("--seed", str(spec.seed), "--rank", str(lora.rank), "--alpha", str(lora.alpha), "--dropout", str(lora.dropout))
    for module in lora.target_modules:
        flags += ("--target-module", module)
    flags += ("--learning-rate", str(training.learning_rate), "--warmup", str(training.warmup))
    flags += ("--weight-decay", str(training.weight_decay), "--epochs", str(training.epochs))
    return (*flags, "--batch-size", str(training.batch_size), "--batch-tokens", str(training.batch_tokens))


def _report(run: Run, common: Flags, tasks: Iterable[Task]) -> Task:
    needs = tuple(t.name for t in tasks if t.kind in ("evaluate", "train", "diversity"))
    return Task(name(run, run.spec.iterations, "report"), "report", run.spec.iterations, common, needs)


def _diversity(run: Run, common: Flags, evaluated: Task) -> Task:
    """Of the agents that played that evaluation; loads the models itself, as training does."""
    spec = run.spec
    flags: Flags = (*common, *_model(spec), "--iteration", str(evaluated.iteration), "--seed", str(spec.seed))
    flags += ("--questions", str(spec.evaluation.diversity), "--embedder", spec.evaluation.embedder)
    needs = (evaluated.name,)
    return Task(
        name(run, evaluated.iteration, "diversity"), "diversity", evaluated.iteration, flags, needs, gpus=spec.training.gpus
    )


def _model(spec: Spec) -> Flags:
    flags: Flags = ("--model", spec.model.source)
    flags += ("--revision", spec.model.revision) if spec.model.revision else ()
    return flags + (("--trust-remote-code",) if spec.model.trust_remote_code else ())


def _server(run: Run, common: Flags, server: str) -> Server:
    spec = run.spec
    roles = 2 if spec.debate.critics else 1
    together = max(1, roles * (len(models(run)) if spec.inference.topology == "Shared" else 1))  # vLLM wants room for one
    rank = next(rank for rank in _RANKS if rank >= spec.training.lora.rank)
    flags: Flags = (*common, *_model(spec), "--max-lora-rank", str(rank), "--max-loras", str(min(together, 16)))
    # Twice as many in memory: while new adapters arrive, the previous iteration's are still asked for.
    flags += ("--max-cpu-loras", str(2 * together))
    flags += ("--max-length", str(spec.model.max_length)) if spec.model.max_length else ()
    gpus = spec.inference.gpus
    extra = (*((f"--tensor-parallel-size={gpus}",) if gpus > 1 else ()), *spec.inference.extra_args)
    return Server(server, flags, extra, spec.inference.replicas, gpus)


def command(task: Task, urls: Mapping[str, Iterable[str]]) -> Flags:
    """The arguments after `python` that run a task; urls: of each replica of each server."""
    servers = tuple(f"--server={name}={url}" for name in task.servers for url in urls[name])
    return ("-m", f"maft.{task.kind}", *task.flags, *servers)


def serve(server: Server, *where: str) -> Flags:
    """The arguments after `python` that run a server; where: further flags of our own, such as --port."""
    return ("-m", "maft.serve", *server.flags, *where, *server.extra)


# --- from the world to the next step ---


def step(graph: Graph, observed: Observed) -> Step:
    """What to delete and create now, and the phase that people see."""
    everything = (*observed.servers, *(n for n, t in observed.tasks.items() if t.status == "running"))
    if failure := _failure(graph, observed):
        return Step(everything, (), "Failed", f"{failure[0]}: {failure[1]}", failure[0])
    unfinished = [t for t in graph.tasks if not _succeeded(observed, t.name)]
    if not unfinished:
        return Step(everything, (), "Complete")
    if graph.suspended:
        return Step(everything, (), "Suspended")
    runnable = [t for t in unfinished if all(_succeeded(observed, need) for need in t.needs)]
    wanted = _wanted(graph, runnable, unfinished)
    delete = tuple(name for name in observed.servers if name not in wanted)
    create: tuple[Task | Server, ...] = (
        *(s for s in graph.servers if s.name in wanted and (s.name not in observed.servers or observed.servers[s.name].failed)),
        *(t for t in runnable if _may_start(graph, t, observed)),
    )
    return Step(delete, create, _phase(runnable, observed))


def _succeeded(observed: Observed, task: str) -> bool:
    state = observed.tasks.get(task)
    return state is not None and state.status == "succeeded"


def _failure(graph: Graph, observed: Observed) -> tuple[str, str] | None:
    """The child that failed for good, and what it said."""
    for task in graph.tasks:
        state = observed.tasks.get(task.name)
        if state and state.status == "failed" and (state.exit_code == BAD_INPUT or state.failures > graph.backoff_limit):
            return task.name, state.message
    for server in graph.servers:
        found = observed.servers.get(server.name)
        if found and found.failed and (found.exit_code == BAD_INPUT or found.failures > graph.backoff_limit):
            return server.name, found.message
    return None


def _wanted(graph: Graph, runnable: Iterable[Task], unfinished: Iterable[Task]) -> set[str]:
    """Servers to have: those that something runnable asks, and with lifetime Run also those that something will ask."""
    runnable = list(runnable)
    if any(t.kind == "prepare" for t in runnable):
        return set()  # nothing expensive before the input is known to be good
    askers = runnable if graph.hand_over else unfinished
    return {server for task in askers for server in task.servers}


def _may_start(graph: Graph, task: Task, observed: Observed) -> bool:
    state = observed.tasks.get(task.name)
    if state and state.status != "failed":
        return False
    if graph.hand_over and task.kind in ("train", "diversity") and observed.servers:
        return False
    return all(server in observed.servers and observed.servers[server].ready for server in task.servers)


def _phase(runnable: Iterable[Task], observed: Observed) -> Phase:
    phases: dict[Kind, Phase] = {
        "prepare": "Preparing",
        "debate": "Debating",
        "train": "Training",
        "evaluate": "Evaluating",
        "report": "Reporting",
        "compare": "Reporting",
        "diversity": "Evaluating",
    }
    order: tuple[Kind, ...] = ("prepare", "debate", "evaluate", "train", "diversity", "report", "compare")
    tasks = sorted(runnable, key=lambda t: order.index(t.kind))
    first = tasks[0]
    waiting = any(s not in observed.servers or not observed.servers[s].ready for s in first.servers)
    return "Serving" if waiting else phases[first.kind]
