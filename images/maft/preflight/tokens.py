"""Whether a tokenizer gives back what it was given, and knows what a run tells it."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from maft.debate.society import Rules
from maft.errors import BadInput, meant

SAMPLES = (
    "What is 12 + 3 * 45? Answer: 147",
    "naïve café, façade, Ångström",
    "$\\frac{a_1}{\\sqrt{b}} \\leq 10^{-3}$",
    "三角形の内角の和は180度です",
    "👍 ≤ π ≈ 3.14",
    "a line\n\n    and one that is indented\tby a tab",
)


def check_round_trip(tokenizer: Any, source: str, texts: Iterable[str]) -> list[str]:
    """Raises BadInput for a tokenizer that loses spaces, letters or digits; warns of other signs that it cannot write.

    texts: of the run's prompts and questions.
    """
    lost = [text for text in (*SAMPLES, *texts) if not _same(text, _back(tokenizer, text), tokenizer)]
    for text in lost:
        _refuse_loss(text, _back(tokenizer, text), source)
    shown = "; ".join(repr(text[:24]) for text in lost[:3])
    return [f"model.source: the tokenizer does not give back {shown}; answers with such signs may be read wrongly"] if lost else []


def _refuse_loss(text: str, back: str, source: str) -> None:
    spaces = "".join(back.split()) == "".join(text.split())
    if not spaces and _basic(back) == _basic(text):
        return
    raise BadInput(
        f"model.source: the tokenizer of {source} {'loses spaces' if spaces else 'does not give back what it is given'}:"
        f" {text[:40]!r} becomes {back[:40]!r}; use a tokenizer.json that decodes as it encodes, or another model"
    )


def _basic(text: str) -> str:
    """Letters and digits that every tokenizer knows."""
    return "".join(c for c in text.lower() if c.isascii() and c.isalnum())


def _back(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _same(text: str, back: str, tokenizer: Any) -> bool:
    """Equal but for what tokenizers are known to do: Unicode forms, a space in front, spaces in a row."""
    wanted = {unicodedata.normalize(form, text) for form in ("NFC", "NFKC")} | {text, _normalised(tokenizer, text)}
    return _plain(back) in {_plain(one) for one in wanted}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _normalised(tokenizer: Any, text: str) -> str:
    """As the tokenizer's own normaliser has it: lower case, say. It may write spaces as another sign."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return normalizer.normalize_str(text).replace("▁", " ") if normalizer else text


def unknown_arguments(given: Iterable[str], known: frozenset[str]) -> list[str]:
    """Warns of arguments that the chat template does not read."""
    return [
        f"model.chatTemplateArguments: the chat template does not read {name}{_nearest(name, known)}"
        for name in given
        if name not in known
    ]


def unused_thoughts(rules: Rules, *, thinks: bool) -> list[str]:
    """Warns of room for thoughts that the template does not tell from answers, which get it."""
    if thinks or rules.new_tokens == rules.debate.max_tokens:
        return []
    return [
        f"debate.thinkingTokens: the chat template knows no thoughts, so answers may have {rules.new_tokens} tokens; leave it out,"
        " or set debate.maxTokens alone"
    ]


def _nearest(name: str, known: frozenset[str]) -> str:
    return "; " + meant(name, sorted(known), f"it reads {', '.join(sorted(known)) or 'none'}")


def check_vocabulary(ids: Sequence[int], size: int, source: str) -> None:
    """Raises BadInput for tokens that the model has no embedding of."""
    if (highest := max(ids)) >= size:
        raise BadInput(
            f"model.source: the tokenizer of {source} uses token {highest}, and the model knows {size}; they do not belong together"
        )
