"""The chat of a request as the turns of a debate's question: texts alone, by turns, the user's last. Pure."""

from itertools import groupby
from typing import Any

from maft.endpoint.refused import Refused
from maft.errors import shown
from maft.records import Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}  # the second is a newer word


def turns(messages: Any) -> tuple[Message, ...]:
    """Reads the messages. Neighbours of one role become one turn; Refused for what is no text, and for a chat that asks nothing."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", messages, "a list of at least one message")
    each = [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
    joined = [_joined(role, list(several)) for role, several in groupby(each, key=lambda turn: turn.role)]
    speakers = [turn.role for turn in joined if turn is not joined[0] or turn.role != "system"]
    if "system" in speakers:
        raise Refused(400, "messages: a system message after others; put it first", param="messages")
    if speakers[:1] != ["user"] or speakers[-1] != "user":
        raise Refused(
            400, "messages: the first and the last turn have to be the user's; the last one is answered", param="messages"
        )
    return tuple(joined)


def _joined(role: Any, several: list[Message]) -> Message:
    return Message(role, "\n\n".join(turn.content for turn in several))


def _turn(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise _wrong(where, message, "an object with role and content")
    role: Any = _ROLES.get(message["role"]) if isinstance(message.get("role"), str) else None
    if role is None:
        raise _wrong(f"{where}.role", message.get("role"), "system, user or assistant")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise Refused(
                400, f"{where}.{name}: the society calls no tools and hears nothing; leave it out", param=f"{where}.{name}"
            )
    return Message(role, _text(message.get("content"), f"{where}.content"))


def _text(content: Any, where: str) -> str:
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))
    if not isinstance(content, str) or not content.strip():
        raise _wrong(where, content, "a text that is not empty")
    return content


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise Refused(400, f"{where}: {shown(kind or part)}; the society reads text alone", param=where, code="unsupported_content")
    if not isinstance(part.get("text"), str):
        raise _wrong(f"{where}.text", part.get("text"), "a text")
    return str(part["text"])


def _wrong(where: str, value: Any, expected: str) -> Refused:
    return Refused(400, f"{where}: {shown(value)}; expected {expected}", param=where)
