"""Takes secrets out of objects and logs before they leave the cluster. Pure.

Names decide where there are names: a literal value of the environment stays only if its name is one that maft or the libraries
below it are set by (SHOWN). In running text what looks like a secret goes: URLs with a password, signed URLs, `token=…`, bearer
tokens.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

REMOVED = "[removed]"
_NAME = (
    r"(?:pass(?:word|wd|phrase)?(?![a-z])|(?<=[_-])pwd(?![a-z])|secret|credential|token(?!s|iz)|signature|cookie|authorization"
    r"|(?:api|access|private|signing|encryption|account|session|auth|license)[-_.]?key)"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
# What a person who helps has to see, and what nobody puts a secret into. Anything else is somebody's own variable.
SHOWN = re.compile(
    r"(MAFT|VLLM|NCCL|GLOO|CUDA|NVIDIA|HIP|ROCR|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|FLASHINFER|OMP|MKL|XDG|PYTHON)_?[A-Z0-9_]*"
    r"|HF_(HOME|HUB_OFFLINE|HUB_CACHE|HUB_DISABLE_TELEMETRY|ENDPOINT|DATASETS_CACHE)|TRANSFORMERS_OFFLINE|TOKENIZERS_PARALLELISM"
    r"|AWS_(REGION|DEFAULT_REGION|ENDPOINT_URL(_S3)?|CA_BUNDLE|ROLE_ARN|WEB_IDENTITY_TOKEN_FILE)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|HOME|PATH|LD_LIBRARY_PATH|LD_PRELOAD|TMPDIR|HOSTNAME|LANG|LC_ALL|TZ|USER|DO_NOT_TRACK|RANK|WORLD_SIZE|(HTTPS?|NO|ALL)_PROXY"
    r"|(https?|no|all)_proxy"
)
# Names of Secrets and of keys in them are references, not values.
_REFERENCE = re.compile(r"(secret|token|credentials?)(name|_?file|path|ref|type)|kind|reason|type|mountPath", re.IGNORECASE)
_DROPPED = re.compile(r"managedFields|.*/(last-applied.*|applied|original)")  # the object a second time, as text or packed
_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REMOVED),
    (re.compile(r"(?<=://)[^/\s\"']+(?=@)"), REMOVED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {REMOVED}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.?[\w-]*"), REMOVED),
    (re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abpr]-|nvapi-)[\w-]{16,}"), REMOVED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REMOVED),
    # The rest of a header, whatever scheme it names; a name before its password; the signature of Azure's URLs.
    (re.compile(r"(?i)(\b(?:authorization|cookie):\s{0,9})(?![\s\"'\\\[])[^\n\"'\\]+"), rf"\1{REMOVED}"),
    (re.compile(r"(?<![\w-])((?:-u|--(?:proxy-)?user)[\s=][\s\"']{0,9}[^\s:\"']{1,200}:)[^\s\"']+"), rf"\1{REMOVED}"),
    (re.compile(r"(?<=[?&]sig=)[^&\s\"']+"), REMOVED),
    # A variable of an object that stands in the text as JSON, however often its quotes are escaped. A quote behind one more
    # backslash is a part of the value; what was cut off has no last quote.
    (
        re.compile(r"((?<!\\)\\*\"name\\*\":\s*\\*\"[^\"]*\",\s*\\*\"value\\*\":\s*)(\\*\")(?:(?!(?<!\\)\2).)+(\2?)"),
        rf"\1\2{REMOVED}\3",
    ),
    # name=value, "name": "value", name: value, --name value; a name may go on to both sides, as in X-Amz-Signature.
    (
        re.compile(
            rf"(?i)({_NAME}[\w-]{{0,60}}(?:\\*[\"'])?\s*(?:=>|[=:])\s*[bru]{{0,2}})(\\*[\"'])(?!\[removed\])(?:(?!(?<!\\)\2).)+(\2?)"
        ),
        rf"\1\2{REMOVED}\3",
    ),
    (
        re.compile(
            rf"(?i)({_NAME}[\w-]{{0,60}}(?:\\*[\"'])?(?:\s*=\s*|:\s*))(?!(?:null|true|false)\b|[bru]{{0,2}}\\*[\"']|[\[{{\s>\\])"
            r"[^\s&\"',;}\]]+"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(rf"(?i)(?<![\w-])(--(?:[\w-]{{0,60}}[-_])?{_NAME}[\w-]{{0,60}}\s{{1,9}})(?![-\[])[^\s]+"), rf"\1{REMOVED}"),
)


def text(value: str) -> str:
    """Replaces what looks like a secret in a line of a log, a message or an argument."""
    for pattern, replacement in _IN_TEXT:
        value = pattern.sub(replacement, value)
    return value


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
        shown = SHOWN.fullmatch(value["name"]) and not _is_secret(value["name"])
        return {**{k: thing(v) for k, v in value.items()}, "value": text(value["value"]) if shown else REMOVED}
    return {k: _named(k, v) for k, v in value.items() if not _DROPPED.fullmatch(k)}


def _named(name: str, value: Any) -> Any:
    return REMOVED if isinstance(value, str) and value and _is_secret(name) else thing(value)


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name)) and not _REFERENCE.search(name)


def _sequence(value: Sequence[Any]) -> list[Any]:
    """An argument that follows `--api-key` is its value."""
    items = [thing(item) for item in value]
    for before, (place, item) in zip(value, list(enumerate(items))[1:], strict=False):
        flag = isinstance(before, str) and before.startswith("-") and "=" not in before and _is_secret(before)
        if flag and isinstance(item, str) and not re.match("--|-.{,7}$", item):
            items[place] = REMOVED
    return items
