"""Objects in an S3 bucket, by boto3. Credentials come only from where boto3 looks for them (environment, files, roles).

What may pass is tried again for `PATIENCE` (and each request a few times at once, by boto3): a server that restarts, one that
is too busy, an answer that breaks off. What is read is compared with its ETag, or read twice; what is fetched, with its ETag where
that is an MD5.
"""

import contextlib
import hashlib
import mimetypes
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from maft.errors import BadInput
from maft.store import s3_client
from maft.store.base import ATTEMPTS, LARGEST, Damaged, Entry, Passing, Store, copy_hashed, relative
from maft.store.patience import Patience
from maft.store.s3_faults import DISTURBED, code, explained, is_lacking, is_there, may_pass

PATIENCE = Patience(30.0)
PARTS = TransferConfig(multipart_threshold=1 << 26, multipart_chunksize=1 << 25)  # bytes; ten at a time
PAGE = 1000  # entries of a full page of a list
SMALL = 1 << 20  # bytes of an object that is read to see what ETags are
_MD5 = re.compile("[0-9a-f]{32}")  # that of an upload in parts has their number behind it
_FIRST_BYTE = re.compile(r"bytes 0-0/(\d{1,18})")
T = TypeVar("T")


class S3Store:
    """Objects below a prefix of a bucket. `endpoint` None is AWS itself."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        endpoint: str | None,
        region: str | None,
        *,
        patience: Patience = PATIENCE,
        requests: s3_client.Requests = s3_client.PATIENT,
    ) -> None:
        """patience: how long an operation is tried, each time with `requests`."""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._place = (bucket, prefix, endpoint, region)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience
        self._client = s3_client.client(self.url, endpoint, region, requests)
        self._deletes_many = True
        self._lists_uploads = True

    def impatient(self) -> Store:
        return S3Store(*self._place, patience=Patience(0.0), requests=s3_client.ONCE) if self._patience.seconds else self

    def read(self, key: str) -> bytes:
        def checked() -> bytes:
            body, tag = self._body(key)
            same = tag == _md5(body)  # other servers, and encryption, have other tags
            if not same and self._body(key)[0] != body:
                raise Passing(f"store {self.url}: {key}: read twice with different content")
            return body

        return self._try(key, checked)

    def download(self, key: str, path: Path) -> str:
        return self._try(key, lambda: self._save(key, path))

    def write(self, key: str, data: bytes | Path) -> None:
        self._try(key, lambda: self._undisturbed(key, lambda: self._put(key, data)))

    def create(self, key: str, data: bytes | Path) -> bool:
        # In one request, whatever its size: some servers ignore the condition where parts are put together.
        if isinstance(data, Path) and data.stat().st_size > LARGEST:
            raise BadInput(f"store {self.url}: {key}: more than {LARGEST >> 30} GiB; `write` takes it in parts")

        def created() -> bool:
            try:
                self._undisturbed(key, lambda: self._put_whole(key, data, IfNoneMatch="*"))
            except ClientError as error:
                if is_there(error):
                    return False
                raise
            return True

        return self._try(key, created, conditional=True)

    def list(self, prefix: str) -> Iterator[str]:
        yield from (entry.key for entry in self.entries(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from ((entry.key, entry.size) for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        asked: dict[str, str] = {"Bucket": self._bucket, "Prefix": self._key(prefix)}
        pages: set[tuple[bool, str]] = set()  # by their first key, or the way on from those that have none
        while True:
            page, token = self._try(prefix, lambda: self._page(prefix, asked))
            which = (bool(page), page[0].key if page else token)
            if which in pages:
                raise BadInput(f"store {self.url}: {prefix}: ListObjectsV2: the same pages come again and again; use another store")
            yield from page
            if not token:
                return
            pages.add(which)
            asked["ContinuationToken"] = token

    def _entry(self, listed: Any) -> Entry:
        key = listed["Key"].removeprefix(self._prefix)
        tag = listed.get("ETag", "")  # S3Proxy gives none for what is being written
        return Entry(key, listed["Size"], listed["LastModified"].timestamp(), tag)

    def read_part(self, key: str, start: int, length: int) -> bytes:
        def part() -> bytes:
            try:
                body: bytes = self._get(key, Range=f"bytes={start}-{start + length - 1}")["Body"].read()
                return body
            except ClientError as error:
                if code(error) == "InvalidRange":  # it ends before
                    return b""
                raise

        return self._try(key, part)

    def fetch(self, key: str, path: Path) -> None:
        seen: list[str] = []
        for _ in range(2):
            tag = self._try(key, lambda: self._fetch(key, path))
            if not _MD5.fullmatch(tag) or (digest := _md5_of(path)) == tag:
                return
            seen.append(digest)
        if seen[0] != seen[1]:
            raise OSError(f"store {self.url}: {key}: fetched twice with different content")
        if self._has_md5_tags(key):
            what = f"what lies there has the MD5 {seen[1]}, and its ETag is {tag}"
            raise Damaged(f"store {self.url}: {key}: {what}: it was damaged after it was written; upload it again")

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):  # the API's limit
            several = keys[start : start + 1000]
            for key in self._remaining(several):
                self._try(key, lambda key=key: self._client.delete_object(Bucket=self._bucket, Key=self._key(key)))  # type: ignore[misc]

    def clean(self, prefix: str) -> None:
        for upload in self._try(prefix, lambda: self._uploads(prefix)):
            self._try(prefix, lambda upload=upload: self._abort(upload["Key"], upload["UploadId"]))  # type: ignore[misc]

    def _try(self, key: str, act: Callable[[], T], *, conditional: bool = False) -> T:
        def once() -> T:
            with explained(self.url, key, conditional=conditional):
                return act()

        return self._patience.begin().call(once)

    def _key(self, key: str) -> str:
        return self._prefix + relative(key, self.url)

    def _page(self, prefix: str, asked: dict[str, str]) -> tuple[Sequence[Entry], str]:
        """A page of a list, and the token of the next one; empty: there is none."""
        page = self._client.list_objects_v2(**asked)
        if "IsTruncated" not in page:  # an empty answer, or a page of somebody else: no list that has nothing in it
            raise Passing(f"store {self.url}: {prefix}: ListObjectsV2: the answer is no list")
        entries, token = [self._entry(listed) for listed in page.get("Contents", [])], str(page.get("NextContinuationToken") or "")
        if page["IsTruncated"] and not token:
            raise Passing(f"store {self.url}: {prefix}: ListObjectsV2: the list goes on, and the answer does not say how")
        more = page["IsTruncated"] or len(entries) >= PAGE  # some write it in a way of their own: True
        return entries, token if more else ""

    def _fetch(self, key: str, path: Path) -> str:
        """Writes an object to a file, in ranges where the store has them; its ETag, if that may be the MD5."""
        size, tag = self._first(key)
        if size is None:  # boto3 would wait for ever for a part whose answer does not say which it is
            self._save(key, path)
        else:
            self._client.download_file(self._bucket, self._key(key), str(path), Config=PARTS)
        return tag

    def _has_md5_tags(self, key: str) -> bool:
        """Whether the ETags of this store are MD5s: that of the smallest object in the same folder says so. Alone, none does."""
        folder = key[: key.rfind("/") + 1]
        beside = [(entry.size, entry.key) for entry in self.entries(folder) if entry.key != key and 0 < entry.size <= SMALL]
        if not beside:
            return False
        body, tag = self._try(key, lambda: self._body(min(beside)[1]))
        return tag == _md5(body)

    def _size(self, key: str) -> int | None:
        """The size of an object; None where the store gives it as a whole alone."""
        return self._first(key)[0]

    def _first(self, key: str) -> tuple[int | None, str]:
        """The size of an object, None where the store gives it as a whole alone; and its ETag, empty where it is encrypted in a way
        that makes that no MD5."""
        try:
            answer = self._get(key, Range="bytes=0-0")
        except ClientError as error:
            if code(error) == "InvalidRange":  # it is empty
                return None, ""
            raise
        answer["Body"].close()
        whole = _FIRST_BYTE.fullmatch(str(answer.get("ContentRange", "")))
        hidden = "SSECustomerAlgorithm" in answer or str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
        return int(whole[1]) if whole else None, "" if hidden else str(answer.get("ETag", "")).strip('"')

    def _get(self, key: str, **more: str) -> Any:
        answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **more)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if "content-length" not in headers and headers.get("transfer-encoding") != "chunked":
            raise Passing(f"store {self.url}: {key}: GetObject: an answer without a length, so it may have broken off")
        return answer

    def _save(self, key: str, path: Path) -> str:
        """Writes an object to a file, in one stream; its sha256."""
        body = self._get(key)["Body"]
        with path.open("wb") as target:
            return copy_hashed(body.iter_chunks(1 << 20), target)

    def _body(self, key: str) -> tuple[bytes, str]:
        answer = self._get(key)
        return answer["Body"].read(), str(answer.get("ETag", "")).strip('"')

    def _undisturbed(self, key: str, put: Callable[[], None]) -> None:
        for _ in range(ATTEMPTS):
            try:
                return put()
            except ClientError as error:
                if code(error) not in DISTURBED:
                    raise
        raise OSError(f"store {self.url}: {key}: other processes keep disturbing what is being written")

    def _put(self, key: str, data: bytes | Path) -> None:
        if isinstance(data, bytes) or data.stat().st_size < PARTS.multipart_threshold:
            return self._put_whole(key, data)
        try:
            self._client.upload_file(str(data), self._bucket, self._key(key), Config=PARTS)
        except S3UploadFailedError as error:
            raise error.__context__ or error from None  # the ClientError
        self._check_whole(key, data.stat().st_size)

    def _check_whole(self, key: str, size: int) -> None:
        """Passing where an upload in parts is not there: its end is answered by 200 also where it fails."""
        try:
            there = self._size(key)
        except ClientError as error:
            if code(error) != "NoSuchKey":
                raise
            there = 0
        if there not in (None, size):
            raise Passing(f"store {self.url}: {key}: CompleteMultipartUpload: {there} bytes are there of {size}")

    def _put_whole(self, key: str, data: bytes | Path, **condition: str) -> None:
        # A browser shows report/index.html only if it is told that it is a page.
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        with data.open("rb") if isinstance(data, Path) else contextlib.nullcontext(data) as body:
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=body, ContentType=kind, **condition)

    def _remaining(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of the keys that one request has not deleted: all of them where the server does not take many at a time."""
        objects = [{"Key": self._key(key)} for key in keys]

        def deleted() -> Sequence[str]:
            try:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            except ClientError as error:  # some want Content-MD5, some have no such operation
                if may_pass(error):
                    raise
                self._deletes_many = False
                return keys
            failed = {entry.get("Key") for entry in answer.get("Errors", []) if entry.get("Code") != "NoSuchKey"}
            return [key for key in keys if self._key(key) in failed]

        return self._try(keys[0], deleted) if self._deletes_many else keys

    def _uploads(self, prefix: str) -> Sequence[dict[str, str]]:
        """What is being uploaded in parts there, by this process or by one that died."""
        if not self._lists_uploads:
            return []
        try:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._key(prefix))
            uploads = [upload for page in pages for upload in page.get("Uploads", []) if upload.get("UploadId")]
            return [one for one in uploads if str(one.get("Key", "")).startswith(self._key(prefix))]  # others' are not ours to end
        except ClientError as error:
            if code(error) == "NoSuchUpload":  # rclone, before its first one
                return []
            if not is_lacking(error):
                raise
        self._lists_uploads = False
        print(
            f"store {self.url}: does not implement ListMultipartUploads: parts of interrupted uploads stay there", file=sys.stderr
        )
        return []

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if code(error) != "NoSuchUpload":  # it ended meanwhile
                raise


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _md5_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
