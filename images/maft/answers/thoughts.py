r"""Splits what a model said into its thoughts and its reply; only the reply is searched for answers and shown to others.

A thought starts with an opening tag of PAIRS at the beginning of a line, or anywhere if its closing tag follows; it ends with the
first closing tag of its pair. A closing tag that nothing opened closes a thought that the prompt opened: all before the last such
tag is thought. Tags in quotation marks or backquotes are words about tags. So are tags in a code block of a reply, but a closing
tag there still ends a thought if none has ended yet: thoughts leave code blocks open. Harmony's channels (gpt-oss) are messages
with a header each: `final` is the reply, all others are thoughts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# --- tags ---

_NAMES = (
    *("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "scratchpad", "analysis"),
    *("thought_process", "thinking_process", "reason", "cot", "scratch_pad", "inner_monologue", "internal_monologue"),
    *("rationale", "deliberation", "chain_of_thought"),
)
_STARTED = ("think", "thinking", "thought", "reasoning")  # <think_start>
# May be headings of a reply: a thought only where the closing one follows. The one with dots is Ollama's.
HEADINGS = (
    *((f"[{name}]", f"[/{name}]") for name in ("thinking", "thought", "thoughts", "reasoning")),
    ("Thinking...", "...done thinking."),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
)
PAIRS: tuple[tuple[str, str], ...] = (
    *((f"<{name}>", f"</{name}>") for name in _NAMES),  # DeepSeek, Qwen, GLM, Granite, Phi-4, Nemotron and many others
    *((f"<|{name}|>", f"<|/{name}|>") for name in _NAMES),
    *((f"<{name}_start>", f"<{name}_end>") for name in _STARTED),
    *((f"<|{name}_start|>", f"<|{name}_end|>") for name in _STARTED),
    *((f"<｜{name}｜>", f"<｜/{name}｜>") for name in _STARTED),
    *((f"[BEGIN_{name}]", f"[END_{name}]") for name in map(str.upper, _STARTED)),
    ("<longcat_think>", "</longcat_think>"),  # LongCat
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<mm:think>", "</mm:think>"),  # MiniMax
    ("<think:opensource>", "</think:opensource>"),  # Hunyuan
    ("<ifm|think>", "</ifm|think>"),  # K2
    ("<ifm|think_fast>", "</ifm|think_fast>"),
    ("<ifm|think_faster>", "</ifm|think_faster>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<|channel>", "<channel|>"),  # Gemma 4: <|channel>thought
    ("<unused94>", "<unused95>"),  # MedGemma
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
    ("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    ("Here's my thought process:", "Here's my response:"),
    *HEADINGS,
)
# What stands around a reply and is no part of it.
WRAPPERS = (
    *("<response>", "</response>", "<answer>", "</answer>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *("<|begin_of_solution|>", "<|end_of_solution|>", "<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    *("<|close|>message<|sep|>", "<|START_TEXT|>", "<|END_TEXT|>", "[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
)
# Ends of turns, where a server leaves them in the text.
ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom|>", "<|end|>", "<|return|>", "<|endoftext|>", "<|END_OF_TURN_TOKEN|>"),
    *("<｜end▁of▁sentence｜>", "<end_of_turn>", "<turn|>", "<eos>", "</s>"),
)

_CLOSING = {opening.lower(): closing.lower() for opening, closing in PAIRS}
_CLOSED = {opening.lower() for opening, _ in HEADINGS}


def any_of(words: Iterable[str]) -> str:
    """Writes a pattern of any of them, the longest first."""
    return "|".join(map(_spaced, sorted(words, key=len, reverse=True)))


def _spaced(word: str) -> str:
    """A pattern of the word; in a tag of angle brackets models put spaces: <think >  < /think>."""
    inside = re.fullmatch(r"<(/?)([\w:]+)>", word)
    return rf"<\s?{inside[1]}\s?{re.escape(inside[2])}\s?>" if inside else re.escape(word)


def tag(written: str) -> str:
    """Returns a tag, or the beginning of one, as the tables have it."""
    return re.sub(r"\s", "", written).lower() if written.startswith("<") else written.lower()


_OPEN, _CLOSE = any_of(opening for opening, _ in PAIRS), any_of(closing for _, closing in PAIRS)
_TAG = f"(?:{_OPEN}|{_CLOSE})"
_QUOTED = rf"(?<![\w.,!?])[`\"'“‘]{_TAG}(?>(?:[^`\"'“”‘’\n]{{0,200}}?{_TAG})?)[`\"'”’]"  # `<think>`  "<think>...</think>"
_FENCE = r"^[ \t]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>(?>(?:[^\n`<]++|<(?!/))*))(?=$|</)"
_TOKEN = re.compile(f"{_QUOTED}|{_FENCE}|(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE | re.MULTILINE | re.ASCII)
_LABEL = re.compile(r"thought\s*\n")  # of Gemma's channel
_AROUND = re.compile(any_of(WRAPPERS), re.IGNORECASE)
_AROUND_REPLIES = re.compile(any_of([each for each in WRAPPERS if "answer" not in each]), re.IGNORECASE)

# --- harmony ---

_HEADER = re.compile(r"(?>(?:<\|(?:start|channel|constrain)\|>[^<]{0,99}+){1,4})<\|message\|>|\A\s*+to=[^\s<]{1,99}+<\|message\|>")
_STOP = re.compile(r"<\|(?:end|return|call|eom|eot|start|channel)\|>")
_ASKED = re.compile(r"<\|start\|>\s*(?:user|system|developer)\b")  # the next turn, which a model goes on with
_SPOKEN = re.compile(r"<\|channel\|>\s*final\b|to=user\b|<\|start\|>assistant\s*<\|message\|>")
# The same without its special tokens: analysisWe need ...assistantfinalIt is 8.
_RUN_TOGETHER = re.compile(r"\s*analysis(?=[A-Z\d\"'“(\\$])")
_FINAL = "assistantfinal"


@dataclass(frozen=True, slots=True)
class Said:
    """A text in its two parts, without the white space and the tags around them."""

    thought: str
    reply: str
    open: bool
    """The last thought never closed; then there is no reply."""
    answer: bool = False
    """The reply is what stood between the tags of an answer, and nothing else."""


def split(text: str, *, opened: bool = False) -> Said:
    """Splits what a model said into its thoughts and its reply. opened: the prompt ends inside a thought."""
    if headers := list(_HEADER.finditer(text)):
        return _channels(text, headers)
    if begun := _RUN_TOGETHER.match(text):
        thought, final, reply = text[begun.end() :].rpartition(_FINAL)
        return _said([thought], [reply], open_=False) if final else _said([reply], [], open_=True)
    return _Reader(text, "*" if opened else None).read()


def _said(thoughts: Iterable[str], replies: Iterable[str], *, open_: bool) -> Said:
    """Said, of the parts in their order."""
    thought = "\n\n".join(part for part in map(str.strip, thoughts) if part)
    reply = "\n".join(part for part in map(str.strip, replies) if part)
    unwrapped, answer = _unwrapped(reply)
    return Said(thought, "" if open_ else _without_ends(unwrapped), open_, answer and not open_)


def _unwrapped(reply: str) -> tuple[str, bool]:
    """Removes tags around replies; those of an answer that stands among other words stay, for they say where it is. Tells whether
    an answer's were taken away."""
    before, opened, rest = reply.lower().partition("<answer>")
    _, closed, after = rest.partition("</answer>")
    among = opened and (_AROUND.sub("", before).strip() or (closed and _AROUND.sub("", after).strip()) or "<answer>" in rest)
    return (_AROUND_REPLIES if among else _AROUND).sub("", reply), bool(opened and not among)


def _without_ends(reply: str) -> str:
    for _ in range(4):  # more than there are in a row
        for end in ENDS:
            reply = reply.strip().removesuffix(end)
    return reply.strip()


def _channels(text: str, headers: list[re.Match[str]]) -> Said:
    """Of messages; what stands before the first header had its own in the prompt, and was a thought."""
    first = _STOP.search(text)
    thoughts, replies, open_ = [text[: min(headers[0].start(), first.start() if first else len(text))]], list[str](), False
    for header in headers:
        if replies and _ASKED.match(header[0]):
            break
        stop = _STOP.search(text, header.end())
        message = text[header.end() : stop.start() if stop else len(text)]
        spoken = bool(_SPOKEN.search(header[0]))
        (replies if spoken else thoughts).append(message)
        open_ = not spoken and stop is None
    return _said(thoughts, replies, open_=open_)


@dataclass(slots=True)
class _Reader:
    """Reads tags in their order. Each step goes on by one token or more, or gives up code blocks for good."""

    text: str
    closing: str | None
    """What ends the thought that is being read: a closing tag, `*` for any, None in a reply."""
    start: int = 0
    """Of the part that is being read."""
    parts: list[tuple[bool, str]] = field(default_factory=list)
    """Whether it is a thought, and its text."""
    unopened: int = 0
    """So many parts stand before a closing tag that nothing opened."""
    ended: bool = False
    """A thought has."""
    blocks: bool = True
    """Code blocks are looked for: the one that never ends is none."""

    def read(self) -> Said:
        """Splits the text."""
        tokens = [token for token in _TOKEN.finditer(self.text) if token.lastgroup]
        last = {tag(token["close"]): i for i, token in enumerate(tokens) if token["close"]}
        i = 0
        while i < len(tokens):
            i = self._step(tokens, i, last)
        self._part(self.text[self.start :])
        thoughts, replies = (
            [part for n, (thought, part) in enumerate(self.parts) if (thought or n < self.unopened) is wanted]
            for wanted in (True, False)
        )
        return _said(thoughts, replies, open_=self.closing is not None)

    def _part(self, text: str) -> None:
        thought = self.closing is not None
        self.parts.append((thought, _LABEL.sub("", text.lstrip(), count=1) if thought and _LABEL.match(text.lstrip()) else text))

    def _step(self, tokens: list[re.Match[str]], i: int, last: dict[str, int]) -> int:
        """Reads a token, and returns the next one's index."""
        token = tokens[i]
        if self.closing is not None:
            if token["close"] and self.closing in ("*", tag(token["close"])):
                self._end(token)
            elif token["open"] and self.closing == "*" and i == 0 and not self.text[: token.start()].strip():
                self.closing, self.start = _CLOSING[tag(token["open"])], token.end()
        elif token["close"]:
            self._end(token)
            self.unopened = len(self.parts)
        elif token["open"]:
            opening = tag(token["open"])
            closing = _CLOSING[opening]
            begins, follows = self._begins_line(token.start()), last.get(closing, -1) > i
            if (begins and follows) if opening in _CLOSED else (begins or follows):
                self._part(self.text[self.start : token.start()])
                self.closing, self.start = closing, token.end()
        elif self.blocks:
            return self._block(tokens, i)
        return i + 1

    def _end(self, token: re.Match[str]) -> None:
        self._part(self.text[self.start : token.start()])
        self.closing, self.start, self.ended = None, token.end(), True

    def _begins_line(self, at: int) -> bool:
        since = max(self.start, at - 80)  # further back it costs too much to look
        before = self.text[since:at]
        return not _AROUND.sub("", before.rpartition("\n")[2]).strip() and (since == self.start or "\n" in before)

    def _block(self, tokens: list[re.Match[str]], i: int) -> int:
        """Passes over a code block; the first closing tag in it may end a thought that left the block open."""
        fence, quoted = tokens[i]["fence"], self.ended
        for k in range(i + 1, len(tokens)):
            if tokens[k]["close"] and not quoted:
                return k
            if tokens[k]["fence"] and tokens[k]["fence"].startswith(fence) and not tokens[k]["info"].strip():
                return k + 1
            quoted = quoted or bool(tokens[k]["open"])
        self.blocks = False
        return i + 1
