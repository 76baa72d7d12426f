"""Makes the questions of the real model's examples: `python scripts/real_questions.py` writes examples/real/*.jsonl anew.

Questions about two numbers. 3 + 4 and 4 + 3 are one sum asked twice: a model that learned the one knows the other, so the split
into training and held-out questions is by unordered pair. Pairs of equal numbers, which have one order only, are shared out alike.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples" / "real"
Pair = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """A file of training and one of held-out questions about two numbers from 1 to `largest`."""

    name: str
    ask: str
    answer: Callable[[Pair], int]
    largest: int
    train: int
    held_out: int
    equal: int
    """Questions with two equal numbers in each of the two files."""


LEFT = "Tom has {total} apples and eats {1}. How many apples are left?"
TASKS = (
    Task("sums", "What is {} + {}?", sum, largest=9, train=40, held_out=40, equal=4),
    Task("wide", "What is {} + {}?", sum, largest=15, train=60, held_out=100, equal=4),
    Task("larger", "Which number is larger, {} or {}?", max, largest=20, train=60, held_out=100, equal=0),
    Task("product", "What is {} * {}?", math.prod, largest=13, train=60, held_out=100, equal=4),
    Task("left", LEFT, lambda pair: pair[0], largest=13, train=60, held_out=100, equal=4),
)


def main() -> None:
    """Writes both files of every task."""
    FOLDER.mkdir(exist_ok=True)
    for task in TASKS:
        for part, pairs in zip(("train", "held-out"), split(task), strict=True):
            lines = [json.dumps(row(task, pair)) for pair in pairs]
            (FOLDER / f"{task.name}-{part}.jsonl").write_text("\n".join(lines) + "\n")


def split(task: Task) -> tuple[list[Pair], list[Pair]]:
    """Draws training and held-out pairs, each in every order that it has, so that no unordered pair is on both sides."""
    draw = random.Random(f"maft/{task.name}")
    numbers = range(1, task.largest + 1)
    equal, mixed = [(n, n) for n in numbers], list(combinations(numbers, 2))
    draw.shuffle(equal)
    draw.shuffle(mixed)
    train, held_out = ((count - task.equal) // 2 for count in (task.train, task.held_out))
    sides = (
        asked(mixed[:train], equal[: task.equal]),
        asked(mixed[train : train + held_out], equal[task.equal : 2 * task.equal]),
    )
    for side in sides:
        draw.shuffle(side)
    return sides


def asked(mixed: Sequence[Pair], equal: Sequence[Pair]) -> list[Pair]:
    """Lists pairs as they are asked: of different numbers in both orders."""
    return [*mixed, *((b, a) for a, b in mixed), *equal]


def row(task: Task, pair: Pair) -> dict[str, str]:
    """Writes one line of a task of kind jsonl."""
    return {"question": task.ask.format(*pair, total=sum(pair)), "answer": str(task.answer(pair))}


if __name__ == "__main__":
    main()
