"""How many adapters one batch of a server may mix: vLLM keeps room on the device for each, used or not. Pure."""

from dataclasses import dataclass

SHARE = 16  # of the device's memory, one part is for adapters; the rest is for the model and the cache of keys and values
UNKNOWN = 16  # adapters, where the model's sizes or the memory are not known


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a decoder, in units."""

    layers: int
    hidden: int
    heads: int
    """Queries' units: heads times their size."""
    keys: int
    """Keys' units, and values'."""
    inner: int
    """Of the feed-forward layer."""
    vocabulary: int

    def adapter(self, rank: int, bytes_each: int) -> int:
        """Computes the bytes that an adapter of that rank takes in all layers that can have one."""
        attention = 2 * (self.hidden + self.heads) + 2 * (self.hidden + self.keys)
        feed_forward = 3 * (self.hidden + self.inner)
        head = self.hidden + self.vocabulary
        return rank * bytes_each * (self.layers * (attention + feed_forward) + head)


def batched(adapters: int, rank: int, sizes: Sizes | None, memory: int, *, bytes_each: int) -> int:
    """Chooses --max-loras: all that are asked for at a time, as far as their share of the memory reaches; one at least."""
    if sizes is None or not memory:
        return min(adapters, UNKNOWN)
    return max(1, min(adapters, memory // SHARE // sizes.adapter(rank, bytes_each)))
