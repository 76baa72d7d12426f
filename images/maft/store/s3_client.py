"""The client of an S3 server, by boto3: what it is to do, how long it waits, and that it follows no redirect."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from maft.errors import BadInput, one_line
from maft.store.pace import PACE, Pace, Paced

CONNECT = 4.0  # seconds until an address has to accept


@dataclass(frozen=True, slots=True)
class Requests:
    """How a request is sent."""

    attempts: int
    """How often, in a row."""
    silence: float
    """Seconds without a byte after which an attempt has failed."""
    pace: Pace = PACE
    """At which an object's bytes have to come."""


PATIENT = Requests(3, 60.0)  # putting the parts of a large object together takes some time
ONCE = Requests(1, 12.0)
_REDIRECTS = {301, 302, 307, 308}  # at 303, urllib3 fails


def client(url: str, endpoint: str | None, region: str | None, requests: Requests) -> Any:
    """Makes the client of the store at `url`; BadInput where the settings cannot be right."""
    try:  # a session of its own: the default one cannot be shared by threads
        made: Any = boto3.Session().client("s3", endpoint_url=endpoint, region_name=region, config=_config(endpoint, requests))
    except (BotoCoreError, ValueError) as error:
        raise BadInput(f"store {url}: {one_line(error)}; check the storage settings and the AWS configuration") from error
    if endpoint:  # AWS itself redirects to other regions, and boto3 knows what to do then
        made.meta.events.register("before-parse.s3", _Redirects(url))
    made.meta.events.register("before-parse.s3.GetObject", _Pacing(requests.pace))
    return made


class _Redirects:
    """Refuses to go where an endpoint points: what follows would be signed for another host, or come back here for ever."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, response_dict: dict[str, Any], **_: Any) -> None:
        if response_dict["status_code"] not in _REDIRECTS:
            return
        headers = response_dict["headers"]
        if region := headers.get("x-amz-bucket-region"):
            raise BadInput(f"store {self._url}: the bucket is in the region {one_line(region, 60)}; correct storage.region")
        where = _place(str(headers.get("location") or ""))
        raise BadInput(f"store {self._url}: the endpoint redirects to {where or 'another place'}; correct storage.endpoint")


class _Pacing:
    """Has objects come at a pace, those too that boto3 fetches in parts of its own."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def __call__(self, response_dict: dict[str, Any], **_: Any) -> None:
        body = response_dict["body"]
        if response_dict["status_code"] < 300:  # else it is the text of a fault
            body._raw_stream = Paced(body._raw_stream, self._pace)  # boto3 has no other place for it


def _place(location: str) -> str:
    """Where a redirect leads, without names of objects and what a query may hide."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return one_line(f"{parts.scheme}://{host}" if parts.scheme and host else parts.path, 120)


def _config(endpoint: str | None, requests: Requests) -> Config:
    """What boto3 is to do; with an endpoint of its own, only what every S3 server understands."""
    # Checksums beyond the required ones and virtual hosts are AWS features that other servers often lack.
    compatible: dict[str, Any] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},
    }
    retries = {"total_max_attempts": requests.attempts, "mode": "standard"}
    return Config(connect_timeout=CONNECT, read_timeout=requests.silence, retries=retries, **(compatible if endpoint else {}))
