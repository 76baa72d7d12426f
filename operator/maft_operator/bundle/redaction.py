"""Takes secrets out of objects before they leave the cluster. Pure; what names and text look like is maft.redaction's.

Names decide where there are names: a literal value of the environment stays only if its name is one that maft or the libraries
below it are set by (SHOWN). Names of Secrets, and of keys in them, are references and stay.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from maft.redaction import REMOVED, is_secret, text
from maft_operator.cluster import server_key

__all__ = ["REMOVED", "SHOWN", "end", "text", "thing"]

# What a person who helps has to see, and what nobody puts a secret into. Anything else is somebody's own variable.
SHOWN = re.compile(
    r"(MAFT|VLLM|NCCL|GLOO|CUDA|NVIDIA|HIP|ROCR|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|FLASHINFER|OMP|MKL|XDG|PYTHON)_?[A-Z0-9_]*"
    r"|HF_(HOME|HUB_OFFLINE|HUB_CACHE|HUB_DISABLE_TELEMETRY|ENDPOINT|DATASETS_CACHE)|TRANSFORMERS_OFFLINE|TOKENIZERS_PARALLELISM"
    r"|AWS_(REGION|DEFAULT_REGION|ENDPOINT_URL(_S3)?|CA_BUNDLE|ROLE_ARN|WEB_IDENTITY_TOKEN_FILE)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|HOME|PATH|LD_LIBRARY_PATH|LD_PRELOAD|TMPDIR|HOSTNAME|LANG|LC_ALL|TZ|USER|DO_NOT_TRACK|RANK|WORLD_SIZE|(HTTPS?|NO|ALL)_PROXY"
    r"|(https?|no|all)_proxy"
)
_DROPPED = re.compile(r"managedFields|.*/(last-applied.*|applied|original)")  # the object a second time, as text or packed
# Below a name that looks secret (`tokenSecret`, `imagePullSecrets`, a volume's `secret`): what says which Secret is meant.
_REFERENCE = frozenset(
    {
        "name",
        "key",
        "namespace",
        "kind",
        "apiVersion",
        "secretName",
        "path",
        "mountPath",
        "optional",
        "items",
        "audience",
        "uid",
        "defaultMode",
        "expirationSeconds",
    }
)
_USER = frozenset({"-u", "--user", "--proxy-user"})  # of curl: a password may follow
_NAMES_A_SECRET = frozenset({server_key.STATUS, server_key.NOTE})  # of a run's status, and of its children


def end(data: bytes, most: int) -> bytes:
    """Returns the last lines of a log or file, so many bytes at most, redacted.

    A line that has lost its beginning is left out: it may have said that the rest is a secret."""
    whole = data if len(data) <= most else data[-most - 1 :].partition(b"\n")[2]
    return text(whole.decode(errors="replace")).encode()


def thing(value: Any) -> Any:
    """Redacts an object of Kubernetes, or any JSON: equal but for what was taken out."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, Sequence):
        return _sequence(value)
    return value


def _mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value.get("name"), str) and isinstance(value.get("value"), str):
        return {**{k: thing(v) for k, v in value.items()}, "value": _variable(value["name"], value["value"])}
    return {k: _named(k, v) for k, v in value.items() if not _DROPPED.fullmatch(k)}


def _variable(name: str, value: str) -> str:
    """A value is read together with its name: `user:word@host` is a proxy's."""
    if not SHOWN.fullmatch(name) or is_secret(name):
        return REMOVED
    return text(f"{name}={value}").removeprefix(f"{name}=")


def _named(name: str, value: Any) -> Any:
    return _secret(value) if is_secret(name) and name not in _NAMES_A_SECRET else thing(value)


def _secret(value: Any) -> Any:
    """What stands below such a name goes, however deep, but for what says where it is from."""
    if isinstance(value, str):
        return REMOVED if value else value
    if isinstance(value, Mapping):
        return {k: thing(v) if _says_where(k, value) else _secret(v) for k, v in value.items() if not _DROPPED.fullmatch(k)}
    if isinstance(value, Sequence):
        return [_secret(item) for item in value]
    return value if isinstance(value, bool) or value is None else REMOVED


def _says_where(key: str, reference: Mapping[str, Any]) -> bool:
    """`key` is that of an entry beside the name of a Secret, and else maybe the key itself."""
    return key in _REFERENCE and (key != "key" or "name" in reference)


def _sequence(value: Sequence[Any]) -> list[Any]:
    """An argument that follows `--api-key` is its value, one after curl's `-u` a user with a password."""
    items = [thing(item) for item in value]
    for before, (place, item) in zip(value, list(enumerate(items))[1:], strict=False):
        if not isinstance(before, str) or not isinstance(item, str):
            continue
        if before in _USER:
            items[place] = text(f"{before} {item}").removeprefix(f"{before} ")
        elif before.startswith("-") and "=" not in before and is_secret(before) and not re.match("--|-.{,7}$", item):
            items[place] = REMOVED
    return items
