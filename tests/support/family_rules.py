"""What the suite knows of a family of models: its template, its tokens, what debate.thinking does. And templates of ours."""

from dataclasses import dataclass

from maft.spec import Thinking

ALTERNATES = "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
OURS = {
    # Turns alternate, there is no system turn, only answers end.
    "mistral": "{{ bos_token }}{% for m in messages %}" + ALTERNATES + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    # Roles stand in tokens, a system turn with the date comes by itself, and it thinks where it is told to.
    "granite": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = \"Today's date: \" + strftime_now('%B %d, %Y') + '.' %}{% endif %}"
    "<|start_of_role|>system<|end_of_role|>{{ system }}{% if thinking %} Think first.{% endif %}<|end_of_text|>\n"
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>"
    "{{ m.content.split('</think>')[-1] }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
}


@dataclass(frozen=True)
class Mode:
    """A setting of debate.thinking for a family."""

    thinks: bool
    prompt: str
    """How a prompt ends, from the role of the assistant on."""
    earlier: bool
    """With training.lossOn all, earlier answers that have no thought count: the model sees them again as it said them."""


@dataclass(frozen=True)
class Family:
    """A family's template and tokens, and what is known of them."""

    name: str
    template: str
    """File of trl, or a key of OURS."""
    end: tuple[str, ...]
    """Of an answer."""
    modes: dict[Thinking, Mode | str]
    """By debate.thinking; a text: what the refusal says."""
    real: str = ""
    """Whose tokenizer it is; empty: bytes."""
    own: bool = True
    """The tokenizer is that family's own, and not a relative's."""
    bos: str = ""
    eos: str = ""
    special: tuple[str, ...] = ()
    """Of its tokenizer of bytes; the ends, bos and eos are among them."""
    plain: tuple[str, ...] = ()
    """Tokens that are added but not special."""
    strips_right: bool = False
    """Special tokens take the white space behind them."""
    system: str = "turn"
    """Where a system turn goes: a turn of its own, the first user turn by the template (template) or by us (folded)."""
    arguments: tuple[str, ...] = ()
    """What the template can be told, beside thinking's switch."""
    switch: str = ""
    """The argument that switches thoughts on and off."""
    dated: str = ""
    """How the run's date stands in a prompt."""
    thought: str = "<think>\n{}\n</think>\n\n"
    """How an answer begins that has one, where the prompt did not open it."""
    reply: str = "{}"
    """How an answer without a thought is said."""

    @property
    def ours(self) -> bool:
        """The template is ours."""
        return self.template in OURS

    @property
    def bos_count(self) -> int:
        """How many of them a prompt has."""
        return int(bool(self.bos))


Modes = dict[Thinking, Mode | str]


def never(prompt: str) -> Modes:
    """Modes of a family without thoughts."""
    mode = Mode(thinks=False, prompt=prompt, earlier=True)
    return {"Auto": mode, "Disabled": mode, "Enabled": "has no thoughts; set it to Auto"}


def thinks(prompt: str, off: str = "", *, earlier: bool = True, earlier_off: bool | None = None) -> Modes:
    """Modes of a family that thinks unless it is told not to. off: how a prompt ends then, if otherwise."""
    on = Mode(thinks=True, prompt=prompt, earlier=earlier)
    disabled = Mode(thinks=False, prompt=off or prompt, earlier=earlier if earlier_off is None else earlier_off)
    return {"Auto": on, "Enabled": on, "Disabled": disabled}


def always(prompt: str, argument: str, *, earlier: bool) -> Modes:
    """Modes of a family that thinks whatever it is told. argument: what sets how much."""
    on = Mode(thinks=True, prompt=prompt, earlier=earlier)
    refusal = f"always thinks; set it to Auto and model.chatTemplateArguments.{argument} to low"
    return {"Auto": on, "Enabled": on, "Disabled": refusal}


def said(family: Family, mode: Mode, reply: str, thought: str = "") -> str:
    """What a model of the family says, without the end of its turn."""
    if not thought:
        return family.reply.format(reply)
    opened = mode.prompt.endswith("<think>\n")
    return (f"{thought}\n</think>\n\n" if opened else family.thought.format(thought)) + reply
