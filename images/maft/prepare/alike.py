"""The threshold from which on the vectors of two answers count as the same, as the labels of the probe give it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median

import msgspec

from maft import records
from maft.answers.likeness import META, PAIRS, POOR, drowned, pairs, threshold
from maft.errors import BadInput
from maft.prepare.tasks import Split
from maft.records import Commit, Problem
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.lines import iterate_lines
from maft.summaries import Threshold

FOREIGN = 0.25  # share of unknown words and letters from which on an encoder does not read a language


def on_the_probe_alone(split: Split) -> Split:
    """Takes the labels away from all other questions: nobody who trains or is scored sees them."""
    return replace(split, train=_bare(split.train), held_out=_bare(split.held_out), validation=_bare(split.validation))


def _bare(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(msgspec.structs.replace(problem, alike=None) for problem in problems)


def compared(spec: Spec) -> bool:
    """Tells whether any answers of the run are compared by vectors."""
    return "semantic" in (spec.task.answer_kind, spec.held_out_task.answer_kind)


def fitted(spec: Spec, files: Mapping[str, bytes]) -> Threshold | None:
    """Chooses the threshold of a run; None where it compares otherwise. files: its questions. BadInput if its encoder cannot be
    read."""
    if not compared(spec):
        return None
    from maft.answers.encoder import load

    embedder = spec.task.semantic.embedder
    embed, several = load(embedder), {name: records.decode_lines(data, Problem, name) for name, data in files.items()}
    for name in _files_compared(spec, several):
        _in_its_language(embedder, name, several[name])
    return threshold(list(pairs(several.get(layout.PROBE, []), embed)), spec.task.semantic.threshold)


def _files_compared(spec: Spec, files: Iterable[str]) -> list[str]:
    """Those of the files whose answers are compared by vectors: held-out questions may be of another task."""
    own, other = (asked.answer_kind == "semantic" for asked in (spec.task, spec.held_out_task))
    return [name for name in files if (other if name == layout.HELD_OUT else own)]


def _in_its_language(embedder: str, name: str, problems: Iterable[Problem]) -> None:
    """BadInput where the encoder cannot read the answers: those in a script that it does not know are all the same to it."""
    from maft.answers.encoder import unknown

    if (share := unknown(embedder, [problem.answer for problem in problems])) > FOREIGN:
        raise BadInput(
            f"task.semantic.embedder: has no word or letter for {share:.0%} of the answers in {name}, so they look the same; take"
            " an encoder of their language, or answer: judge"
        )


def committed(questions: Commit) -> Threshold | None:
    """Reads what the commit of questions has."""
    return records.described(questions, META, Threshold) if META in questions.meta else None


def usual_words(store: Store, questions: Commit, spec: Spec) -> int:
    """Counts the words of a question whose answers are compared, the median of all; 0: there are none."""
    names = _files_compared(spec, (layout.questions("train"), layout.HELD_OUT))[:1]
    problems = (problem for name in names for problem in iterate_lines(store, questions, name, Problem))
    return round(median([len(problem.text.split()) for problem in problems] or [0]))


def warnings(chosen: Threshold | None, words: int) -> tuple[str, ...]:
    """Says what people have to know of it. words: of a question, as `usual_words` counts them."""
    if chosen is None:
        return ()
    lines = []
    if trouble := drowned(words):
        lines.append(f"task.answer: {trouble} (docs/answers.md); ask in fewer words, or take answer: judge")
    if chosen.source == "default":
        lines.append(
            f"task.semantic.threshold: none was fitted, so {chosen.cosine} counts, measured elsewhere: the probe has {chosen.pairs}"
            f" labelled pairs, and {PAIRS} of both kinds are needed; give rows same and different, and ask for a larger task.probe"
        )
    if chosen.error and chosen.error.mean > POOR:
        lines.append(
            f"task.semantic.embedder: its vectors put {chosen.error.percent} % of labelled pairs wrongly, so votes say little;"
            " take another encoder, or answer: judge"
        )
    return tuple(lines)
