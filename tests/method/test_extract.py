"""Answers found in models' texts: a table per kind, what must not be found, and hostile input."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import within

from maft.answers.boxes import last_boxed
from maft.answers.extract import canonical, extract
from maft.spec import AnswerKind

KINDS: tuple[AnswerKind, ...] = ("number", "choice", "text", "math")
NUMBERS = [
    # signs
    ("Answer: -12", "-12"),
    ("Answer: \N{MINUS SIGN}12", "-12"),
    ("Answer: \N{EN DASH}12", "-12"),
    ("Answer: \N{NON-BREAKING HYPHEN}12", "-12"),
    ("Answer: +12", "12"),
    ("Answer: - 12", "-12"),
    ("x = -12", "-12"),
    ("x = - 12", "-12"),
    ("The answer is negative 12", "-12"),
    ("The answer is minus 12.", "-12"),
    ("I get -12", "-12"),
    ("That leaves 20-8", None),
    ("That leaves 20 - 8", None),
    ("20 minus 8", None),
    ("(3) - 8", None),
    ("x-8", "8"),
    ("The score was 3\n-8", "-8"),
    ("Fruit:\n- 12 oranges", "12"),
    ("Profit - 12 euros", "12"),
    ("Answer: -0", "0"),
    # fractions
    ("Answer: 3/4", "3/4"),
    ("Answer: 6 / 8", "3/4"),
    ("I say 3/4.", "3/4"),
    ("answer is -\\frac{1}{2}", "-1/2"),
    ("the answer is $\\frac{3}{4}$.", "3/4"),
    ("Answer: \\dfrac{3}{4}", "3/4"),
    ("Answer: \\tfrac{ 3 }{ 4 }", "3/4"),
    ("Answer: \\frac34", "3/4"),
    ("Answer: \\frac{-3}{4}", "-3/4"),
    ("Answer: \\frac{1,000}{3}", "1000/3"),
    ("Answer: \\frac{1.5}{3}", "1/2"),
    ("Answer: 1/1,000", "1/1000"),
    ("The answer is 3 1/2", "7/2"),
    ("The answer is -3 1/2.", "-7/2"),
    ("The answer is 3\\frac{1}{2}", "7/2"),
    ("Answer: 4/2", "2"),
    # decimals, powers of ten
    ("Answer: 0.50", "1/2"),
    ("Answer: .5", "1/2"),
    ("Answer: 12.0", "12"),
    ("The answer is 12.", "12"),
    ("The answer is 3.5.", "7/2"),
    ("Answer: 1e3", "1000"),
    ("Answer: 2.5E-1", "1/4"),
    ("Answer: 3 \\times 10^4", "30000"),
    ("Answer: -2.5 \\cdot 10^{3} km", "-2500"),
    ("Answer: 6 × 10^{-1}", "3/5"),
    ("That makes 5*10^2", "500"),
    ("Answer: 4 x 10^2 = 400", "400"),
    ("Answer: 007", "7"),
    # thousands
    ("answer: 1,234,567", "1234567"),
    ("Answer: 1{,}234", "1234"),
    ("Answer: 1\\,234", "1234"),
    ("Answer: 1,\\!234", "1234"),
    ("Answer: 1\N{NARROW NO-BREAK SPACE}234", "1234"),
    ("Answer: 1,234.5", "2469/2"),
    ("Answer: 12345", "12345"),
    # currency, percent, units
    ("Answer: $5", "5"),
    ("Answer: \\$5.50", "11/2"),
    ("Answer: -$5", "-5"),
    ("Answer: $-5", "-5"),
    ("Answer: €1,000", "1000"),
    ("Answer: 5€", "5"),
    ("Answer: 50%", "50"),
    ("Answer: $50\\%$", "50"),
    ("final answer: 12 dollars", "12"),
    ("Answer: 12kg", "12"),
    ("Answer: 12 cm^2", "12"),
    ("Answer: 90^\\circ", "90"),
    ("Answer: 5\\text{ cm}", "5"),
    # LaTeX and Markdown around the number
    ("Answer: $12$", "12"),
    ("Answer: $$12$$", "12"),
    ("Answer: \\(12\\)", "12"),
    ("Answer:\n\\[\n12\n\\]", "12"),
    ("Answer:\n$$\n\\frac{3}{4}\n$$\nas shown with 9.", "3/4"),
    ("Answer: \\left(12\\right)", "12"),
    ("Answer: **12**", "12"),
    ("Answer: __12__", "12"),
    ("Answer: `12`", "12"),
    ("**Answer:** 12", "12"),
    ("**Answer**: 12", "12"),
    ("*Answer:* -12", "-12"),
    ("### Answer\n\n12 of 90", "12"),
    ("**Final Answer**\n12\n\nI used 90.", "12"),
    # where it stands
    ("Answer: x = 5", "5"),
    ("Answer: 3 + 4 = 7 apples", "7"),
    ("Answer: x = 2 + 3 = 5", "5"),
    ("The answer is 5 since 2x = 10", "5"),
    ("The answer is 12 (10 + 2)", "12"),
    ("The answer is 12; 3 are left", "12"),
    ("My answer remains 12, that of Agent 3.", "12"),
    ("The answer is that 4 of them are left, 3 + 1 = 4.", "4"),
    ("Final Answer: The final answer is $42$. I hope it is correct.", "42"),
    ("The answer to the 2nd part is 42", "42"),
    ("The correct answer would be: 42", "42"),
    ("The answer, then, is 9. So it is 42", "42"),
    ("Agent 2's answer is 12, but my answer is 14.", "14"),
    ("My answer is the same as that of Agent 2: 14", "14"),
    ("The others' answers are 5, 6 and 7. I still get 8", "8"),
    ("Step 1: 3 + 4 = 7\nThis follows from step 1.", "7"),
    ("First I thought the answer is 9.\nThe answer is 42.\nThat took 3 steps.", "42"),
    ("To answer this, take 5 apples.\nEat 2 of them.\nThat leaves 3 apples", "3"),
    ("I will state my answer: it is clear.\nSo 3 + 4 = 7", "7"),
    ("The answer is not 5. It is 6", "6"),
    ("3*4=12, 7+12=19. Answer: 19", "19"),
    ("Natalia sold 48/2 = 24.\n#### 72", "72"),
    ("#### $1,234", "1234"),
    ("#### 1. Set up\nTwo kinds.\n#### 2. Solve\nThere are 42", "42"),
    ("#### Step 3: conclude\nThe total is 42", "42"),
    # boxes come first
    ("\\boxed{42} and the answer is 7", "42"),
    ("\\boxed{7} no, \\boxed{42}", "42"),
    ("\\boxed{\\frac{3}{4}}", "3/4"),
    ("\\boxed{\\text{$12$}}", "12"),
    ("\\boxed{x = 12}", "12"),
    ("\\boxed {12}", "12"),
    ("\\boxed 12. That took 3 steps", "12"),
    ("\\fbox{12} and the answer is 7", "12"),
    ("I put it into \\boxed{}.\nThe answer is 12", "12"),
    ("So it is 12, \\boxed{", "12"),
]

NO_NUMBER = [
    "",
    "I do not know.",
    "Answer: unclear",
    "Answer: 12:30",
    "Answer: 3:1",
    "Answer: 1,2",
    "Answer: (1, 2)",
    "Answer: 10-12 days",
    "Answer: 12 - 3 are left",
    "Answer: 1 000",
    "Answer: 5, 6",
    "The answer is 5 and 6",
    "x = 5 or x = 7, so the answer is x = 5 or x = 7",
    "Answer: 3 + 4",
    "Answer: 2^{10}",
    "Answer: 3 \\times 10^4 + 1",
    "Answer: 3 \\times 11^4",
    "Answer: 3\\sqrt{2}",
    "Answer: \\frac{\\pi}{2}",
    "Answer: 1/0",
    "Answer: \\frac{1}{0}",
    "Answer: 1.2.3",
    "Answer: 1/2/2020",
    "Answer: x_5",
    "Answer: B12",
    "3 and 4 make \\boxed{3 + 4}",
    "3 apples make \\boxed{\\text{none}}",
    "1, 2 \\boxed{1, 2}",
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_number_in_a_text(text: str, expected: str) -> None:
    assert extract(text, "number") == expected


@pytest.mark.parametrize("text", NO_NUMBER)
def test_no_single_number_in_a_text(text: str) -> None:
    assert extract(text, "number") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7, then 7 * 2 = 1", None),
        ("So B it is, then C", None),
        ("First, \\boxed{7} and then", "7"),
        ("The answer is 7. To check this, take 9", "7"),
        ("#### 7\nNow 9", "7"),
        ("It is \\boxed{7", None),
    ],
)
def test_text_that_was_cut_off_answers_only_where_it_says_so(text: str, expected: str | None) -> None:
    assert extract(text, "number", complete=False) == expected


def test_cut_off_text_names_no_choice_either() -> None:
    assert extract("Of these I prefer (B)", "choice", complete=False) is None
    assert extract("Of these I prefer (B)", "choice") == "B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: B", "B"),
        ("Answer: (B)", "B"),
        ("Answer: (b)", "B"),
        ("Answer: b", "B"),
        ("answer: b.", "B"),
        ("**Answer: B**", "B"),
        ("The answer is **B) Paris**", "B"),
        ("The answer is B, not A.", "B"),
        ("The answer is A", "A"),
        ("The answer is A because it is warm.", "A"),
        ("The correct option is D", "D"),
        ("The answer is option C.", "C"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{(B)}}", "B"),
        ("\\boxed{c}", "C"),
        ("B is right. A common mistake is to forget the sign.", "B"),
        ("B seems right. I hope this helps. I'm sure.", "B"),
        ("Both (A) and (C) look good, so (C)", "C"),
        ("It is I) Rome", "I"),
        ("ABBA sang it", None),
        ("I think a lot", None),
        ("Answer: Paris", None),
        ("Answer: K", None),
        ("", None),
    ],
)
def test_choice_in_a_text(text: str, expected: str | None) -> None:
    assert extract(text, "choice") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: Paris", "paris"),
        ("The answer is  New\tYork.", "new york"),
        ("**Answer:** Paris", "paris"),
        ('The answer is "Paris".', "paris"),
        ("The answer is Paris. It lies on the Seine.", "paris"),
        ("The answer is St. Petersburg.", "st. petersburg"),
        ("Answer:\n\n  Straße ", "strasse"),
        ("\\boxed{\\text{New York}}", "new york"),
        ("It is Paris.", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_text_in_a_text(text: str, expected: str | None) -> None:
    assert extract(text, "text") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{x^{2} + 1}", "x^{2} + 1"),
        ("\\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\left\\{1, 2\\right\\}}", "\\{1, 2\\}"),
        ("The answer is $\\frac{3}{4}$.", "\\frac{3}{4}"),
        ("The answer is $x+1$, as shown with $y$.", "x+1"),
        ("The answer is \\(x+1\\).", "x+1"),
        ("Answer:\n\\[\nx+1\n\\]", "x+1"),
        ("Answer: $$x+1$$", "x+1"),
        ("Answer: x+1.", "x+1"),
        ("\\boxed{12.5\\%}", "12.5"),
        ("The answer is $\\$18$.", "18"),
        ("It costs \\$5, and the answer is $x+\\$1$.", "x+1"),
        ("Answer: 1\\,234", "1234"),
        ("Answer: \\sin\\,x", "\\sin x"),
        ("Answer: \\begin{pmatrix}1\\\\ 2\\end{pmatrix}", "\\begin{pmatrix}1\\\\ 2\\end{pmatrix}"),
        ("Answer: x \\leftarrow y", "x \\leftarrow y"),
        ("I get $x+1$", None),
        ("Answer: $ $", None),
    ],
)
def test_math_in_a_text(text: str, expected: str | None) -> None:
    assert extract(text, "math") == expected


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{1}", "1"),
        ("\\boxed{1} \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}} is it", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{\\left\\{ x \\right.}", "\\left\\{ x \\right."),
        ("\\boxed{}", ""),
        ("\\boxed{1", None),
        ("\\boxed{1} \\boxed{2", None),
        ("\\boxed 5.", "5."),
        ("\\boxed{1} or \\fbox{2}", "2"),
        ("\\boxed it is", None),
        ("\\boxedtext{1}", None),
        ("\\boxed", None),
        ("{1}", None),
    ],
)
def test_last_box(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("answer", "kind", "expected"),
    [
        ("72", "number", "72"),
        (" 1,234 ", "number", "1234"),
        ("- 5", "number", "-5"),
        ("12 = 12", "number", "12"),
        ("5 dollars", "number", "5"),
        ("3 + 4 = 7", "number", "7"),
        ("3 4", "number", None),
        ("x = 5 or x = 7", "number", None),
        ("five", "number", None),
        ("", "number", None),
        ("b", "choice", "B"),
        ("(B)", "choice", "B"),
        ("B) Paris", "choice", "B"),
        ("Paris", "choice", None),
        ("  New  York ", "text", "new york"),
        ("C++", "text", "c++"),
        ("  ", "text", None),
        ("$\\frac12$", "math", "\\frac12"),
        ("$ $", "math", None),
    ],
)
def test_reference_in_canonical_form(answer: str, kind: AnswerKind, expected: str | None) -> None:
    assert canonical(answer, kind) == expected


@settings(max_examples=60)
@given(st.fractions(min_value=-(10**6), max_value=10**6))
def test_a_number_is_found_however_it_is_written(value: Fraction) -> None:
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    for written in (f"{sign}\\frac{{{top}}}{{{bottom}}}", f"{sign}{top:,}/{bottom:,}", f"${sign}{top} / {bottom}$"):
        assert extract(f"I added 3 and 4. The answer is {written}.", "number") == str(value)
        assert extract(f"I added 3 and 4, so {written}", "number") == str(value)
        assert extract(f"\\boxed{{{written}}}", "number") == str(value)


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_equal_numbers_have_one_canonical_form(value: int, zeros: int) -> None:
    decimals = "." + "0" * zeros if zeros else ""
    assert canonical(f"{value}{decimals}", "number") == canonical(f"{value:,}", "number") == str(value)


@given(
    st.text(alphabet="\\{}[]()$.,:;=+-*/^%# \nanswerisboxdfgAB0129", max_size=200),
    st.sampled_from(["number", "choice", "text", "math"]),
)
def test_any_text_is_read_without_an_error_and_an_answer_is_its_own_canonical_form(text: str, kind: AnswerKind) -> None:
    found = extract(text, kind)
    if found is not None and kind in ("number", "choice"):
        assert canonical(found, kind) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: " + "1" * 10_000, None),
        ("3 + 4. Answer: " + "1" * 10_000, None),
        ("3 + 4 = " + "1" * 10_000, None),
        ("\\boxed{" + "9" * 10_000 + "}", None),
        ("9" * 4_000 + "e999", None),
        ("1" * 3_000 + "." + "1" * 3_000, None),
        ("Answer: " + "1" * 4_000, "1" * 4_000),
    ],
)
def test_numbers_that_python_does_not_convert_are_no_answer(text: str, expected: str | None) -> None:
    assert extract(text, "number") == expected


HOSTILE = {
    "parentheses": "(" * 50_000,
    "commas": "1," * 50_000,
    "fractions": "\\frac{" * 20_000,
    "comma lists": "1, " * 8_000,
    "thousands": "1,111" * 8_000,
    "open fraction": "\\frac{" + "1" * 30_000,
    "spaced fraction": "\\frac" + " " * 30_000,
    "boxes": "\\boxed{" * 8_000,
    "braces": "\\boxed" + "{" * 30_000,
    "answer": "answer " * 8_000,
    "answer is": "the answer is " * 8_000,
    "answer to": "answer to " * 4_000,
    "answer, spaces": "answer to" + " " * 30_000,
    "answer, stars": "answer" + "*_" * 20_000,
    "answers with numbers": "answer: 1 + 2, " * 2_000,
    "hashes": "#" * 30_000,
    "lines of hashes": "#### " * 8_000,
    "hashes and marks": "####!" * 8_000,
    "sums": "1 + " * 8_000,
    "differences": "1 - " * 8_000,
    "quotients": "1 /" * 8_000,
    "signs": "-" * 30_000,
    "digits": "1" * 30_000,
    "dots": "1." * 15_000,
    "empty lines": "\n" * 30_000 + "1",
    "equations": "answer: " + "x = 1 " * 6_000,
    "dollars": "answer: " + "$" * 30_000,
    "openings": "answer: " + "\\(\\[" * 8_000,
    "wrappers": "answer: " + "\\text{" * 6_000,
    "letters": "A " * 15_000,
    "full stops": "answer: aaa" + ".  " * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str) -> None:
    text = HOSTILE[name]
    with within(4):  # the slowest takes 0.3 s; quadratic ones take minutes
        for kind in KINDS:
            extract(text, kind)
            canonical(text, kind)
