"""Examples on disk: the same as in memory, whatever they are, and memory that does not grow with them."""

import hashlib
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maft import records
from maft.chat_template import Tokens
from maft.train.dpo import Pair
from maft.train.examples import Examples, lengths
from maft.train.trainer import _batches

ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    drawn = draw(ids)
    counts = st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn)).map(tuple)
    return Tokens(drawn, draw(counts), draw(st.integers(0, 5)))


pairs = st.builds(Pair, tokens(), tokens(), st.floats(allow_nan=False))
several: st.SearchStrategy[list[Any]] = st.lists(tokens(), max_size=8) | st.lists(pairs, max_size=8)


@given(several, st.data())
def test_they_are_what_was_kept(kept: list[Any], data: st.DataObject) -> None:
    examples = Examples(kept)
    assert list(examples) == kept and len(examples) == len(kept)
    assert list(lengths(examples)) == lengths(kept) == [len(one.ids) for one in kept]
    assert examples.left_out == sum(one.left_out for one in kept)
    part = slice(*sorted((data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9)))))
    assert examples[part] == kept[part]


@given(several)
def test_their_hash_is_that_of_the_list(kept: list[Any]) -> None:
    assert Examples(kept).sha256() == hashlib.sha256(records.encode(tuple(kept))).hexdigest()


@given(several)
def test_numbers_from_the_end_and_numbers_that_are_not_there(kept: list[Any]) -> None:
    examples = Examples(kept)
    assert [examples[-1 - n] for n in range(len(kept))] == kept[::-1]
    for number in (len(kept), -1 - len(kept)):
        with pytest.raises(IndexError):
            examples[number]


def test_memory_does_not_grow_with_them() -> None:
    """But for a place and a length of each."""
    one = Tokens(tuple(range(1000, 1256)), (False,) * 200 + (True,) * 56)
    tracemalloc.start()
    try:
        examples = Examples(replace(one, ids=(number, *one.ids[1:])) for number in range(20_000))
        assert examples[19_999].ids[0] == 19_999
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 20_000 * 25 + 2**20, grown


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**31))
def test_the_order_is_that_of_shuffling_the_examples_themselves(total: int, size: int, epochs: int, seed: int) -> None:
    from small import a_spec

    training = a_spec(training={"batchSize": size, "epochs": epochs}).training
    order, examples, expected = random.Random(seed), [f"example {n}" for n in range(total)], []
    for _ in range(epochs):
        order.shuffle(examples)
        expected += [examples[start : start + size] for start in range(0, total, size)]
    batches = [[f"example {n}" for n in numbers] for numbers in _batches(total, random.Random(seed), training)]
    assert batches == expected
