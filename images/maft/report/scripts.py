"""Files beside this one: the page's two scripts, and their names in a content security policy: only what is named there may run."""

import base64
import hashlib
from importlib import resources

THEME, DEBATES = "theme.js", "script.js"


def packaged(name: str) -> str:
    """Reads one of them, or another file that lies beside this one."""
    return resources.files("maft.report").joinpath(name).read_text("utf-8")


def sha256(text: str) -> str:
    """Names a script by what it is."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
