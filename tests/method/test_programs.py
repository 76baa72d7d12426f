"""Programs as answers: found in texts, equal by their outputs (test_escapes.py: what programs try to reach)."""

import asyncio
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_debate import DEBATE, PROMPTS, SOCIETY, MemoryEngine
from test_tasks import JSONL, replace, write

from maft.answers import blocks
from maft.answers.confined.values import written
from maft.answers.equality import Checker
from maft.answers.programs import Programs, at_once, joined, run
from maft.chat_template import load_chat_template
from maft.debate.question import Question
from maft.debate.setup import Setup
from maft.debate.society import Rules
from maft.errors import BadInput
from maft.prepare.code import worked
from maft.prepare.tasks import Split, from_other_task, load
from maft.records import Cases, Problem, decode, encode

EXAMPLE = Path(__file__).parents[2] / "examples" / "code" / "questions.jsonl"
ONE = Cases("f", "[[7]]")


def outputs(body: str, cases: Cases = ONE) -> tuple[str, ...]:
    return run(cases, body).outputs


def fault(body: str, cases: Cases = ONE) -> str:
    result = run(cases, body)
    assert result.outputs == ()
    return result.fault


# --- programs in texts ---

TEXTS = {
    "one block": ("Here:\n```python\ndef f(x):\n    return x\n```\nDone.", "def f(x):\n    return x"),
    "the last of two": ("```python\ndef f(x): return 1\n```\nNo:\n```python\ndef f(x): return 2\n```", "def f(x): return 2"),
    "then how it is called": ("```python\ndef f(x): return 2\n```\n```python\nprint(f(3))\n```", "def f(x): return 2"),
    "then what it prints": ("```python\ndef f(x): return 2\n```\n```\n2\n```", "def f(x): return 2"),
    "another language": ("```python\ndef f(x): return 2\n```\n```javascript\ndef f(x)\n```", "def f(x): return 2"),
    "no language": ("```\ndef f(x): return 2\n```", "def f(x): return 2"),
    "tildes": ("~~~py\ndef f(x): return 2\n~~~", "def f(x): return 2"),
    "in a list": ("1. So:\n   ```python\n   def f(x):\n       return 2\n   ```", "def f(x):\n    return 2"),
    "a lambda": ("```python\nf = lambda x: 2\n```", "f = lambda x: 2"),
    "a fence in a text of it": ("````python\ndef f(x): return '''\n```\n'''\n````", "def f(x): return '''\n```\n'''"),
    "never closed": ("```python\ndef f(x): return 2", "def f(x): return 2"),
    "other line ends": ("```python\r\ndef f(x): return 2\r\n```", "def f(x): return 2"),
    "a helper first": (
        "```python\nimport re\ndef g(x): return 2\ndef f(x): return g(x)\n```",
        "import re\ndef g(x): return 2\ndef f(x): return g(x)",
    ),
    "in a thought": ("<think>\n```python\ndef f(x): return 1\n```\n</think>\nI do not know.", None),
    "quoted": ("> ```python\n> def f(x): return 1\n> ```\nI disagree.", None),
    "another function": ("```python\ndef ff(x): return 2\n```", None),
    "compared, not defined": ("```python\nf == 3\n```", None),
    "no block": ("def f(x): return 2", None),
    "an empty block": ("```python\n```", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("text", "code"), TEXTS.values(), ids=TEXTS)
def test_the_last_block_that_defines_the_function_is_the_program(text: str, code: str | None) -> None:
    assert blocks.program(text, "f", complete=True) == code


def test_of_a_text_that_was_cut_off_a_block_counts_if_none_began_after_it() -> None:
    whole = "```python\ndef f(x): return 2\n```"
    assert blocks.program(f"{whole}\nThis f", "f", complete=False) == "def f(x): return 2"
    assert blocks.program(f"{whole}\nBetter:\n```python\ndef f(x): retu", "f", complete=False) is None


@settings(max_examples=50)
@given(st.text(alphabet="`~ \ndef f(x)=python", max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert blocks.program(text, "f", complete=True) != ""


# --- values ---

SAME = [
    (2, 2.0),
    ((1, 2), [1, 2]),
    (0.1 + 0.2, 0.3),
    ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
    ({1: 2}, {"1": 2}),
    ({3, 1}, frozenset([1, 3])),
    (-0.0, 0),
    (1548008755920.0, 1548008755920),  # of more digits than count of others
    (10**18 / 2, 10**18 // 2),
    (2.0**60, 2**60),
    (-1e300, -int(1e300)),
    (1234567890123456.5, 1234567890000000),  # no whole number
    (float("nan"), float("nan")),
]
OTHERS = [1, True, "1", None, [1], [], "", {1}, {"1": 1}, 1.5, float("inf"), "[1]", {"set": [2]}, 10**400, "Genève", [[1], []]]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_values_that_count_as_equal(one: object, other: object) -> None:
    assert written(one) == written(other)


def test_values_that_differ() -> None:
    texts = [written(value) for value in OTHERS]
    assert len(set(texts)) == len(OTHERS)
    assert all(json.loads(text.replace("0" * 400, "0")) != "" or text == '""' for text in texts)


@pytest.mark.parametrize("value", [object(), b"a", (n for n in ()), print, 1j, "\ud800"])
def test_what_is_no_value(value: object) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        written(value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda each: st.lists(each) | st.dictionaries(st.text(max_size=3), each),
    max_leaves=6,
)


@settings(max_examples=60)
@given(values)
def test_a_value_that_went_through_json_is_the_same(value: object) -> None:
    assert written(value) == written(json.loads(json.dumps(value)))


# --- answers ---

DOUBLES = Cases("double", "[[1], [2.5], [[1, 2]]]")
DOUBLE = "def double(x):\n    return x * 2"
ADDED = "def double(x):\n    return x + x"
TRIPLE = "def double(x):\n    return x * 3"
PROBLEM = Problem("id", "Double it.", "[2, 5, [1, 2, 1, 2]]", cases=DOUBLES)


def block(code: str) -> str:
    return f"So:\n```python\n{code}\n```"


def test_programs_are_equal_by_what_they_give() -> None:
    with Checker("code") as checker:
        found = {code: checker.find(PROBLEM, block(code), complete=True) for code in (DOUBLE, ADDED, TRIPLE)}
        assert found[DOUBLE] == found[ADDED] == "[2, 5, [1, 2, 1, 2]]"
        assert found[TRIPLE] == "[3, 7.5, [1, 2, 1, 2, 1, 2]]"
        answers = [str(answer) for answer in found.values()]
        equal = {pair: checker.equal(*pair) for pair in itertools.product(answers, repeat=2)}
        assert all(equal[a, a] and equal[a, b] == equal[b, a] for a, b in itertools.product(answers, repeat=2))
        assert checker.right(PROBLEM, answers[1]) and not checker.right(PROBLEM, answers[2])


@pytest.mark.parametrize(
    "code",
    [
        "def double(x):\n    return 2 * float(x)",  # fails on a list
        "def double(x):\n    return (y for y in x)",
        "def double(x):\n    print(x * 2)\n    raise SystemExit(0)",
        "def double(x:",
        "double = 3",
        "import numpy\ndef double(x):\n    return x * 2",
        "def double(x):\n    return x\nraise ValueError",
    ],
)
def test_a_program_without_an_output_for_each_input_is_no_answer(code: str) -> None:
    with Checker("code") as checker:
        assert checker.find(PROBLEM, block(code), complete=True) is None


def test_without_inputs_the_program_itself_is_the_answer() -> None:
    """Of what users ask a society nobody knows inputs."""
    with Checker("code") as checker:
        asked = Problem("id", "Double it.", "")
        assert checker.find(asked, block(DOUBLE), complete=True) == DOUBLE
        assert checker.find(asked, "I cannot.", complete=True) is None
        assert checker.wanted(asked) == "a block of Python"
        assert checker.wanted(PROBLEM) == "a block of Python with a function double that gives a value for each input"


def test_a_program_runs_once_for_a_question() -> None:
    known = Programs()
    code = f"import time\n{DOUBLE}\ndef double(x, t=time.time_ns()):\n    return t"
    assert known.result(DOUBLES, code) is known.result(DOUBLES, code)
    assert known.result(Cases("double", "[[1]]"), code) != known.result(DOUBLES, code)


def test_order_hashes_and_chance_are_the_same_in_every_process() -> None:
    code = (
        "import random\ndef f(x):\n    return [list({'a', 'b', 'c', 'd'}), hash('a'), random.random(), random.sample(range(99), 5)]"
    )
    assert outputs(code) and outputs(code) == outputs(code)


@pytest.mark.parametrize("digits", [5736, 60_000])
def test_a_whole_number_has_any_number_of_digits(digits: int) -> None:
    assert [len(output) for output in outputs(f"def f(x):\n    return 10 ** {digits - 1}")] == [digits]


def test_an_error_that_holds_half_a_character_is_told_by_its_words() -> None:
    assert fault("def f(x):\n    raise ValueError('a\\ud800b')") == "input 1: ValueError: a\\ud800b"


def test_long_outputs_are_told_apart_by_their_hashes() -> None:
    one, other = joined(('"' + "a" * 9000 + '"',)), joined(('"' + "a" * 8999 + 'b"',))
    assert one != other and len(one) < 300 and "9002 characters" in one


@pytest.mark.parametrize(("processors", "memory", "count"), [(8, 0, 8), (8, 4 << 30, 4), (2, 4 << 30, 2), (64, 256 << 20, 1)])
def test_programs_leave_the_pod_its_memory(processors: int, memory: int, count: int) -> None:
    assert at_once(processors, memory) == count


PRINTING = (
    "sys.stdout.writelines(['a', 'b'])",
    "sys.stdout.buffer.write(b'a')",
    "sys.stdout.reconfigure(encoding='utf-8'); print('é')",
    "print('\\ud83d')",
    "print(1, file=sys.__stdout__)",
    "sys.stdout.close()",
    "__import__('logging').warning('a')",
)


@pytest.mark.parametrize("words", PRINTING)
def test_a_program_may_print_in_any_way(words: str) -> None:
    assert outputs(f"import sys\ndef f(x):\n    {words}\n    return x") == ("7",)


def test_printing_and_asking_for_input_disturb_nothing() -> None:
    code = "print('hello')\nimport sys\nsys.stderr.write('x')\ndef f(x):\n    print(x, flush=True)\n    return x"
    assert outputs(code) == ("7",)
    assert "EOFError" in fault("def f(x):\n    return input()")
    assert outputs("def f(x):\n    return x\nif __name__ == '__main__':\n    print(f(int(input())))") == ("7",)


def test_the_standard_library_is_there() -> None:
    names = "bisect, collections, datetime, decimal, fractions, functools, hashlib, heapq, json, math, re, statistics"
    assert outputs(f"import {names}\ndef f(x):\n    return math.isqrt(x)") == ("2",)


def test_a_debate_about_programs_votes_by_outputs(template: object) -> None:
    texts = {"g0": block(DOUBLE), "g1": block(ADDED), "g2": block(TRIPLE), "base": "They differ."}
    engine = MemoryEngine(template, lambda model, text: texts.get(model, block(TRIPLE) if model == "c0" else block(ADDED)))
    rules = Rules(DEBATE, PROMPTS, "code", 0, 1)

    async def debated():
        with Checker("code") as checker, ThreadPoolExecutor(2) as judge:
            return await Question(Setup(rules, SOCIETY, engine, template, checker, {"s": 4096}, judge), 0, PROBLEM).run()

    transcript = asyncio.run(debated())
    first, last = transcript.votes[0], transcript.vote
    assert (first.answer, first.votes, first.runner_up, first.right) == (PROBLEM.answer, 2, 1, True)
    assert (last.votes, last.right) == (2, True)
    assert [turns[-1].agrees for turns in transcript.turns] == [False, True, True]
    assert [turns[0].agrees for turns in transcript.turns] == [True, True, False]


@pytest.fixture(scope="module")
def template():
    from conftest import TINY

    return load_chat_template(str(TINY), None)


# --- rows and references ---

ROW = {"question": "Double it.", "function": "double", "inputs": [[1], [2.5], [[1, 2]]], "answer": DOUBLE}
CODE = replace(JSONL, answer="code", train=1, held_out=0)


def drawn(folder: Path, *rows: object) -> Split:
    return load(replace(CODE, source=write(folder / "q.jsonl", rows), train=len(rows)))


@pytest.mark.parametrize("answer", [DOUBLE, f"```python\n{DOUBLE}\n```", [2, 5.0, [1, 2, 1, 2]]])
def test_a_reference_is_a_program_or_its_outputs(tmp_path: Path, answer: object) -> None:
    [only] = worked(drawn(tmp_path, ROW | {"answer": answer})).train
    assert only.answer == PROBLEM.answer
    assert only.cases == Cases("double", "[[1], [2.5], [[1, 2]]]", "" if isinstance(answer, list) else DOUBLE)
    assert only.solved == (PROBLEM.answer if isinstance(answer, list) else f"```python\n{DOUBLE}\n```")
    assert decode(encode(only), Problem, "here") == only


def test_questions_of_all_parts_get_their_outputs(tmp_path: Path) -> None:
    [only] = drawn(tmp_path, ROW).train
    split = worked(Split((), (only,), (only,), (only,)))
    assert [part[0].answer for part in (split.held_out, split.probe, split.validation)] == [PROBLEM.answer] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "a b"}, "function is 'a b'; expected the name of a function in Python"),
        ({"function": "lambda"}, "function is 'lambda'; expected the name of a function in Python"),
        ({"function": None}, "function is null; expected a text that is not empty"),
        ({"inputs": None}, "inputs is null; expected 1 to 100 lists, each with the arguments of a call"),
        ({"inputs": []}, "inputs is []; expected 1 to 100 lists"),
        ({"inputs": [1, 2]}, "inputs is [1, 2]; expected 1 to 100 lists"),
        ({"inputs": [[1]] * 101}, "inputs is [[1], [1], [1], [1], [1], [1], ...]; expected 1 to 100 lists"),
        ({"inputs": [["x" * 100_001]]}, "inputs has 100007 characters; expected at most 100000"),
        ({"answer": [2, 5]}, "answer has 2 outputs for 3 inputs; expected as many"),
        ({"answer": ""}, "answer is ''; expected a text that is not empty"),
        ({"question": [{"role": "user", "content": "Double it."}]}, "question is [{'content': 'Double it.', 'role': 'user'}]"),
    ],
)
def test_a_wrong_row_about_code_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        drawn(tmp_path, ROW | changes)
    assert str(caught.value).startswith(f"{tmp_path}/q.jsonl line 1: {message}")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("def double(x):\n    return x / 2", "input 3: TypeError"),
        ("def triple(x):\n    return x * 3", "the program: NameError: it defines no double"),
        ("x = (", "the program: SyntaxError"),
    ],
)
def test_a_reference_that_gives_no_output_is_refused(tmp_path: Path, answer: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        worked(drawn(tmp_path, ROW, ROW | {"question": "And again.", "answer": answer}))
    assert str(caught.value).startswith(
        f"task.source: the program that answers 'And again.' gives no output for each input ({reason}"
    )


def test_numbers_that_json_alone_knows(tmp_path: Path) -> None:
    [only] = worked(drawn(tmp_path, ROW | {"inputs": [[10**40], [float("inf")], [-0.0]]})).train
    assert only.answer == f'[{2 * 10**40}, {{"float": "inf"}}, 0]'


def test_worked_examples_are_programs_or_refused(tmp_path: Path) -> None:
    rows = [ROW | {"question": f"Question {n}."} for n in range(3)]
    shots = replace(CODE, train=1, held_out=1, section="evaluation.task")
    [asked] = from_other_task(replace(shots, source=write(tmp_path / "q.jsonl", rows)), Split((), ()))
    assert f"\nAnswer: ```python\n{DOUBLE}\n```\n\nQuestion: Question " in asked.question and asked.cases
    bare = [row | {"answer": [2, 5, [1, 2, 1, 2]]} for row in rows]
    with pytest.raises(BadInput, match=r"^evaluation\.task\.shots: worked examples of code are programs"):
        from_other_task(replace(shots, source=write(tmp_path / "q.jsonl", bare)), Split((), ()))


def test_the_programs_of_the_example_give_outputs_by_which_its_questions_differ() -> None:
    split = worked(load(replace(CODE, source=str(EXAMPLE), train=20, held_out=0)))
    assert len({problem.answer for problem in split.train}) == 20
