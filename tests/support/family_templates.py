"""Families' templates as the suite tries them.

Templates are read from trl's package. Tokenizers are real ones where a package has one (`real_tokenizers.py`), else bytes with the
family's special tokens. Where no package has a template, ours follows the family's rules, and is called so.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import real_tokenizers
from family_list import FAMILIES, LIKE
from family_rules import OURS, Family
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from maft.chat_template import ChatTemplate
from maft.records import Message
from maft.spec import Thinking
from maft.template_facts import Options

THINKING: tuple[Thinking, ...] = ("Auto", "Enabled", "Disabled")
DATE = "2031-02-03"  # of no day on which this runs


def text_of(family: Family) -> str:
    """The template."""
    if family.ours:
        return OURS[family.template]
    spec = importlib.util.find_spec("trl")  # which is not imported: it would need all that it needs to train
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{family.template}.jinja").read_text()


@functools.cache
def tokenizer(key: str) -> Any:
    """The family's tokenizer with its template."""
    family = FAMILIES[key]
    if not family.real:
        return of_bytes(family)
    made = AutoTokenizer.from_pretrained(real_tokenizers.folder(family.real), clean_up_tokenization_spaces=False)
    made.chat_template = text_of(family)
    return made


def of_bytes(family: Family) -> Any:
    """Bytes as tokens, and the family's special ones; with its template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = dict.fromkeys(filter(None, (family.bos, family.eos, *family.end, *family.special)))
    special = [AddedToken(name, special=True, rstrip=family.strips_right) for name in names if name not in family.plain]
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(name, special=False) for name in family.plain])
    ends = {"bos_token": family.bos or None, "eos_token": family.eos}
    extra = [t.content for t in special]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=extra,
        chat_template=text_of(family),
        clean_up_tokenization_spaces=False,
        **ends,
    )


@functools.cache
def template(key: str, thinking: Thinking = "Auto") -> ChatTemplate:
    """The family's template as programs take it."""
    return ChatTemplate(tokenizer(key), FAMILIES[key].name, Options(date=DATE, thinking=thinking))


OWNERS = {family.real: key for key, family in reversed(FAMILIES.items()) if family.own and family.real}  # of real tokenizers


def described(key: str) -> dict[str, str]:
    """What the table says of a template: found out, not written down above."""
    family, auto = FAMILIES[key], template(key)
    where = "first user turn" if not auto._facts.system or family.system == "template" else "a turn"
    relative = FAMILIES[LIKE[key]].name if key in LIKE else ""
    return {
        "name": family.name,
        **({"training": f"as {relative}", "served": f"as {relative}"} if relative else {}),
        "template": "ours" if family.ours else "published",
        "tokens": ("its own" if family.own else f"of {FAMILIES[OWNERS[family.real]].name}") if family.real else "bytes",
        "end": " ".join(f"`{name}`" for name in tokenizer(key).convert_ids_to_tokens(list(auto.turn_end))),
        "system": where,
        "thinking": thinking(key),
        "arguments": ", ".join(f"`{name}`" for name in sorted(auto.arguments_known)) or "none",
    }


def thinking(key: str) -> str:
    """What debate.thinking does to a family's prompts."""
    made = {mode: template(key, mode) for mode in THINKING if not isinstance(FAMILIES[key].modes[mode], str)}
    if "Enabled" not in made:
        return "none"
    if "Disabled" not in made:
        return "always"
    ask = [Message("user", "?")]
    auto, on, off = (made[mode].prompt(ask) for mode in THINKING)
    if on == off:
        return "as the model likes"
    how = "closed at once if switched off" if made["Disabled"]._facts.suffix else "switched by the template"
    return f"{'on' if auto == on else 'off'} unless set; {how}"
