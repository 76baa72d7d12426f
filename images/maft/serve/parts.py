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
        try:
            found = json.loads(file.read_bytes()) if file.is_file() else None
        except ValueError:  # vLLM says what is wrong with it
            found = None
        config = found if isinstance(found, dict) else {}
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
        return cls(len(parts) > 1, any(_has_experts(part) for part in parts))


def _has_experts(config: Mapping[str, Any]) -> bool:
    return any(isinstance(count := config.get(name), int) and count > 1 for name in _EXPERTS)
