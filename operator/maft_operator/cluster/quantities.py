"""Amounts of a resource as Kubernetes writes them: 500m, 2Gi, 1e3. Pure. Source: Kubernetes, "Quantity" (apimachinery)."""

import re
from decimal import Decimal
from typing import Any

_BINARY = {suffix: 2 ** (10 * power) for power, suffix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))}
_DECIMAL = {suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)}
_NUMBER = r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})"
_QUANTITY = re.compile(rf"({_NUMBER}(?:[eE][+-]?[0-9]{{1,2}})?)([KMGTPE]i|[numkMGTPE])?")  # 1E is an exa, 1E3 a thousand
_FACTORS = {**_DECIMAL, **{suffix: Decimal(factor) for suffix, factor in _BINARY.items()}}


def amount(quantity: Any) -> Decimal | None:
    """Reads an amount; None for what is none, which the API server will refuse."""
    text = str(quantity) if isinstance(quantity, str | int | float) and not isinstance(quantity, bool) else ""
    read = _QUANTITY.fullmatch(text)
    return Decimal(read[1]) * _FACTORS[read[2] or ""] if read else None


def of_bytes(count: int) -> str:
    """Writes bytes as the API server writes them: with the largest unit that leaves a whole number."""
    suffix, factor = next((s, f) for s, f in reversed(_BINARY.items()) if count % f == 0 and (count or not s))
    return f"{count // factor}{suffix}"


def of_thousandths(count: int) -> str:
    """Writes thousandths of a processor as the API server writes them: 250m, 2."""
    return f"{count}m" if count % 1000 else str(count // 1000)
