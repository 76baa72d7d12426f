"""Debates as cards of the page: what is shown of each, by which filters it is found, and which of them fit into one page."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgspec
from markupsafe import Markup

from maft import records
from maft.records import Cases, Summary, Transcript, Turn
from maft.store.lines import Lines

CORRECTED, TALKED_OUT, NO_CONSENSUS = "corrected", "talkedOut", "noConsensus"
CATEGORIES = (CORRECTED, TALKED_OUT, NO_CONSENSUS)
_LONG = 80  # characters of a call of a program
EMBEDDED = 8_000_000  # bytes of debates in a page: a browser still opens it at once


@dataclass(frozen=True, slots=True)
class Card:
    """One debate as the page has it. data: JSON that may stand inside a script element."""

    tags: tuple[str, ...]
    data: bytes


class Cards(Sequence[Card]):
    """Cards of very many debates, of which few come into the page: on disk."""

    def __init__(self) -> None:
        self._lines = Lines(_Kept)

    def append(self, made: Card) -> None:
        """Keeps one more."""
        self._lines.append(records.encode(_Kept(made.tags, msgspec.Raw(made.data))))

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, number: int) -> Card: ...
    @overload
    def __getitem__(self, number: slice) -> list[Card]: ...
    def __getitem__(self, number: int | slice) -> Card | list[Card]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        kept = self._lines[number]
        return Card(kept.tags, bytes(kept.data))


class _Kept(msgspec.Struct):
    tags: tuple[str, ...]
    data: msgspec.Raw


def categories(transcript: Transcript) -> tuple[str, ...]:
    """Lists the filters that let a debate pass. An answer after a hint (STaR) is no flip: nobody else was heard."""
    last = len(transcript.votes) - 1
    ends = [(turns[0].right, turns[min(last, len(turns) - 1)].right) for turns in transcript.turns]
    member = {
        CORRECTED: (False, True) in ends,
        TALKED_OUT: (True, False) in ends,
        NO_CONSENSUS: transcript.vote.tied or transcript.vote.answer is None,
    }
    return tuple(tag for tag in CATEGORIES if member[tag])


def card(transcript: Transcript) -> Card:
    """Makes a debate's card, without what nobody reads: seeds, token counts, prompts that are whole."""
    agents = range(len(transcript.turns))
    shown = {
        "number": transcript.index + 1,
        "question": transcript.problem.question,
        "answer": transcript.problem.answer,
        "vote": transcript.vote,
        "tags": (tags := categories(transcript)),
        **({"compared": _calls(cases)} if (cases := transcript.problem.cases) else {}),
        "agents": [[_turn(transcript, n, m) for m in range(len(transcript.turns[n]))] for n in agents],
    }
    return Card(tags, embeddable(records.encode(shown)).encode())


def _calls(cases: Cases) -> str:
    """The calls whose outputs are an answer, as one would write them."""
    calls = (f"{cases.function}({json.dumps(arguments, ensure_ascii=False)[1:-1]})" for arguments in json.loads(cases.inputs))
    return ", ".join(call if len(call) <= _LONG else f"{call[:_LONG]}…" for call in calls)


def _turn(transcript: Transcript, agent: int, m: int) -> dict[str, Any]:
    turn: Turn = transcript.turns[agent][m]
    summaries = (s for s in transcript.summaries if s.round == m + 1 and s.agent in (agent, None))
    summary = next((s for s in summaries if s.call.text.strip()), None)  # nobody was shown one that says nothing
    return {
        "text": turn.call.text,
        "model": turn.call.model,
        "end": turn.call.finish_reason,
        "parsed": turn.parsed,
        "agrees": turn.agrees,
        "right": turn.right,
        "summary": summary.call.text if summary else None,
        "hinted": m >= len(transcript.votes),
        **({"thought": turn.call.thought} if turn.call.thought else {}),
        **({"clipped": clipped} if (clipped := _clipped(turn, summary)) else {}),
    }


def _clipped(turn: Turn, summary: Summary | None) -> list[dict[str, Any]]:
    """Prompts into which not all fitted, with the marks in them. A turn counts what was clipped for its summary, too."""
    heard = summary is not None and summary.clipped and summary.call.text in turn.prompt
    asked = [summary, None if heard else turn]
    return [{"texts": one.clipped, "prompt": one.prompt} for one in asked if one and one.clipped]


def fit(stages: Sequence[Sequence[Card]], limit: int) -> list[list[Card]]:
    """Chooses as many cards as `limit` bytes hold, in their order.

    Those of a category first: of every stage and category as many, so that a rare one is not crowded out by a common one."""
    ranked = sorted((rank, k, s) for s, cards in enumerate(stages) for k, rank in enumerate(_ranks(cards)))
    chosen: set[tuple[int, int]] = set()
    for _, k, s in ranked:
        size = len(stages[s][k].data) + 1
        if size <= limit:
            limit -= size
            chosen.add((s, k))
    return [[c for k, c in enumerate(cards) if (s, k) in chosen] for s, cards in enumerate(stages)]


def _ranks(cards: Sequence[Card]) -> list[tuple[bool, int]]:
    """When each card's turn is: by its best place in one of its categories, after all of those the cards without one."""
    seen: Counter[str] = Counter()
    ranks: list[tuple[bool, int]] = []
    for card_ in cards:
        tags = card_.tags or ("",)
        ranks.append((not card_.tags, min(seen[tag] for tag in tags)))
        seen.update(tags)
    return ranks


def embeddable(json_: bytes) -> Markup:
    """Makes JSON that may stand inside a script element: it cannot end the element nor open a comment."""
    return Markup(json_.replace(b"<", b"\\u003c").decode())
