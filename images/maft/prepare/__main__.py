"""`python -m maft.prepare`: draws the questions and finds out early what would fail late.

Checks that the store can be written and honours conditional writes, that the model is a causal language model with a chat
template, that the source holds enough questions; then publishes `problems/` and `run.json`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from maft import __version__, begun, models, pod, program, records, revision
from maft.errors import BadInput
from maft.prepare import alike, apart, code, earlier, group, references, same, sizes, tasks
from maft.program import Assignment
from maft.records import Commit, Formatted, Problem
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Missing, Passing, Store
from maft.store.check import check
from maft.store.commits import committed, publish
from maft.summaries import PrepareSummary, first_that_fits
from maft.variants import named, variants


def main(assignment: Assignment) -> PrepareSummary:
    """Publishes the problem sets once."""
    store, spec = assignment.store, assignment.spec
    prefix = f"{assignment.run}/{layout.PROBLEMS}"
    _probe(store, f"{assignment.run}/")  # first: it tells soon of a store that is not there
    _same_format(store, f"{assignment.run}/{layout.RUN}")
    commit = committed(store, prefix)
    if commit is not None:
        same.run(commit, spec, f"{store.url}/{assignment.run}")
        _validates(commit, spec)
    else:
        commit = _publish(assignment, prefix)
    store.write(f"{assignment.run}/{layout.RUN}", begun.run_json(commit))
    pin, threshold = str(commit.meta.get(revision.META, "")), alike.committed(commit)
    drawn = PrepareSummary(
        train=spec.task.train,
        held_out=spec.held_out_task.held_out,
        probe=spec.task.probe,
        validation=spec.evaluation.validation,
        model_bytes=_largest(revision.with_own(revision.with_revision(spec, pin), commit.meta.get(revision.OWN))),
        revision=pin,
        semantic=threshold,
        warnings=(
            *alike.warnings(threshold, alike.usual_words(store, commit, spec) if threshold else 0),
            *references.warnings(store, commit, spec),
        ),
    )
    return first_that_fits(msgspec.structs.replace(drawn, earlier=e) for e in earlier.shorter(earlier.found(assignment)))


def _validates(commit: Commit, spec: Spec) -> None:
    """BadInput where an older release drew the questions, which knew none for validation: a whole iteration later is late."""
    if spec.evaluation.validation and not commit.has(layout.VALIDATION):
        raise BadInput(f"evaluation.validation: {commit.prefix} was drawn without such questions; use another name or prefix, or 0")


def _publish(assignment: Assignment, prefix: str) -> Commit:
    """Draws the questions, or takes those of the group, and commits them as the run's own."""
    store, spec = assignment.store, assignment.spec
    there = group.committed_questions(assignment)
    resolved = there.revision if there else revision.resolved(spec.model)
    own = revision.resolved_own(spec, lambda model: group.revision_of(assignment, model))
    used = revision.with_own(revision.with_revision(spec, resolved), own)
    for each in variants(used):
        with named(used, each):
            models.check(each.spec.model)
            _try_template(each.spec)
    questions = there or _drawn(used, resolved)
    if assignment.group and not there:
        questions = group.publish_questions(assignment, questions)
    return publish(store, prefix, questions.files, meta=_meta(spec, questions, own))


def _drawn(spec: Spec, resolved: str) -> group.Questions:
    """Draws the questions, and finds what has to be known of them before they are asked."""
    files = _files(alike.on_the_probe_alone(code.worked(draw(spec))))
    return group.Questions(files, resolved, alike.fitted(spec, files))


def _largest(spec: Spec) -> int:
    """Bytes of the largest base: 0 where one of them cannot be seen."""
    sources = {each.spec.model.source: each.spec.model for each in variants(spec)}
    known = [sizes.weight_bytes(model) for model in sources.values()]
    return max(known) if all(known) else 0


def _files(split: tasks.Split) -> dict[str, bytes]:
    _disjoint(split.train, split.held_out, split.probe, split.validation)
    others = {part: some for part, some in (("probe", split.probe), ("validation", split.validation)) if some}
    parts = {"train": split.train, "held-out": split.held_out, **others}
    return {layout.questions(part): records.encode_lines(problems) for part, problems in parts.items()}


def _probe(store: Store, prefix: str) -> None:
    """Tries the store. One that is away ends the program for good where somebody watches; else it is tried again as often as the
    run allows: a run that began long ago looks again where its status was lost, and is not to end for an outage."""
    try:
        check(store, prefix)
    except Passing as error:
        if pod.is_watched():
            raise BadInput(str(error)) from error
        raise


def _try_template(spec: Spec) -> None:
    """BadInput if the model has no chat template that works."""
    what = f"model.source: the tokenizer or chat template of {spec.model.source}"
    apart.tried(lambda: models.chat_template(spec.model, spec.debate.thinking), what)


def _same_format(store: Store, key: str) -> None:
    """BadInput if another release's run lies there: nothing of it is overwritten."""
    with contextlib.suppress(Missing):
        records.decode(store.read(key), Formatted, f"{store.url}/{key}")


def draw(spec: Spec) -> tasks.Split:
    """Draws all questions of a run; BadInput where a source is wrong or holds too few."""
    drawn = tasks.of_task(spec.task, spec.evaluation.validation)
    if spec.evaluation.task is None:
        return tasks.load(drawn)
    own = tasks.load(replace(drawn, held_out=0))
    return replace(own, held_out=tasks.from_other_task(tasks.of_evaluation_task(spec.evaluation.task, spec.task), own))


def _meta(spec: Spec, questions: group.Questions, own: Mapping[str, str]) -> dict[str, Any]:
    """What run.json says: the spec as it was when the run began, by which release, and what was found beside the questions."""
    return {
        "spec": begun.described(spec),
        "version": __version__,
        "model": spec.model.source,
        **questions.meta,
        **({revision.OWN: dict(own)} if own else {}),
        "taskSeed": spec.task.seed,
    }


def _disjoint(*parts: tuple[Problem, ...]) -> None:
    ids = [p.id for part in parts for p in part]
    assert len(set(ids)) == len(ids), "questions on two sides of the split"


PARSER = program.parser("prepare", "Draws the questions and checks store, model and task.", takes=("spec", "group"))

if __name__ == "__main__":
    program.without_torch()
    program.run(main, PARSER, door=lambda assignment: assignment)
