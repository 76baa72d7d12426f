"""`maft ask`: one question to a society, with the debate shown as it goes and the answer last."""

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from maft_operator.printable import printable
from maft_operator.spec.schema import BadSpec

KEY = "MAFT_API_KEY"  # the variable with the API key of a society that wants one
LINE = 1 << 20  # bytes of an event: a turn
SILENCE = 60.0  # seconds without a word after which a society counts as gone: one at work says so every ten


class Unanswered(Exception):
    """There is no answer, in one line."""


async def ask(
    url: str, question: str, model: str, say: Callable[[str], None], silence: float = SILENCE, *, anybody: bool = False
) -> None:
    """Asks, and says each turn and then the answer; Unanswered where there is none, BadSpec where the question is refused.

    anybody: whose certificate it shows does not matter: whoever calls knows the other end."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "maft": {"progress": True}}
    headers, timeout = _key(), aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout, read_bufsize=LINE) as session,
            session.post(f"{url}/v1/chat/completions", json=body, ssl=not anybody) as response,
        ):
            if response.status != 200:
                raise _refused(response.status, await response.read())
            text, vote = await _heard(response.content, say)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unanswered(f"{url} does not answer: {_why(url, error)}") from None
    except (ValueError, HttpProcessingError) as error:  # half an event of a stream that was cut, or one without an end
        raise Unanswered(f"{url} answers what is no event of a society: {type(error).__name__}") from None
    say(printable(text))
    if vote is not None:
        _say_vote(vote, say)


async def _heard(lines: Any, say: Callable[[str], None]) -> tuple[str, dict[str, Any] | None]:
    """Says each turn; the answer's text, and the vote where there is one."""
    text, vote = "", None
    async for event in _events(lines):
        choice = event["choices"][0]
        extra = choice.get("maft", {})
        if "turn" in extra:
            say(printable(turn(extra["turn"])))
        text, vote = text + choice["delta"].get("content", ""), extra if "answer" in extra else vote
    return text, vote


def _why(url: str, error: Exception) -> str:
    """What a connection failed for, and what to do."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.certificate_error}; set SSL_CERT_FILE to its certificate, or to that of whoever signed it"
    if isinstance(error, aiohttp.ServerDisconnectedError) and url.startswith("http:"):
        return "it ended the connection; if it speaks TLS, ask https://"
    if isinstance(error, aiohttp.ClientConnectorError):
        why = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
        return f"{why}; start maft serve, or correct the address"
    return str(error) or type(error).__name__


def _say_vote(vote: dict[str, Any], say: Callable[[str], None]) -> None:
    """Says who is behind the answer; Unanswered where there is none."""
    if vote.get("warning"):
        say(printable(f"warning: {vote['warning']}"))
    if vote["answer"] is None:
        raise Unanswered(printable(verdict(vote)))
    say(printable(verdict(vote)))


def _key() -> dict[str, str]:
    """Makes the header of the key, where there is one; BadSpec, without the key, for what no header takes."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise BadSpec(f"{KEY}: holds what no header takes; expected letters, digits and signs on one line")
    return {"Authorization": f"Bearer {key}"} if key else {}


def turn(spoken: dict[str, Any]) -> str:
    """Writes a turn on one line."""
    answer = spoken["answer"] if spoken["answer"] is not None else "no answer"
    return f"round {spoken['round']}, agent {spoken['agent']}: {answer}   ({' '.join(spoken['text'].split())})"


def verdict(vote: dict[str, Any]) -> str:
    """Writes the vote on one line."""
    agents = vote["agents"]
    agreeing = [str(agent["agent"]) for agent in agents if agent["agrees"]]
    if vote["answer"] is None:
        return "nobody gave an answer that can be read"
    who = f"agent{'s' if len(agreeing) > 1 else ''} {', '.join(agreeing)} agree{'' if len(agreeing) > 1 else 's'}"
    if vote["abstained"]:
        return f"no majority among {len(agents)} agents; the answer of {len(agreeing)} is {vote['answer']}"
    return f"answer {vote['answer']}, margin {vote['margin']} of {len(agents)}; {who}"


async def _events(lines: Any) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        kind, _, data = line.strip().partition(b": ")
        if kind != b"data" or data == b"[DONE]":
            continue
        event: dict[str, Any] = msgspec.json.decode(data)
        if "error" in event:
            raise Unanswered(printable(event["error"]["message"]))
        if event["choices"]:
            yield event


def _refused(status: int, data: bytes) -> Exception:
    try:
        message = str(msgspec.json.decode(data)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = data.decode(errors="replace")[:300]
    if status == 401:
        message += f"; set {KEY}"
    message = printable(message)
    return BadSpec(message) if status in (400, 401, 404, 413) else Unanswered(message)
