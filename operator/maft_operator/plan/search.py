"""Trials of a comparison's search: which there are by now, from what is known of those before them. Pure; Optuna is asked here.

Trials come in waves of `maxParallel`, each once those before it are over, and a trial is asked for with the values of all waves
before its own, in their order, by a sampler with a seed of its own. So equal values give equal trials, in whatever order runs end
and whoever starts again. The value of a trial is the accuracy of its best iteration on the validation questions, the mean of its
seeds: the held-out questions choose nothing. What has been made stays what it is (`RunState.trial`), also where a newer Optuna
would ask for others.
"""

import functools
import hashlib
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from maft_operator.plan.comparison import RunState
from maft_operator.spec.comparison import Child, Comparison, Origin, apart
from maft_operator.spec.schema import BadSpec
from maft_operator.spec.search import Parameter, Search
from maft_operator.spec.varied import Point

FIRST = 10  # trials at most that are drawn by chance before values are learnt from, and half of all where that is less
Known = tuple[tuple[str, float | None], ...]  # points as JSON, each with its value; None: nothing came of it


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of one method, with what came of it."""

    method: str
    number: int
    point: Point
    children: tuple[Child, ...]
    """Empty where the values do not fit each other."""
    over: bool
    value: float | None = None


class Growing:
    """A comparison whose runs become more as others end; without a search it stays as it is. What was made is kept."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._made: dict[tuple[str, int, str], tuple[Child, ...]] = {}
        if comparison.origin:
            _optuna()

    @property
    def alone(self) -> Comparison:
        """Returns the comparison without the trials."""
        return self._comparison

    def grown(self, observed: Mapping[str, RunState]) -> Comparison:
        """Adds the trials that there are by now."""
        trials = self.trials(observed)
        return self._with(trials) if trials else self._comparison

    def trials(self, observed: Mapping[str, RunState]) -> list[Trial]:
        """Lists them, of each method in their order."""
        origin = self._comparison.origin
        if origin is None:
            return []
        kept = _kept(origin, observed)
        return [trial for method in origin.methods for trial in self._of(origin, method, kept, observed)]

    def is_over(self, observed: Mapping[str, RunState]) -> bool:
        """Tells whether all trials have been made and are over."""
        origin, trials = self._comparison.origin, self.trials(observed)
        return origin is None or (len(trials) == len(origin.methods) * origin.search.trials and all(trial.over for trial in trials))

    def compared(self, observed: Mapping[str, RunState]) -> Comparison:
        """Leaves of each method's trials the best one: that is what the table is about."""
        return self._with(chosen(self.trials(observed)).values())

    def _with(self, trials: Iterable[Trial]) -> Comparison:
        children = (child for trial in trials for child in trial.children)
        return replace(self._comparison, children=apart((*self._comparison.children, *children)))

    def _of(
        self, origin: Origin, method: str, kept: Mapping[tuple[str, int], Point], observed: Mapping[str, RunState]
    ) -> Iterator[Trial]:
        """Where a wave is not over, later trials are those alone that were made already."""
        known: list[tuple[str, float | None]] = []
        size, waits = self._comparison.max_parallel, False
        for first in range(0, origin.search.trials, size):
            before, wave = tuple(known), list[Trial]()
            for number in range(first, min(first + size, origin.search.trials)):
                point = kept.get((method, number)) or (None if waits else proposed(origin.search, method, before, number))
                if point is not None:
                    wave.append(self._trial(origin, method, number, point, observed))
            known += [(_written(trial.point), trial.value) for trial in wave if trial.over]
            waits = waits or not all(trial.over for trial in wave)
            yield from wave

    def _trial(self, origin: Origin, method: str, number: int, point: Point, observed: Mapping[str, RunState]) -> Trial:
        key = (method, number, _written(point))
        if key not in self._made:
            self._made[key] = _runs(origin, method, number, point)
        children = self._made[key]
        states = [observed.get(child.run.name, RunState()) for child in children]
        if not all(state.ended and not state.terminating for state in states):
            return Trial(method, number, point, children, over=False)
        values = [state.validated for state in states if state.validated is not None and state.phase == "Complete"]
        value = statistics.fmean(values) if values and len(values) == len(states) else None
        return Trial(method, number, point, children, over=True, value=value)


def _runs(origin: Origin, method: str, number: int, point: Point) -> tuple[Child, ...]:
    """Makes the runs of a trial. Of many values not all together were tried before (`Search.corners`): such as do not fit each
    other are a trial of which nothing came, and the search goes on."""
    try:
        return origin.trial(method, number, point)
    except BadSpec:
        return ()


def chosen(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Finds the best trial of each method by its value; of equals the first."""
    best: dict[str, Trial] = {}
    for trial in trials:
        if trial.value is not None and (trial.method not in best or trial.value > (best[trial.method].value or 0.0)):
            best[trial.method] = trial
    return best


def note(child: Child) -> str:
    """Writes what a run of a trial has to keep of it."""
    return json.dumps({"method": child.method, "number": child.trial, "point": dict(child.point)}, sort_keys=True)


@functools.lru_cache(maxsize=4096)
def _proposed(search: Search, method: str, known: Known, number: int) -> str:
    optuna = _optuna()
    seed = int.from_bytes(hashlib.sha256(f"{search.seed}/{method}/{number}".encode()).digest()[:4])
    first = min(FIRST, search.trials // 2)
    samplers = optuna.samplers
    sampler = samplers.TPESampler(seed=seed, n_startup_trials=first) if search.sampler == "tpe" else samplers.RandomSampler(seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {one.path: _distribution(optuna.distributions, one) for one in search.parameters}
    for point, value in known:
        params = {one.path: _inner(one, json.loads(point)[one.path]) for one in search.parameters}
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        made = optuna.trial.create_trial(state=state, value=value, params=params, distributions=distributions)
        study.add_trial(made)
    drawn = study.ask(distributions).params
    return _written({one.path: _outer(one, drawn[one.path]) for one in search.parameters})


def proposed(search: Search, method: str, known: Known, number: int) -> Point:
    """Asks for the values of a trial. known: points of the waves before, in their order, with their values."""
    point: Point = json.loads(_proposed(search, method, known, number))
    return point


def _distribution(kinds: Any, one: Parameter) -> Any:
    if one.values:
        return kinds.CategoricalDistribution(range(len(one.values)))
    if one.whole:
        return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
    return kinds.FloatDistribution(one.low, one.high, log=one.log)


def _inner(one: Parameter, value: Any) -> Any:
    """Turns a value into what Optuna knows it by: of several values the place."""
    return one.values.index(json.dumps(value)) if one.values else value


def _outer(one: Parameter, drawn: Any) -> Any:
    return json.loads(one.values[drawn]) if one.values else one.rounded(drawn)


def _kept(origin: Origin, observed: Mapping[str, RunState]) -> dict[tuple[str, int], Point]:
    """Finds the points of trials that were made, where they are such as may be drawn: nobody is believed."""
    points: dict[tuple[str, int], Point] = {}
    for state in observed.values():
        try:
            whole = json.loads(state.trial or "{}")
            method, number, point = (whole[name] for name in ("method", "number", "point"))
        except (ValueError, KeyError, TypeError):
            continue
        if method in origin.methods and isinstance(number, int) and origin.search.has(point):
            points[method, number] = point
    return points


def _written(point: Point) -> str:
    return json.dumps(dict(point), sort_keys=True)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise BadSpec(f"spec.search: the package {error.name} is missing; pip install 'maft[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
