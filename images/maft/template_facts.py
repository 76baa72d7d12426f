"""What a chat template can do and what it writes, found by reading and trying it: arguments, system turns, thoughts, ends of turns.

Pure: templates come as text, their renderings through a function.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from maft.answers.thoughts import PAIRS
from maft.errors import BadInput
from maft.spec import Thinking

Chat = list[dict[str, Any]]
Render = Callable[[Chat, bool], str]  # messages, and whether the next answer begins: the text, or BadInput

PROBE, NEXT = "probe", "onward"  # words that no template has
_ASKED_TWICE: Chat = [
    {"role": "user", "content": PROBE},
    {"role": "assistant", "content": "?"},
    {"role": "user", "content": NEXT},
]
SWITCHES = ("enable_thinking", "thinking")  # of Qwen, GLM, SmolLM, Gemma, Nemotron and of DeepSeek, Granite
MESSAGE = "<|message|>"  # begins a message of harmony (gpt-oss) and its kin, whose thoughts have no tags but headers
_GIVEN = frozenset(("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", "loop"))
# What a template is given by us, or by transformers (apply_chat_template).
_OURS = frozenset(
    (
        *("messages", "conversation", "self", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "strftime_now", "raise_exception"),
    )
)
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # marks what transformers trains on; jinja knows no such tag


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
    """What stands behind the last answer: the end of its turn and what follows."""
    between: str
    """What stands between an answer and the words of the next user turn."""
    closing: str = ""
    """Ends the thought that prompts open; empty where they open none."""


def known_arguments(template: str) -> frozenset[str]:
    """Lists the arguments that a template reads, beside those that every one is given; empty where it cannot be read."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(_GENERATION.sub("", template))
    except TemplateSyntaxError:
        return frozenset()
    first: dict[str, str] = {}
    for name in _names(tree):
        first.setdefault(name.name, name.ctx)
    read = {name for name, use in first.items() if use == "load"} - {macro.name for macro in tree.find_all(nodes.Macro)}
    return frozenset(name for name in read - _GIVEN - set(environment.globals) if not name.endswith("_token"))


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    """Names in the order in which they are read and set: what is set first is the template's own."""
    if isinstance(node, nodes.Name):
        yield node
    # A value before the name that it gets; a loop's names before what follows them.
    for child in sorted(node.iter_child_nodes(), key=lambda c: _is_set_by(node, c)):
        yield from _names(child)


def _is_set_by(node: nodes.Node, child: nodes.Node) -> bool:
    return isinstance(node, (nodes.Assign, nodes.AssignBlock)) and child is node.target


def switched(known: frozenset[str], options: Options) -> tuple[dict[str, Any], Options]:
    """Makes the arguments: those of the run, and the switch of thinking where it is `known` and the run sets it; and the options
    with the thinking that comes of both. BadInput for arguments that are not the run's to give, or that contradict the rest."""
    if own := next((name for name in options.arguments if name in _OURS), ""):
        raise BadInput(f"model.chatTemplateArguments.{own}: is set by maft; leave it out")
    switch = next((name for name in SWITCHES if name in known), None)
    if switch is None or switch not in options.arguments:
        asked = {switch: options.thinking == "Enabled"} if switch and options.thinking != "Auto" else {}
        return {**asked, **options.arguments}, options
    given = options.arguments[switch]
    field = f"model.chatTemplateArguments.{switch}"
    if not isinstance(given, bool):
        raise BadInput(f"{field}: {given!r}; expected true or false, or leave it out and set debate.thinking")
    if options.thinking != "Auto" and given != (options.thinking == "Enabled"):
        raise BadInput(f"{field}: {str(given).lower()}, and debate.thinking is {options.thinking}; leave the argument out")
    return dict(options.arguments), options if given else replace(options, thinking="Disabled")


# A part as Python or JSON writes it: the template cuts texts, and takes a part for a sign of one
_WRITTEN_OUT = re.compile(rf"""["']text["']:\s?["']{PROBE}""")


def takes_parts(render: Render) -> bool:
    """Tells whether a turn's text has to come as a list of parts, as for models that see; BadInput where it arrives neither way."""
    if _arrives(render, _ASKED_TWICE):
        return False
    if _arrives(render, [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in _ASKED_TWICE]):
        return True
    render(_ASKED_TWICE, True)  # says why, if it can
    raise BadInput("model.source: the chat template drops what users say; use an instruction-tuned model")


def _arrives(render: Render, chat: Chat) -> bool:
    """Whether what users say in each of their turns is in the prompt; two words, for a template may hold one of its own."""
    try:
        prompt = render(chat, True)
    except BadInput:
        return False
    return PROBE in prompt and NEXT in prompt.rpartition(PROBE)[2] and not _WRITTEN_OUT.search(prompt)


def facts(template: str, known: frozenset[str], render: Render, options: Options, source: str) -> Facts:
    """Finds out what there is to know; BadInput where the template fails, or where thinking is asked for and there is none."""
    user, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}
    between = render([user, answer, {"role": "user", "content": NEXT}], True)  # what fails, fails here
    prompt, whole = render([user], True), render([user, answer], False)
    if PROBE not in between or PROBE not in whole:
        raise BadInput(f"model.source: the chat template of {source} drops what assistants say; use an instruction-tuned model")
    if prompt == render([user], False):
        _check_header(prompt, whole.partition(PROBE)[0], source)
    closing = _left_open(prompt)
    knows = any(tag in template for _, tag in PAIRS) or MESSAGE in template
    _possible(template, known, options, source, knows=knows, opens=bool(closing))
    off = options.thinking == "Disabled"
    return Facts(
        system=_has_system(render, user),
        thinks=(knows or bool(closing)) and not off,
        opened=bool(closing) and not off,
        suffix=f"\n{closing}\n\n" if closing and off else "",
        tail=whole.rpartition(PROBE)[2],
        between=between.rpartition(PROBE)[2].partition(NEXT)[0],
        closing="" if off else closing,
    )


def _check_header(prompt: str, before: str, source: str) -> None:
    """Raises BadInput where a template begins an assistant's turn once there is one, and not where it is asked to: training would
    see answers behind what no prompt ended with. before: what stands before an answer."""
    header = before.removeprefix(prompt).strip()
    if before.startswith(prompt) and header:
        raise BadInput(
            f"model.source: the chat template of {source} does not write {header!r} where an answer begins, for it passes over"
            " add_generation_prompt; add it there"
        )


def _possible(template: str, known: frozenset[str], options: Options, source: str, *, knows: bool, opens: bool) -> None:
    if options.thinking == "Enabled" and not (knows or opens):
        raise BadInput(f"debate.thinking: Enabled, and the chat template of {source} has no thoughts; set it to Auto")
    if options.thinking == "Disabled" and MESSAGE in template and not (opens or known.intersection(SWITCHES)):
        effort = next((name for name in sorted(known) if name.startswith("reasoning_")), "reasoning_effort")
        raise BadInput(
            f"debate.thinking: Disabled, and {source} always thinks; set it to Auto and model.chatTemplateArguments.{effort} to low"
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
