"""A comparison as a resource: methods, seeds and a grid, or a search, over one template become ordinary runs. Pure.

Each run is checked by the schema of runs, as if it stood alone, before any is made; what is wrong is one line that names the field
of the comparison. `maft compare` and the operator make the same runs of the same file.
"""

import copy
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from maft.spec import FORMAT, Compared, Head, foreign_format
from maft_operator.spec import search as searched
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import ARGUMENT_BYTES, Run, parse
from maft_operator.spec.schema import COMPARISON, GROUP, KIND, VERSION, BadSpec, Json, checked
from maft_operator.spec.search import Search
from maft_operator.spec.varied import Point, counts, placed, points, text, worded

MOST_RUNS = 800  # of one table: with the longest names an argument of its program holds them
NAME = 40  # characters of a run's name, as in its schema
NOTE = "compared.json"  # which runs are compared, in the folder of logs of `maft compare`
_ONE_PLACE = ("hub", "oci")  # targets whose address is that of one run's adapters


@dataclass(frozen=True, slots=True)
class Child:
    """One run of a comparison."""

    method: str
    seed: int
    point: Point
    run: Run
    spec: Json = field(repr=False)
    """As its resource says it."""
    trial: int | None = None
    """Its number in a search, from 0."""

    @property
    def label(self) -> str:
        """Names its row: the method, and where it stands in the grid."""
        return ", ".join([self.method, *worded(self.point)])


@dataclass(frozen=True, slots=True)
class Comparison:
    """One resource."""

    template: Run
    """What all runs are made from, under the comparison's own name."""
    children: tuple[Child, ...]
    max_parallel: int
    suspend: bool
    ttl_seconds_after_finished: int | None = None
    origin: "Origin | None" = field(default=None, repr=False)
    """What trials of a search are made from; None where nothing is searched."""

    @property
    def compared(self) -> dict[tuple[str, int], Run]:
        """Returns the runs by row and seed, as the plan takes them."""
        return {(child.label, child.seed): child.run for child in self.children}


@dataclass(frozen=True, slots=True)
class Origin:
    """What the runs of a search are made from."""

    search: Search
    base: Json
    template: Json
    methods: tuple[str, ...]
    """Those that train."""
    seeds: tuple[int, ...]
    corners: tuple[Run, ...]
    """Runs at the ends of the parameters (`Search.corners`), tried before any is made."""

    def trial(self, method: str, number: int, point: Point) -> tuple[Child, ...]:
        """Makes the runs of one trial, one for each seed."""
        return tuple(replace(_made(self.base, self.template, method, point, seed), trial=number) for seed in self.seeds)


class _Note(msgspec.Struct, frozen=True):
    """What lies in that file."""

    format: int
    runs: tuple[Compared, ...]


def read(resource: Mapping[str, Any]) -> Comparison:
    """Reads the resource; BadSpec with one line about the first thing wrong, in it or in one of its runs."""
    whole = checked(resource, COMPARISON)
    spec, metadata = whole["spec"], whole["metadata"]
    if spec["methods"] == ["all"]:
        spec["methods"] = list(METHODS)
    template = spec["template"]
    _only_here(template)
    base = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {k: metadata[k] for k in ("name", "namespace") if k in metadata},
    }
    group = _parsed({**base, "spec": template}, "spec.template")
    seeds = [group.spec.seed + k for k in range(spec["seeds"])]
    origin = _origin(spec, base, seeds)
    plain = [method for method in spec["methods"] if origin is None or method not in origin.methods]
    places = list(points(spec.get("grid") or {}))
    trials = len(origin.methods) * origin.search.trials if origin else 0
    _few_enough((len(plain) * len(places) + trials) * len(seeds), "search" if origin else "grid")
    children = apart(_child(base, template, *one) for one in itertools.product(plain, places, seeds))
    _fit_an_argument(children)
    ttl = spec.get("ttlSecondsAfterFinished")
    return Comparison(group, children, spec["maxParallel"], spec["suspend"], ttl, origin)


def _origin(spec: Json, base: Json, seeds: Sequence[int]) -> Origin | None:
    """Reads what is searched; BadSpec where a value does not fit, or decides nothing."""
    search = searched.read(spec)
    if search is None:
        return None
    template, seed = spec["template"], seeds[0]
    trained = [method for method in spec["methods"] if _made(base, template, method, {}, seed).run.spec.iterations]
    if not trained:
        raise BadSpec("spec.methods: none of them trains, so nothing chooses among trials; add multiagent, say")
    corners = [_corner(base, template, method, point, seed) for method in trained for point in search.corners()]
    return Origin(search, base, template, tuple(trained), tuple(seeds), tuple(corners))


def _corner(base: Json, template: Json, method: str, point: Point, seed: int) -> Run:
    run = _fitting(base, template, method, point, seed, "spec.search.parameters").run
    for path, value in point.items():
        if not counts(run, path, value):
            raise BadSpec(f"spec.search.parameters[{path}]: {method} sets it itself; leave it out, or the method")
    return run


def apart(children: Iterable[Child]) -> tuple[Child, ...]:
    """Lists each run once, as it comes first: where a method sets what a grid changes, several of its places are one run, and two
    trials of a search may be one point."""
    first: dict[str, Child] = {}
    for child in children:
        first.setdefault(child.run.name, child)
    return tuple(first.values())


def listed(comparison: Comparison) -> list[str]:
    """Writes a line for each run, as `maft plan` shows a comparison."""
    several, width = comparison.children, max((len(child.run.name) for child in comparison.children), default=0)
    lines = (f"{child.run.name.ljust(width)}  # {child.label}; seed {child.seed}" for child in several)
    return [
        f"# {comparison.template.key}: {number(comparison)}, {comparison.max_parallel} at a time at most, then their table",
        *lines,
        *(_trials(comparison.origin) if comparison.origin else ()),
    ]


def number(comparison: Comparison) -> str:
    """Says how many runs it has, or will have."""
    origin, plain = comparison.origin, f"{len(comparison.children)} runs"
    if origin is None:
        return plain
    trials = f"{origin.search.trials} trials of {', '.join(origin.methods)}"
    more = f", each with {len(origin.seeds)} seeds" if len(origin.seeds) > 1 else ""
    return f"{plain} and {trials}{more}" if comparison.children else f"{trials}{more}"


def _trials(origin: Origin) -> Iterator[str]:
    search = origin.search
    for method in origin.methods:
        yield f"# {search.trials} trials of {method} ({search.sampler}), by what those before them were on validation questions:"
        for one in search.parameters:
            ends = [text(value) for value in one.ends]
            yield f"#   {one.path}: {', '.join(ends) if one.values else ' to '.join(ends)}{', by its logarithm' if one.log else ''}"


def run_spec(template: Json, method: str, seed: int, point: Point) -> Json:
    """Makes the spec of one run: no baselines of its own, for they are methods, and one server for all its agents, unless some
    have models of their own."""
    spec = copy.deepcopy(template)
    evaluation, inference = (dict(spec.get(name) or {}) for name in ("evaluation", "inference"))
    spec |= {"method": method, "seed": seed}
    together = {} if any(each.get("model") for each in spec.get("agentOverrides") or ()) else {"topology": "Shared"}
    spec["evaluation"], spec["inference"] = {**evaluation, "baselines": []}, {**inference, **together}
    return placed(spec, point)


def rows(compared: Mapping[tuple[str, int], Run]) -> tuple[Compared, ...]:
    """Makes what the table's program is told of the runs."""
    made = compared.items()
    return tuple(Compared(method=row, seed=seed, run=run.name, iteration=run.spec.iterations) for (row, seed), run in made)


def noted(runs: Sequence[Compared]) -> bytes:
    """Writes which runs a table is to have, as `maft compare` leaves it in its folder (`NOTE`)."""
    return msgspec.json.encode(_Note(FORMAT, tuple(runs)))


def in_note(data: bytes) -> tuple[Compared, ...]:
    """Reads that again; BadSpec if another release wrote it, or nobody did."""
    try:
        foreign = foreign_format(msgspec.json.decode(data, type=Head).format)
        if not foreign:
            return msgspec.json.decode(data, type=_Note).runs
    except ValueError as error:
        raise BadSpec(f"{NOTE}: is damaged: {error}; start the comparison again") from None
    raise BadSpec(f"{NOTE}: {foreign}; start the comparison again")


def name(comparison: str, method: str, seed: int, point: Point) -> str:
    """Names a run by what it is. Its end is a hash of all of it, so that no two runs of any comparisons have one name, however
    much of the words is cut off."""
    whole = json.dumps([comparison, method, seed, dict(point)], sort_keys=True)
    end = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{f'{comparison}-{method}-{seed}'[: NAME - len(end) - 1].rstrip('-')}-{end}"


def _child(base: Json, template: Json, method: str, point: Point, seed: int) -> Child:
    made = _fitting(base, template, method, point, seed, "spec.grid")
    kept = {path: value for path, value in point.items() if counts(made.run, path, value)}
    return made if kept == point else _made(base, template, method, kept, seed)


def _fitting(base: Json, template: Json, method: str, point: Point, seed: int, field: str) -> Child:
    """Makes a run; BadSpec that names the field of the comparison whose values do not fit, where the method fits without them."""
    try:
        return _made(base, template, method, point, seed)
    except BadSpec as error:
        _made(base, template, method, {}, seed)  # what is wrong without these values is not theirs
        alone = next((path for path in point if not _is_one(base, template, method, {path: point[path]}, seed)), None)
        where = field if alone is None else f"{field}[{alone}]"
        raise BadSpec(f"{where}: {error}") from None


def _is_one(base: Json, template: Json, method: str, point: Point, seed: int) -> bool:
    try:
        _made(base, template, method, point, seed)
    except BadSpec:
        return False
    return True


def _made(base: Json, template: Json, method: str, point: Point, seed: int) -> Child:
    group = base["metadata"]["name"]
    own = {**base["metadata"], "name": name(group, method, seed, point)}
    spec = {**run_spec(template, method, seed, point), "group": group}
    where = ", ".join([f"run {method}", *worded(point)])
    return Child(method, seed, point, _parsed({**base, "metadata": own, "spec": spec}, where), spec)


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
            raise BadSpec(f"spec.template.{name}: {text(template[name])}; {hint}")
    for at, target in enumerate(template.get("export", ())):
        if target["to"] in _ONE_PLACE:
            where, hint = f"spec.template.export[{at}]", "hand the best run on with `maft export` once all are done"
            raise BadSpec(f"{where}: {target['to']} has one place for all runs, and the last would replace the others; {hint}")


def _few_enough(runs: int, varied: str) -> None:
    if runs > MOST_RUNS:
        raise BadSpec(f"spec.methods, seeds and {varied}: {runs} runs; one table holds {MOST_RUNS}")


def _fit_an_argument(children: Iterable[Child]) -> None:
    size = len(msgspec.json.encode(rows({(child.label, child.seed): child.run for child in children})))
    if size > ARGUMENT_BYTES:
        raise BadSpec(
            f"spec.grid: the list of runs has {size} bytes, and an argument of a program holds {ARGUMENT_BYTES}; compare fewer"
        )
