"""`python -m maft.evaluate`: the debate over held-out or validation questions, in numbers. Labels are used here and nowhere else.

Every question counts: an answer that does not parse is a wrong one. Standard errors are over questions.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from maft import program, records, validation
from maft.debate import shards, society
from maft.debate.journal import clear
from maft.debate.session import debate_part
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Evaluation, Problem, Transcript
from maft.scores import Tally, rounded, score
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch_record, publish, required
from maft.store.lines import Files, iterate_lines
from maft.store.timing import write_seconds
from maft.summaries import EvaluateSummary, ShardSummary


def evaluate(transcripts: Sequence[Transcript], iteration: int) -> Evaluation:
    """Computes the numbers of one debate."""
    agents, rounds = range(len(transcripts[0].turns)), range(max(len(t.votes) for t in transcripts))
    tally, counted = Tally(), Counter[tuple[bool, bool] | str]()
    answers, votes = [array("d") for _ in rounds], [array("d") for _ in rounds]
    by_agent = [[array("d") for _ in rounds] for _ in agents]
    for transcript in transcripts:
        tally.add(transcript)
        for m in rounds:
            answers[m].append(_share(transcript, m))
            votes[m].append(transcript.votes[min(m, len(transcript.votes) - 1)].right)
            for n in agents:
                by_agent[n][m].append(_turn(transcript, n, m))
        counted.update((turns[0].right, turns[-1].right) for turns in transcript.turns)
        counted["unparsed"] += sum(turn.parsed is None for turns in transcript.turns for turn in turns)
        counted["ties"] += transcript.vote.tied
    return Evaluation(
        iteration=iteration,
        questions=tally.questions,
        answers=tuple(map(score, answers)),
        agents=tuple(tuple(map(score, values)) for values in by_agent),
        votes=tuple(map(score, votes)),
        consensus=tally.agreement,
        wrong_to_right=counted[False, True],
        right_to_wrong=counted[True, False],
        unparsed=counted["unparsed"],
        ties=counted["ties"],
        usage=tally.usage,
        whole=tally.whole,
    )


def _turn(transcript: Transcript, agent: int, m: int) -> float:
    """Whether the agent was right in round m + 1; a debate that stopped early stays where it stopped."""
    turns = transcript.turns[agent]
    return float(turns[min(m, len(turns) - 1)].right)


def _share(transcript: Transcript, m: int) -> float:
    agents = range(len(transcript.turns))
    return sum(_turn(transcript, n, m) for n in agents) / len(agents)


def main(assignment: Assignment) -> EvaluateSummary | ShardSummary:
    """Publishes transcripts and numbers in one commit; of several programs the last one does."""
    store = assignment.store
    place = layout.validation if assignment.part == "validation" else layout.evaluation
    prefix = place(assignment.run, assignment.iteration)
    if (commit := committed(store, prefix)) is None:
        _is_new(store, assignment)
        own = _debate(assignment, prefix)
        if (commit := committed(store, prefix)) is None:
            return ShardSummary(questions=own)
    clear(store, prefix)
    shards.clear(store, prefix)
    numbers = summary(fetch_record(store, commit, layout.EVALUATION, Evaluation))
    return replace(numbers, validation=validation.read(commit)) if assignment.part == "validation" else numbers


def _debate(assignment: Assignment, prefix: str) -> int:
    """Debates the questions by this iteration's models, and commits transcripts and numbers once all are there; returns how many
    questions were this program's."""
    store, spec, iteration = assignment.store, assignment.spec, assignment.iteration
    rules = society.validation_rules if assignment.part == "validation" else society.held_out_rules
    agents = spec.held_out_agents(iteration)
    players = society.load(store, assignment.run, spec, iteration, agents, tuple(assignment.servers))
    debated = debate_part(assignment, rules(spec, iteration), players, prefix, assignment.part)
    if debated.transcripts:
        numbers = evaluate(debated.transcripts[layout.TRANSCRIPTS], iteration)
        with Files(debated.transcripts, {layout.EVALUATION: records.encode(numbers)}) as files:
            publish(store, prefix, files, meta={"seed": spec.seed, **_gain(assignment, numbers, debated.all)})
        write_seconds(store, prefix, debated.seconds)
    return debated.own


def _gain(assignment: Assignment, numbers: Evaluation, transcripts: Iterable[Transcript]) -> dict[str, Any]:
    """What a commit of validation questions says of itself: whether the iteration is better than those before it."""
    if assignment.part != "validation":
        return {}
    right, accuracy = {t.problem.id: float(t.vote.right) for t in transcripts}, rounded(numbers.votes[-1])
    measured = validation.measured(assignment.store, assignment.run, assignment.iteration, accuracy, right)
    return {validation.META: records.plain(measured)}


def _is_new(store: Store, assignment: Assignment) -> None:
    commit = required(store, f"{assignment.questions}/{layout.PROBLEMS}", "the task `prepare`")
    parts = ("train", assignment.part)
    train, asked = ({p.id for p in iterate_lines(store, commit, layout.questions(part), Problem)} for part in parts)
    if both := train & asked:
        raise BadInput(
            f"{commit.prefix}{layout.questions(assignment.part)}: {len(both)} of its questions are training questions;"
            " make the problems anew"
        )


def summary(numbers: Evaluation) -> EvaluateSummary:
    """Picks what status and tables show of the debate."""
    return EvaluateSummary(
        questions=numbers.questions,
        agents=len(numbers.agents),
        rounds=len(numbers.votes),
        answer=rounded(numbers.answers[0]),
        majority=rounded(numbers.votes[0]),
        debate=rounded(numbers.votes[-1]),
        consensus=rounded(numbers.consensus),
        wrong_to_right=numbers.wrong_to_right,
        right_to_wrong=numbers.right_to_wrong,
        unparsed=numbers.unparsed,
        answers=numbers.whole,
        usage=numbers.usage,
    )


PARSER = program.parser(
    "evaluate",
    "Debates the held-out questions, or those that choose the best iteration, and scores the answers.",
    takes=("spec", "iteration", "servers", "group", "shard", "part"),
)

if __name__ == "__main__":
    program.without_torch()
    program.run(main, PARSER)
