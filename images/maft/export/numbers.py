"""A run's parameters and metrics under plain names, as every tracker takes them. Steps are iterations."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from maft.committed_run import IterationCommits, RunCommits
from maft.records import Diversity, Evaluation
from maft.summaries import Score, Validation

LONGEST = 500  # characters of a parameter: MLflow's older servers take no more


def parameters(run: RunCommits) -> dict[str, str]:
    """Flattens the spec to `debate.rounds: 2`, defaults included, and adds what the questions' commit says."""
    facts = {"maft.run": run.key, "maft.version": str(run.meta.get("version", ""))}
    spec = msgspec.to_builtins(run.spec) if run.spec else {}
    return {name: text[:LONGEST] for name, text in {**facts, **dict(_flat("", spec))}.items() if text}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif value is not None and value != [] and value != "":
        yield prefix, value if isinstance(value, str) else msgspec.json.encode(value).decode()


def evaluated(evaluation: Evaluation) -> dict[str, float]:
    """Names the numbers of a held-out debate."""
    scores = {
        "accuracy/answer": evaluation.answers[0],
        "accuracy/majority": evaluation.votes[0],
        "accuracy/debate": evaluation.votes[-1],
        "consensus": evaluation.consensus,
    }
    counts = {
        "wrong_to_right": evaluation.wrong_to_right,
        "right_to_wrong": evaluation.right_to_wrong,
        "unparsed": evaluation.unparsed,
        "ties": evaluation.ties,
        "tokens/prompt": evaluation.usage.prompt_tokens,
        "tokens/completion": evaluation.usage.completion_tokens,
    }
    return {**{k: v for name, score in scores.items() for k, v in _score(name, score)}, **{k: float(v) for k, v in counts.items()}}


def _score(name: str, score: Score) -> Iterator[tuple[str, float]]:
    yield name, score.mean
    yield f"{name}_stderr", score.stderr


def trained(iteration: IterationCommits) -> dict[str, float]:
    """Names the numbers of an iteration's training."""
    made: dict[str, float] = {"adapters/trained": float(iteration.training.trained)}
    for adapter in iteration.training.adapters:
        name = f"{adapter.role}-{adapter.agent + 1}"
        made[f"examples/{name}"] = float(adapter.examples)
        if adapter.loss_first is not None and adapter.loss_last is not None:
            made |= {f"loss_first/{name}": adapter.loss_first, f"loss_last/{name}": adapter.loss_last}
    if iteration.training.seconds is not None:
        made["seconds/training"] = iteration.training.seconds
    return made


def diverse(diversity: Diversity) -> dict[str, float]:
    """Names the numbers of how far agents are apart."""
    return {"diversity/nll": diversity.cross, **({} if diversity.kl is None else {"diversity/kl": diversity.kl})}


def validated(validation: Validation) -> dict[str, float]:
    """Names the numbers of a debate of validation questions."""
    gain = dict(_score("validation/gain", validation.gain)) if validation.gain else {}
    return {**dict(_score("validation/accuracy", validation.accuracy)), **gain}


def of_stage(run: RunCommits, part: str) -> tuple[int, dict[str, float]]:
    """Finds the step and the numbers of one part of `ledger.stages`; none for the spec."""
    kind, _, number = part.partition("/")
    iteration = next((i for i in run.iterations if str(i.number) == number), None)
    if iteration is None:
        return 0, {}
    if kind == "training":
        return iteration.number, trained(iteration)
    if kind == "validation":
        return iteration.number, validated(iteration.validated) if iteration.validated else {}
    if kind == "diversity":
        return iteration.number, diverse(iteration.diversity) if iteration.diversity else {}
    return iteration.number, evaluated(iteration.numbers) if iteration.numbers else {}


def by_step(run: RunCommits, parts: Iterable[str]) -> dict[int, dict[str, float]]:
    """Collects the numbers of some parts by iteration, in order."""
    steps: dict[int, dict[str, float]] = {}
    for part in parts:
        step, values = of_stage(run, part)
        if values:
            steps.setdefault(step, {}).update(values)
    return dict(sorted(steps.items()))
