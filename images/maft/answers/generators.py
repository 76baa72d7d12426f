"""The generators of reasoning-gym whose answers can be voted on: of each the form of its answers, and how one is found in a text.

A generator is here if its answers have a canonical form that its scorer agrees with: of all answers that were tried
(tests/method/test_generators.py: spellings, mutants, answers to other questions; several seeds) equal ones have equal scores, and
none but the reference's has full marks. The others are in REFUSED with the reason.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from maft.answers import forms
from maft.answers.boxes import last_boxed
from maft.answers.extract import extract
from maft.answers.thoughts import split

LONGEST = 20_000  # characters of an answer


@dataclass(frozen=True, slots=True)
class Form:
    """How the answers of a generator are written."""

    name: str
    """For people."""
    read: forms.Read
    """The canonical form of a bare answer."""
    lines: Literal["one", "paragraph", "all"] = "one"
    """Of a text, where an answer is announced: the rest of the line, up to an empty line, all that follows."""
    number: bool = False
    """Found as numbers are: in a sentence, or as the last one of a text."""


NUMBER = Form("a number", forms.number, number=True)
YES_NO = Form("Yes or No", forms.one_of("Yes", "No"))
TRUE_FALSE = Form("True or False", forms.one_of("True", "False"))
MATRIX = Form("a matrix, a row a line", forms.rows, "paragraph")
ROW = Form("numbers in their order", forms.row, "paragraph")
LINES = Form("lines as they are", forms.lines, "all")
SENTENCE = Form("a text of one line", forms.sentence)
WORD = Form("a word, whatever its case", forms.joined)
WORDS = Form("words between commas", forms.words)
FRACTION = Form("a fraction in lowest terms", forms.fraction)
CALENDAR = forms.either(
    forms.one_of("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Yes", "No"), forms.count
)

GENERATORS: dict[str, Form] = {
    "ab": Form("tokens A#, #A, B#, #B", forms.signs),
    "acre": Form("on, off or undetermined", forms.one_of("on", "off", "undetermined")),
    "aiw": NUMBER,
    "arc_1d": ROW,
    "arc_agi": MATRIX,
    "base_conversion": Form("digits and small letters", forms.token("[0-9a-z]+")),
    "basic_arithmetic": NUMBER,
    "bf": Form("a word", forms.token(r"\S+")),
    "binary_alternation": NUMBER,
    "binary_matrix": MATRIX,
    "bitwise_arithmetic": Form("a hexadecimal number", forms.hexadecimal),
    "caesar_cipher": SENTENCE,
    "calendar_arithmetic": Form("a weekday, Yes, No or a number", CALENDAR),
    "chain_sum": NUMBER,
    "circuit_logic": NUMBER,
    "color_cube_rotation": WORD,
    "complex_arithmetic": Form("a complex number", forms.complex_number),
    "count_bits": NUMBER,
    "count_primes": NUMBER,
    "course_schedule": TRUE_FALSE,
    "decimal_chain_sum": NUMBER,
    "dice": FRACTION,
    "emoji_mystery": SENTENCE,
    "family_relationships": WORD,
    "figlet_font": WORD,
    "fraction_simplification": FRACTION,
    "futoshiki": LINES,
    "gcd": NUMBER,
    "group_anagrams": Form("lists of words, in any order", forms.groups, "paragraph"),
    "gsm_symbolic": Form("a number, its sign passed over", forms.unsigned, number=True),
    "knights_knaves": Form("who is what, in any order", forms.assignments),
    "largest_island": NUMBER,
    "lcm": NUMBER,
    "leg_counting": NUMBER,
    "letter_counting": NUMBER,
    "list_functions": Form("a list of whole numbers", forms.integers, "paragraph"),
    "mahjong_puzzle": Form("Peng, Chi or Pass", forms.one_of("Peng", "Chi", "Pass")),
    "manipulate_matrix": MATRIX,
    "maze": NUMBER,
    "mini_sudoku": MATRIX,
    "modulo_grid": LINES,
    "needle_haystack": WORD,
    "number_filtering": Form("a list of numbers as they are spelled", forms.numerals),
    "number_sequence": NUMBER,
    "palindrome_partitioning": Form("lists of words, in any order", forms.partitions, "paragraph"),
    "path_star": ROW,
    "polynomial_equations": Form("numbers in any order", forms.roots),
    "power_function": Form("a number to three figures", forms.three_digits, number=True),
    "prime_factorization": Form("factors in any order", forms.factors),
    "products": NUMBER,
    "rearc": MATRIX,
    "rectangle_count": NUMBER,
    "rotate_matrix": MATRIX,
    "rotten_oranges": NUMBER,
    "self_reference": NUMBER,
    "sentence_reordering": Form("a text of one line, whatever its case", forms.folded),
    "simple_equations": NUMBER,
    "simple_geometry": NUMBER,
    "spell_backward": Form("a word, whatever its case", forms.token(r"\S+", str.lower)),
    "spiral_matrix": ROW,
    "string_insertion": Form("letters A to E", forms.token("[A-E]+")),
    "string_manipulation": Form("letters", forms.token("[a-z]+")),
    "string_splitting": ROW,
    "string_synthesis": ROW,
    "sudoku": MATRIX,
    "survo": MATRIX,
    "syllogism": YES_NO,
    "tsumego": Form("a field such as C4", forms.token("[A-Za-z][0-9]{1,2}", str.upper)),
    "word_sequence_reversal": WORDS,
    "word_sorting": WORDS,
    "zebra_puzzles": Form("a text of one line, whatever its case", forms.folded),
}

SEVERAL = "several answers to one question are right"
NEARLY = "answers that are nearly right are right to its scorer"
UNSTEADY = "the same seed gives other questions in another process"

REFUSED: dict[str, str] = {
    "advanced_geometry": NEARLY,
    "boxnet": SEVERAL,
    "codeio": UNSTEADY,
    "coin_flip": NEARLY,
    "composite": "it is several generators; name one of them",
    "countdown": SEVERAL,
    "cryptarithm": SEVERAL,
    "decimal_arithmetic": NEARLY,
    "game_of_life": "its scorer passes over rows and columns that are too many",
    "game_of_life_halting": "any answer is right to its scorer",
    "graph_color": SEVERAL,
    "intermediate_integration": SEVERAL,
    "isomorphic_strings": UNSTEADY,
    "jugs": SEVERAL,
    "kakurasu": SEVERAL,
    "knight_swap": SEVERAL,
    "letter_jumble": "its scorer passes over words that are too many",
    "n_queens": SEVERAL,
    "number_format": NEARLY,
    "number_sorting": NEARLY,
    "palindrome_generation": SEVERAL,
    "polynomial_multiplication": UNSTEADY,
    "pool_matrix": NEARLY,
    "propositional_logic": SEVERAL,
    "puzzle24": SEVERAL,
    "quantum_lock": SEVERAL,
    "ransom_note": UNSTEADY,
    "rubiks_cube": SEVERAL,
    "rush_hour": SEVERAL,
    "shortest_path": SEVERAL,
    "simple_integration": SEVERAL,
    "sokoban": SEVERAL,
    "time_intervals": "its scorer passes over the time beside a number of days",
    "tower_of_hanoi": SEVERAL,
    "word_ladder": SEVERAL,
}

# --- where an answer stands in a text ---

_TAGGED = re.compile(r"<answer>((?>(?:[^<]++|<(?!/?answer>))*))(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(
    r"""(?<![^\W_])answer(?![^\W_]) [*_"']{0,4}
        (?: \s{0,4}: | \s{1,4}(?:is|would\sbe)(?![^\W_])\s{0,4}:? )
        [* \t]{0,8}""",
    re.VERBOSE | re.IGNORECASE,
)
_BLOCK = re.compile(r"```[^\n]*\n((?>(?:[^`]++|`(?!``))*))```", re.DOTALL)  # of Markdown
_REMARK = re.compile(r"(?<=\w)[.,;]?\s+(?:because|since|as|which)\s|(?<=[\w\"'`*])\s+\((?=[a-z])")
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


def find(text: str, form: Form, *, complete: bool = True) -> str | None:
    """Finds the final answer in a model's text, in canonical form; None if there is none.

    Only the reply is searched, never a thought. Looked for in this order: the last `<answer>…</answer>`, the last \\boxed{…}, what
    the last "Answer: " or "answer is" announces; where the text was not cut off (`complete`), the last number, block or paragraph
    that is of the form, or all of the text.
    """
    text = split(text).reply
    if tagged := list(_TAGGED.finditer(text)):
        return _read(tagged[-1][1], form)
    if boxed := last_boxed(text):
        return _read(boxed, form)
    if form.number:
        value = extract(text, "number", complete=complete)
        return form.read(value) if value else None
    candidates = chain(_announced(text, form), _unannounced(text, form) if complete else ())
    return next((answer for part in candidates if (answer := _read(part, form)) is not None), None)


def _read(part: str, form: Form) -> str | None:
    return form.read(part) if len(part) <= LONGEST else None


def _announced(text: str, form: Form) -> Iterator[str]:
    """What follows each marker, last one first, up to the next."""
    end = len(text)
    for marker in reversed(list(_MARKER.finditer(text))):
        after = text[marker.end() : end].lstrip("\r\n" if form.lines == "all" else None)
        end = marker.start()
        if block := _BLOCK.match(after):
            yield block[1]
        elif form.lines == "all":
            yield after
        elif form.lines == "paragraph":
            yield from _with_and_without_first_line(_EMPTY_LINE.split(after, 1)[0])
        else:
            line = after.split("\n", 1)[0]
            yield line
            yield _REMARK.split(line, maxsplit=1)[0]


def _unannounced(text: str, form: Form) -> Iterator[str]:
    """The last block of a text, then its last paragraph, or each where answers have a form that other paragraphs do not have."""
    blocks = [block[1] for block in _BLOCK.finditer(text)]
    yield from blocks[-1:]
    if form.lines == "all":  # whatever stands there would be of the form
        yield from () if blocks else (text,)
        return
    paragraphs = _EMPTY_LINE.split(text.strip())
    for part in reversed(paragraphs if form.lines == "paragraph" else paragraphs[-1:]):
        yield from _with_and_without_first_line(part)
    yield text


def _with_and_without_first_line(part: str) -> Iterator[str]:
    yield part
    yield part.partition("\n")[2]
