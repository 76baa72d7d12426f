"""`maft compare`: many methods on the same questions and the same base, as one graph. Pure.

On one machine the runs go one after the other behind one server; comparison.py has the same runs on a cluster. What the base model
said once is not asked again (`--group`), so methods that begin alike share their first answers, or their whole first debate.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from maft.spec import RunSpec
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph, Server, Task
from maft_operator.spec import comparison
from maft_operator.spec.comparison import MOST_RUNS, Comparison, rows, run_spec
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import Run, parse
from maft_operator.spec.schema import COMPARISON, BadSpec


def chosen(text: str) -> tuple[str, ...]:
    """Reads which methods `--methods` names, in the order of the table; BadSpec for others."""
    if text == "all":
        return tuple(METHODS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in METHODS:
            raise BadSpec(f"--methods {name}: no such method; known are {', '.join(METHODS)}")
    if not names:
        raise BadSpec("--methods: names no method; all, or some of " + ", ".join(METHODS))
    return tuple(name for name in METHODS if name in names)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is compared."""

    group: Run
    """What all runs are made from."""
    compared: Mapping[tuple[str, int], Run]
    """Runs by row and seed, as far as they are known from the start."""
    searched: Comparison | None = None
    """A comparison that searches."""


def read(resource: Mapping[str, Any], methods: str | None, seeds: int | None) -> Wanted:
    """Reads what is compared: of a run the methods and seeds that the flags name, a comparison says it itself."""
    if resource.get("kind") != COMPARISON:
        if seeds is not None and seeds < 1:
            raise BadSpec(f"--seeds {seeds}: expected at least 1")
        group = parse(resource)
        return Wanted(group, runs(resource, chosen("all" if methods is None else methods), 3 if seeds is None else seeds))
    for flag, value, field in (("methods", methods, f"[{methods}]"), ("seeds", seeds, seeds)):
        if value is not None:
            change = f"change it there, or with --set '{flag}={field}'"
            raise BadSpec(f"--{flag} {value}: a {COMPARISON} says it in spec.{flag}; {change}")
    one = comparison.read(resource)
    return Wanted(one.template, one.compared, one if one.origin else None)


def runs(resource: Mapping[str, Any], methods: Sequence[str], seeds: int) -> dict[tuple[str, int], Run]:
    """Makes a run per method and seed: the resource with that method, its own name and seed, one server. The questions stay the
    same."""
    group = parse(resource)
    if len(methods) * seeds > MOST_RUNS:
        names = f"{len(methods)} method" + ("s" if len(methods) > 1 else "")
        raise BadSpec(f"--seeds {seeds}: makes {len(methods) * seeds} runs of {names}; one table holds {MOST_RUNS}; ask for fewer")
    made = {}
    for method in methods:
        for k in range(seeds):
            seed = group.spec.seed + k
            run = parse({**resource, "spec": run_spec(resource["spec"], method, seed, {})})
            made[method, seed] = replace(run, name=f"{group.name}-{method}-{seed}")
    return made


def graph(
    group: Run,
    compared: Mapping[tuple[str, int], Run],
    store: str,
    *,
    tried: Sequence[Run] = (),
    shown: Mapping[tuple[str, int], Run] | None = None,
) -> Graph:
    """Plans one set of questions, all runs in a row behind one server, and the table at the end. tried: runs that may come;
    shown: those of the table, if not all."""
    if group.spec.bases_differ:
        raise BadSpec(
            "agentOverrides: on one machine a comparison has one server, of one base; compare agents with models of their own on a"
            " cluster (a MultiAgentComparison), or leave their models out"
        )
    prepare, preflight = plan.checks(group, store)
    several = [*tried, *compared.values()]
    widest = replace(group, spec=_widest(several))
    preflight = replace(preflight, run=widest)
    most = max(plan.adapters(run) for run in several)  # what the most demanding run wants
    # It finds by its spec what preflight tried.
    server = Server(f"{group.name}-server", widest, store, most, group.spec.inference.gpus)
    tasks = [prepare, preflight]
    last: tuple[str, ...] = ()
    for run in compared.values():
        own = _chained(run, store, group, server.name, after=(preflight.name, *last))
        needed = {need for task in own for need in task.needs}
        tasks += own
        last = tuple(task.name for task in own if task.name not in needed)
    measured = [t.name for t in tasks if t.kind in ("evaluate", "diversity")]
    last_task = table(group, compared if shown is None else shown, store, measured=measured)
    return Graph((*tasks, last_task), (server,), group.spec.inference.lifetime == "Phase", group.spec.backoff_limit)


def _widest(runs: Iterable[Run]) -> RunSpec:
    """The spec that a comparison's model is tried with, and its server keeps room for: that of a run that trains, has the largest
    adapters and, of those, the longest prompts.

    One try is enough: the model and its template are the same in all runs, and what fits there fits everywhere."""
    return max((run.spec for run in runs), key=lambda spec: (spec.iterations > 0, spec.largest_rank, _heard(spec)))


def _heard(spec: RunSpec) -> int:
    """Answers and summaries in the longest prompt: what an agent has said and heard, or what is to be summarized for it."""
    before, others = spec.debate.rounds - 1, spec.agents - 1
    if not before:
        return 0
    return max(2 * before, others) if spec.debate.summarize else before * (1 + others)


def table(group: Run, compared: Mapping[tuple[str, int], Run], store: str, *, measured: Sequence[str] = ()) -> Task:
    """Plans the table over these runs."""
    return Task(f"{group.name}-compare", "compare", group, store, 0, needs=tuple(measured), compared=rows(compared))


def _chained(run: Run, store: str, group: Run, server: str, *, after: tuple[str, ...]) -> list[Task]:
    """The run's debates, trainings and evaluations, which start when what is before them has ended."""
    before = {task.name: after for task in plan.checks(run, store)}  # the group's questions and model in place of its own
    return [
        replace(
            task,
            group=group.key if task.servers else "",
            servers=(server,) if task.servers else (),
            needs=tuple(dict.fromkeys(name for need in task.needs for name in before.get(need, (need,)))),
        )
        for task in plan.graph(run, store).tasks
        if task.name not in before and task.kind != "report"
    ]


def enough(group: Run, precision: float | None) -> None:
    """Raises BadSpec where the held-out questions cannot give a standard error that small (in points), whatever the accuracy."""
    if precision is None:
        return
    if precision <= 0:
        raise BadSpec(f"--precision {precision}: give a standard error in percentage points, such as 2")
    needed = math.ceil(0.25 / (precision / 100) ** 2)
    asked = group.spec.held_out_task.held_out
    if asked < needed:
        worst = 100 * math.sqrt(0.25 / asked)
        field = "evaluation.task.heldOut" if group.spec.evaluation.task else "task.heldOut"
        raise BadSpec(
            f"{field}: {asked} questions give a standard error of up to {worst:.1f} points; for {precision:g} ask for {needed}"
        )
