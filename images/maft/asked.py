"""How a question is named: the same words make the same question, in a run's task and where a user asks a society.

The name is part of every seed, so a question that a run has debated is debated anew word by word.
"""

import unicodedata
from collections.abc import Sequence
from hashlib import sha256

from maft.records import Message


def question_id(question: str) -> str:
    """Makes the id: a hash of the question as it counts. Case, space and how letters are composed do not; compatible signs do (2³
    is not 23): an id that two questions share loses one of them."""
    counts = unicodedata.normalize("NFC", unicodedata.normalize("NFD", question).casefold())
    return sha256(" ".join(counts.split()).encode()).hexdigest()[:16]


def chat_text(turns: Sequence[Message]) -> str:
    """Writes a chat that asks as one text: equal last turns of different chats are different questions."""
    *history, last = turns
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns) if history else last.content
