"""Objects in an S3 bucket, by boto3. Credentials come only from where boto3 looks for them (environment, files, roles)."""

import contextlib
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)

from maft.errors import BadInput, one_line
from maft.store.base import ATTEMPTS, Missing, copy_hashed, relative

_PARTS = TransferConfig(multipart_threshold=1 << 26, multipart_chunksize=1 << 25)  # bytes; ten at a time
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_EXISTS = {"PreconditionFailed", "412"}
# Another conditional write is under way, or another process has cleaned up: write again.
_DISTURBED = {"ConditionalRequestConflict", "OperationAborted", "409", "NoSuchUpload"}
_UNKNOWN = "the access key is unknown; check AWS_ACCESS_KEY_ID or the credentials Secret"
_DENIED = (
    "access denied; the credentials need GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListBucket and "
    "ListBucketMultipartUploads there"
)
_EXPIRED = "the session token is not valid; renew AWS_SESSION_TOKEN or the credentials Secret"
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct storage.bucket",
    "InvalidAccessKeyId": _UNKNOWN,
    "XAdminUserNotFound": _UNKNOWN,  # versitygw
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the credentials Secret",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "AuthorizationHeaderMalformed": "the bucket is in another region; correct storage.region",
    "NotImplemented": "the store does not implement conditional writes (If-None-Match: *); use another",
}


class S3Store:
    """Objects below a prefix of a bucket. `endpoint` None is AWS itself."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        config = _config(endpoint)
        try:  # a session of its own: the default one cannot be shared by threads
            session = boto3.Session()
            self._client: Any = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
            self._creator: Any = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise BadInput(f"store {self.url}: {one_line(error)}; check the storage settings and the AWS configuration") from error
        for operation in ("PutObject", "CompleteMultipartUpload"):  # the transfer manager has no such argument
            self._creator.meta.events.register(f"provide-client-params.s3.{operation}", _if_none_match)

    def read(self, key: str) -> bytes:
        with self._errors(key):
            body: bytes = self._get(key).read()
            return body

    def download(self, key: str, path: Path) -> str:
        with self._errors(key):
            body = self._get(key)
            with path.open("wb") as target:
                return copy_hashed(body.iter_chunks(1 << 20), target)

    def write(self, key: str, data: bytes | Path) -> None:
        with self._errors(key):
            self._put(self._client, key, data)

    def create(self, key: str, data: bytes | Path) -> bool:
        with self._errors(key):
            try:
                self._put(self._creator, key, data)
            except ClientError as error:
                if _code(error) in _EXISTS:
                    return False
                raise
            return True

    def list(self, prefix: str) -> Iterator[str]:
        yield from (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(prefix))
            for page in pages:
                yield from ((entry["Key"].removeprefix(self._prefix), entry["Size"]) for entry in page.get("Contents", []))

    def read_part(self, key: str, start: int, length: int) -> bytes:
        with self._errors(key):
            try:
                body: bytes = self._get(key, Range=f"bytes={start}-{start + length - 1}").read()
                return body
            except ClientError as error:
                if _code(error) == "InvalidRange":  # it ends before
                    return b""
                raise

    def fetch(self, key: str, path: Path) -> None:
        with self._errors(key):
            try:
                self._client.download_file(self._bucket, self._key(key), str(path), Config=_PARTS)
            except ClientError as error:
                if _code(error) in _ABSENT:
                    raise Missing(key) from None
                raise

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):  # the API's limit
            objects = [{"Key": self._key(key)} for key in keys[start : start + 1000]]
            with self._errors(keys[start]):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                for error in answer.get("Errors", []):  # the request as a whole succeeds
                    if error["Code"] not in _ABSENT:
                        raise ClientError({"Error": error}, "DeleteObjects")

    def clean(self, prefix: str) -> None:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._key(prefix))
            for upload in [u for page in pages for u in page.get("Uploads", [])]:
                self._abort(upload["Key"], upload["UploadId"])

    def _key(self, key: str) -> str:
        return self._prefix + relative(key, self.url)

    def _get(self, key: str, **more: str) -> Any:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._key(key), **more)["Body"]
        except ClientError as error:
            if _code(error) in _ABSENT:
                raise Missing(key) from None
            raise

    def _put(self, client: Any, key: str, data: bytes | Path) -> None:
        for _ in range(ATTEMPTS):
            try:
                return self._put_once(client, self._key(key), data)
            except ClientError as error:
                if _code(error) not in _DISTURBED:
                    raise
        raise OSError(f"store {self.url}: {key}: other processes keep disturbing what is being written")

    def _put_once(self, client: Any, key: str, data: bytes | Path) -> None:
        if isinstance(data, bytes):
            # A browser shows report/index.html only if it is told that it is a page.
            kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
            client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType=kind)
            return
        try:
            client.upload_file(str(data), self._bucket, key, Config=_PARTS)
        except S3UploadFailedError as error:
            raise error.__context__ or error from None  # the ClientError

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":  # it ended meanwhile
                raise

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            hint = _HINTS.get(_code(error))
            fault = f"{key}: {one_line(error)}"
            raise BadInput(f"store {self.url}: {hint}") if hint else OSError(f"store {self.url}: {fault}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise OSError(f"store {self.url}: unreachable: {one_line(error)}") from error
        except (IncompleteReadError, FlexibleChecksumError, S3UploadFailedError) as error:
            raise OSError(f"store {self.url}: {key}: {one_line(error)}") from error
        except BotoCoreError as error:
            raise BadInput(f"store {self.url}: {one_line(error)}; check the storage settings and the AWS credentials") from error


def _config(endpoint: str | None) -> Config:
    """What boto3 is to do; with an endpoint of its own, only what every S3 server understands."""
    # Checksums beyond the required ones and virtual hosts are AWS features that other servers often lack.
    compatible: dict[str, Any] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},
    }
    retries = {"total_max_attempts": 3, "mode": "standard"}
    return Config(connect_timeout=4, read_timeout=60, retries=retries, **(compatible if endpoint else {}))


def _if_none_match(params: dict[str, Any], **_: Any) -> dict[str, Any]:
    return {**params, "IfNoneMatch": "*"}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
