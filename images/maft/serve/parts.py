"""What a model consists of, read from its config.json alone: a server decides its flags before anything heavy is imported."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a model of the hub nothing is known before it is fetched: neither towers nor experts."""

    towers: bool = False
    """Models beside the text part, which see or hear."""
    experts: bool = False
    """Its layers are mixtures of experts."""

    @classmethod
    def of(cls, path: str) -> "Parts":
        """Reads them from the folder's config.json."""
        file = Path(path) / "config.json"
        config = json.loads(file.read_text()) if file.is_file() else {}
        text = config.get("text_config") or {}
        return cls(bool(text), _has_experts(config) or _has_experts(text)) if isinstance(config, dict) else cls()


def _has_experts(config: Mapping[str, Any]) -> bool:
    return any(isinstance(count := config.get(name), int) and count > 1 for name in _EXPERTS)
