"""A debate as a choice of a chat completion: the reply of an agent that agrees with the vote, and what the vote was. Pure."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from maft import records
from maft.answers import voting
from maft.records import Call, Transcript, Turn


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    thought: str = ""
    debate: dict[str, Any] | None = None
    """Of a society: the vote, and who agreed."""

    @property
    def usage(self) -> dict[str, int]:
        """Counts tokens, of all that were asked."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def abstains(transcript: Transcript, minimum: int) -> bool:
    """Tells whether the vote is none: the rule by which a run would not train on it."""
    return not voting.trains(transcript.vote, minimum)


def of_debate(transcript: Transcript, minimum: int, ends: Sequence[str], *, whole: bool, warning: str = "") -> Answer:
    """Makes the answer. minimum: agents that have to agree, as debate.minAgreement has it; whole: with the transcript; warning: of
    the vote, for whoever reads it."""
    last = [turns[-1] for turns in transcript.turns]
    speaker = next((turn for turn in last if turn.agrees), last[0])
    text, cut = ended(speaker.call.text, ends)
    debate: dict[str, Any] = {
        "answer": transcript.vote.answer,
        "margin": transcript.vote.margin,
        "abstained": abstains(transcript, minimum),
        "agents": [{"agent": n, "agrees": turn.agrees, "answer": turn.parsed} for n, turn in enumerate(last, 1)],
    }
    if warning:
        debate["warning"] = warning
    if whole:
        debate["transcript"] = _readable(records.plain(transcript))
    calls = list(transcript.calls())
    return Answer(
        text,
        "stop" if cut or not speaker.call.cut else "length",
        sum(call.prompt_tokens for call in calls),
        sum(call.completion_tokens for call in calls),
        debate=debate,
    )


def of_call(call: Call, ends: Sequence[str]) -> Answer:
    """Makes the answer of one agent."""
    text, cut = ended(call.text, ends)
    return Answer(text, "stop" if cut or not call.cut else "length", call.prompt_tokens, call.completion_tokens, call.thought)


def ended(text: str, ends: Iterable[str]) -> tuple[str, bool]:
    """Cuts a text before the first of those ends; tells whether there was one."""
    places = [place for end in ends if (place := text.find(end)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def turn(agent: int, spoken: Turn, round_: int) -> dict[str, Any]:
    """Writes a turn for somebody who listens. agent: from 0."""
    return {"agent": agent + 1, "round": round_, "text": spoken.call.text, "answer": spoken.parsed}


def _readable(value: Any) -> Any:
    """Leaves out token ids, which are longer than the texts, and whether a turn is right: nobody knows the answer."""
    if isinstance(value, dict):
        return {name: _readable(part) for name, part in value.items() if name not in ("ids", "right")}
    return [_readable(part) for part in value] if isinstance(value, list) else value


# --- as OpenAI writes it ---


@dataclass(frozen=True, slots=True)
class Writing:
    """One completion, whole or as a stream of chunks."""

    id: str
    model: str
    created: int

    @classmethod
    def begun(cls, id_: str, model: str) -> "Writing":
        """Begins now."""
        return cls(id_, model, int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Writes all of it."""
        message = {"role": "assistant", "content": answer.text, **({"reasoning_content": answer.thought} if answer.thought else {})}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None, **_debate(answer)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": answer.usage}

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **beside: Any) -> dict[str, Any]:
        """Writes a part of it."""
        return {**self._head("chat.completion.chunk"), "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **beside}]}

    def last(self, answer: Answer) -> dict[str, Any]:
        """Writes the chunk after the text."""
        return self.chunk({}, answer.finish_reason, **_debate(answer))

    def used(self, answer: Answer) -> dict[str, Any]:
        """Writes the chunk about tokens, where it is asked for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": answer.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _debate(answer: Answer) -> dict[str, Any]:
    return {} if answer.debate is None else {"maft": answer.debate}
