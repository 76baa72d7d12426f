"""`python -m maft.preflight`: tries the model before any server starts, on a small copy with random weights and no GPU.

The copy goes through the run's own functions: what fails there would fail after a whole debate has been paid for. Weights are not
read.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from maft import device, lora, models, pod, program, quantised, records, vllm_rules
from maft.chat_template import ChatTemplate
from maft.debate import prompts
from maft.debate.society import Rules, held_out_rules, training_rules, validation_rules
from maft.errors import BadInput, one_line
from maft.preflight import cost, facts, longest, room, tokens, trial
from maft.program import Assignment
from maft.records import Problem
from maft.spec import Spec
from maft.store import layout, trials
from maft.store.commits import committed, fetch_records, publish
from maft.summaries import PreflightSummary, decode_summary, first_that_fits
from maft.train import memory
from maft.variants import Variant, named, variants

_ALWAYS = ("train", "held-out")  # parts of the questions that all runs have
Parts = list[tuple[str, Rules, Problem]]  # name, rules, and the longest question
PLAIN = Problem("", "What is 2 + 5?", "7")


def main(assignment: Assignment) -> PreflightSummary:
    """Tries everything once; BadInput for the first that does not work."""
    done = trials.found(assignment.store, assignment.run, assignment.spec)
    if done and isinstance(known := decode_summary(json.dumps(done.meta.get("summary"))), PreflightSummary):
        return known
    with tempfile.TemporaryDirectory(prefix="maft-preflight-") as scratch:
        made = [_named(assignment, each, Path(scratch) / str(each.agents[0])) for each in variants(assignment.spec)]
        # Once all are made: over some families vLLM alters transformers' own classes, of which no model can be made after that.
        looks = [_judged(assignment, look) for look in made]
        summary = _summary(assignment.spec, looks)
        if not done:
            meta = {"summary": records.plain(summary)}
            for look in reversed(looks):  # the first one last: with it all are there
                _publish(assignment, look, meta if look is looks[0] else {})
        return summary


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one variant of the agents."""

    variant: Variant
    folder: Path
    """Of the small model and its adapter."""
    tried: trial.Tried
    context: int
    longest_prompt: int
    thinks: bool
    training_bytes: int
    adapter: int
    """Parameters of one; 0: not known."""
    warnings: list[str]


def _publish(assignment: Assignment, look: Look, meta: dict[str, Any]) -> None:
    prefix = trials.prefix(assignment.run, assignment.spec, look.variant.agents[0])
    files = {name: file for name in trial.FILES if (file := look.folder / name).exists()}
    about = {"targets": trial.targets_of(look.folder), "vllm": vllm_rules.askable()}
    publish(assignment.store, prefix, files, meta={**meta, **about})


def _summary(spec: Spec, looks: Sequence[Look]) -> PreflightSummary:
    """Adds up what was seen; of several variants the architecture of the first."""
    debates = cost.of_debates(spec)
    kept = [cost.stored(spec, look.adapter, look.variant.agents) for look in looks if look.adapter]
    lines = [one_line(line, 400) for line in _warnings(looks)]
    return first_that_fits(
        PreflightSummary(
            architecture=looks[0].tried.architecture,
            modules=max(look.tried.modules for look in looks),
            context=min(look.context for look in looks),
            longest_prompt=max(look.longest_prompt for look in looks),
            thinks=any(look.thinks for look in looks),
            training_bytes=max(look.training_bytes for look in looks),
            requests=debates.requests,
            tokens=debates.tokens,
            stored_bytes=sum(kept) + cost.transcript_bytes(debates) if len(kept) == len(looks) else 0,
            warnings=tuple(lines[:count]),
        )
        for count in range(len(lines), -1, -1)
    )


def _warnings(looks: Sequence[Look]) -> list[str]:
    """Those of the first, and of each other one what is said of it alone."""
    first, *others = looks
    own = [f"agent {look.variant.agents[0]}: {line}" for look in others for line in look.warnings if line not in first.warnings]
    return [*first.warnings, *own]


def _named(assignment: Assignment, variant: Variant, folder: Path) -> Look:
    with named(assignment.spec, variant):
        return _look(replace(assignment, given_spec=variant.spec), variant, folder)


def _judged(assignment: Assignment, look: Look) -> Look:
    """Asks vLLM about the model and its adapter, where it is installed."""
    spec = look.variant.spec
    on_cpu = spec.inference.gpus == 0 or pod.is_watched()  # `maft run` starts servers where it starts us
    with named(assignment.spec, look.variant):
        lines = vllm_rules.ask(look.folder, spec.training.lora.rank, spec.model.source, on_cpu=on_cpu)
    return replace(look, warnings=[*look.warnings, *lines])


def _look(assignment: Assignment, variant: Variant, folder: Path) -> Look:
    """Asks one after the other what takes least time first."""
    spec, model = assignment.spec, assignment.spec.model
    config = models.config(model)
    facts.check(config, spec)
    quantised.check_packages(config, model.source)
    if spec.training.base == "nf4":
        quantised.check_nf4(config, model.source, "cuda")  # the GPU is training's, and not here yet
    template = models.chat_template(model, spec.debate.thinking)
    template.check_rounds(spec.debate.rounds)
    asked = _asked(assignment, template)
    warnings = tokens.unknown_arguments(model.chat_template_arguments, template.arguments_known)
    warnings += tokens.unused_thoughts(training_rules(spec, 1), thinks=template.thinks)
    warnings += tokens.check_round_trip(template.tokenizer, model.source, _texts(spec, asked))
    lengths = [(part, rules, _lengths(rules, spec, problem, template)) for part, rules, problem in asked]
    context = facts.context(config, model)
    warnings += [line for part, rules, each in lengths for line in longest.warnings(rules, each, context, part)]
    lora.check_fit(config, model)
    tried, more = _tried(config, spec, template, folder)
    longest_prompt = max(each.longest for _, _, each in lengths)
    bytes_, adapter, lines = _memory(config, spec, tried, min(longest_prompt + room.longest_answer(spec), context or sys.maxsize))
    return Look(
        variant,
        folder,
        tried,
        context=context,
        longest_prompt=longest_prompt,
        thinks=template.thinks,
        training_bytes=bytes_,
        adapter=adapter,
        warnings=[*warnings, *more, *lines],
    )


def _memory(config: Any, spec: Spec, tried: trial.Tried, example: int) -> tuple[int, int, list[str]]:
    """Bytes of training, parameters of an adapter, and what people should hear of them; 0 of what is not known. example: tokens of
    the longest."""
    counts = None if tried.untried else room.parameters(config, spec)
    if counts is None:
        return 0, 0, []
    used = room.computing(spec, device.read())
    needs = room.expected(config, spec, counts, example, used, packs=tried.packs)
    return memory.peak(needs), counts[1], room.check(needs, room.found(spec, used), example)


def _asked(assignment: Assignment, template: ChatTemplate) -> Parts:
    """The longest question of each part, as `prepare` drew them; before that a plain one stands in for those that all runs have."""
    store, spec = assignment.store, assignment.spec
    commit = committed(store, f"{assignment.questions}/{layout.PROBLEMS}")
    parts: Parts = []
    for part, rules in (
        ("train", training_rules(spec, 1)),
        ("held-out", held_out_rules(spec, 0)),
        ("probe", training_rules(spec, 1)),
        ("validation", validation_rules(spec, 0)),
    ):
        name = layout.questions(part)
        problems = fetch_records(store, commit, name, Problem) if commit and commit.has(name) else []
        if problems or part in _ALWAYS:
            parts.append((part, rules, prompts.longest(problems, partial(_first, rules, template)) or PLAIN))
    return parts


def _first(rules: Rules, template: ChatTemplate, problem: Problem) -> int:
    return len(template.prompt(rules.opening(problem)))


def _texts(spec: Spec, asked: Parts) -> list[str]:
    """What the run itself says: prompts with their questions."""
    later = spec.debate.prompts
    return [rules.prompts.ask(problem.question) for _, rules, problem in asked] + [later.summarize, later.revise]


def _lengths(rules: Rules, spec: Spec, problem: Problem, template: ChatTemplate) -> longest.Lengths:
    return longest.lengths(rules, spec.agents, problem, lambda chat: len(template.prompt(chat)), thinks=template.thinks)


def _tried(config: Any, spec: Spec, template: ChatTemplate, folder: Path) -> tuple[trial.Tried, list[str]]:
    """Trains on a small copy, and asks vLLM about its flags where it is installed."""
    vllm_rules.check_flags(spec.inference.extra_args, spec.inference.gpus)
    question = training_rules(spec, 1).prompts.ask(PLAIN.question)
    examples = trial.dialogues(template, spec.training, question, spec.debate.system)
    tokens.check_vocabulary(_ids(examples), config.get_text_config().vocab_size, spec.model.source)
    try:
        tried = trial.try_training(config, spec, examples, folder)
    except BadInput:
        if not type(config).__module__.startswith("transformers_modules"):
            raise
        tried = trial.Tried(next(iter(config.architectures or ()), "unknown"), 0, packs=True, untried="its code is its makers' own")
    if tried.untried:
        return tried, [f"model.source: training was not tried, for no small copy can be made: {tried.untried}"]
    return tried, [] if tried.packs else [
        "training.batchTokens: this model mixes examples in one row, so they train one by one: slower"
    ]


def _ids(examples: Sequence[Any]) -> list[int]:
    return [i for example in examples for i in example.ids]


PARSER = program.parser("preflight", "Tries the model on a small copy, before any server starts.", takes=("spec", "group"))

if __name__ == "__main__":
    program.run(main, PARSER)
