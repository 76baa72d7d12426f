"""What a run or comparison keeps in its bucket, for whoever has a key to it: fetched by a program of `maft`, which knows stores."""

import base64
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec

from maft.readable import OF_A_COMPARISON, OF_A_RUN
from maft.spec import StorageSpec
from maft_operator.cluster import kinds
from maft_operator.cluster.fields import part, text
from maft_operator.kubectl.asked import Where
from maft_operator.spec.parse import store_url
from maft_operator.spec.schema import BadSpec, Json

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def _storage(where: Where) -> tuple[str, ...]:
    """Names the field that says where such objects have their store."""
    return ("spec", "template", "storage") if where.kind == kinds.COMPARISON else ("spec", "storage")


def store(where: Where, run: Json) -> str:
    """Returns the URL of the run's store, as programs take it; BadSpec where the resource names none."""
    field = _storage(where)
    try:
        return store_url(msgspec.convert(part(run, *field), StorageSpec))
    except msgspec.ValidationError as error:
        raise BadSpec(f"{'.'.join(field)}: {error}; the {where.word} has no bucket to look into") from None


def prefix(run: Json) -> str:
    """Returns the run's own prefix in its store."""
    return f"{text(run, 'metadata', 'namespace')}/{text(run, 'metadata', 'name')}"


def report(where: Where, run: Json) -> str:
    """Returns the prefix of the run's report; of a comparison that is its table's."""
    return f"{prefix(run)}/{OF_A_COMPARISON if where.kind == kinds.COMPARISON else OF_A_RUN}/"


def reported(run: Json) -> str:
    """Returns the URL of the report that the status names; empty where there is none yet."""
    return text(run, "status", "artifacts", "report") or text(run, "status", "report")


async def credentials(where: Where, run: Json) -> Mapping[str, str]:
    """Reads the keys of the Secret that the run's pods have (`spec.storage.credentialsSecret`), as variables."""
    field = (*_storage(where), "credentialsSecret")
    name = text(run, *field, "name")
    if not name:
        raise BadSpec(f"--secret: the {where.word} names no {'.'.join(field)}; leave it out and use your own keys")
    secret = await where.api.json(f"/api/v1/namespaces/{where.namespace}/secrets/{name}")
    return {key: base64.b64decode(value).decode() for key in _KEYS if (value := text(secret, "data", key))}


def fetch(flags: Sequence[str], variables: Mapping[str, str]) -> int:
    """Runs `python -m maft.fetch`, whose words and exit code are ours. variables: credentials beside the environment's."""
    return subprocess.run([sys.executable, "-m", "maft.fetch", *flags], env={**os.environ, **variables}, check=False).returncode
