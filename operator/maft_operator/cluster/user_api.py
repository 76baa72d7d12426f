"""Requests that people's commands make with the rights of whoever calls them: by path, with answers as they come."""

import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
from kubernetes.aio.client import ApiClient

from maft_operator.cluster.kinds import Kind
from maft_operator.spec.schema import Json

ANSWER = 32 * 1024**2  # bytes of one answer at most
LINE = 4 * 1024**2  # bytes of a line of a stream at most: an object that is watched has half of it
TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)  # seconds of one request
_STREAM = aiohttp.ClientTimeout(total=None, connect=10)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"  # as `kubectl get` asks for lists
_FAULTS = (aiohttp.ClientError, OSError, TimeoutError)


class Unanswered(Exception):
    """There is no answer, or none that can be used. One line. code: the HTTP status; 0 where there is none."""

    def __init__(self, why: str, code: int = 0) -> None:
        super().__init__(why)
        self.code = code


def place(kind: Kind, namespace: str = "", name: str = "") -> str:
    """Writes the path of objects of that kind: of one namespace or all, or of one object."""
    within = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"/{kind.prefix}/{kind.api_version}{within}/{kind.plural}" + (f"/{name}" if name else "")


class UserApi:
    """An API server as one user sees it. Whatever goes wrong is Unanswered."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def json(self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json") -> Json:
        """Reads an object."""
        try:
            answer = json.loads(await self.get(path, query or {}, ANSWER, accept))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unanswered("the API server answered what is no object")
        return answer

    async def get(
        self,
        path: str,
        query: Mapping[str, str],
        most: int | None,
        accept: str = "application/json, text/plain",
        keep: int = ANSWER,
    ) -> bytes:
        """Reads an answer. most: bytes from which on it is refused; None: its end is wanted, the last `keep` bytes at least."""
        try:
            response = await self._open(path, query, accept, TIMEOUT)
            data = await _read(response, most, keep)
        except _FAULTS as error:
            raise _silence(error) from None
        if response.status != 200:
            raise Unanswered(_refusal(response.status, data), response.status)
        return data

    async def lines(
        self, path: str, query: Mapping[str, str], accept: str = "text/plain, application/json"
    ) -> AsyncIterator[bytes]:
        """Yields the lines of an answer as they come, without their ends."""
        try:
            response = await self._open(path, query, accept, _STREAM)
            if response.status != 200:
                raise Unanswered(_refusal(response.status, await _read(response, ANSWER, LINE)), response.status)
            left = b""
            async for chunk in response.content.iter_any():
                *whole, left = (left + chunk).split(b"\n")
                for line in whole:
                    yield line
                if len(left) > LINE:
                    raise Unanswered(f"a line of more than {LINE // 1024**2} MiB")
            if left:
                yield left
        except _FAULTS as error:
            raise _silence(error) from None

    async def _open(self, path: str, query: Mapping[str, str], accept: str, limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        request = await self._client.param_serialize(
            "GET", path, query_params=list(query.items()), header_params={"Accept": accept}, auth_settings=["BearerToken"]
        )
        response: aiohttp.ClientResponse = (await self._client.call_api(*request, _request_timeout=limit)).response
        return response


async def _read(response: aiohttp.ClientResponse, most: int | None, keep: int) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if most is None:
            del data[:-keep]
        elif len(data) > most:
            response.close()
            raise Unanswered(f"more than {most // 1024**2} MiB")
    return bytes(data)


def _silence(error: Exception) -> Unanswered:
    return Unanswered(f"the API server does not answer: {type(error).__name__}: {' '.join(str(error).split())}")


def _refusal(status: int, data: bytes) -> str:
    try:
        return f"{status}: {' '.join(str(json.loads(data)['message']).split())}"
    except (ValueError, TypeError, KeyError):
        return f"the API server answered {status}"
