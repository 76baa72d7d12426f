"""Examples as the trainer takes them: tokens, and which of them count, as the spec has it."""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import UNSET

from maft.chat_template import ChatTemplate, Tokens
from maft.errors import BadInput
from maft.records import Example, Message
from maft.spec import TrainingSpec
from maft.train.dpo import Pair
from maft.train.kto import Graded


def samples(training: TrainingSpec, template: ChatTemplate, examples: Iterable[Example]) -> Iterator[Any]:
    """Tokenizes examples: Tokens, for dpo Pairs, for kto Graded. BadInput where the dataset was made for another method."""
    if training.method == "kto":
        return _graded(training, template, examples)
    return (sample(training, template, example) for example in examples)


def sample(training: TrainingSpec, template: ChatTemplate, example: Example) -> Any:
    """Tokenizes an example: Tokens, or for dpo a Pair. BadInput where dpo gets a single answer."""
    if training.method != "dpo":
        return template.tokens(example.messages, every_turn=training.loss_on == "all", thoughts=training.train_thoughts)
    if example.rejected is None:
        raise BadInput("training.method: dpo needs pairs, and this dataset has single answers; make the datasets anew")
    chosen, rejected = (_last_turn(training, template, example, answer) for answer in (example.messages[-1], example.rejected))
    return Pair(chosen, rejected)


def _graded(training: TrainingSpec, template: ChatTemplate, examples: Iterable[Example]) -> Iterator[Graded]:
    """Each gets the answer of one before it to another question; those of the first question wait for the last one."""
    waiting: list[Example] = []
    other: Example | None = None
    last: Example | None = None
    for example in examples:
        if last is not None and last.problem != example.problem:
            other = last
        last = example
        if other is None:
            waiting.append(example)
        else:
            yield _grade(training, template, example, other)
    for example in waiting:
        assert last is not None
        yield _grade(training, template, example, last)


def _grade(training: TrainingSpec, template: ChatTemplate, example: Example, other: Example) -> Graded:
    if example.desirable is UNSET:
        raise BadInput("training.method: kto needs graded answers, and this dataset has none; make the datasets anew")
    own, stranger = (_last_turn(training, template, example, one.messages[-1]) for one in (example, other))
    return Graded(own, stranger, example.desirable)


def _last_turn(training: TrainingSpec, template: ChatTemplate, example: Example, answer: Message) -> Tokens:
    return template.tokens((*example.messages[:-1], answer), every_turn=False, thoughts=training.train_thoughts)
