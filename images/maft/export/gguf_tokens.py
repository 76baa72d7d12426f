"""A tokenizer as llama.cpp has it: its tokens, how text is cut before they are found, and the chat template.

GGUF names the cutting by a word that stands for code of llama.cpp. A tokenizer whose own cutting is none of those that are known
here is refused: another one would give the model other tokens than it was trained on, and nobody would be told.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
from gguf import TokenType

from maft.chat_template import ChatTemplate
from maft.errors import BadInput

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# By llama.cpp's word: what stands in `pre_tokenizer` of a tokenizer.json, step by step.
CUTTING: Mapping[str, tuple[str, ...]] = {
    "gpt-2": ("ByteLevel words",),
    "smollm": ("Digits", "ByteLevel words"),
    "llama-bpe": (rf"{_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", "ByteLevel"),
    "qwen2": (rf"{_SHORT}|{_WORDS}|\p{{N}}|{_REST}", "ByteLevel"),
}
_WHOLE_WORDS = "llama-bpe"  # takes a word that is a token as it is, whatever its merges say
_COMPOSED = "qwen2"  # NFC first, which llama.cpp leaves to who writes the text


def write(writer: gguf.GGUFWriter, template: ChatTemplate, rows: int, source: str) -> None:
    """Writes tokens, their ends and the template; BadInput for a tokenizer that llama.cpp would not repeat. rows: of the
    embedding, which may be more than there are tokens."""
    tokenizer = template.tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str()) if hasattr(tokenizer, "backend_tokenizer") else {}
    tokens = {number: (text, TokenType.NORMAL) for text, number in content.get("model", {}).get("vocab", {}).items()}
    tokens |= {each["id"]: (each["content"], _type(each)) for each in content.get("added_tokens", [])}
    cut = _cutting(content, source)
    if max(tokens) >= rows:
        raise _refused(source, f"has token {max(tokens)}, and the model has weights for {rows}")
    every = [tokens.get(n, (f"[PAD{n}]", TokenType.UNUSED)) for n in range(rows)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([text for text, _ in every])
    writer.add_token_types([kind for _, kind in every])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]])
    _ends(writer, template, source)
    writer.add_chat_template(tokenizer.get_chat_template())


def _type(added: dict[str, Any]) -> TokenType:
    return TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED


def _ends(writer: gguf.GGUFWriter, template: ChatTemplate, source: str) -> None:
    """Which tokens begin and end texts and turns, and whether the first is put before every text."""
    tokenizer = template.tokenizer
    inside, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    begins = whole == [tokenizer.bos_token_id, *inside]
    if whole != inside and not begins:
        raise _refused(source, "puts tokens around a text that are not its beginning alone")
    writer.add_add_bos_token(begins)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if template.turn_end[-1] != tokenizer.eos_token_id:
        writer.add_eot_token_id(template.turn_end[-1])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)


def _cutting(content: dict[str, Any], source: str) -> str:
    """Finds llama.cpp's word for how the tokenizer cuts text; BadInput where it has none, or where more is done to the text."""
    model, steps = content.get("model", {}), tuple(_steps(content.get("pre_tokenizer") or {}))
    cut = next((word for word, known in CUTTING.items() if known == steps), "")
    if model.get("type") != "BPE" or model.get("byte_fallback") or not cut:
        raise _refused(source, "cuts text in a way that --to gguf does not know")
    normal = content.get("normalizer")
    if bool(model.get("ignore_merges")) != (cut == _WHOLE_WORDS) or (normal and (normal != {"type": "NFC"} or cut != _COMPOSED)):
        raise _refused(source, f"cuts text as {cut} does, and changes it besides")
    if odd := next((t["content"] for t in content["added_tokens"] if t["lstrip"] or t["rstrip"] or t["single_word"]), ""):
        raise _refused(source, f"takes the space beside {odd} into it")
    return cut


def _steps(cutter: dict[str, Any]) -> Iterator[str]:
    """Writes a pre-tokenizer as `CUTTING` does: a Split by its expression."""
    kind = cutter.get("type", "none")
    if kind == "Sequence":
        for step in cutter["pretokenizers"]:
            yield from _steps(step)
    elif kind == "Split" and cutter["behavior"] == "Isolated" and not cutter["invert"]:
        yield cutter["pattern"].get("Regex", "a text")
    elif kind == "ByteLevel" and not cutter["add_prefix_space"]:
        yield "ByteLevel words" if cutter["use_regex"] else "ByteLevel"
    else:
        yield "Digits" if kind == "Digits" and cutter["individual_digits"] else f"another {kind}"


def _refused(source: str, why: str) -> BadInput:
    return BadInput(
        f"model.source: the tokenizer of {source} {why}; use --to merged, and on its folders llama.cpp's own convert_hf_to_gguf.py"
    )
