"""A comparison as a resource: methods, seeds and a grid over one template become ordinary runs. Pure.

Each run is checked by the schema of runs, as if it stood alone, before any is made; what is wrong is one line that names the field
of the comparison. `maft compare` and the operator make the same runs of the same file.
"""

import copy
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from maft.spec import Compared
from maft_operator.spec.parse import ARGUMENT_BYTES, Run, parse
from maft_operator.spec.schema import COMPARISON, GROUP, KIND, VERSION, BadSpec, Json, checked, openapi

MOST_RUNS = 800  # of one table: with the longest names an argument of its program holds them
NAME = 40  # characters of a run's name, as in its schema
VARIED = ("agents", "iterations", "debate", "training")  # what a grid may change: questions and model stay the same
Point = Mapping[str, Any]  # values by the path of their field


@dataclass(frozen=True, slots=True)
class Child:
    """One run of a comparison."""

    method: str
    seed: int
    point: Point
    run: Run
    spec: Json = field(repr=False)
    """As its resource says it."""

    @property
    def label(self) -> str:
        """Names its row: the method, and where it stands in the grid."""
        return ", ".join([self.method, *(f"{path}={_text(value)}" for path, value in self.point.items())])


@dataclass(frozen=True, slots=True)
class Comparison:
    """One resource."""

    template: Run
    """What all runs are made from, under the comparison's own name."""
    children: tuple[Child, ...]
    max_parallel: int
    suspend: bool
    ttl_seconds_after_finished: int | None = None

    @property
    def compared(self) -> dict[tuple[str, int], Run]:
        """Returns the runs by row and seed, as the plan takes them."""
        return {(child.label, child.seed): child.run for child in self.children}


def read(resource: Mapping[str, Any]) -> Comparison:
    """Reads the resource; BadSpec with one line about the first thing wrong, in it or in one of its runs."""
    whole = checked(resource, COMPARISON)
    spec, metadata = whole["spec"], whole["metadata"]
    template = spec["template"]
    _only_here(template)
    base = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {k: metadata[k] for k in ("name", "namespace") if k in metadata},
    }
    group = _parsed({**base, "spec": template}, "spec.template")
    points = list(_points(spec.get("grid") or {}))
    seeds = [group.spec.seed + k for k in range(spec["seeds"])]
    _few_enough(len(spec["methods"]) * len(points) * len(seeds))
    wanted = itertools.product(spec["methods"], points, seeds)
    children = _apart(_child(base, template, *one) for one in wanted)
    _fit_an_argument(children)
    return Comparison(group, children, spec["maxParallel"], spec["suspend"], spec.get("ttlSecondsAfterFinished"))


def listed(comparison: Comparison) -> list[str]:
    """Writes a line for each run, as `maft plan` shows a comparison."""
    several, width = comparison.children, max(len(child.run.name) for child in comparison.children)
    lines = (f"{child.run.name.ljust(width)}  # {child.label}; seed {child.seed}" for child in several)
    return [
        f"# {comparison.template.key}: {len(several)} runs, {comparison.max_parallel} at a time at most, then their table",
        *lines,
    ]


def run_spec(template: Json, method: str, seed: int, point: Point) -> Json:
    """Makes the spec of one run: no baselines of its own, for they are methods, and one server for all its agents, unless some
    have models of their own."""
    spec = copy.deepcopy(template)
    evaluation, inference = (dict(spec.get(name) or {}) for name in ("evaluation", "inference"))
    spec |= {"method": method, "seed": seed}
    together = {} if any(each.get("model") for each in spec.get("agentOverrides") or ()) else {"topology": "Shared"}
    spec["evaluation"], spec["inference"] = {**evaluation, "baselines": []}, {**inference, **together}
    for path, value in point.items():
        *sections, name = path.split(".")
        place = spec
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = copy.deepcopy(value)
    return spec


def rows(compared: Mapping[tuple[str, int], Run]) -> tuple[Compared, ...]:
    """Makes what the table's program is told of the runs."""
    made = compared.items()
    return tuple(Compared(method=row, seed=seed, run=run.name, iteration=run.spec.iterations) for (row, seed), run in made)


def name(comparison: str, method: str, seed: int, point: Point) -> str:
    """Names a run by what it is. Its end is a hash of all of it, so that no two runs of any comparisons have one name, however
    much of the words is cut off."""
    whole = json.dumps([comparison, method, seed, dict(point)], sort_keys=True)
    end = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{f'{comparison}-{method}-{seed}'[: NAME - len(end) - 1].rstrip('-')}-{end}"


def _child(base: Json, template: Json, method: str, point: Point, seed: int) -> Child:
    made = _made(base, template, method, point, seed)
    kept = {path: value for path, value in point.items() if _counts(made.run, path, value)}
    return made if kept == point else _made(base, template, method, kept, seed)


def _made(base: Json, template: Json, method: str, point: Point, seed: int) -> Child:
    group = base["metadata"]["name"]
    own = {**base["metadata"], "name": name(group, method, seed, point)}
    spec = {**run_spec(template, method, seed, point), "group": group}
    where = ", ".join([f"run {method}", *(f"{path}={_text(value)}" for path, value in point.items())])
    return Child(method, seed, point, _parsed({**base, "metadata": own, "spec": spec}, where), spec)


def _counts(run: Run, path: str, value: Any) -> bool:
    """Whether the field decides anything: a method may set it itself, and what is not trained knows no way of training."""
    if path.startswith("training.") and not run.spec.iterations:
        return False
    plain: Any = msgspec.json.decode(msgspec.json.encode(run.spec))  # as the value came: with lists, where records have tuples
    for part in path.split("."):
        plain = plain[part]
    return bool(plain == value)


def _parsed(resource: Json, where: str) -> Run:
    try:
        return parse(resource)
    except BadSpec as error:
        raise BadSpec(f"{where}: {str(error).removeprefix('spec.')}") from None


# --- what does not fit ---


def _only_here(template: Json) -> None:
    """BadSpec for what the comparison itself says of its runs."""
    for name, hint in {
        "group": "the comparison's own name is its runs' group; leave it out",
        "suspend": "set spec.suspend in its place",
        "ttlSecondsAfterFinished": "set spec.ttlSecondsAfterFinished in its place; runs go with their comparison",
    }.items():
        if template.get(name):
            raise BadSpec(f"spec.template.{name}: {_text(template[name])}; {hint}")


def _points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    for path, values in grid.items():
        _is_varied(path)
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            raise BadSpec(f"spec.grid[{path}]: {_text(twice[0])} is there twice")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _is_varied(path: str) -> None:
    """BadSpec where the path is no field of a run that a grid may change."""
    where = f"spec.grid[{path}]"
    if path.split(".", maxsplit=1)[0] not in VARIED:
        lists = {"method": "methods", "seed": "seeds"}
        hint = (
            f"set spec.{lists[path]}" if path in lists else f"a grid changes {', '.join(VARIED)}: questions and model stay the same"
        )
        raise BadSpec(f"{where}: not of a grid; {hint}")
    known = list(_leaves({name: openapi()["properties"]["spec"]["properties"][name] for name in VARIED}))
    if path not in known:
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
        raise BadSpec(f"{where}: no field of a run; {f'did you mean {near[0]}?' if near else 'docs/resource.md lists them'}")


def _leaves(properties: Mapping[str, Json], above: str = "") -> Iterator[str]:
    for name, schema in properties.items():
        if inner := schema.get("properties"):
            yield from _leaves(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _few_enough(runs: int) -> None:
    if runs > MOST_RUNS:
        raise BadSpec(f"spec.methods, seeds and grid: {runs} runs; one table holds {MOST_RUNS}")


def _apart(children: Iterable[Child]) -> tuple[Child, ...]:
    """Each run once: where a method sets what the grid changes, several places of the grid are one run."""
    apart = {child.run.name: child for child in children}
    return tuple(apart.values())


def _fit_an_argument(children: Iterable[Child]) -> None:
    size = len(msgspec.json.encode(rows({(child.label, child.seed): child.run for child in children})))
    if size > ARGUMENT_BYTES:
        raise BadSpec(
            f"spec.grid: the list of runs has {size} bytes, and an argument of a program holds {ARGUMENT_BYTES}; compare fewer"
        )


def _text(value: Any) -> str:
    """Writes a value on one line, as a row's name has it."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
