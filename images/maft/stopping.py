"""When a run stops, and which of its iterations is the best: decided from the debates of validation questions. Pure.

Both packages decide by this module: the control plane what still runs, the programs that read a finished run what its numbers mean.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from maft.spec import Spec, StopSpec
from maft.summaries import Validation


@dataclass(frozen=True, slots=True)
class Decision:
    """What the validation questions have decided; it stays whatever else becomes known."""

    best: int
    """The iteration whose agents are right most often, of equals the first."""
    last: int
    """The last one that counts; no later one is begun."""
    early: bool
    """Further ones were asked for."""


def best(known: Mapping[int, Validation]) -> int | None:
    """Names the best iteration so far: the last one that is known says which was the best before it. None: none is known."""
    if not known:
        return None
    last = max(known)
    gain = known[last].gain
    return last if gain is None or gain.mean > 0 else gain.over


def chosen(spec: Spec | None, known: Mapping[int, Validation]) -> int | None:
    """Names the iteration that was decided for, or as long as nothing is decided the best so far. None: nothing is known."""
    decided = decision(spec, known) if spec else None
    return decided.best if decided else best(known)


def gains(validation: Validation, stop: StopSpec) -> bool:
    """Tells whether the iteration is better than the best before it, by as much as is asked for."""
    gain = validation.gain
    return gain is None or gain.mean > stop.min_gain * gain.stderr


def validated(spec: Spec) -> tuple[int, ...]:
    """Lists the iterations after which the validation questions are debated, if nothing stops the run."""
    return tuple(i for i in range(1, spec.iterations + 1) if spec.validated(i))


def decision(spec: Spec, known: Mapping[int, Validation], lost: Collection[int] = ()) -> Decision | None:
    """Decides once it can; None before. known: by iteration; lost: iterations that are done and whose numbers nobody has: they
    count for nothing."""
    asked, waited, seen = validated(spec), 0, dict[int, Validation]()
    for iteration in asked:
        if iteration in known:
            seen[iteration] = known[iteration]
            waited = 0 if gains(seen[iteration], spec.stop_when) else waited + 1
            if 0 < spec.stop_when.patience <= waited:
                return Decision(_best(seen, iteration), iteration, early=iteration < spec.iterations)
        elif iteration not in lost:
            return None
    return Decision(_best(seen, asked[-1]), spec.iterations, early=False) if asked else None


def words(spec: Spec, decided: Decision) -> str:
    """Says what was decided, and why nothing follows."""
    chosen = f"iteration {decided.best} is the best on the validation questions"
    if not decided.early:
        return chosen
    several, least = spec.stop_when.patience, spec.stop_when.min_gain
    waited = "1 iteration" if several == 1 else f"{several} iterations in a row"
    gain = f" of more than {least:g} standard error{'s' if least != 1 else ''}" if least else ""
    return f"{chosen}; stopped after iteration {decided.last} of {spec.iterations}: {waited} without gain{gain} (stopWhen)"


def _best(seen: Mapping[int, Validation], otherwise: int) -> int:
    chosen = best(seen)
    return otherwise if chosen is None else chosen
