"""The store that a URL names: the only module that knows both kinds. Called by every program, once, at its start."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from maft.errors import BadInput
from maft.store.base import Store
from maft.store.files import FileStore

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def open_store(url: str) -> Store:
    """Opens the store at `file:///folder`, a plain path, or `s3://bucket/prefix?endpoint=URL&region=NAME`.

    Folder and prefix of a URL are percent-decoded. BadInput for any other URL; credentials are never taken from it.
    """
    shown = _without_user(url.partition("?")[0])  # what follows may be a secret, too
    if not url:
        raise BadInput("store '': empty; give file:///folder, a path or an s3://bucket/prefix URL")
    if "\0" in (unquote(url) if "://" in url else url):
        raise BadInput(f"store {shown!r}: a zero byte is no character of a name")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput(f"store {shown!r}: {error}") from None
    if not parts.scheme:
        return FileStore(Path(url).absolute())
    if parts.scheme not in ("file", "s3") or (parts.scheme == "file" and parts.netloc):
        raise BadInput(f"store {shown!r}: not a file:///folder, a path or an s3://bucket/prefix URL")
    if parts.fragment or url.endswith("#"):
        raise BadInput(f"store {shown!r}: a # in a URL has to be written %23")
    several = parse_qs(parts.query, keep_blank_values=True)
    if twice := [key for key, values in several.items() if len(values) > 1]:
        raise BadInput(f"store {shown}: the option {twice[0]!r} is there twice; remove one")
    query = {key: values[0] for key, values in several.items()}
    return _open_s3(parts.netloc, unquote(parts.path), query) if parts.scheme == "s3" else _open_file(shown, parts.path, query)


def _open_file(shown: str, path: str, query: Mapping[str, str]) -> Store:
    if query:
        raise BadInput(f"store {shown}: unknown option {min(query)!r}; a folder has none")
    return FileStore(Path(unquote(path)).absolute())


def _open_s3(bucket: str, path: str, query: Mapping[str, str]) -> Store:
    if "@" in bucket:
        raise BadInput(f"store s3://{_without_user(bucket)}: credentials in the URL; write s3://BUCKET/PREFIX, without credentials")
    if not _BUCKET.fullmatch(bucket):
        wrong = f"{bucket!r} is no name of a bucket" if bucket else "the name of a bucket is missing"
        raise BadInput(f"store s3://{bucket}: {wrong}; write s3://BUCKET/PREFIX")
    if unknown := set(query) - {"endpoint", "region"}:
        raise BadInput(f"store s3://{bucket}: unknown option {min(unknown)!r}; there are endpoint and region")
    if "@" in query.get("endpoint", ""):
        raise BadInput(f"store s3://{bucket}: credentials in the endpoint; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    prefix = path.strip("/")
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        raise BadInput(f"store s3://{bucket}/{prefix}: the prefix has an empty part, . or ..; correct storage.prefix")
    from maft.store.s3 import S3Store  # boto3 comes with the extra `s3`

    return S3Store(bucket, prefix, query.get("endpoint") or None, query.get("region") or None)


def _without_user(url: str) -> str:
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", url)
