"""Equality of answers, mathematical ones above all: what counts as equal, and what becomes of a comparison that does not end."""

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maft.answers.equality import Checker, groups
from maft.answers.extract import canonical
from maft.answers.mathematics import verify
from maft.answers.voting import vote
from maft.pod import allowed, processors
from maft.spec import AnswerKind

# (a, b, equal), each looked at both ways round
PAIRS = [
    ("\\frac{1}{2}", "0.5", True),
    ("\\frac12", "2/4", True),
    ("x+1", "1+x", True),
    ("x^2-1", "(x-1)(x+1)", True),
    ("\\{1,2\\}", "\\{2,1\\}", True),
    ("x=1", "1", True),
    ("1,234", "1234", True),
    ("\\sqrt{8}", "2\\sqrt{2}", True),
    ("1<x<2", "(1,2)", True),
    ("|−4|", "4", True),  # whichever minus
    ("|-4|", "-4", False),
    ("\\left|−4\\right|", "|-4|", True),
    # however it is spelt
    ("11,\\! 111,\\! 111,\\! 100", "11111111100", True),
    ("1\\;234\\;567", "1{,}234{,}567", True),
    ("1'234", "1\\ 234", True),
    ("3½", "3.5", True),
    ("0.\\overline{3}", "\\frac{1}{3}", True),
    ("１２", "12", True),
    ("x²", "x^2", True),
    ("\\text{Gene\u0300ve}", "\\text{Gen\u00e8ve}", True),
    ("\\text{Even}", "even", True),
    ("1e-7", "10^{-7}", True),
    ("x^{0.5}", "\\sqrt{x}", True),
    ("1.5^2", "2.25", True),
    # equations and inequalities that say the same
    ("y=2x+1", "2x-y+1=0", True),
    ("2x+1", "2x-y+1=0", True),
    ("3\\cdot4=12", "12", True),
    ("1=x^2+y^2", "x^2+y^2=1", True),
    ("x \\in (1,2)", "1<y<2", True),
    ("3 < x", "x > 3", True),
    # two rationals are equal or they are not
    ("0.0000002", "0.0000003", False),
    ("0.0000002", "0.00000013", False),
    ("0.1234567890123456789", "0.1234567890123456788", False),
    ("\\frac{1}{3}", "0.3333333333333333", False),
    ("\\{0.0000002\\}", "\\{0.0000003\\}", False),
    ("(0.0000002, 1)", "(0.0000003, 1)", False),
    ("(0.0000002,1)", "(0.0000003,1)", False),
    ("(1,0.0000002)", "(1,0.0000003)", False),
    ("[0,0.0000001]", "[0,0.0000002]", False),
    ("(0.5,1)", "(\\frac{1}{2},1)", True),
    ("(1,0.5)", "(1,\\frac{1}{2})", True),
    ("1.0000002x", "1.0000003x", False),
    ("\\frac{2}{10^{20}}", "\\frac{3}{10^{20}}", False),
    ("\\sqrt{2}", "1.4142135623730951", False),
    ("1 000", "0", False),
    ("2x=2", "2", False),
    ("x^2=4", "4", False),
    ("1,2", "(1,2)", False),
    ("\\text{abc}", "cba", False),
    ("\\frac{1}{2}", "0.51", False),
    ("x+1", "x-1", False),
    ("\\{1,2\\}", "\\{1,3\\}", False),
    ("(1,2)", "(2,1)", False),
    ("x", "y", False),
    ("", "1", False),
    ("\\frac{", "1", False),
    # digits of a base, quantities of two units, other spellings; a ratio is a quotient
    ("1011_2", "1011_3", False),
    ("1011_2", "1011", False),
    ("12_3", "12", False),
    ("4\\text{ feet } 3\\text{ inches}", "4", False),
    ("4\\text{ feet } 3\\text{ inches}", "4\\text{ feet }3\\text{ inches}", True),
    ("10\\text{,}000", "10000", True),
    ("\\log_2 8", "3", True),
    ("\\log_{10} 1000", "3", True),
    ("\\log_2 8", "\\log_3 8", False),
    ("\\emptyset", "\\varnothing", True),
    ("\\emptyset", "\\{\\}", True),
    ("52_8", "52_{8}", True),
    ("1011_2", "1011_{\\text{two}}", True),
    ("1011_{10}", "1011", True),
    ("x_1", "x_1", True),
    ("x_1 + 1", "1 + x_1", True),
    ("3:4", "6:8", True),
    ("1\\text{ hour } 30\\text{ minutes}", "1", False),
    ("1\\text{ hour and }30\\text{ minutes}", "1", False),
    ("5\\text{ cm}", "5", True),
    ("\\log_2 x", "\\log_2 x", True),
    ("(1011)_2", "1011_2", True),
    ("3:4", "3", False),
    ("1011_{10}", "1011.0", True),
    ("2a_1 + 3", "3 + 2a_1", True),
    ("x^2_1", "x^2_1", True),
    ("1011_2 + 1_2", "1_2 + 1011_2", False),
    ("0011_2", "11_2", True),
    ("x^2_2 + 1", "1 + x^2_2", True),
    ("\\log_2(8)", "3", True),
    ("\\log_2 8x", "3x", False),
    ("5\\text{ cm and } 3\\text{ mm}", "5", False),
    ("11_2", "3", False),
    ("\\{1\\}", "\\emptyset", False),
    ("1\\text{,}234\\text{,}567", "1234567", True),
    ("A3_{16}", "a3_{16}", True),
    ("\\log_2 9", "2\\log_2 3", True),
    ("1\\text{ and }2", "2, 1", True),
    ("4\\text{ feet and }3\\text{ inches}", "4", False),
    ("4\\,\\mathrm{ft}\\,3\\,\\mathrm{in}", "4", False),
    # what math-verify leaves out or takes for the whole, letters in both cases, the imaginary unit, degrees
    ("A'", "A", False),
    ("f'(x)", "f(x)", False),
    ("f'(x) = 2x", "2x", True),
    ("y' = 2x", "2x", True),
    ("A^T", "A", False),
    ("A^{T}", "A^T", True),
    ("2^{T} + 1", "1 + 2^T", True),
    ("z^*", "z", False),
    ("1,2,\\ldots,10", "1,2,10", False),
    ("1, 2, \\dots, 10", "1,2,...,10", True),
    ("0.333...", "0.333", False),
    ("x \\equiv 2 \\pmod{7}", "x \\equiv 3 \\pmod{7}", False),
    ("x \\equiv 2 \\pmod 7", "7", False),
    ("x \\equiv 2 \\pmod{7}", "x\\equiv 2\\pmod 7", True),
    ("2 \\pmod 7", "2 \\pmod 5", False),
    ("5 \\bmod 3", "3", False),
    ("5 \\mid 10", "10", False),
    ("5 \\star 3", "3", False),
    ("A + a", "2a", False),
    ("A + a", "a + A", True),
    ("\\frac{1}{1+i}", "\\frac{1-i}{2}", True),
    ("\\sqrt{-4}", "2i", True),
    ("z = 1+i", "1+i", True),
    ("z = \\frac{1}{i}", "-i", True),
    ("3+2i", "3-2i", False),
    ("\\sin 30^\\circ", "\\frac{1}{2}", True),
    ("\\sin 30^\\circ", "\\sin 30", False),
    ("90^\\circ", "90", True),
    ("\\frac{\\sin 30^\\circ}{2}", "\\frac{1}{4}", True),
    ("(\\cos 60^{\\circ}) x", "\\frac{x}{2}", True),
    ("12\\text{ a.m.}", "12\\text{ p.m.}", False),
    ("12\\text{ AM}", "12\\text{ a.m.}", True),
    ("100\\text{ BC}", "100\\text{ AD}", False),
    ("5\\text{ north}", "5\\text{ south}", False),
    ("\\text{north}", "north", True),
    ("\\text{AD}", "AD", True),
    ("f^{(2)}(x)", "f^2(x)", False),
    ("\\vec{a}\\cdot\\vec{b}", "\\vec{a}\\times\\vec{b}", False),
    ("\ud800", "1", False),
    # units and what may be variables, angles
    ("\\pi r^2 h", "\\pi r^2", False),
    ("x^2+2c", "x^2+2", False),
    ("v = 4t", "4", False),
    ("v = 4t", "4t", True),
    ("3t", "3m", False),
    ("n^2 m", "n^2", False),
    ("\\frac{mg}{2} t", "\\frac{mg}{2}", False),
    ("2\\sqrt{3}s", "2\\sqrt{3}", False),
    ("x<2m", "x<2", False),
    ("2ab", "2", False),
    ("b+2ab", "b+2", False),
    ("\\frac{1}{2}ab", "\\frac{ab}{2}", True),
    ("\\angle ABC", "\\angle ACB", False),
    ("\\angle ABC", "\\angle CBA", True),
    ("\\angle ABC = 30^\\circ", "30", True),
    ("m\\angle ABC = 30^\\circ", "30", True),
    ("\\angle ABC=30^\\circ", "\\angle ABC=40^\\circ", False),
    ("\\angle A", "\\angle B", False),
    ("\\angle A", "\\angle A", True),
    ("5 cm", "5", True),
    ("5cm", "5", True),
    ("12 feet", "12", True),
    ("5 apples", "5", True),
    ("5 abs", "5", False),
    ("2\\sqrt{3} cm", "2\\sqrt{3}", True),
    ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3}", True),
    ("25 cm^2", "25", True),
    ("25\\text{ cm}^2", "25", True),
    ("25\\text{ cm}^{2}", "25", True),
    ("25\\text{ square cm}", "25", True),
    ("25 square meters", "25", True),
    ("30 km/h", "30", True),
    ("30\\text{ km/h}", "30", True),
    ("30\\;\\mathrm{km}/\\mathrm{h}", "30", True),
    ("5\\,\\frac{\\text{m}}{\\text{s}}", "5", True),
    ("5\\text{ or more}", "5", False),
    ("n\\text{ even}", "n", False),
    ("n\\text{ is even}", "n", False),
    ("3+2\\mathrm{i}", "3+2i", True),
    ("3+2\\mathrm{i}", "3", False),
    ("\\mathrm{e}^2", "e^2", True),
    ("3\\text{ cm}, 4\\text{ cm}", "3", False),
    ("3\\text{ cm}, 4\\text{ cm}", "3,4", True),
    ("2\\text{ m} \\times 3\\text{ m}", "6", False),
    ("x\\text{ if }x=\\frac{1}{2}", "x", False),
    ("x = 5\\text{ cm}", "5", True),
    ("x = 5 cm", "5", True),
    ("2\\pi r\\text{ cm}", "2\\pi r", True),
    ("12\\pi cm", "12\\pi", True),
    ("12\\pi\\text{ cm}", "12\\pi", True),
    ("12\\pi \\text{ cubic inches}", "12\\pi", True),
    ("12\\pi r", "12\\pi", False),
    ("12\\pi\\,\\text{cm}^3", "12\\pi", True),
    ("10\\text{th}", "10", True),
    ("20^\\circ\\text{C}", "20", True),
    ("5\\text{ dollars}", "5", True),
    ("5\\text{ percent}", "5", True),
    ("5 percent", "5", True),
    ("12\\text{ red}", "12", True),
    ("12\\text{ red marbles}", "12", True),
    ("12\\text{ more}", "12", False),
    ("5\\text{ times}", "5", False),
    ("5\\text{ million}", "5", False),
    ("5\\text{ dozen}", "5", False),
    ("5\\text{ thirds}", "5", False),
    ("5\\text{ mod }7", "5", False),
    ("5 \\text{ (mod 7)}", "5", False),
    ("\\frac{1}{2}\\text{ of }x", "\\frac12", False),
    ("\\frac{1}{2} h", "\\frac12", False),
    ("2x\\text{ m}", "2x", True),
    ("2x\\,\\mathrm{m}", "2x", True),
    ("2x m", "2x", False),
    ("5\\ \\mathrm{cm}", "5", True),
    ("5\\mathrm{~cm}", "5", True),
    ("5.5\\text{ cm}", "5.5", True),
    ("5.5 cm", "\\frac{11}{2}", True),
    ("1,234\\text{ cm}", "1234", True),
    ("1,234 cm", "1234", True),
    ("(1,2)\\text{ cm}", "(1,2)", True),
    ("5\\text{x}", "5", False),
    ("5\\text{x}", "5x", True),
    ("\\frac{1}{2}bh", "\\frac{bh}{2}", True),
    ("\\frac{1}{2}gt^2", "\\frac{gt^2}{2}", True),
    ("\\frac12 mv^2", "\\frac{mv^2}{2}", True),
    ("lwh", "lw", False),
    ("mgh", "mg", False),
    ("2 st", "2", False),
    ("2 alpha", "2", False),
    ("100 \\text{ degrees}", "100", True),
    ("100 degrees", "100", True),
    ("100 meters per second", "100", True),
    ("100\\text{ meters per second}", "100", True),
    ("100\\text{ m per s}", "100", True),
    ("5\\text{ units}^2", "5", True),
    ("5 \\text{ sq. units}", "5", True),
    ("5 \\text{ sq units}", "5", True),
    ("14\\text{ square units}", "14", True),
    ("\\frac{5}{2}\\text{ hours}", "\\frac52", True),
    ("\\$5.50", "5.5", True),
    ("x>3\\text{ cm}", "x>3", True),
    ("0.5\\text{ cm}", "\\frac12", True),
    ("0.5 cm", "\\frac12", True),
    ("5\\text{ N}", "5", True),
    ("5\\text{ J}", "5", True),
    ("5\\text{ kJ}", "5", True),
    ("9.8\\text{ m/s}^2", "9.8", True),
    ("9.8\\ \\text{m}/\\text{s}^2", "9.8", True),
    ("5\\text{ m}\\cdot\\text{s}^{-1}", "5", True),
    ("5\\text{ N}\\cdot\\text{m}", "5", True),
    ("5\\text{ mol}", "5", True),
    ("5\\text{ g/mol}", "5", True),
    ("5\\text{ A}", "5", True),
    ("9\\text{ AM}", "9", False),
    ("12 hours", "12", True),
    ("12\\text{ hours and }30\\text{ minutes}", "12", False),
    ("12 hours 30 minutes", "12", False),
    ("5 feet 3 inches", "5", False),
    ("5 feet 3 inches", "5 3", False),
    ("A=5\\text{ cm}^2", "5", True),
    ("a+b\\text{ units}", "a+b", True),
    ("\\text{Monday}", "\\text{Tuesday}", False),
    ("\\text{even}", "even", True),
    ("\\text{cm}", "\\text{m}", False),
    ("\\sin x", "\\cos x", False),
    ("x\\text{ cm}", "x", True),
    ("2\\text{ and }3", "2,3", True),
    ("y=mx+c", "y=mx", False),
    ("y=mx+c", "mx+c", True),
    ("ct", "c", False),
    ("c", "d", False),
    ("\\frac{d}{t}", "d", False),
    ("2\\pi rh", "2\\pi r", False),
    ("6s", "6", False),
    ("6s^2", "6", False),
    ("4l+2w", "4+2w", False),
    ("4d", "4", False),
    ("4g", "4", False),
    ("x+h", "x", False),
    ("2x+h", "2x", False),
    ("\\frac{x}{2}+c", "\\frac{x}{2}", False),
    ("x^2+c", "x^2+d", False),
    ("3o", "3", False),
    ("k th", "k", False),
    ("2 is", "2", False),
    ("5 cos", "5", False),
    ("3 axis", "3", False),
    ("5\\text{ even numbers}", "5", False),
    ("5\\text{ in.}", "5", True),
    ("5\\text{ in}", "5", True),
    ("5\\text{ months}", "5", True),
    ("5\\text{ ways to arrange them}", "5", True),
    ("5\\text{ cups of tea}", "5", True),
    ("2x meters", "2x", True),
    ("x units", "x", True),
    ("\\pi r^2\\text{ cubic units}", "\\pi r^2", True),
    ("\\pi r^2 cubic units", "\\pi r^2", True),
    ("5 per hour", "5", True),
    ("30 m/s", "30", True),
    ("9.8 m/s^2", "9.8", True),
    ("x\\text{ years old}", "x", True),
    ("5\\text{ years old}", "5", True),
    ("5\\text{ at least}", "5", False),
    ("5\\text{ paths}", "5", True),
    ("5\\text{ sixths}", "5", False),
    ("5 sixths", "5", False),
    ("x times", "x", False),
    ("x cm", "x", False),
    ("\\sin alphas", "\\sin", False),
    ("3 m/s", "3m", False),
    ("5 models", "5", True),
    ("x^2 + 3 dollars", "x^2+3", True),
    ("5 m", "5", False),
    ("5/s", "5", False),
    ("2 abs", "2", False),
    ("5 dollars", "5", True),
    ("\\ln 2", "\\ln", False),
    ("\\ln 2 cm", "\\ln 2", True),
    ("24 mins", "24", True),
    ("a bananas", "a", True),
    ("100\\text{ per day}", "100", True),
    ("100 per day", "100", True),
    ("60 miles per hour", "60", True),
    ("60\\text{ miles per hour}", "60", True),
]


def hang(_: str) -> bool:
    while True:
        pass


def die(_: str) -> bool:
    os._exit(3)


def long(text: str) -> bool:
    return len(text) > 3


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker("math", limit=20) as checker:
        yield checker


@pytest.mark.parametrize(("a", "b", "equal"), PAIRS)
def test_equality_of_mathematics(checker: Checker, a: str, b: str, equal: bool) -> None:
    one, other = canonical(a, "math") or a, canonical(b, "math") or b
    assert checker.equal(one, other) is equal
    assert one == other or checker._compare(other, one) is equal


def test_votes_for_rationals_that_are_close_are_three_answers(checker: Checker) -> None:
    result = vote(["0.0000002", "0.0000003", "0.00000013"], "0.0000002".__eq__, equal=checker.equal, seed=0)
    assert (result.votes, result.runner_up, result.tied) == (1, 1, True)


def written(value: Fraction) -> st.SearchStrategy[str]:
    """Ways to write a rational whose denominator is a power of ten."""
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    whole, rest = divmod(top * 10**9 // bottom, 10**9)
    decimal = f"{sign}{whole}.{rest:09}"
    ways = [
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{top}/{bottom}",
        decimal,
        decimal.rstrip("0") + "000",
        f"x = {decimal}",
        f"${decimal}$",
    ]
    return st.sampled_from([*ways, decimal.replace(f"{whole}.", f"{whole:,}.".replace(",", ",\\!"), 1)])


rationals = st.integers(-(10**12), 10**12).map(lambda n: Fraction(n, 10**8))


@settings(max_examples=60)
@given(st.data(), rationals, rationals | st.none())
def test_rationals_are_equal_if_and_only_if_their_values_are(data: st.DataObject, one: Fraction, other: Fraction | None) -> None:
    other = one if other is None else other
    a, b = (str(canonical(data.draw(written(value)), "math")) for value in (one, other))
    assert verify(a, b) is verify(b, a) is (one == other)


# Of each kind of answer several spellings and neighbours, those that math-verify alone makes intransitive among them.
SPELT = [
    "0.5",
    "\\frac12",
    "x=0.5",
    "y=\\frac12",
    "0.333333",
    "\\frac13",
    "0.0000002",
    "0.0000003",
    "0",
    "1 000",
    "1{,}000",
    "1,2",
    "2,1",
]
SPELT += [
    "(1,2)",
    "(2,1)",
    "\\{1,2\\}",
    "1<x<2",
    "1<y<2",
    "x>1",
    "y>1",
    "x=1",
    "1",
    "x-1=0",
    "2x=2",
    "2",
    "y=x+1",
    "z=x+1",
    "y-x-1=0",
    "x+1",
]
SPELT += [
    "\\sqrt2",
    "1.41421356",
    "\\text{even}",
    "even",
    "EVEN",
    "abc",
    "cba",
    "\\text{abc}",
    "5\\text{ cm}",
    "5",
    "\\pi",
    "3.14159265",
]


def test_equality_is_reflexive_symmetric_and_transitive(checker: Checker) -> None:
    answers = [str(canonical(text, "math")) for text in SPELT]
    equal = {(a, b): a == b or verify(a, b) for a, b in itertools.combinations_with_replacement(answers, 2)}
    equal |= {(b, a): verdict for (a, b), verdict in equal.items()}
    assert all(equal[a, a] for a in answers)
    assert not [(a, b) for a, b in itertools.combinations(answers[::3], 2) if verify(b, a) != equal[a, b]]
    triples = itertools.product(answers, repeat=3)
    assert not [(a, b, c) for a, b, c in triples if equal[a, b] and equal[b, c] and not equal[a, c]]


@pytest.mark.parametrize("kind", ["number", "choice", "text"])
def test_other_kinds_are_compared_as_they_stand_and_start_no_process(kind: AnswerKind) -> None:
    before = psutil.Process().children(recursive=True)
    with Checker(kind) as plain:
        assert plain.equal("1/2", "1/2")
        assert not plain.equal("1/2", "0.5")
        assert psutil.Process().children(recursive=True) == before


def test_equal_strings_need_no_process() -> None:
    before = psutil.Process().children(recursive=True)
    with Checker("math") as plain:
        assert plain.equal("\\frac{", "\\frac{")
        assert psutil.Process().children(recursive=True) == before


@pytest.mark.parametrize("end", [hang, die], ids=["hangs", "dies"])
def test_after_a_lost_comparison_the_next_one_works_and_no_process_stays(end: object) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Checker("math", limit=20, workers=1) as checker:
        assert checker._call(long, "long enough")
        lost = {child.pid for child in psutil.Process().children(recursive=True)} - before
        checker._limit, started = 0.3, time.monotonic()
        assert checker._call(end, "") is False
        assert time.monotonic() - started < 15
        checker._limit = 20
        assert checker._call(long, "long enough")
        replaced = {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert lost and replaced and not lost & replaced
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_a_worker_that_still_computes_is_ended_with_the_checker() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Checker("math", limit=60) as checker:
        assert checker._call(long, "long enough")
        assert checker._pool
        checker._pool.schedule(hang, args=("",))
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_several_threads_and_workers_grade_alike() -> None:
    """Each comparison is what it is with one of both, and there are as many processes as were asked for."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    several = [(canonical(a, "math") or a, canonical(b, "math") or b, equal) for a, b, equal in PAIRS for _ in range(2)]
    with Checker("math", limit=60, workers=3) as checker, ThreadPoolExecutor(checker.workers) as threads:
        given_ = list(threads.map(lambda pair: checker.equal(pair[0], pair[1]), several))
        workers = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert given_ == [equal for *_, equal in several]
    assert len(workers) == 3


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [
        (8, "max 100000\n", 8),
        (8, "200000 100000\n", 2),
        (8, "250000 100000\n", 3),
        (8, "50000 100000\n", 1),
        (2, "6400000 100000\n", 2),
        (64, "max", 64),
        (4, "", 4),
        (4, "-1 100000", 4),
        (4, "100000 0", 4),
    ],
)
def test_as_many_workers_as_the_pod_has_processors(affinity: int, quota: str, expected: int) -> None:
    assert allowed(affinity, quota) == expected
    assert 1 <= processors() <= len(os.sched_getaffinity(0))


def test_hostile_mathematics_is_unequal_and_asked_once() -> None:
    with Checker("math", limit=0.3) as checker:
        assert not checker.equal("\\frac{" * 20_000, "1")
        checker._limit = 20
        assert checker.equal("\\frac{1}{4}", "0.25")
    # Now there is nobody left to ask.
    assert not checker.equal("1", "\\frac{" * 20_000)
    assert checker.equal("0.25", "\\frac{1}{4}")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["1", "2", "1"], [[0, 2], [1]]),
        (["1", None, "1"], [[0, 2]]),
        ([None, None], []),
        ([], []),
        (["", None, ""], [[0, 2]]),
    ],
)
def test_groups_of_equal_answers(answers: list[str | None], expected: list[list[int]]) -> None:
    assert groups(answers, lambda a, b: a == b) == expected
