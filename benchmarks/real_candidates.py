"""What the untrained real model is right on: `python benchmarks/real_candidates.py`, how the tasks of real_table.py were chosen.

SmolLM2-135M-Instruct (scripts/real_model.py) answers 40 questions of each kind greedily, untrained and without debate. A task that
is to show something has room on both sides: 30 to 70 % right. `--sampled` asks three times each as debates do, by drawing at
temperature 0.7, of the kinds that have questions enough for a table: a model this small is right far less often then.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maft.answers.extract import canonical, extract
from maft.spec import AnswerKind

MODEL = Path(__file__).parents[1] / ".cache" / "models" / "smollm2-135m-instruct"
QUESTIONS, BATCH, TOKENS = 40, 20, 32
SAMPLES, TEMPERATURE = 3, 0.7  # as examples/real.yaml has agents draw their first answers
WORDS = {
    "animal": "dog cat horse lion tiger rabbit mouse frog shark eagle",
    "fruit": "apple banana cherry grape lemon mango orange peach pear plum",
    "tool": "hammer saw drill wrench shovel axe pliers chisel rake screwdriver",
    "color": "red blue green yellow purple black white pink brown gray",
    "vehicle": "car bus train truck bicycle boat ship plane van tram",
}
ENDS = ("Answer with a number.", "Answer in one line.")
Row = tuple[str, str]  # question, answer


@dataclass(frozen=True)
class Candidate:
    """A kind of question."""

    name: str
    kind: AnswerKind
    rows: list[Row]


def candidates() -> Iterator[Candidate]:
    """Draws the questions of every kind, the same at each call."""
    draw = random.Random(1)
    for largest in (9, 12, 15, 20, 30):
        pairs = [(draw.randint(1, largest), draw.randint(1, largest)) for _ in range(QUESTIONS)]
        for end in ENDS:
            sums = [(f"What is {a} + {b}? {end}", str(a + b)) for a, b in pairs]
            yield Candidate(f"sums of two numbers from 1 to {largest}: {end}", "number", sums)
    distinct = [draw.sample(range(1, 21), 2) for _ in range(QUESTIONS)]
    for ask in (f"Which number is larger, {{}} or {{}}? {end}" for end in ENDS):
        yield Candidate(ask.format("a", "b"), "number", [(ask.format(*pair), str(max(pair))) for pair in distinct])
    yield from _later(random.Random(2))
    steps = [(draw.randint(1, 20), draw.randint(1, 9)) for _ in range(QUESTIONS)]
    following = [(f"What is the next number: {a}, {a + d}, {a + 2 * d}, {a + 3 * d}?", str(a + 4 * d)) for a, d in steps]
    yield Candidate("the next number of a sequence", "number", following)
    for choices in (2, 3):
        rows = [_category(draw, choices) for _ in range(QUESTIONS)]
        yield Candidate(f"which of {choices} words is an animal, a fruit, ...", "choice", rows)


def _later(draw: random.Random) -> Iterator[Candidate]:
    """Kinds that were thought of once the larger of two numbers had shown nothing: it is right no more often than guessing."""

    def pairs(largest: int) -> list[tuple[int, int]]:
        return [(draw.randint(1, largest), draw.randint(1, largest)) for _ in range(QUESTIONS)]

    kinds = {
        "products of two numbers from 1 to 9": [(f"What is {a} * {b}?", a * b) for a, b in pairs(9)],
        "products of two numbers from 1 to 13": [(f"What is {a} * {b}?", a * b) for a, b in pairs(13)],
        "differences of two numbers up to 18": [(f"What is {a + b} - {b}?", a) for a, b in pairs(9)],
        "half of an even number up to 60": [(f"What is half of {2 * n}?", n) for n, _ in pairs(30)],
        "days of 1 to 12 weeks": [(f"How many days are {n} weeks?", 7 * n) for n, _ in pairs(12)],
        "the last of three numbers": [(f"What is the last number of {a}, {b}, {a + b}?", a + b) for a, b in pairs(15)],
        "Tom has 7 apples and gets 2 more, up to 9 each": [(_gets(a, b), a + b) for a, b in pairs(9)],
        "Tom has 9 apples and eats 2, up to 9 eaten and left": [(_eats(a, b), a) for a, b in pairs(9)],
        "Tom has 9 apples and eats 2, up to 13 eaten and left": [(_eats(a, b), a) for a, b in pairs(13)],
    }
    yield from _of_numbers(kinds)


def enough(draw: random.Random) -> Iterator[Candidate]:
    """Draws of kinds beside sums that have the 80 pairs of a table, which numbers from 1 to 13 make; three times each question."""
    kinds = {}
    for largest in (13, 15):
        pairs = [(draw.randint(1, largest), draw.randint(1, largest)) for _ in range(QUESTIONS)] * SAMPLES
        kinds[f"a * b, 1 to {largest}"] = [(f"What is {a} * {b}?", a * b) for a, b in pairs]
        kinds[f"a - b, b and the rest 1 to {largest}"] = [(f"What is {a + b} - {b}?", a) for a, b in pairs]
        kinds[f"Tom has a apples and gets b more, 1 to {largest}"] = [(_gets(a, b), a + b) for a, b in pairs]
    yield from _of_numbers(kinds)


def _of_numbers(kinds: dict[str, list[tuple[str, int]]]) -> Iterator[Candidate]:
    for name, rows in kinds.items():
        for end in ENDS:
            yield Candidate(f"{name}: {end}", "number", [(f"{question} {end}", str(answer)) for question, answer in rows])


def _gets(has: int, gets: int) -> str:
    return f"Tom has {has} apples and gets {gets} more. How many apples does he have?"


def _eats(left: int, eats: int) -> str:
    return f"Tom has {left + eats} apples and eats {eats}. How many apples are left?"


def _category(draw: random.Random, choices: int) -> Row:
    right, *others = draw.sample(sorted(WORDS), choices)
    words = [draw.choice(WORDS[name].split()) for name in (right, *others)]
    order = draw.sample(words, choices)
    lines = "\n".join(f"({'ABC'[i]}) {word}" for i, word in enumerate(order))
    article = "an" if right[0] in "aeiou" else "a"
    question = f"Which of these is {article} {right}?\n{lines}\nAnswer with one letter, A to {'ABC'[choices - 1]}."
    return question, "ABC"[order.index(words[0])]


class Model:
    """Answers greedily or by drawing, on one thread: two that share cores with others wait for each other."""

    def __init__(self, *, draws: bool) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._how: dict[str, Any] = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0} if draws else {"do_sample": False}
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(MODEL)).float().eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(MODEL), padding_side="left")

    def answers(self, questions: list[str]) -> list[str]:
        """Asks in batches."""
        return [said for i in range(0, len(questions), BATCH) for said in self._batch(questions[i : i + BATCH])]

    def _batch(self, questions: list[str]) -> list[str]:
        chats = [[{"role": "user", "content": question}] for question in questions]
        inputs = self._tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        ids = self._model.generate(**inputs, max_new_tokens=TOKENS, **self._how)
        return list(self._tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def main() -> None:
    """Prints a line for each kind as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampled", action="store_true", help="as debates ask: three times each, by drawing")
    drawing = parser.parse_args().sampled
    model = Model(draws=drawing)
    print(f"| kind of question | right of {QUESTIONS}, % | readable, % |\n|---|---:|---:|", flush=True)
    for candidate in enough(random.Random(3)) if drawing else candidates():
        said = model.answers([question for question, _ in candidate.rows])
        found = [extract(text, candidate.kind) for text in said]
        right = sum(f == canonical(answer, candidate.kind) for f, (_, answer) in zip(found, candidate.rows, strict=True))
        readable = sum(f is not None for f in found)
        print(f"| {candidate.name} | {100 * right / len(said):.0f} | {100 * readable / len(said):.0f} |", flush=True)


if __name__ == "__main__":
    main()
