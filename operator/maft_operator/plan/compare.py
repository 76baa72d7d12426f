"""`maft compare`: many methods on the same questions and the same base, as one graph. Pure.

On one machine the runs go one after the other behind the same servers; comparison.py has the same runs on a cluster. What the base
model said once is not asked again (`--group`), so methods that begin alike share their first answers, or their whole first debate.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from maft.errors import meant
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
            hint = meant(name, METHODS)
            raise BadSpec(f"--methods {name}: no such method; {f'{hint} Known' if hint else 'known'} are {', '.join(METHODS)}")
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
    """Makes a run per method and seed: the resource with that method, its own name and seed and, unless agents have models of
    their own, one server. The questions stay the same."""
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
    """Plans one set of questions, all runs in a row behind the same servers, and the table at the end. tried: runs that may come;
    shown: those of the table, if not all."""
    prepare, preflight = plan.checks(group, store)
    several = [*tried, *compared.values()]
    widest = replace(group, spec=_widest(several))
    tasks = [prepare, replace(preflight, run=widest)]
    last: tuple[str, ...] = ()
    for run in compared.values():
        own = _chained(run, store, widest, after=(preflight.name, *last))
        needed = {need for task in own for need in task.needs}
        tasks += own
        last = tuple(task.name for task in own if task.name not in needed)
    measured = [t.name for t in tasks if t.kind in ("evaluate", "diversity")]
    last_task = table(group, compared if shown is None else shown, store, measured=measured)
    servers = _servers(widest, several, store)
    return Graph((*tasks, last_task), servers, group.spec.inference.lifetime == "Phase", group.spec.backoff_limit)


_Places = tuple[int | None, ...]  # the agents whose servers a run asks, one after the other; None: the one for all


def _servers(widest: Run, several: Sequence[Run], store: str) -> tuple[Server, ...]:
    """One for all, or one for each agent where some have models of their own. Each has room for the most demanding of the runs that
    ask it, and finds by its spec what preflight tried."""
    rooms: dict[int | None, int] = {}
    for run in several:
        rooms |= {place: max(rooms.get(place, 0), plan.adapters(run)) for place in _places(run, widest)}
    own = widest.spec.has_own_model
    return tuple(
        Server(_name(widest, n), widest, store, most, widest.spec.inference.gpus, agent=n if n is not None and own(n) else None)
        for n, most in rooms.items()
    )


def _places(run: Run, widest: Run) -> _Places:
    """Where agents have several models, a run of the spec's model alone asks the first agent that has it, too."""
    if run.spec.bases_differ:
        return tuple(range(run.spec.agents))
    if not widest.spec.bases_differ:
        return (None,)
    return (next(n for n in range(widest.spec.agents) if not widest.spec.has_own_model(n)),)  # a spec has one


def _name(group: Run, place: int | None) -> str:
    return f"{group.name}-server" if place is None else f"{group.name}-server-{place}"


def _widest(runs: Iterable[Run]) -> RunSpec:
    """The spec that a comparison's models are tried with, and its servers keep room for: all the models that any run has, trained
    where any run trains, with the largest adapters and the longest prompts.

    One try is enough: a model and its template are the same in all runs, and what fits there fits everywhere."""
    specs = [run.spec for run in runs]
    most = max(map(_models, specs))
    widest, trained = max((spec for spec in specs if _models(spec) == most), key=_width), max(specs, key=_width)
    if trained.iterations and not widest.iterations:  # what has all the models trains nothing
        debate = max(widest, trained, key=_heard).debate
        widest = structs.replace(widest, iterations=trained.iterations, training=trained.training, debate=debate)
    return _of_rank(widest, trained.largest_rank) if trained.iterations else widest


def _width(spec: RunSpec) -> tuple[bool, int, int]:
    return (spec.iterations > 0, spec.largest_rank, _heard(spec))


def _of_rank(spec: RunSpec, rank: int) -> RunSpec:
    """With adapters of that rank at least, agents' own ones as well."""
    if spec.largest_rank >= rank:
        return spec
    training = structs.replace(spec.training, lora=structs.replace(spec.training.lora, rank=rank))
    overrides = spec.agent_overrides
    alike = (structs.replace(o, lora=structs.replace(o.lora, rank=rank)) if o.lora else o for o in overrides)
    return structs.replace(spec, training=training, agent_overrides=tuple(alike))


def _models(spec: RunSpec) -> int:
    """Agents, where some have models of their own."""
    return spec.agents if spec.bases_differ else 0


def _heard(spec: RunSpec) -> int:
    """Answers and summaries in the longest prompt: what an agent has said and heard, or what is to be summarized for it."""
    before, others = spec.debate.rounds - 1, spec.agents - 1
    if not before:
        return 0
    return max(2 * before, others) if spec.debate.summarize else before * (1 + others)


def table(group: Run, compared: Mapping[tuple[str, int], Run], store: str, *, measured: Sequence[str] = ()) -> Task:
    """Plans the table over these runs."""
    return Task(f"{group.name}-compare", "compare", group, store, 0, needs=tuple(measured), compared=rows(compared))


def _chained(run: Run, store: str, group: Run, *, after: tuple[str, ...]) -> list[Task]:
    """The run's debates, trainings and evaluations, which start when what is before them has ended. group: with the widest spec."""
    servers = tuple(_name(group, place) for place in _places(run, group))
    before = {task.name: after for task in plan.checks(run, store)}  # the group's questions and model in place of its own
    return [
        replace(
            task,
            group=group.key,
            servers=servers if task.servers else (),
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
