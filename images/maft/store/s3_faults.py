"""What the faults of an S3 server mean: BadInput with a hint, Missing, what may pass, or what nobody foresaw.

A code is read together with the operation that it answers: a store that lacks ListMultipartUploads may well have conditional
writes. Whatever stands between (ingresses, proxies) answers in HTML or not at all: then the HTTP status is all there is.
"""

import contextlib
import http
from collections.abc import Iterator

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from maft.errors import BadInput, one_line, with_kind
from maft.store.base import Missing, Passing
from maft.store.pace import TooSlow

# Another conditional write is under way, or another process has cleaned up: write again.
DISTURBED = {"ConditionalRequestConflict", "OperationAborted", "409", "NoSuchUpload", "InvalidPart"}
_EXISTS = {"PreconditionFailed", "FileAlreadyExists", "BlobAlreadyExists"}
_LACKING = {"NotImplemented", "MethodNotAllowed", "405", "501"}
_PASSING_STATUS = {404, 408, 425, 429}  # 404 without a code of S3: no page of that name, a gateway says while it is replaced
_PASSING_CODES = {
    "SlowDown",
    "RequestTimeout",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "BandwidthLimitExceeded",
    "InternalError",
    "ServiceUnavailable",
    # what was sent came damaged
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_KNOWN_404 = {"NoSuchKey", "NoSuchBucket", "NoSuchUpload"}
_UNKNOWN = "the access key is unknown; check AWS_ACCESS_KEY_ID or the credentials Secret"
_DENIED = (
    "access denied; the credentials need GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListBucket and "
    "ListBucketMultipartUploads there"
)
_EXPIRED = "the session token is not valid; renew AWS_SESSION_TOKEN or the credentials Secret"
_REGION = "the bucket is in another region; correct storage.region"
_CLOCKS = "the clocks of this machine and of the store differ; set them right (NTP)"
_HINTS = {
    "NoSuchBucket": "there is no such bucket; create it or correct storage.bucket",
    "InvalidAccessKeyId": _UNKNOWN,
    "XAdminUserNotFound": _UNKNOWN,  # versitygw
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the credentials Secret",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": _CLOCKS,
    "RequestExpired": _CLOCKS,
    "RequestInTheFuture": _CLOCKS,
}


def code(error: ClientError) -> str:
    """Returns the server's word for the fault; the HTTP status as text where it has none."""
    word = str(error.response.get("Error", {}).get("Code") or "")
    return word or str(_status(error))


def is_there(error: ClientError) -> bool:
    """Tells whether a conditional write found its object."""
    return code(error) in _EXISTS or _status(error) == http.HTTPStatus.PRECONDITION_FAILED


def is_lacking(error: ClientError) -> bool:
    """Tells whether the server does not have the operation."""
    return code(error) in _LACKING or _status(error) in (405, 501)


def may_pass(error: ClientError) -> bool:
    """Tells whether another try may help."""
    status, word = _status(error), code(error)
    if is_lacking(error) or word in _KNOWN_404:
        return False
    return status >= 500 or status in _PASSING_STATUS or word in _PASSING_CODES


def told(error: ClientError, url: str, key: str, *, conditional: bool = False) -> Exception:
    """Says what the fault means for the object `key` of the store at `url`. conditional: If-None-Match was asked for."""
    operation = error.operation_name
    if operation == "GetObject" and code(error) == "NoSuchKey":
        return Missing(key)
    if hint := _HINTS.get(code(error)):
        return BadInput(f"store {url}: {operation}: {hint}")
    if is_lacking(error):
        what = f"{operation} with If-None-Match: * (conditional writes)" if conditional else operation
        return BadInput(f"store {url}: does not implement {what}; use another store, or check the storage settings")
    line = f"store {url}: {key}: {operation}: {_answer(error)}"
    return Passing(line) if may_pass(error) else OSError(line)


def _status(error: ClientError) -> int:
    metadata = error.response.get("ResponseMetadata", {})
    return int(metadata.get("HTTPStatusCode") or 0)


def _answer(error: ClientError) -> str:
    """The status, its name or the code, and what the server says of it."""
    status, name = _status(error), code(error)
    with contextlib.suppress(ValueError):
        name = http.HTTPStatus(status).phrase if name == str(status) else name
    message = one_line(error.response.get("Error", {}).get("Message") or "", 300)
    return ": ".join(part for part in (f"HTTP {status} {name}" if status else name, message if message != name else "") if part)


@contextlib.contextmanager
def explained(url: str, key: str, *, conditional: bool = False) -> Iterator[None]:
    """Turns whatever the client raises into what the store's contract has."""
    try:
        yield
    except ClientError as error:
        raise told(error, url, key, conditional=conditional) from error
    except (CredentialRetrievalError, MetadataRetrievalError) as error:
        raise Passing(f"store {url}: no credentials: {one_line(error)}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise Passing(f"store {url}: unreachable: {one_line(error)}") from error
    except (IncompleteReadError, ChecksumError, FlexibleChecksumError, HTTPError) as error:
        raise Passing(f"store {url}: {key}: the answer broke off or came damaged: {with_kind(error)}") from error
    except (TooSlow, Boto3Error) as error:  # or a transfer in parts that was tried several times
        raise Passing(f"store {url}: {key}: {one_line(getattr(error, 'last_exception', None) or error)}") from error
    except BotoCoreError as error:
        raise BadInput(f"store {url}: {one_line(error)}; check the storage settings and the AWS credentials") from error
    except (ResponseParserError, KeyError, ValueError) as error:  # boto3 reads what is not there, and dates that are none
        raise Passing(f"store {url}: {key}: the answer is none of an S3 server: {with_kind(error)[:300]}") from error
