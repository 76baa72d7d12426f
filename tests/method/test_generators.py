"""reasoning-gym's generators: whether equality of answers agrees with the scorers, tried on all of them; how answers are found."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import within

from maft.answers import forms, gym
from maft.answers.equality import Checker
from maft.answers.generators import GENERATORS, LONGEST, NEARLY, REFUSED, SEVERAL, UNSTEADY, Form, find

pytestmark = [
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),  # of a package that reasoning-gym imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
# What a fresh environment lacks, by the generator that needs it; it says so.
NEEDED = {"zebra_puzzles": "pycosat", "game_of_life": "cellpylib", "game_of_life_halting": "cellpylib"}
MISSING = {name for name, package in NEEDED.items() if find_spec(package) is None}
gym.stand_in()  # the library imports at once what a fresh environment does not have
SEEDS = (1, 20_000)
SLOW = {"futoshiki": 1, "zebra_puzzles": 2}  # questions that are tried, where making one takes long
SPELLINGS = (  # of an answer in a model's text; the answer may have several lines
    "<answer>{}</answer>",
    "I first thought <answer>3</answer>, but no.\n\n<answer>\n{}\n</answer>",
    "Let me think: one, two.\n\nAnswer:{sep}{}",
    "Thus the final answer is:{sep}{}",
    "**Answer:**{sep}{}",
    "Answer:\n```\n{}\n```",
    "So it ends like this.\n\n```text\n{}\n```",
    "{}",
)


def made(name: str, seed: int, count: int, **config: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A generator and its first questions."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(name, seed=seed, size=1024, **config)
    return dataset, [dataset[i] for i in range(count)]


def says_what_it_needs(name: str) -> None:
    with pytest.raises(ImportError, match=f"needs the package {NEEDED[name]}"):
        made(name, 1, 1)


def mutants(answer: str, source: random.Random) -> Iterator[str]:
    """Answers that are not quite this one."""
    for i in source.sample(range(len(answer)), min(len(answer), 12)):
        yield answer[:i] + answer[i + 1 :]
        yield answer[:i] + source.choice("019axB ") + answer[i:]
        for alphabet in ("1234567890", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            if answer[i] in alphabet:
                yield answer[:i] + source.choice(alphabet) + answer[i + 1 :]
    yield from (answer.swapcase(), answer.upper(), answer.lower(), answer.title(), answer[::-1])
    yield from (answer + end for end in ("0", "1", ".1", ".01", ".0001", "x", " 1", "\n1", "\n1 1", "s"))
    yield from ("-" + answer, answer.lstrip("-"))
    lines, words = answer.split("\n"), answer.split()
    yield from ("\n".join(changed) for changed in (lines[:-1], [*lines, lines[-1]], lines[::-1]))
    yield from (" ".join(changed) for changed in (words, words[:-1], [*words, words[-1]], words[::-1]))
    yield from ("1/3", "0", "No", "True", "[]", "[[]]")


@pytest.mark.parametrize("name", GENERATORS)
def test_equality_agrees_with_the_scorer(name: str) -> None:
    """Each spelling of a question's own answer is that answer, and right; nothing that is unequal to it is right."""
    form, tried = GENERATORS[name], 0
    if name in MISSING:
        return says_what_it_needs(name)
    for seed in SEEDS:
        dataset, entries = made(name, seed, SLOW.get(name, 8))
        source = random.Random(seed)
        for entry in entries:
            own = entry["answer"]
            reference = form.read(own)
            if not own.strip() or dataset.score_answer(own, entry) != 1:
                continue  # `prepare` passes such a question over: no answer to it would be right
            assert reference is not None and form.read(reference) == reference
            assert dataset.score_answer(reference, entry) == 1
            sep = "\n" if "\n" in own else " "
            assert {find(text.format(own, sep=sep), form) for text in SPELLINGS} == {reference}
            others = [other["answer"] for other in entries]
            found = {answer for text in (*others, *mutants(own, source)) if (answer := form.read(text)) is not None}
            wrong = found - {reference}
            assert {answer: marks for answer in wrong if (marks := dataset.score_answer(answer, entry)) == 1} == {}
            tried += len(wrong)
    assert tried >= len(SEEDS)


@given(st.lists(st.sampled_from(["7", "07", "7.0", "$7$", "8", "1/3", "-7", "on", "[7]", "7 8"]), min_size=3, max_size=3))
def test_equality_is_an_equivalence(texts: list[str]) -> None:
    with Checker("text") as checker:
        for form in (GENERATORS["gcd"], GENERATORS["gsm_symbolic"], GENERATORS["acre"], GENERATORS["sudoku"], GENERATORS["bf"]):
            read = [answer for text in texts if (answer := form.read(text)) is not None]
            equal = {(a, b) for a in read for b in read if checker.equal(a, b)}
            assert all((a, a) in equal for a in read)
            assert all((b, a) in equal for a, b in equal)
            assert all((a, d) in equal for a, b in equal for c, d in equal if b == c)


def test_every_generator_is_listed_once() -> None:
    from reasoning_gym.factory import DATASETS

    assert sorted([*GENERATORS, *REFUSED]) == sorted(DATASETS)


# A question's own answer, and another one that its scorer gives full marks: why no equality agrees.
TWO_RIGHT: dict[str, Any] = {
    "coin_flip": (NEARLY, lambda own: str(float(own) + 0.00001)),
    "decimal_arithmetic": (NEARLY, lambda own: own[:-1] + str((int(own[-1]) + 1) % 10)),
    "number_sorting": (NEARLY, lambda own: own.replace(own.split("'")[1], own.split("'")[1] + "01")),
    "game_of_life": (REFUSED["game_of_life"], lambda own: own[:-1] + ",[1]]"),
    "game_of_life_halting": (REFUSED["game_of_life_halting"], lambda own: "perhaps"),
    "letter_jumble": (REFUSED["letter_jumble"], lambda own: own + " more"),
    "countdown": (SEVERAL, lambda own: f"({own})"),
    "simple_integration": (SEVERAL, lambda own: own + " + 1"),
}


@pytest.mark.parametrize("name", TWO_RIGHT)
def test_a_refused_generator_takes_several_answers(name: str) -> None:
    reason, other = TWO_RIGHT[name]
    assert REFUSED[name] == reason
    if name in MISSING:
        return says_what_it_needs(name)
    dataset, entries = made(name, 1, 8)
    pairs = [(entry, own, other(own)) for entry in entries if (own := entry["answer"])]
    assert any(own != more and {dataset.score_answer(text, entry) for text in (own, more)} == {1} for entry, own, more in pairs)


QUESTIONS = """
import hashlib, json, sys
from maft.answers import gym
gym.stand_in()
import reasoning_gym
hashes = {}
for name, count in (argument.split(":") for argument in sys.argv[1:]):
    dataset = reasoning_gym.create_dataset(name, seed=5, size=1024)
    said = [[entry["question"], entry["answer"]] for entry in (dataset[i] for i in range(int(count)))]
    hashes[name] = hashlib.sha256(json.dumps(said).encode()).hexdigest()
sys.__stdout__.write("\\n" + json.dumps(hashes))
"""


@pytest.mark.programs
def test_the_same_seed_gives_the_same_questions_in_another_process() -> None:
    """Scorers get the question made anew, so this has to hold."""
    unsteady = [name for name, reason in REFUSED.items() if reason == UNSTEADY]
    names = [name for name in (*GENERATORS, *unsteady) if name not in MISSING]
    counts = [f"{name}:{25 if name in unsteady else 2}" for name in names]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", QUESTIONS, *counts],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    one, other = (json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in processes)
    assert {name for name in names if one[name] != other[name]} == {*unsteady} - MISSING


# --- forms ---

READ: list[tuple[str, str, str | None]] = [
    ("chain_sum", "1,234.50", "1234.5"),
    ("chain_sum", "$-7$", "-7"),
    ("chain_sum", "007", "7"),
    ("chain_sum", "1e3", "1000"),
    ("chain_sum", "3 or 4", None),
    ("gsm_symbolic", "-20", "20"),
    ("power_function", "-527.9038", "-5.28e+2"),
    ("power_function", "1.7574418454559584e-22", "1.76e-22"),
    ("power_function", r"1.76 \times 10^{-22}", "1.76e-22"),
    ("dice", "2/4", "2/4"),
    ("dice", r"$\dfrac{35}{99}$", "35/99"),
    ("dice", "0.5", None),
    ("bitwise_arithmetic", "-0X0aF", "-0xaf"),
    ("bitwise_arithmetic", "af", None),
    ("complex_arithmetic", "(3 - i)", "3.0 - 1.0i"),
    ("complex_arithmetic", "6.00i", "0.0 + 6.0i"),
    ("complex_arithmetic", "-2", "-2.0 + 0.0i"),
    ("complex_arithmetic", "3 4i", None),
    ("polynomial_equations", "x = 1.5, x = -2", "-2.0, 1.5"),
    ("polynomial_equations", "1.5; many", None),
    ("prime_factorization", "3 x 2 * 2", "2 × 2 × 3"),
    ("prime_factorization", "2^2 × 3", None),
    ("acre", "The light is **off**.", "off"),
    ("acre", "It is not on.", None),
    ("acre", "on or off", None),
    ("acre", "On", "on"),
    ("calendar_arithmetic", "friday.", "Friday"),
    ("calendar_arithmetic", "12 days", "12"),
    ("course_schedule", "`true`", "True"),
    ("base_conversion", "1f", "1f"),
    ("base_conversion", "1F", None),  # told apart from 1f by the scorer, which takes small letters alone
    ("spell_backward", '"aeaidorB"', "aeaidorb"),
    ("figlet_font", "C L O W", "clow"),
    ("sentence_reordering", "This, too,  is one of Mr.", "this, too, is one of mr."),
    ("emoji_mystery", '"A great deal," was the reply.', '"A great deal," was the reply.'),
    ("word_sorting", "a,b , c.", "a, b, c"),
    ("word_sorting", "bleus_, Avenue", "bleus_, Avenue"),
    ("word_sorting", "a b, c", None),
    ("ab", "#A  B#", "#A B#"),
    ("ab", "#A C#", None),
    ("knights_knaves", "Zoey is an angel, and Joseph is a devil.", "joseph is a devil, zoey is a angel"),
    ("knights_knaves", "nobody", None),
    ("sudoku", "[[1, 2], [3, 4]]", "1 2\n3 4"),
    ("sudoku", "| 1 | 2 |\n| 3 | 4 |", "1 2\n3 4"),
    ("sudoku", "1 2\nthree 4", None),
    ("spiral_matrix", "[1, 2, 03]", "1 2 3"),
    ("list_functions", "[1,2]", "[1, 2]"),
    ("list_functions", "[1.0]", None),
    ("list_functions", "[" * 100_000, None),
    ("number_filtering", "[14, '-3.50']", "['14', '-3.50']"),
    ("number_filtering", "[]", "[]"),
    ("group_anagrams", "[['tan', 'nat'], ['tea', 'eat']]", '[["eat", "tea"], ["nat", "tan"]]'),
    ("palindrome_partitioning", '[["a", "b"], ["a", "b"]]', '[["a", "b"]]'),
    ("tsumego", "d3", "D3"),
    ("modulo_grid", "❌✅ \n✅❌\n", "❌✅\n✅❌"),
    ("string_insertion", "exit()", None),
]


@pytest.mark.parametrize(("name", "text", "expected"), READ)
def test_canonical_forms(name: str, text: str, expected: str | None) -> None:
    assert GENERATORS[name].read(text) == expected


@given(st.sampled_from(sorted(GENERATORS)), st.text(max_size=60) | st.from_regex(r"[\[\]()0-9 ,./*x'\"#ABi+-]{0,40}"))
def test_a_canonical_form_is_its_own(name: str, text: str) -> None:
    """So equality is one of canonical forms, however often they are read."""
    read = GENERATORS[name].read
    answer = read(text)
    assert answer is None or read(answer) == answer
    find(text, GENERATORS[name])


EVALUATED = ("binary_matrix", "spiral_matrix", "string_insertion", "bitwise_arithmetic")  # by scorers, as Python


@pytest.mark.parametrize("name", EVALUATED)
@pytest.mark.parametrize("text", ["__import__('os').system('true')", "[].__class__", "exit()", "(lambda: 0)()", "1 if x else 2"])
def test_scorers_that_evaluate_answers_get_no_code(name: str, text: str) -> None:
    assert GENERATORS[name].read(text) is None


# --- where an answer stands ---

NUMBER, MATRIX, WORD = GENERATORS["gcd"], GENERATORS["sudoku"], GENERATORS["calendar_arithmetic"]
FOUND: list[tuple[Form, str, str | None]] = [
    (NUMBER, "<answer>20</answer> (checked 3 times)", "20"),
    (NUMBER, "<answer>20</answer> no, <answer>21", "21"),
    (NUMBER, "<ANSWER> 20 </ANSWER>", "20"),
    (NUMBER, "<answer>20 or 21</answer> so 20", None),
    (NUMBER, r"I get \boxed{12}, answer: 13", "12"),
    (NUMBER, "The answer is 12. There were 3 steps.", "12"),
    (NUMBER, "3 and 4 make 7", "7"),
    (WORD, "Answer: Friday because the 1st was a Sunday.", "Friday"),
    (WORD, "Answer: not Friday", None),
    (WORD, "The answer is **Friday**.", "Friday"),
    (WORD, "Answer: Friday\nAnswer: Monday", "Monday"),
    (WORD, "It falls on a Friday.", "Friday"),
    (WORD, "<think>\nMonday? <answer>Monday</answer>\n</think>\n\nAnswer: Friday", "Friday"),
    (WORD, "The answer is Monday?</think>\nIt is Friday.", "Friday"),
    (WORD, "<think>\nSo far the answer is Monday, but", None),
    (NUMBER, "<think>\n<answer>7</answer>", None),
    (MATRIX, "Answer:\n1 2\n3 4\n\nEach row has both.", "1 2\n3 4"),
    (MATRIX, "We rotate it.\n\n1 2\n3 4", "1 2\n3 4"),
    (MATRIX, "```\n9 9\n```\nBetter:\n```\n1 2\n3 4\n```\nThat is all.", "1 2\n3 4"),
    (MATRIX, "Answer: the rotated matrix is:\n1 2\n3 4\n\nDone.", "1 2\n3 4"),
    (MATRIX, "First:\n\n9 9\n\nRotated:\n1 2\n3 4\n\nThat is the result.", "1 2\n3 4"),
    (MATRIX, "No idea.", None),
    (GENERATORS["figlet_font"], "I cannot read this, for the letters are much too far from each other to be any word.", None),
    (GENERATORS["word_sorting"], "**Answer:** _viva, diseases, lovely", "_viva, diseases, lovely"),
    (GENERATORS["figlet_font"], "It took a while.\n\nCLOWRE", "clowre"),
    (MATRIX, "<answer>" + "1 " * LONGEST + "</answer>", None),
]


@pytest.mark.parametrize(("form", "text", "expected"), FOUND)
def test_an_answer_is_found(form: Form, text: str, expected: str | None) -> None:
    assert find(text, form) == expected


@pytest.mark.parametrize(("form", "text"), [(NUMBER, "3 and 4 make 7"), (WORD, "On a Friday"), (MATRIX, "So:\n\n1 2\n3 4")])
def test_a_text_that_was_cut_off_has_the_answers_that_it_announced(form: Form, text: str) -> None:
    assert find(text, form) is not None and find(text, form, complete=False) is None
    assert find(f"<answer>{find(text, form)}</answer> and", form, complete=False) == find(text, form)


@pytest.mark.parametrize(
    "piece", ["<answer>", "answer: ", "```\n", "\n \n", "[[", "1 ", "a" * 20 + " ", "' ", "\\boxed{", "answer is is "]
)
def test_hostile_texts_cost_linear_time(piece: str) -> None:
    for form in {*GENERATORS.values()}:
        with within(1):  # the slowest takes 0.1 s; quadratic ones take minutes
            find(piece * (50_000 // len(piece)), form)


def test_decimals_have_no_exponent() -> None:
    assert forms.decimal("1/1000000000000") == "0.000000000001"
    assert forms.decimal("1" + "0" * 30) == "1" + "0" * 30
    assert forms.decimal("1/3").startswith("0.3333333333")
