"""`python -m maft.diversity`: how far the agents of one iteration are from each other (paper, appendix on diversity).

In: the held-out debate of an iteration and the adapters that played it. Out: `diversity.json` beside it and a summary. All numbers
are about first answers, whose models are the generators; nats are natural logarithms.
"""

import itertools
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from msgspec import UNSET
from torch.nn.functional import cosine_similarity

from maft import adapters, device, lora, models, program, records, scores
from maft.chat_template import ChatTemplate, Tokens
from maft.device import Device
from maft.diversity import bases, embeddings
from maft.diversity.likelihoods import Generators, likelihoods
from maft.program import Assignment
from maft.records import BASE, Diversity, Transcript
from maft.spec import Spec
from maft.store import layout
from maft.store.commits import committed, fetch_folder, fetch_record, publish, required
from maft.store.lines import fetch_lines
from maft.summaries import DiversitySummary, Score


def cross(nll: Sequence[Sequence[float]]) -> float:
    """Takes the mean over i ≠ j; of one agent its own."""
    others = [value for i, row in enumerate(nll) for j, value in enumerate(row) if i != j]
    return sum(others) / len(others) if others else nll[0][0]


def dissimilarity(transcripts: Sequence[Transcript], embed: Callable[[list[str]], torch.Tensor]) -> Score | None:
    """Takes the mean over questions of 1 - cosine over pairs of agents whose first answers equal the vote (paper: answers that
    are right by the vote, so that what differs is how they get there)."""
    by_question = []
    for transcript in transcripts:
        texts = [turns[0].call.text for turns in transcript.turns if turns[0].agrees]
        if len(texts) > 1:
            vectors = embed(texts)
            pairs = [
                1 - float(cosine_similarity(vectors[a], vectors[b], dim=0)) for a, b in itertools.combinations(range(len(texts)), 2)
            ]
            by_question.append(math.fsum(pairs) / len(pairs))
    return scores.score(by_question) if by_question else None


def main(assignment: Assignment) -> DiversitySummary:
    """Measures once; a second run finds its commit."""
    store, run, iteration = assignment.store, assignment.run, assignment.iteration
    prefix = layout.diversity(run, iteration)
    if committed(store, prefix) is None:
        held_out = required(store, layout.evaluation(run, iteration), "the evaluation of this iteration")
        transcripts = fetch_lines(store, held_out, layout.TRANSCRIPTS, Transcript)
        measured = measure(assignment, sample(transcripts, assignment.spec.evaluation.diversity, assignment.spec.seed))
        publish(store, prefix, {layout.DIVERSITY: records.encode(measured)}, parents=[held_out.prefix])
    commit = required(store, prefix, "this task")
    return summary(fetch_record(store, commit, layout.DIVERSITY, Diversity))


def sample(transcripts: Sequence[Transcript], questions: int, seed: int) -> list[Transcript]:
    """Draws a seeded part of the questions, in their order: likelihoods cost a forward pass per answer and agent."""
    chosen = random.Random(f"{seed}/diversity").sample(range(len(transcripts)), min(questions, len(transcripts)))
    return [transcripts[i] for i in sorted(chosen)]


def measure(assignment: Assignment, transcripts: Sequence[Transcript]) -> Diversity:
    """Measures everything that Diversity has."""
    spec = assignment.spec
    agents = range(len(transcripts[0].turns))
    progress = program.Progress(assignment.metrics)
    progress.total.set(1)
    with tempfile.TemporaryDirectory(prefix="maft-diversity-") as scratch:
        folders = [_folder(assignment, transcripts[0].turns[n][0].call.model, Path(scratch)) for n in agents]
        nll, kl = _likelihoods(spec, transcripts, folders, device.settled(assignment.gpus))
    progress.done.inc()
    return Diversity(
        iteration=assignment.iteration,
        questions=len(transcripts),
        nll=tuple(map(tuple, nll)),
        cross=cross(nll),
        kl=kl,
        dissimilarity=dissimilarity(transcripts, embeddings.load(spec.evaluation.embedder)) if spec.evaluation.embedder else None,
        distinct=scores.distinct(transcripts),
        entropy=scores.entropy(transcripts),
        consensus=scores.agreement(transcripts),
        per="byte" if spec.bases_differ else UNSET,
    )


def _likelihoods(
    spec: Spec, transcripts: Sequence[Transcript], folders: Sequence[Path | None], used: Device
) -> tuple[list[list[float]], float | None]:
    if spec.bases_differ:
        return bases.measured(spec, transcripts, folders, used)
    template, own = models.chat_template(spec.model, spec.debate.thinking), models.own_templates(spec, len(folders))
    answers = [_answers(own.get(n, template), transcripts, n, spec.debate_of(n).system) for n in range(len(folders))]
    return likelihoods(Generators(lora.load_base(spec.model, used, spec.training.base), folders), answers)


def _answers(template: ChatTemplate, transcripts: Sequence[Transcript], agent: int, system: str) -> list[Tokens]:
    chats = [t.dialogue(agent, 1, system=system) for t in transcripts if t.turns[agent][0].call.text]
    return [template.tokens(chat, every_turn=False) for chat in chats]


def _folder(assignment: Assignment, model: str, scratch: Path) -> Path | None:
    """The adapter's directory, fetched; None for the base."""
    located = None if model == BASE else adapters.locate(model, assignment.run)
    if located is None:
        return None
    return fetch_folder(assignment.store, required(assignment.store, located[0], "the training"), scratch / model)


def summary(measured: Diversity) -> DiversitySummary:
    """Picks what status and tables show."""
    return DiversitySummary(
        questions=measured.questions,
        nll=round(measured.cross, 4),
        kl=None if measured.kl is None else round(measured.kl, 4),
        distinct=round(measured.distinct.mean, 4),
        entropy=round(measured.entropy.mean, 4),
        dissimilarity=round(measured.dissimilarity.mean, 4) if measured.dissimilarity else None,
        per_byte=measured.per == "byte",
    )


PARSER = program.parser(
    "diversity", "Measures how far the agents of an iteration are from each other.", takes=("spec", "iteration", "gpus", "group")
)

if __name__ == "__main__":
    program.run(main, PARSER)
