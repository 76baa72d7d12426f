"""The examples of one adapter, tokenized, in a file: of each, memory holds where it lies and how long it is.

So the trainer's memory is the same for 1,000 and for 100,000 of them; what a step needs is read when it is its turn.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import msgspec

from maft import records
from maft.store.lines import Lines


class Examples(Sequence[Any]):
    """Tokens, or for dpo Pairs, by number; all of one kind."""

    def __init__(self, several: Iterable[Any] = ()) -> None:
        self._packed: Lines[Any] = Lines(object)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()
        self.lengths = array("I")
        """Tokens of each."""
        self.left_out = 0
        """Turns that do not count, of all together."""
        self.extend(several)

    def extend(self, several: Iterable[Any]) -> None:
        """Keeps more of them."""
        for one in several:
            if not self.lengths:
                self._decoder = msgspec.msgpack.Decoder(type(one))
            self._packed.append(msgspec.msgpack.encode(one))
            self.lengths.append(len(one.ids))
            self.left_out += one.left_out

    def sha256(self) -> str:
        """Hashes them as the JSON list that they would be."""
        digest = hashlib.sha256(b"[")
        for number, one in enumerate(self):
            digest.update(b"," * bool(number) + records.encode(one))
        digest.update(b"]")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, number: int) -> Any: ...
    @overload
    def __getitem__(self, number: slice) -> list[Any]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self._decoder.decode(self._packed.raw(range(len(self))[number]))

    __hash__ = None  # type: ignore[assignment] # as a list

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Examples) and self._packed == other._packed

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))


def lengths(examples: Sequence[Any]) -> Sequence[int]:
    """Counts the tokens of each, without reading what is on disk."""
    return examples.lengths if isinstance(examples, Examples) else [len(one.ids) for one in examples]
