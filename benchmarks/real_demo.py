"""The table of `make demo-real` in README: `python benchmarks/real_demo.py [RUN] [--write]`, from the transcripts of that run.

Both orders of a pair of numbers are one fact, so errors are clustered by pair (clustered.py), which no run does by itself.
"""

import argparse
from pathlib import Path

import clustered
import page
from real_table import against

from maft import records
from maft.records import Transcript
from maft.store import layout

RUN = Path("runs/default/real")


def held_out(run: Path, iteration: int) -> list[Transcript]:
    """Reads the held-out debates of an iteration."""
    file = run / "iterations" / str(iteration) / "evaluation" / layout.TRANSCRIPTS
    return list(records.decode_lines(file.read_bytes(), Transcript, str(file)))


def first_answers(transcripts: list[Transcript]) -> dict[str, float]:
    """The share of the agents whose first answer is right, by question."""
    return {t.problem.question: sum(turns[0].right for turns in t.turns) / len(t.turns) for t in transcripts}


def votes(transcripts: list[Transcript], round_: int) -> dict[str, float]:
    """Whether the majority of a round is right, by question; -1 is the last round."""
    return {t.problem.question: float(t.votes[round_].right) for t in transcripts}


def text(run: Path) -> str:
    """Makes the table, and the sentence that says what training gained."""
    untrained, trained = held_out(run, 0), held_out(run, 1)
    first, debate = [first_answers(each) for each in (untrained, trained)], [votes(each, -1) for each in (untrained, trained)]
    rows = {
        "base, one answer": first[0],
        f"majority of {len(untrained[0].turns)}": votes(untrained, 0),
        "debate, untrained": debate[0],
        "multiagent finetuning, debate after one iteration": debate[1],
        "… one first answer": first[1],
    }
    cluster = {question: clustered.pair(question) for question in first[0]}
    lines = [f"| {len(untrained)} held-out questions, one seed | right, % ± standard error, clustered by pair |", "|---|---:|"]
    for name, right in rows.items():
        lines.append(f"| {name} | {100 * clustered.mean(right):.1f} ± {100 * clustered.stderr(right, cluster):.1f} |")
    gains = ["{} points (p = {})".format(*against(*both, cluster)) for both in (first, debate)]
    return "\n".join([*lines, "", f"Training gains one first answer {gains[0]}, and the debate {gains[1]}."])


def main() -> None:
    """Prints the table, or puts it into README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=RUN)
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    arguments = parser.parse_args()
    made = text(arguments.run)
    print(made)
    if arguments.write:
        page.put("../README.md", "real_demo", made)


if __name__ == "__main__":
    main()
