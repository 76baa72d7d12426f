"""Families of models as the suite knows them: each one's published chat template, its tokens, and what is to be found out of both.

Templates are read from trl's package. Tokenizers are real ones where a package has one (`real_tokenizers.py`), else bytes with the
family's special tokens. Where no package has a template, ours follows the family's rules, and is called so.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import real_tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from maft.chat_template import ChatTemplate
from maft.spec import Thinking
from maft.template_facts import Options

DATE = "2031-02-03"  # of no day on which this runs

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
    """Of a tokenizer of bytes; the ends, bos and eos are among them."""
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


def never(prompt: str) -> dict[Thinking, Mode | str]:
    """Modes of a family without thoughts."""
    mode = Mode(thinks=False, prompt=prompt, earlier=True)
    return {"Auto": mode, "Disabled": mode, "Enabled": "has no thoughts; set it to Auto"}


CHATML = "<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
QWEN = {"real": "qwen3", "eos": "<|im_end|>", "end": ("<|im_end|>",)}
LLAMA = {"real": "llama3_1", "bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "end": ("<|eot_id|>",)}
GEMMA = {"real": "gemma3", "bos": "<bos>", "eos": "<end_of_turn>", "end": ("<end_of_turn>",)}
LLAMA_ROLE = "<|start_header_id|>assistant<|end_header_id|>\n\n"
GEMMA_ROLE = "<start_of_turn>model\n"
QWEN3_MODES: dict[Thinking, Mode | str] = {
    "Auto": Mode(thinks=True, prompt=CHATML, earlier=True),
    "Enabled": Mode(thinks=True, prompt=CHATML, earlier=True),
    "Disabled": Mode(thinks=False, prompt=CHATML + EMPTY, earlier=False),
}
OPEN = Mode(thinks=True, prompt=CHATML + "<think>\n", earlier=False)
CLOSED = Mode(thinks=False, prompt=CHATML + EMPTY, earlier=False)
DEEPSEEK = "<｜Assistant｜><think>\n"
COHERE_ROLE = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
COHERE_TOKENS = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
GLM_ROLE = "<|assistant|>"
MISTRAL = {"bos": "<s>", "eos": "</s>", "end": ("</s>",), "system": "folded", "reply": " {}", "modes": never(" [/INST]")}

FAMILIES: dict[str, Family] = {
    "llama3": Family("Llama 3", "llama3", modes=never(LLAMA_ROLE), own=False, **LLAMA),
    "llama3_1": Family(
        "Llama 3.1",
        "llama3_1",
        modes=never(LLAMA_ROLE),
        arguments=("builtin_tools", "custom_tools", "date_string", "tools_in_user_message"),
        **LLAMA,
    ),
    "llama3_2": Family(
        "Llama 3.2",
        "llama3_2",
        modes=never(LLAMA_ROLE),
        own=False,
        arguments=("custom_tools", "date_string", "tools_in_user_message"),
        dated="03 Feb 2031",
        **LLAMA,
    ),
    "qwen2_5": Family("Qwen2.5", "qwen2_5", modes=never(CHATML), own=False, **QWEN),
    "qwen3": Family("Qwen3", "qwen3", modes=QWEN3_MODES, switch="enable_thinking", **QWEN),
    "qwen3_moe": Family("Qwen3-MoE", "qwen3", modes=QWEN3_MODES, switch="enable_thinking", **QWEN),
    "qwen3_instruct_2507": Family("Qwen3-2507 Instruct", "qwen3_instruct_2507", modes=never(CHATML), **QWEN),
    "qwen3_5_think": Family(
        "Qwen3.5, 4B and larger",
        "qwen3_5_think",
        modes={"Auto": OPEN, "Enabled": OPEN, "Disabled": CLOSED},
        own=False,
        switch="enable_thinking",
        arguments=("add_vision_id",),
        **QWEN,
    ),
    "qwen3_5_nothink": Family(
        "Qwen3.5, 2B and smaller",
        "qwen3_5_nothink",
        modes={"Auto": Mode(thinks=True, prompt=CHATML + EMPTY, earlier=False), "Enabled": OPEN, "Disabled": CLOSED},
        own=False,
        switch="enable_thinking",
        arguments=("add_vision_id",),
        **QWEN,
    ),
    "gemma2": Family("Gemma 2", "gemma", modes=never(GEMMA_ROLE), own=False, system="folded", **GEMMA),
    "gemma3_text": Family("Gemma 3, text", "gemma3", modes=never(GEMMA_ROLE), system="template", **GEMMA),
    "gemma3": Family("Gemma 3, with vision", "gemma3", modes=never(GEMMA_ROLE), system="template", **GEMMA),
    "gemma4": Family(
        "Gemma 4",
        "gemma4_v5",
        end=("<turn|>",),
        modes={
            "Auto": Mode(thinks=True, prompt="<|turn>model\n", earlier=True),
            "Enabled": Mode(thinks=True, prompt="<|turn>model\n", earlier=True),
            "Disabled": Mode(thinks=False, prompt="<|turn>model\n", earlier=True),
        },
        bos="<bos>",
        eos="<turn|>",
        special=("<|turn>", "<|think|>", "<|channel>", "<channel|>"),
        switch="enable_thinking",
        arguments=("preserve_thinking",),
        thought="<|channel>thought\n{}<channel|>",
    ),
    "phi3": Family(
        "Phi-3",
        "phi3",
        end=("<|end|>",),
        modes=never("<|assistant|>"),
        eos="<|endoftext|>",
        special=("<|user|>", "<|assistant|>", "<|system|>"),
        strips_right=True,
    ),
    "phi3_5": Family(
        "Phi-3.5",
        "phi3_5",
        end=("<|end|>",),
        modes=never("<|assistant|>"),
        eos="<|endoftext|>",
        special=("<|user|>", "<|assistant|>", "<|system|>"),
        strips_right=True,
    ),
    "gpt_oss": Family(
        "gpt-oss",
        "gptoss",
        end=("<|return|>",),
        modes={
            "Auto": Mode(thinks=True, prompt="<|start|>assistant", earlier=False),
            "Enabled": Mode(thinks=True, prompt="<|start|>assistant", earlier=False),
            "Disabled": "always thinks; set it to Auto and model.chatTemplateArguments.reasoning_effort to low",
        },
        real="gptoss",
        eos="<|return|>",
        arguments=("builtin_tools", "model_identity", "reasoning_effort"),
        dated="2031-02-03",
        reply="<|channel|>final<|message|>{}",
        thought="<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "glm4_moe": Family(
        "GLM-4-MoE",
        "glm4moe",
        end=("<|user|>",),
        modes={
            "Auto": Mode(thinks=True, prompt=GLM_ROLE, earlier=False),
            "Enabled": Mode(thinks=True, prompt=GLM_ROLE, earlier=False),
            "Disabled": Mode(thinks=False, prompt=GLM_ROLE + "\n<think></think>", earlier=True),
        },
        eos="<|endoftext|>",
        special=("[gMASK]", "<sop>", "<|user|>", GLM_ROLE, "<|system|>"),
        plain=("<think>", "</think>"),
        switch="enable_thinking",
        thought="\n<think>{}</think>\n",
        reply="\n{}",
    ),
    "lfm2": Family(
        "LFM2",
        "lfm2",
        end=("<|im_end|>",),
        modes=never(CHATML),
        bos="<|startoftext|>",
        eos="<|im_end|>",
        special=("<|im_start|>",),
    ),
    "lfm2_5": Family(
        "LFM2.5",
        "lfm2_2_5_v2",
        end=("<|im_end|>",),
        modes={
            "Auto": Mode(thinks=True, prompt=CHATML, earlier=True),
            "Enabled": Mode(thinks=True, prompt=CHATML, earlier=True),
            "Disabled": Mode(thinks=False, prompt=CHATML, earlier=True),
        },
        bos="<|startoftext|>",
        eos="<|im_end|>",
        special=("<|im_start|>",),
        plain=("<think>", "</think>"),
        arguments=("preserve_thinking",),
    ),
    "cohere": Family(
        "Command R, Aya Expanse",
        "cohere",
        end=("<|END_OF_TURN_TOKEN|>",),
        modes=never(COHERE_ROLE),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        special=COHERE_TOKENS,
    ),
    "cohere2": Family(
        "Command R7B, Tiny Aya",
        "cohere2",
        end=("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),
        modes=never(COHERE_ROLE + "<|START_RESPONSE|>"),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        special=COHERE_TOKENS,
        plain=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "deepseek_r1_distill": Family(
        "DeepSeek-R1 distilled",
        "deepseek_r1_distill",
        end=("<｜end▁of▁sentence｜>",),
        modes={
            "Auto": Mode(thinks=True, prompt=DEEPSEEK, earlier=False),
            "Enabled": Mode(thinks=True, prompt=DEEPSEEK, earlier=False),
            "Disabled": Mode(thinks=False, prompt=DEEPSEEK + "\n</think>\n\n", earlier=False),
        },
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        special=("<｜User｜>", "<｜Assistant｜>"),
        plain=("<think>", "</think>"),
    ),
    "nemotron_3": Family(
        "Nemotron 3 Nano",
        "nemotron_3_nano",
        end=("<|im_end|>",),
        modes={
            "Auto": OPEN,
            "Enabled": OPEN,
            "Disabled": Mode(thinks=False, prompt=CHATML + "<think></think>", earlier=True),
        },
        eos="<|im_end|>",
        special=("<|im_start|>",),
        plain=("<think>", "</think>"),
        switch="enable_thinking",
        arguments=("truncate_history_thinking",),
    ),
    "muse_glimmer": Family(
        "Muse Glimmer",
        "muse_glimmer",
        end=("<|eot|>",),
        modes={
            "Auto": Mode(thinks=True, prompt="<|start|>assistant", earlier=True),
            "Enabled": Mode(thinks=True, prompt="<|start|>assistant", earlier=True),
            "Disabled": "always thinks; set it to Auto and model.chatTemplateArguments.reasoning_strength to low",
        },
        bos="<|begin_of_text|>",
        eos="<|eot|>",
        special=("<|start|>", "<|message|>", "<|eom|>"),
        arguments=("current_date", "knowledge_cutoff", "reasoning_strength", "tool_namespace_descriptions"),
        dated="2031-02-03",
        reply=" to=user<|message|>{}",
        thought=" to=self<|message|>{}<|eom|><|start|>assistant to=user<|message|>",
    ),
    "smolvlm": Family(
        "SmolVLM",
        "smolvlm",
        end=("<end_of_utterance>",),
        modes=never("Assistant:"),
        bos="<|im_start|>",
        eos="<end_of_utterance>",
        reply=" {}",
    ),
    "mistral": Family("Mistral", "mistral", special=("[INST]", "[/INST]"), **MISTRAL),
    "mixtral": Family("Mixtral", "mistral", **MISTRAL),
    "granite": Family(
        "Granite",
        "granite",
        end=("<|end_of_text|>",),
        modes={
            "Auto": Mode(thinks=True, prompt="<|start_of_role|>assistant<|end_of_role|>", earlier=True),
            "Enabled": Mode(thinks=True, prompt="<|start_of_role|>assistant<|end_of_role|>", earlier=True),
            "Disabled": Mode(thinks=False, prompt="<|start_of_role|>assistant<|end_of_role|>", earlier=True),
        },
        eos="<|end_of_text|>",
        special=("<|start_of_role|>", "<|end_of_role|>"),
        switch="thinking",
        dated="February 03, 2031",
    ),
}


def said(family: Family, mode: Mode, reply: str, thought: str = "") -> str:
    """What a model of the family says, without the end of its turn."""
    if not thought:
        return family.reply.format(reply)
    opened = mode.prompt.endswith("<think>\n")
    return (f"{thought}\n</think>\n\n" if opened else family.thought.format(thought)) + reply


def text_of(family: Family) -> str:
    """The template."""
    if family.ours:
        return OURS[family.template]
    found = importlib.util.find_spec("trl")  # which is not imported: it would need all that it needs to train
    assert found is not None
    assert found.submodule_search_locations is not None
    return (Path(found.submodule_search_locations[0]) / "chat_templates" / f"{family.template}.jinja").read_text()


@functools.cache
def tokenizer(key: str) -> Any:
    """The family's tokenizer with its template."""
    family = FAMILIES[key]
    made = AutoTokenizer.from_pretrained(real_tokenizers.folder(family.real)) if family.real else of_bytes(family)
    made.chat_template = text_of(family)
    return made


def of_bytes(family: Family) -> Any:
    """Bytes as tokens, and the family's special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = dict.fromkeys(filter(None, (family.bos, family.eos, *family.end, *family.special)))
    special = [AddedToken(name, special=True, rstrip=family.strips_right) for name in names if name not in family.plain]
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(name, special=False) for name in family.plain])
    ends = {"bos_token": family.bos or None, "eos_token": family.eos}
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=[t.content for t in special], **ends)


@functools.cache
def template(key: str, thinking: Thinking = "Auto") -> ChatTemplate:
    """The family's template as programs take it."""
    return ChatTemplate(tokenizer(key), FAMILIES[key].name, Options(date=DATE, thinking=thinking))
