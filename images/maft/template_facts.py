"""What a chat template can do and what it writes, found by reading and trying it: arguments, system turns, thoughts, ends of turns.

Pure: templates come as text, their renderings through a function.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta

from maft.answers.thoughts import PAIRS
from maft.errors import BadInput
from maft.spec import Thinking

Chat = list[dict[str, Any]]
Render = Callable[[Chat, bool], str]  # messages, and whether the next answer begins: the text, or BadInput

PROBE = "probe"  # a word that no template has
SWITCHES = ("enable_thinking", "thinking")  # of Qwen, GLM, SmolLM, Gemma, Nemotron and of DeepSeek, Granite
CHANNELS = ("<|channel|>", "<|message|>")  # of harmony (gpt-oss), whose thoughts have no tags
_GIVEN = frozenset(("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", "tojson"))
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # marks what transformers trains on; jinja knows no such tag
_OPTIONAL = re.compile(r"\b([a-z_]\w*)\s*(?:is\s+(?:not\s+)?defined|\|\s*default)")  # read before the template itself sets it


@dataclass(frozen=True, slots=True)
class Options:
    """What a run tells the template."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    date: str = "2026-01-01"
    """Told as today's."""
    thinking: Thinking = "Auto"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a template under a run's options."""

    system: bool
    """It has system turns."""
    thinks: bool
    """Answers may begin with a thought."""
    opened: bool
    """A prompt ends inside a thought."""
    suffix: str
    """What is added to a prompt: closes the thought that it opens where there shall be none."""
    tail: str
    """What stands behind an answer: the end of its turn and what follows."""


def known_arguments(template: str) -> frozenset[str]:
    """Lists the arguments that a template reads, beside those that every one is given; empty where it cannot be read."""
    text = _GENERATION.sub("", template)
    try:
        undeclared = meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text))
    except TemplateSyntaxError:
        return frozenset()
    return frozenset(name for name in {*undeclared, *_OPTIONAL.findall(text)} - _GIVEN if not name.endswith("_token"))


def switched(template: str, options: Options) -> dict[str, Any]:
    """Makes the template's arguments: those of the run, and the switch of thinking where it has one and the run sets it."""
    known = known_arguments(template)
    switch = next((name for name in SWITCHES if name in known), None)
    asked = {switch: options.thinking == "Enabled"} if switch and options.thinking != "Auto" else {}
    return {**asked, **options.arguments}


def facts(template: str, render: Render, options: Options, source: str) -> Facts:
    """Finds out what there is to know; BadInput where the template fails, or where thinking is asked for and there is none."""
    user = {"role": "user", "content": "?"}
    render([user, {"role": "assistant", "content": "!"}, user], True)  # what fails, fails here
    prompt = render([user], True)
    closing = _left_open(prompt)
    knows = any(tag in template for _, tag in PAIRS) or CHANNELS[0] in template
    _possible(template, options, source, knows=knows, opens=bool(closing))
    off = options.thinking == "Disabled"
    return Facts(
        system=_has_system(render, user),
        thinks=(knows or bool(closing)) and not off,
        opened=bool(closing) and not off,
        suffix=f"\n{closing}\n\n" if closing and off else "",
        tail=render([user, {"role": "assistant", "content": PROBE}], False).rpartition(PROBE)[2],
    )


def _possible(template: str, options: Options, source: str, *, knows: bool, opens: bool) -> None:
    if options.thinking == "Enabled" and not (knows or opens):
        raise BadInput(f"debate.thinking: Enabled, and the chat template of {source} has no thoughts; set it to Auto")
    switchable = any(name in known_arguments(template) for name in SWITCHES)
    if options.thinking == "Disabled" and CHANNELS[0] in template and not (switchable or opens):
        raise BadInput(
            f"debate.thinking: Disabled, and {source} always thinks; set it to Auto and"
            " model.chatTemplateArguments.reasoning_effort to low"
        )


def _left_open(prompt: str) -> str:
    """The closing tag of the thought in which a prompt ends; empty where it ends in none."""
    end = prompt.rstrip().removesuffix("thought")  # Gemma's channel has a label
    return next((closing for opening, closing in PAIRS if end.endswith(opening)), "")


def _has_system(render: Render, user: dict[str, Any]) -> bool:
    """Whether a system turn arrives; templates without one refuse it, or drop it."""
    try:
        return PROBE in render([{"role": "system", "content": PROBE}, user], True)
    except BadInput:
        return False
