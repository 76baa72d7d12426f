"""`python -m maft.evaluate`: the debate over held-out questions, in numbers. Labels are used here and nowhere else.

Every question counts: an answer that does not parse is a wrong one. Standard errors are over questions.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from maft import flags, program, records
from maft.debate.session import clear, run_debate, settle
from maft.errors import BadInput
from maft.records import Evaluation, Problem, Score, Transcript
from maft.scores import agreement, score, usage
from maft.store import layout
from maft.store.base import Store, open_store
from maft.store.commits import committed, fetch_record, fetch_records, publish, required


def evaluate(transcripts: Sequence[Transcript], iteration: int) -> Evaluation:
    """The numbers of one held-out debate."""
    agents, rounds = range(len(transcripts[0].turns)), range(max(len(t.votes) for t in transcripts))
    pairs = [(turns[0].right, turns[-1].right) for t in transcripts for turns in t.turns]
    return Evaluation(
        iteration=iteration,
        questions=len(transcripts),
        answers=tuple(score([_share(t, m) for t in transcripts]) for m in rounds),
        agents=tuple(tuple(score([_turn(t, n, m) for t in transcripts]) for m in rounds) for n in agents),
        votes=tuple(score([float(t.votes[min(m, len(t.votes) - 1)].right) for t in transcripts]) for m in rounds),
        consensus=agreement(transcripts),
        wrong_to_right=pairs.count((False, True)),
        right_to_wrong=pairs.count((True, False)),
        unparsed=sum(turn.parsed is None for t in transcripts for turns in t.turns for turn in turns),
        ties=sum(t.vote.tied for t in transcripts),
        usage=usage(transcripts),
    )


def _turn(transcript: Transcript, agent: int, m: int) -> float:
    """Whether the agent was right in round m + 1; a debate that stopped early stays where it stopped."""
    turns = transcript.turns[agent]
    return float(turns[min(m, len(turns) - 1)].right)


def _share(transcript: Transcript, m: int) -> float:
    agents = range(len(transcript.turns))
    return sum(_turn(transcript, n, m) for n in agents) / len(agents)


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Transcripts and numbers in one commit."""
    store = open_store(arguments.store)
    prefix = layout.evaluation(arguments.run, arguments.iteration)
    if committed(store, prefix) is None:
        _held_out_is_new(store, arguments.group or arguments.run)
        found, seconds = run_debate(arguments, store, prefix, "held-out")
        transcripts = found[layout.TRANSCRIPTS]
        numbers = evaluate(transcripts, arguments.iteration)
        files = {layout.TRANSCRIPTS: records.encode_lines(transcripts), layout.EVALUATION: records.encode(numbers)}
        publish(store, prefix, files, meta={"seed": arguments.seed})
        settle(store, prefix, seconds)
    commit = required(store, prefix, "this task")
    clear(store, prefix)
    return summary(fetch_record(store, commit, layout.EVALUATION, Evaluation))


def _held_out_is_new(store: Store, run: str) -> None:
    commit = required(store, f"{run}/{layout.PROBLEMS}", "the task `prepare`")
    train, held_out = ({p.id for p in fetch_records(store, commit, f"{part}.jsonl", Problem)} for part in ("train", "held-out"))
    if both := train & held_out:
        raise BadInput(
            f"{commit.prefix}held-out.jsonl: {len(both)} of its questions are training questions; make the problems anew"
        )


def summary(numbers: Evaluation) -> dict[str, Any]:
    """What status and tables show: fractions with their standard errors, in at most 4 KiB."""

    def short(value: Score) -> list[float]:
        return [round(value.mean, 4), round(value.stderr, 4)]

    return {
        "questions": numbers.questions,
        "agents": len(numbers.agents),
        "rounds": len(numbers.votes),
        "answer": short(numbers.answers[0]),
        "majority": short(numbers.votes[0]),
        "debate": short(numbers.votes[-1]),
        "consensus": short(numbers.consensus),
        "wrongToRight": numbers.wrong_to_right,
        "rightToWrong": numbers.right_to_wrong,
        "unparsed": numbers.unparsed,
        "usage": records.plain(numbers.usage),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser_ = program.parser("evaluate", "Debates the held-out questions and scores the answers.")
    flags.add_debate(parser_)
    return parser_


if __name__ == "__main__":
    program.without_torch()
    program.run(main, parser())
