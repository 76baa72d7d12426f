"""Makes the questions of the example about programs: `python scripts/code_questions.py` writes examples/code/questions.jsonl anew.

Each asks in a sentence for a function of one line. It comes with inputs, on which programs are compared, and with a program that is
right, for the evaluation alone.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).parents[1] / "examples" / "code" / "questions.jsonl"
NUMBERS, WORDS = range(2, 10), ("pear", "level", "Orange", "banana split", "Zoe", "", "a b c")

# What is asked of a number n, a list of numbers, a text; and the expression that gives it. {k} stands for a number from 2 to 9.
OF_A_NUMBER = {
    "n plus {k}": "n + {k}",
    "n minus {k}": "n - {k}",
    "{k} minus n": "{k} - n",
    "n times {k}": "n * {k}",
    "the square of n plus {k}": "n ** 2 + {k}",
    "{k} times the square of n": "{k} * n ** 2",
    "the remainder of n divided by {k}": "n % {k}",
    "True if n is divisible by {k}, and False otherwise": "n % {k} == 0",
    "the larger of n and {k}": "max(n, {k})",
    "the sum of all numbers from 1 to n, times {k}": "{k} * sum(range(1, n + 1))",
}
OF_A_LIST = {
    "the sum of the numbers in the list n plus {k}": "sum(n) + {k}",
    "the largest number of the list n times {k}": "max(n) * {k}",
    "how many numbers of the list n are larger than {k}": "sum(1 for x in n if x > {k})",
    "the list of the numbers in the list n, each times {k}": "[x * {k} for x in n]",
    "the first {k} numbers of the list n": "n[:{k}]",
    "the numbers of the list n that are divisible by {k}, as a list": "[x for x in n if x % {k} == 0]",
}
OF_A_TEXT = {
    "the text n repeated {k} times": "n * {k}",
    "the first {k} characters of the text n": "n[:{k}]",
    "the length of the text n times {k}": "len(n) * {k}",
    "True if the text n has more than {k} characters, and False otherwise": "len(n) > {k}",
}


def main() -> None:
    """Writes the file."""
    draw = random.Random("maft/code")
    made = list(rows(draw))
    draw.shuffle(made)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("".join(json.dumps(row) + "\n" for row in made))


def rows(draw: random.Random) -> Iterator[dict[str, object]]:
    """Yields every question."""
    for kind, tasks in enumerate((OF_A_NUMBER, OF_A_LIST, OF_A_TEXT)):
        for asked, expression in tasks.items():
            for k in NUMBERS:
                yield {
                    "question": f"Write a Python function f(n) that returns {asked.format(k=k)}.",
                    "function": "f",
                    "inputs": [[_input(kind, number, draw)] for number in range(6)],
                    "answer": f"def f(n):\n    return {expression.format(k=k)}",
                }


def _input(kind: int, number: int, draw: random.Random) -> object:
    if kind == 0:
        return (0, 1)[number] if number < 2 else draw.randint(2, 60)
    if kind == 1:
        return [draw.randint(-9, 30) for _ in range(number + 1)]
    return WORDS[number]


if __name__ == "__main__":
    main()
