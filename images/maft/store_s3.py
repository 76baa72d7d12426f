"""Objects in an S3 bucket, by boto3. Credentials come only from where boto3 looks for them (environment, files, roles)."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from maft.errors import BadInput
from maft.store import Missing, copy_hashed

_ABSENT = {"NoSuchKey", "404", "NotFound"}
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct storage.bucket",
    "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID or the credentials Secret",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the credentials Secret",
    "AccessDenied": "access denied; the credentials need GetObject, PutObject, DeleteObject and ListBucket there",
    "403": "access denied; the credentials need GetObject, PutObject, DeleteObject and ListBucket there",
    "NotImplemented": "the store does not implement conditional writes (If-None-Match: *); use another",
}


class S3Store:
    """Objects below a prefix of a bucket. `endpoint` None is AWS itself."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, region_name=region, config=_config(endpoint))

    def read(self, key: str) -> bytes:
        with self._errors(key):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
            return body

    def download(self, key: str, path: Path) -> str:
        with self._errors(key), path.open("wb") as target:
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
            return copy_hashed(body.iter_chunks(1 << 20), target)

    def write(self, key: str, data: bytes | Path) -> None:
        with self._errors(key):
            if isinstance(data, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)
            else:
                config = TransferConfig(multipart_threshold=1 << 26, multipart_chunksize=1 << 25)
                self._client.upload_file(str(data), self._bucket, self._prefix + key, Config=config)

    def create(self, key: str, data: bytes) -> bool:
        with self._errors(key):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

    def list(self, prefix: str) -> Iterator[str]:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            for page in pages:
                yield from (entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", []))

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):  # the API's limit
            objects = [{"Key": self._prefix + key} for key in keys[start : start + 1000]]
            with self._errors(objects[0]["Key"]):
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

    def clean(self, prefix: str) -> None:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for upload in (u for page in pages for u in page.get("Uploads", [])):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._client_error(error, key) from error
        except S3UploadFailedError as error:
            raise OSError(f"store {self.url}: {key}: {error}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise OSError(f"store {self.url}: unreachable: {_one_line(error)}") from error
        except BotoCoreError as error:
            raise BadInput(f"store {self.url}: {_one_line(error)}; check storage and the AWS credentials") from error

    def _client_error(self, error: ClientError, key: str) -> Exception:
        code = _code(error)
        if code in _ABSENT:
            return Missing(key)
        hint = _HINTS.get(code)
        return BadInput(f"store {self.url}: {hint}") if hint else OSError(f"store {self.url}: {key}: {_one_line(error)}")


def _config(endpoint: str | None) -> Config:
    # Checksums beyond the required ones and virtual hosts are AWS features that other servers often lack.
    elsewhere: dict[str, Any] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},
    }
    retries = {"total_max_attempts": 5, "mode": "standard"}
    return Config(connect_timeout=5, read_timeout=60, retries=retries, **(elsewhere if endpoint else {}))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
