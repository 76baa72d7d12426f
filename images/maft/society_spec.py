"""What a society that answers questions is asked for: the fields of `kind: Society` that its program needs.

Both packages read this record: the control plane makes it from the resource, `maft.endpoint` gets it as one JSON argument. Each
field has its default here, so that `maft serve` and the resource mean the same where nothing is said.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from maft.spec import Section


class SocietySpec(Section, frozen=True, kw_only=True):
    """How the finetuned agents answer."""

    mode: Literal["paper", "fast"] | None = None
    """As `debate.mode` of the run; None: what the run had."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 600
    """Of one request; what takes longer is ended with 408."""
    max_concurrent_debates: Annotated[int, Meta(ge=1, le=4096)] = 256
    """Requests under way in one replica; one beyond them is answered with 429."""
    max_concurrent_per_key: Annotated[int, Meta(ge=0, le=4096)] = 0
    """The same for each API key; 0: no limit of its own."""
    keep_questions: bool = False
    """Questions that were asked are kept in the store, in the format of `task.source`."""
    keep_days: Annotated[int, Meta(ge=0, le=3650)] = 30
    """How long kept questions stay; 0: until somebody deletes them."""


def idle_limit(spec: SocietySpec, *, keys: bool) -> str:
    """Says that a limit for each API key limits nobody where there are none; nothing otherwise. keys: there are some."""
    if keys or not spec.max_concurrent_per_key:
        return ""
    return f"maxConcurrentPerKey: {spec.max_concurrent_per_key}, and without API keys it limits nobody; maxConcurrentDebates does"


def decode_society(text: str | bytes) -> SocietySpec:
    """Reads the record from JSON; one of `maft.spec.UNREADABLE` names what is wrong with it."""
    return msgspec.json.decode(text, type=SocietySpec)


def encode_society(spec: SocietySpec) -> str:
    """Writes it as the argument of a program, defaults filled in."""
    return msgspec.json.encode(spec).decode()
