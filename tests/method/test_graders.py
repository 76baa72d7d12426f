"""Our answer checking held to others': math-verify on whole texts, and the two filters of lm-eval's GSM8K.

The corpus is made here, templates by values, so what each text says is known. Where graders disagree, docs/answers.md lists the
class, who is right and why; a new class of disagreement fails.
"""

import functools
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import math_verify
import pytest
from conftest import ROOT

from maft.answers.extract import canonical, extract
from maft.answers.mathematics import verify
from maft.spec import AnswerKind

logging.getLogger("math_verify").setLevel(logging.ERROR)  # warns that its time limits are off

# lm-evaluation-harness, lm_eval/tasks/gsm8k/gsm8k.yaml, version 3.0: filter_list and metric_list.
STRICT, STRICT_GROUP = re.compile(r"#### (\-?[0-9\.\,]+)"), 0
FLEXIBLE, FLEXIBLE_GROUP = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)"), -1
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")

MATH_VERIFY, LM_STRICT, LM_FLEXIBLE = "math-verify", "lm-eval strict", "lm-eval flexible"
TABLE = ROOT / "docs" / "answers.md"


@dataclass(frozen=True)
class Case:
    """right: whether a careful reader takes the reference for what the text answers."""

    form: str
    text: str
    reference: str
    right: bool
    kind: AnswerKind = "number"


# --- the graders ---


def ours(case: Case) -> bool:
    answer, reference = extract(case.text, case.kind), canonical(case.reference, case.kind)
    assert reference is not None, case
    if answer is None or answer == reference or case.kind != "math":
        return answer == reference
    return verify(reference, answer)


def math_verify_(case: Case) -> bool:
    reference = math_verify.parse(f"${case.reference}$", parsing_timeout=None)
    configs = [math_verify.StringExtractionConfig(strings=tuple("ABCDEFGHIJ"))] if case.kind == "choice" else None
    answer = math_verify.parse(case.text, *([configs] if configs else []), parsing_timeout=None)
    if case.kind == "choice":
        reference = [case.reference]
    return bool(math_verify.verify(reference, answer, timeout_seconds=None))


def lm_eval(pattern: re.Pattern[str], group: int, case: Case) -> bool:
    """RegexFilter, take_first, exact_match: as in lm_eval/filters/extraction.py and lm_eval/api/metrics.py."""
    found = pattern.findall(case.text)
    answer = found[group] if found else "[invalid]"
    answer = next(part for part in answer if part) if isinstance(answer, tuple) else answer

    def compared(text: str) -> str:
        return functools.reduce(lambda t, ignored: re.sub(ignored, "", t), IGNORED, text.strip()).lower()

    return compared(answer) == compared(case.reference)


def graders(case: Case) -> dict[str, bool]:
    """The verdicts of those that the case is meant for."""
    if case.kind == "text":
        return {}  # the others know numbers, mathematics and letters
    found = {MATH_VERIFY: math_verify_(case)}
    if case.kind == "number" and re.fullmatch(r"-?[\d.]+", case.reference):  # GSM8K has whole numbers and decimals
        found[LM_FLEXIBLE] = lm_eval(FLEXIBLE, FLEXIBLE_GROUP, case)
        if "####" in case.text:
            found[LM_STRICT] = lm_eval(STRICT, STRICT_GROUP, case)
    return found


# --- the corpus ---

Template = Callable[[str], str]
SOURCE = random.Random(6)
WHOLE = [0, 7, 12, *sorted(SOURCE.sample(range(20, 999), 5)), -3, -SOURCE.randint(10, 999)]
LARGE = [1000, 1234567, *SOURCE.sample(range(1001, 99_999), 4), -SOURCE.randint(1001, 99_999)]
DECIMALS = ["0.5", "3.25", "12.75", "-2.5", f"{SOURCE.randint(1, 99)}.{SOURCE.randint(1, 9)}", "0.05"]
RATIOS = [(1, 2), (3, 4), (7, 3), (5, 8), (SOURCE.randint(1, 9), 11), (22, 7)]
STORY = "Tom had 48 pears and sold 17 of them in 3 days. "

# What the text says is the number that is put in; in the order of docs/answers.md.
SAID: dict[str, Template] = {
    "sentence": lambda n: f"{STORY}The answer is {n}.",
    "colon": lambda n: f"{STORY}Answer: {n}",
    "bold": lambda n: f"{STORY}\n\n**Answer: {n}**",
    "next line": lambda n: f"{STORY}\n**Final Answer**\n{n}",
    "last number": lambda n: f"{STORY}In the end there are {n} pears.",
    "hashes": lambda n: f"{STORY}\n#### {n}",
    "hashes, full stop": lambda n: f"{STORY}\n#### {n}.",
    "hashes, unit": lambda n: f"{STORY}\n#### {n} pears",
    "dollars around": lambda n: f"{STORY}The answer is ${n}$.",
    "parentheses around": lambda n: f"{STORY}The answer is \\({n}\\).",
    "box": lambda n: f"{STORY}So the answer is $\\boxed{{{n}}}$.",
    "box in display": lambda n: f"{STORY}\n\\[\n\\boxed{{{n}}}\n\\]",
    "box, then talk": lambda n: f"{STORY}It is $\\boxed{{{n}}}$, for 48 - 17 was 31.",
    "two boxes": lambda n: f"First I took $\\boxed{{99}}$, but it is $\\boxed{{{n}}}$.",
    "box with text unit": lambda n: f"{STORY}$\\boxed{{{n}\\text{{ cm}}}}$",
    "box with roman unit": lambda n: f"{STORY}$\\boxed{{{n}\\,\\mathrm{{kg}}}}$",
    "box without braces": lambda n: f"{STORY}Hence $\\boxed {n}$",
    "fbox": lambda n: f"{STORY}Hence $\\fbox{{{n}}}$.",
    "unit": lambda n: f"{STORY}The answer is {n} pears.",
    "unit with a power": lambda n: f"{STORY}The answer is {n} cm^2.",
    "unit with a raised sign": lambda n: f"{STORY}The answer is {n} m².",
    "unit per unit": lambda n: f"{STORY}The answer is {n} km/h.",
    "degrees": lambda n: f"{STORY}The answer is ${n}^\\circ$.",
    "percent": lambda n: f"{STORY}The answer is {n}%.",
    "percent in a box": lambda n: f"{STORY}$\\boxed{{{n}\\%}}$",
    "dollar": lambda n: f"{STORY}The answer is {n.replace('-', '-$') if n[0] == '-' else '$' + n}.",
    "dollar in a box": lambda n: f"{STORY}$\\boxed{{\\${n}}}$",
    "euro after": lambda n: f"{STORY}The answer is {n} €.",
    "plus sign": lambda n: f"{STORY}The answer is {n if n[0] == '-' else '+' + n}.",
    "minus sign of Unicode": lambda n: f"{STORY}The answer is {n.replace('-', '−')}.",
    "minus in words": lambda n: f"{STORY}The answer is {n.replace('-', 'negative ')}.",
    "leading zeros": lambda n: f"{STORY}The answer is {n.replace('-', '-00') if n[0] == '-' else '00' + n}.",
    "point zero": lambda n: f"{STORY}The answer is {n}.0.",
    "equation": lambda n: f"{STORY}So x = {n}",
    "said equation": lambda n: f"{STORY}Answer: 48 - 17 = {n}",
    "said variable": lambda n: f"{STORY}The answer is $x = {n}$.",
    "approximate": lambda n: f"{STORY}The answer is approximately {n}.",
    "because": lambda n: f"{STORY}The answer is {n}, because 48 - 17 = 31.",
    "in brackets": lambda n: f"{STORY}The answer is {n} (which is 3 more than before).",
    "then a check": lambda n: f"{STORY}The answer is {n}. Let me check: 3 * 4 = 12.",
    "corrected": lambda n: f"{STORY}The answer is 99. No, wait. The answer is {n}.",
    "other agents": lambda n: f"Agents 1 and 2 said 31, but my answer is {n}.",
    "code": lambda n: f"{STORY}The answer is `{n}`.",
    "quoted": lambda n: f'{STORY}The answer is "{n}".',
    "after a thought": lambda n: f"<think>\nThe answer is 99, maybe $\\boxed{{99}}$.\n</think>\n\nIn the end there are {n} pears.",
    "after a thought that the prompt opened": lambda n: f"the answer is 99?\n</think>\n\nThe answer is {n}.",
    "after channels": lambda n: (
        f"<|channel|>analysis<|message|>So 99.<|end|><|start|>assistant<|channel|>final<|message|>It is {n}."
    ),
    "after another's words": lambda n: f"> The answer is 99.\n\nI do not agree: there are {n} pears.",
    "after a program": lambda n: f"```python\nanswer = 99\n```\n{STORY}So there are {n} pears.",
    "before a program": lambda n: f"{STORY}The answer is {n}.\n```python\nprint('Answer: 99')",
    "what another says": lambda n: f"{STORY}Agent 2 says the answer is 99. I get {n}",
    "not another, but": lambda n: f"{STORY}The answer is not 99 but {n}.",
    "denied, then said": lambda n: f"{STORY}The answer is not 99. It is {n}. That took 3 steps.",
    "exclaimed": lambda n: f"{STORY}The answer is {n}!",
    "what is now": lambda n: f"{STORY}The answer was 99 but is now {n}.",
    "taken back": lambda n: f"{STORY}The answer is 99? No, {n}.",
    "box, not another box": lambda n: f"{STORY}It is $\\boxed{{{n}}}$, not $\\boxed{{99}}$.",
    "box of another agent": lambda n: f"Agent 1 got $\\boxed{{99}}$ but forgot a carry, so the answer is {n}.",
    "answered before": lambda n: f"{STORY}The answer is {n}. Earlier I wrote: Answer: 99.",
    "item of a list": lambda n: f"{STORY}The answer is:\n- {n} pears",
    "with a condition": lambda n: f"{STORY}The answer for x = 99 is {n}.",
    "has to be": lambda n: f"{STORY}The answer has to be {n}, from 48 and 17.",
    "unlikely to be": lambda n: f"{STORY}The answer is unlikely to be 99; it is {n}.",
    "all agents agree": lambda n: f"{STORY}It is {n}. All 3 agents agree.",
    "box of another kind": lambda n: f"{STORY}That is option $\\boxed{{\\text{{B}}}}$. The answer is {n}.",
}
# Other ways to write a number: what stands there, and the same as a reference.
WRITTEN: dict[str, list[tuple[str, str]]] = {
    "thousands": [(f"{n:,}", str(n)) for n in LARGE],
    "thousands in braces": [(f"{n:,}".replace(",", "{,}"), str(n)) for n in LARGE],
    "thousands with thin spaces": [(f"{n:,}".replace(",", "\\,"), str(n)) for n in LARGE],
    "decimal": [(d, d) for d in DECIMALS],
    "decimal without its zero": [(".5", "0.5"), ("-.25", "-0.25"), (".125", "0.125")],
    "trailing zeros": [(d + "00", d) for d in DECIMALS],
    "slash": [(f"{a}/{b}", f"\\frac{{{a}}}{{{b}}}") for a, b in RATIOS],
    "fraction": [(f"\\frac{{{a}}}{{{b}}}", f"\\frac{{{a}}}{{{b}}}") for a, b in RATIOS],
    "fraction, not reduced": [(f"\\dfrac{{{3 * a}}}{{{3 * b}}}", f"\\frac{{{a}}}{{{b}}}") for a, b in RATIOS],
    "negative fraction": [(f"-\\frac{{{a}}}{{{b}}}", f"-\\frac{{{a}}}{{{b}}}") for a, b in RATIOS],
    "sign inside a fraction": [(f"\\frac{{-{a}}}{{{b}}}", f"-\\frac{{{a}}}{{{b}}}") for a, b in RATIOS],
    "mixed number": [
        (f"{k}\\frac{{{a}}}{{{b}}}", f"\\frac{{{k * b + a}}}{{{b}}}") for k, (a, b) in enumerate(RATIOS[:2] + RATIOS[3:5], 1)
    ],
    "mixed number with a slash": [
        (f"{k} {a}/{b}", f"\\frac{{{k * b + a}}}{{{b}}}") for k, (a, b) in enumerate(RATIOS[:2] + RATIOS[3:5], 1)
    ],
    "decimal for a fraction": [("0.5", "\\frac{1}{2}"), ("0.75", "\\frac{3}{4}"), ("-2.5", "-\\frac{5}{2}")],
    "fraction for a decimal": [("\\frac{1}{2}", "0.5"), ("\\frac{13}{4}", "3.25"), ("-\\frac{5}{2}", "-2.5")],
    "scientific": [("3e4", "30000"), ("2.5E3", "2500"), ("5e-1", "0.5")],
    "power of ten": [("3 \\times 10^4", "30000"), ("2.5 \\times 10^{3}", "2500"), ("6 \\cdot 10^2", "600")],
    "negative zero": [("-0", "0"), ("-0.0", "0")],
    "vulgar fraction": [("½", "0.5"), ("3½", "\\frac{7}{2}"), ("2⅔", "\\frac{8}{3}"), ("-¼", "-0.25")],
    "raised power of ten": [("3 × 10⁴", "30000"), ("2.5×10⁻¹", "0.25")],
    "thousands with apostrophes": [(f"{n:,}".replace(",", "'"), str(n)) for n in LARGE],
    "thousands with control spaces": [(f"{n:,}".replace(",", "\\ "), str(n)) for n in LARGE],
    "thousands with a comma pulled together": [(f"{n:,}".replace(",", ",\\! "), str(n)) for n in LARGE],
    "thousands with narrow spaces": [(f"{n:,}".replace(",", "\u202f"), str(n)) for n in LARGE],
    "full-width digits": [("１２", "12"), ("３．５", "3.5"), ("１，２３４", "1234")],
    "repeating decimal": [
        ("0.\\overline{3}", "\\frac{1}{3}"),
        ("0.1\\overline{6}", "\\frac{1}{6}"),
        ("-1.\\overline{5}", "-\\frac{14}{9}"),
    ],
    # Words that multiply were units here once, and "5 million" was 5: a part of the number that it says.
    "million": [(f"{n}\\text{{ million}}", f"{n}000000") for n in WHOLE if n],
    "million, a decimal": [("1.5\\,\\text{million}", "1500000"), ("0.25 million", "250000")],
    "dozen": [("2 \\text{ dozen}", "24"), ("5 dozen", "60"), ("2.5 dozen", "30")],
    "hundred and thousand": [("5\\text{ hundred}", "500"), ("3 thousand", "3000"), ("3 hundred thousand", "300000")],
    "billion": [("2.5 billion", "2500000000"), ("3 \\mathrm{ trillion}", "3000000000000")],
    "rounded": [("2.33", "\\frac{7}{3}"), ("0.67", "\\frac{2}{3}")],
}
# The text answers something else than the reference, or nothing.
WRONG: dict[str, list[tuple[str, str]]] = {
    "other sign": [(f"The answer is {n}.", str(-n)) for n in WHOLE if n],
    "sign of a difference": [(f"He is left with {n}-{n // 3}", str(-(n // 3))) for n in WHOLE if n > 9],
    "other number": [(f"The answer is {n}.", str(n + 1)) for n in WHOLE],
    "percent for a share": [("The answer is 50%.", "0.5"), ("$\\boxed{25\\%}$", "0.25"), ("The answer is 7%.", "0.07")],
    "share for percent": [("The answer is 0.5.", "50"), ("$\\boxed{0.25}$", "25")],
    "part of thousands": [(f"The answer is {n:,}.", str(n % 1000)) for n in LARGE if n % 1000 > 99],
    "part of a decimal": [("The answer is 3.75.", "3"), ("The answer is 12.5.", "12"), ("The answer is 0.25.", "25")],
    "part of a fraction": [("The answer is 3/4.", "4"), ("The answer is $\\frac{3}{4}$.", "3"), ("$\\boxed{\\frac{5}{8}}$", "8")],
    "part of a mixed number": [("The answer is 3 1/2.", "3"), ("The answer is $3\\frac{1}{2}$.", "\\frac{1}{2}")],
    "part of a vulgar fraction": [("The answer is 3½.", "3"), ("The answer is ½.", "1"), ("The answer is ½.", "2")],
    "part of thousands with apostrophes": [("The answer is 1'000.", "1"), ("The answer is 12’500.", "12")],
    "product, first": [("The answer is 3 x 4.", "3"), ("The answer is 3 × 4 cm.", "3"), ("It is 5 by 7.", "5")],
    "product, last": [("The answer is 3 x 4.", "4"), ("The garden has 3 × 4 m.", "4")],
    "quantity of two units, first": [
        ("The answer is 1 hour 30 minutes.", "1"),
        ("Answer: 5 ft 3 in", "5"),
        ("Answer: 2 dollars and 5 cents", "2"),
    ],
    "quantity of two units, last": [
        ("The answer is 1 hour 30 minutes.", "30"),
        ("It takes 1 hour and 30 minutes.", "30"),
        ("Answer: 1h30", "30"),
    ],
    "million, without it": [(f"The answer is {n} million.", str(n)) for n in WHOLE if n],
    "dozen, without it": [("The answer is 2 dozen eggs.", "2"), ("There are 5 hundred.", "5"), ("It cost $2.5 billion.", "2.5")],
    "k for thousand": [("The answer is 10k.", "10"), ("Answer: $5 M", "5"), ("Answer: 5 bn", "5")],
    "part of words that multiply": [("The answer is 5 million 200 thousand.", "200"), ("It is 2 hundred and 5.", "5")],
    "fraction in words": [("Answer: 3 tenths", "3"), ("The answer is 1 in a million.", "1")],
    "factorial": [("The answer is 5!.", "5"), ("Therefore $5!$.", "5"), ("Answer: $\\boxed{5!}$", "5")],
    "hour in words": [("The answer is one hour 30 minutes.", "30"), ("It takes two hours and 5 minutes.", "5")],
    "what the answer was": [("The answer was 5 but is now 6.", "5"), ("The answer was 5, but now I get 6.", "5")],
    "questions, either": [("Answer: 5? or 6?", "5"), ("Answer: 5? or 6?", "6")],
    "raised exponent": [("The answer is 10².", "10"), ("The answer is 10².", "2"), ("The answer is 10².", "102")],
    "digits of a base": [("The answer is 101₂.", "101"), ("The answer is $101_2$.", "101")],
    "base in words": [
        ("The answer is 101 base 2.", "101"),
        ("Answer: 101 (base 2)", "101"),
        ("The answer is 101 in binary.", "101"),
    ],
    "remainder": [("Answer: 7 (remainder 2)", "7"), ("The answer is 7, remainder 2.", "7")],
    "quantity of two metric units": [("Answer: 5 liters 300 ml", "5"), ("Answer: 1 GB 200 MB", "1"), ("It is 2 L 500 mL.", "500")],
    "quotient in words": [("Answer: 12 over 5", "12"), ("Answer: 3 quarters of an hour", "3")],
    "and a half": [("Answer: 3 hours and a half", "3")],
    "could also be": [("The answer could be 5, but it could also be 6.", "6")],
    "name of an agent": [("I agree with solution 2.", "2"), ("Response 2 is correct.", "2"), ("All 3 agents agree.", "3")],
    "part of a root": [("The answer is √2.", "2"), ("The answer is $\\sqrt[3]{7}$.", "3")],
    "both signs": [("The answer is ±5.", "5"), ("The answer is $\\pm 5$.", "5")],
    "decimal that goes on": [("The answer is 0.333...", "0.333"), ("Answer: 0.\\overline{3}", "0.3")],
    "term": [("The answer is 2n + 1.", "2"), ("The answer is 2n + 1.", "1"), ("Answer: x + 3", "3")],
    "thought only": [(f"<think>\nSo far the answer is {n}, but I have to", str(n)) for n in WHOLE],
    "denied": [(f"The answer is not {n}.", str(n)) for n in WHOLE],
    "neither": [("The answer is neither 12 nor 13.", "12"), ("The answer is neither 12 nor 13.", "13")],
    "not only": [("The answer is not only 12 but also 13.", "12"), ("The answer is not only 12 but also 13.", "13")],
    "two boxes, either": [("It is $\\boxed{12}$ or $\\boxed{13}$.", "12"), ("It is $\\boxed{12}$ or $\\boxed{13}$.", "13")],
    "supposed": [("If the answer is 12, nobody knows why.", "13")],
    "range, first": [(f"The answer is {n} to {n + 5}.", str(n)) for n in WHOLE if n > 0],
    "range, last": [(f"The answer is {n} to {n + 5}.", str(n + 5)) for n in WHOLE if n > 0],
    "dashed range": [(f"Answer: {n}-{n + 2} days", str(n + 2)) for n in WHOLE if n > 0],
    "either, first": [(f"The answer is {n} or {n + 1}.", str(n)) for n in WHOLE if n > 0],
    "either, last": [(f"The answer is {n} or {n + 1}.", str(n + 1)) for n in WHOLE if n > 0],
    "time": [("The answer is 12:30.", "12"), ("The answer is 12:30.", "30"), ("Answer: 7:05", "7")],
    "ratio": [("The answer is 3:1.", "3"), ("The answer is 3:1.", "1"), ("Answer: 16:9", "9")],
    "date": [("The answer is 1/2/2020.", "2020"), ("Answer: 24.12.1999", "24")],
    "expression": [
        ("Answer: 3 + 4", "4"),
        ("The answer is 2^{10}.", "10"),
        ("$\\boxed{3\\sqrt{2}}$", "3"),
        ("Answer: 12 - 3 are left", "3"),
    ],
    "value of an expression": [("Answer: 3 + 4", "7"), ("The answer is $2^{10}$.", "1024"), ("$\\boxed{6 \\cdot 7}$", "42")],
    "name with a number": [("It follows from step 4.", "4"), ("As agent 2 said, nobody knows.", "2")],
    "no number": [("I cannot tell.", "0"), ("The answer is unclear.", "0"), ("$\\boxed{}$", "0")],
    "words": [("The answer is twelve.", "12"), ("The answer is one half.", "\\frac{1}{2}")],
    "decimal comma": [("Answer: 3,5", "3.5"), ("Answer: 0,25", "0.25")],
    "division by nothing": [("Answer: 1/0", "0"), ("$\\boxed{\\frac{1}{0}}$", "1")],
}
# Mathematics: what stands in the box, the reference, whether it is the same.
BOXED: dict[str, list[tuple[str, str, bool]]] = {
    "terms in another order": [("x+1", "1+x", True), ("3x^2-2x+1", "1-2x+3x^2", True), ("ab+c", "c+ba", True)],
    "factored": [("(x-1)(x+1)", "x^2-1", True), ("2(x+3)", "2x+6", True), ("(a+b)^2", "a^2+2ab+b^2", True)],
    "other expression": [("x+1", "x-1", False), ("2x", "x^2", False), ("x", "y", False), ("\\sqrt{3}", "3", False)],
    "root": [("\\sqrt{8}", "2\\sqrt{2}", True), ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}", True), ("\\sqrt{49}", "7", True)],
    "pi": [("4\\pi", "\\pi \\cdot 4", True), ("\\frac{\\pi}{2}", "0.5\\pi", True), ("\\pi", "3.14", False)],
    "power": [("2^{10}", "1024", True), ("e^{2x}", "(e^x)^2", True), ("10^{-2}", "0.01", True)],
    "set": [
        ("\\{1,2,3\\}", "\\{3,2,1\\}", True),
        ("\\{1,2\\}", "\\{1,3\\}", False),
        ("\\left\\{1, 2\\right\\}", "\\{1,2\\}", True),
    ],
    "list": [("1, 2", "2, 1", True), ("-3, 4", "-3,4", True)],
    "pair": [("(1,2)", "(1, 2)", True), ("(1,2)", "(2,1)", False), ("\\left(\\frac12, 3\\right)", "(0.5,3)", True)],
    "interval": [("[1,2)", "[1, 2)", True), ("(-\\infty, 3]", "(-\\infty,3]", True), ("[1,2)", "(1,2)", False)],
    "inequality": [("x > 3", "x>3", True), ("1<x<2", "(1,2)", True), ("x \\ge 3", "x > 3", False)],
    "assignment": [("x=5", "5", True), ("y = 2x+1", "2x+1", True), ("x = 5", "6", False)],
    "matrix": [
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", True),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}", False),
    ],
    "fraction styles": [("\\dfrac{1}{2}", "\\frac12", True), ("\\tfrac34", "0.75", True), ("1/3", "\\frac{1}{3}", True)],
    "unit in mathematics": [("5\\text{ cm}", "5", True), ("12\\,\\mathrm{kg}", "12", True), ("90^\\circ", "90", True)],
    "percent in mathematics": [("50\\%", "50", True), ("12.5\\%", "12.5", True)],
    "money in mathematics": [("\\$18", "18", True), ("\\$1,250", "1250", True)],
    "thousands in mathematics": [("1,234", "1234", True), ("10{,}000", "10000", True), ("1\\,000\\,000", "1000000", True)],
    "words in mathematics": [("\\text{Monday}", "\\text{Monday}", True), ("\\text{even}", "\\text{odd}", False)],
    "million in mathematics": [("1.5\\text{ million}", "1500000", True), ("1.5\\text{ million}", "1.5", False)],
    "choice in mathematics": [("\\text{(B)}", "\\text{(B)}", True), ("\\text{(A)}", "\\text{(B)}", False)],
    "complex": [("3+4i", "4i+3", True), ("-i", "i", False)],
    "base": [("1011_2", "1011_2", True), ("52_8", "52_{8}", True)],
    "base, another": [("1011_2", "1011_3", False), ("1011_2", "1011", False), ("12_3", "12", False)],
    "two units in mathematics": [("4\\text{ feet } 3\\text{ inches}", "4", False)],
    "empty set": [("\\emptyset", "\\varnothing", True)],
    "logarithm": [("\\log_2 8", "3", True), ("\\log_2 8", "\\log_3 8", False)],
    "thousands in text": [("10\\text{,}000", "10000", True)],
    "trigonometry": [("\\sin^2 x + \\cos^2 x", "1", True), ("\\tan x", "\\frac{\\sin x}{\\cos x}", True)],
    "rounded in mathematics": [("0.333", "\\frac{1}{3}", False), ("1.41", "\\sqrt{2}", False)],
    "share for percent in mathematics": [("0.5", "50\\%", False), ("\\frac{1}{4}", "25\\%", False)],
    "thousands pulled together in mathematics": [
        ("11,\\! 111,\\! 111,\\! 100", "11111111100", True),
        ("11{,}111", "11,\\!111", True),
        ("1\\ 000", "1000", True),
        ("1\\;000\\;000", "1000000", True),
    ],
    "rationals that are close": [
        ("0.0000002", "0.0000003", False),
        ("0.333333", "\\frac{1}{3}", False),
        ("\\{0.0000002\\}", "\\{0.0000003\\}", False),
        ("1.0000001", "1", False),
    ],
    "irrational and its digits": [("1.41421356", "\\sqrt{2}", False), ("3.1415927", "\\pi", False)],
    "repeating decimal in mathematics": [("0.\\overline{3}", "\\frac{1}{3}", True), ("0.\\overline{3}", "0.333", False)],
    "vulgar fraction in mathematics": [("½", "\\frac{1}{2}", True), ("3½", "3.5", True)],
    "composed letters": [
        ("\\text{Gene\u0300ve}", "\\text{Gen\u00e8ve}", True),
        ("\\text{Zu\u0308rich}", "\\text{Gen\u00e8ve}", False),
    ],
    "list and pair": [("1, 2", "(1,2)", False), ("3, 4", "\\{3,4\\}", True)],
    "inequality of another variable": [("y > 3", "x > 3", True), ("3 < x", "x > 3", True)],
    "digits apart": [("1 000", "0", False), ("12 0", "0", False)],
}
# Mathematics that is said: the text, the reference, whether it is the same.
STATED: dict[str, list[tuple[str, str, bool]]] = {
    "mathematics, not another": [
        ("The answer is not $5$ but $6$.", "6", True),
        ("The answer is not $5$ but $6$.", "5", False),
        ("The answer is not $5$. It is $6$.", "6", True),
        ("The answer is $6$, not $5$.", "6", True),
    ],
    "mathematics, either": [("The answer is $5$ or $6$.", "5", False), ("The answer is $5$ or $6$.", "6", False)],
    "mathematics, part of a list": [
        ("The answer is $1$, $2$, and $3$.", "1", False),
        ("The answer is $1$, $2$, and $3$.", "3", False),
    ],
    "mathematics after a thought": [
        ("<think>\nmaybe $\\boxed{x+7}$\n</think>\n\nThe answer is $x+8$.", "x+8", True),
        ("<think>\nmaybe $\\boxed{x+7}$, but", "x+7", False),
    ],
}
LETTERED: dict[str, Template] = {
    "letter": lambda c: f"The answer is {c}.",
    "letter in brackets": lambda c: f"The answer is ({c}).",
    "letter, colon": lambda c: f"Answer: {c}",
    "letter, bold": lambda c: f"The correct answer is **{c}**.",
    "letter and its text": lambda c: f"The answer is {c}) Paris.",
    "letter in a box": lambda c: f"So it is $\\boxed{{{c}}}$.",
    "letter as text in a box": lambda c: f"So it is $\\boxed{{\\text{{{c}}}}}$.",
    "letter, not another": lambda c: f"The answer is {c}, not {'B' if c != 'B' else 'A'}.",
    "letter after others": lambda c: f"Option A and option D look alike, so the answer is {c}.",
    "letter, then a reason": lambda c: f"Answer: {c}\nA good reason is that it fits.",
    "letter, denied before": lambda c: f"The answer is not {'B' if c != 'B' else 'A'}. It is {c}.",
    "letter, another is wrong": lambda c: f"The answer is {c}, {'B' if c != 'B' else 'A'} is wrong.",
    "letter after a box of another kind": lambda c: f"We get $\\boxed{{x = 4}}$, so the answer is {c}.",
    "letter after a thought": lambda c: f"<think>The answer is {'B' if c != 'B' else 'A'}.</think>The answer is {c}.",
    "small letter and its text": lambda c: f"Answer: {c.lower()}) Paris",
    "small letter of an option": lambda c: f"The answer is option {c.lower()}.",
    "letter over another": lambda c: f"I choose option {c} over {'B' if c != 'B' else 'A'}.",
    "letter, then why no other": lambda c: f"I would go with {c}, since {'B' if c != 'B' else 'A'} is a trap.",
    "letter, and what it says": lambda c: f"The answer is {c}) Paris or Rome.",
}
# Two letters, or none.
UNDECIDED: dict[str, Template] = {
    "letter or another": lambda c: f"The answer is {c} or {'B' if c != 'B' else 'A'}.",
    "letter and another": lambda c: f"The answer is {c} and {'B' if c != 'B' else 'A'}.",
    "letter, maybe another": lambda c: f"The answer is ({c}), maybe ({'B' if c != 'B' else 'A'}).",
    "letter? or another?": lambda c: f"Answer: {c}? or {'B' if c != 'B' else 'A'}?",
    "letter, denied": lambda c: f"The answer is not {c}.",
    "letter of an agent": lambda c: f"I agree with Agent {c}.",
    "letter, could also be": lambda c: f"The answer could be {'B' if c != 'B' else 'A'}, but it could also be {c}.",
    "letter, rejected": lambda c: f"Option {c} is wrong.",
}
# Texts: what is said, the reference, whether it is the same.
TEXTS: dict[str, list[tuple[str, str, bool]]] = {
    "text": [
        ("The answer is Paris.", "Paris", True),
        ("Answer: new  york", "New York", True),
        ("The answer is Rome.", "Paris", False),
    ],
    "text, not another": [
        ("The answer is not Rome. It is Paris.", "Paris", True),
        ("The answer is not Rome but Paris.", "Paris", True),
        ("The answer is Paris, not Rome.", "Paris", True),
        ("The answer is not Paris.", "Paris", False),
    ],
    "text, either": [("The answer is Paris or Rome.", "Paris", False), ("The answer is either Paris or Rome.", "Rome", False)],
    "text with such a word": [('The answer is "Life or Death".', "life or death", True), ("Answer: Not given", "not given", True)],
    "text, composed letters": [
        ("Answer: Gene\u0300ve", "Gen\u00e8ve", True),
        ("Answer: ＰＡＲＩＳ", "Paris", True),
        ("Answer: STRASSE", "Straße", True),
    ],
    "text, other signs": [("Answer: It’s so", "It's so", True), ("Answer: 10²", "102", False), ("Answer: co‑op", "co-op", True)],
    "text after a thought": [
        ("<think>The answer is Rome.</think>The answer is Paris.", "Paris", True),
        ("<think>The answer is Rome.", "Rome", False),
    ],
}


def numbers() -> Iterator[Case]:
    for form, write in SAID.items():
        yield from (Case(form, write(str(n)), str(n), True) for n in WHOLE)
    for form, written in WRITTEN.items():
        for text, reference in written:
            yield Case(form, f"{STORY}The answer is ${text}$.", reference, form != "rounded")
            yield Case(form, f"{STORY}Therefore $\\boxed{{{text}}}$.", reference, form != "rounded")
    for form, wrong in WRONG.items():
        yield from (Case(form, text, reference, False) for text, reference in wrong)


def mathematics() -> Iterator[Case]:
    for form, boxed in BOXED.items():
        for inside, reference, right in boxed:
            yield Case(form, f"{STORY}Therefore $\\boxed{{{inside}}}$.", reference, right, "math")
            yield Case(form, f"{STORY}The answer is ${inside}$.", reference, right, "math")
    for form, stated in STATED.items():
        yield from (Case(form, text, reference, right, "math") for text, reference, right in stated)


def words() -> Iterator[Case]:
    for form, lettered in LETTERED.items():
        yield from (Case(form, lettered(letter), letter, True, "choice") for letter in "ABCDJ")
        yield from (Case(form, lettered(letter), other, False, "choice") for letter, other in ("AB", "DC"))
    for form, undecided in UNDECIDED.items():
        yield from (Case(form, undecided(letter), letter, False, "choice") for letter in "ABCDJ")
    for form, texts in TEXTS.items():
        yield from (Case(form, text, reference, right, "text") for text, reference, right in texts)


CASES = [*numbers(), *mathematics(), *words()]


# --- what is measured, and what docs/answers.md says of it ---


@functools.cache
def verdicts() -> tuple[tuple[Case, bool, dict[str, bool]], ...]:
    """Each case with our verdict and those of the others."""
    return tuple((case, ours(case), graders(case)) for case in CASES)


def disagreements() -> dict[tuple[str, str], list[Case]]:
    """By form and grader."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case, own, others in verdicts():
        for grader, verdict in others.items():
            if verdict != own:
                found.setdefault((case.form, grader), []).append(case)
    return found


def agreement() -> dict[str, tuple[int, int]]:
    """By grader: cases on which it agrees with us, and all that it was asked about."""
    agreed, asked = Counter[str](), Counter[str]()
    for _, own, others in verdicts():
        asked.update(list(others))  # of a mapping it would add up the verdicts
        agreed.update(grader for grader, verdict in others.items() if verdict == own)
    return {grader: (agreed[grader], asked[grader]) for grader in asked}


def rows(columns: int) -> list[list[str]]:
    """Rows of the tables of that many columns, without their heads."""
    lines = [
        line
        for line in TABLE.read_text().partition("## Held to other graders")[2].splitlines()
        if line.startswith("| ") and not line.startswith(("| form |", "| grader |"))
    ]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) == columns]


def test_the_corpus_is_large_and_its_forms_have_one_name() -> None:
    assert len({(case.text, case.reference) for case in CASES}) > 1250
    names = [name for forms in (SAID, WRITTEN, WRONG, BOXED, STATED, LETTERED, UNDECIDED, TEXTS) for name in forms]
    assert len(names) == len(set(names)) > 170
    assert {case.right for case in CASES} == {True, False}


@pytest.mark.parametrize("form", dict.fromkeys(case.form for case in CASES))
def test_we_take_each_text_for_what_it_says(form: str) -> None:
    wrong = [
        (case.text, case.reference, extract(case.text, case.kind))
        for case, own, _ in verdicts()
        if case.form == form and own != case.right
    ]
    assert wrong == []


def test_every_class_of_disagreement_is_decided() -> None:
    """A new one fails here: decide who is right, and add its row to docs/answers.md."""
    decided = {(form, grader): int(count) for form, _, grader, count, _ in rows(5)}
    assert decided == {key: len(cases) for key, cases in disagreements().items()}
    assert all(len(reason) > 15 for *_, reason in rows(5))


def test_examples_in_the_table_are_of_their_class() -> None:
    for form, example, grader, *_ in rows(5):
        text, reference = re.fullmatch(r"`(.*)` for `(.*)`", example.replace("\\|", "|")).groups()  # type: ignore[union-attr]
        found = [case for case in disagreements()[form, grader] if case.reference == reference and case.text.endswith(text)]
        assert found, (form, grader, example)


def test_the_agreement_in_the_table_is_the_measured_one() -> None:
    shares = {grader: share for grader, share, _ in rows(3)}
    assert shares == {
        grader: f"{agreed} of {asked} ({100 * agreed / asked:.1f} %)" for grader, (agreed, asked) in agreement().items()
    }


@pytest.mark.parametrize("seed", range(3))
def test_we_agree_with_math_verify_on_bare_numbers(seed: int) -> None:
    """Without text around them there is nothing to argue about."""
    source = random.Random(seed)
    for _ in range(40):
        one, other = (Fraction(source.randint(-60, 60), source.choice((1, 1, 2, 4, 5, 7))) for _ in range(2))
        for second in (one, other):
            reference, text = (f"{'-' if v < 0 else ''}\\frac{{{abs(v.numerator)}}}{{{v.denominator}}}" for v in (one, second))
            case = Case("bare", f"${text}$", reference, one == second)
            assert ours(case) == math_verify_(case) == case.right, case
