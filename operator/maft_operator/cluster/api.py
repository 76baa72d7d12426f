"""The few requests to the API server that the operator makes, by kind (kinds.py)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from kubernetes.aio.dynamic.resource import Resource

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import MANAGER
from maft_operator.cluster.metrics import Metrics
from maft_operator.spec.schema import Json

TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)  # seconds of one request
MOST = 16 * 1024 * 1024  # bytes of one answer, decoded up to ten times of that: a run of a thousand Jobs and pods has two thirds
FREE = 256 * 1024  # bytes of an answer that are read beside others; one that goes on is the only one that does
FAULTS = (aiohttp.ClientError, OSError, TimeoutError)


class Refused(Exception):
    """The API server will not have an object, and asking again will not help. code: the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """Requests by kind. Faults of the network and 5xx come out as FAULTS, refusals (400, 403, 409, 422) as Refused.

    Writes are server-side apply with our own field manager. Of large answers one at a time is read and decoded, so those under way
    together take the memory of one, and of the first FREE bytes of the others."""

    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        self._dynamic = DynamicClient(client)
        self._requests = metrics.requests
        self._resources = {kind.name: _resource(kind, self._dynamic) for kind in kinds.ALL}
        self._large = asyncio.Lock()  # of the one answer that may have more than FREE bytes

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """Gets the object, or None."""
        return await self._ask("get", kind.name, name=name, namespace=namespace)

    async def list(self, kind: Kind, namespace: str | None, **selectors: str) -> list[Json]:
        """Lists objects; items of a list lack their kind."""
        return [*(await self.list_served(kind, namespace, **selectors) or ())]

    async def list_served(self, kind: Kind, namespace: str | None, **selectors: str) -> Sequence[Json] | None:
        """Lists objects; None where the API server does not serve that kind in that version."""
        answer = await self._ask("get", kind.name, namespace=namespace, **selectors)
        return None if answer is None else answer.get("items") or []

    async def list_all(self, kind: Kind, namespace: str, page: int = 100, **selectors: str) -> Sequence[Json]:
        """Lists objects that may be many and large, so many to a request."""
        return [item async for item in self._paged(kind, namespace, page, **selectors)]

    async def versions(self, kind: Kind, namespace: str | None, page: int = 500) -> dict[str, str]:
        """Lists the resourceVersion of every object of a parent kind by key, without the rest of it; so many to a request."""
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        versions: dict[str, str] = {}
        async for item in self._paged(kind, namespace, page, header_params={"accept": accept}):
            about = item["metadata"]
            versions[kinds.key(kind, about["namespace"], about["name"])] = about["resourceVersion"]
        return versions

    async def _paged(self, kind: Kind, namespace: str | None, page: int, **arguments: Any) -> AsyncIterator[Json]:
        token: str | None = ""
        while token is not None:
            more = {"_continue": token} if token else {}
            answer = await self._ask("get", kind.name, namespace=namespace, limit=page, **arguments, **more) or {}
            for item in answer.get("items") or []:  # null where there are none
                yield item
            token = answer.get("metadata", {}).get("continue") or None

    async def served(self, kind: Kind, namespace: str | None) -> bool:
        """Tells whether the API server knows a kind of ours in our version."""
        return await self._ask("get", kind.name, namespace=namespace, limit=1) is not None

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        """Creates it, as it is."""
        return await self._ask("create", body["kind"], body=body, namespace=namespace) or {}

    async def apply(self, body: Json) -> Json:
        """Applies it on the server; fields that others set against us are taken back."""
        return await self._apply(body) or {}

    async def apply_status(self, body: Json) -> Json | None:
        """Applies the status; None if the resource has gone."""
        return await self._apply(body, "/status")

    async def patch_status(self, resource: Json, status: Json) -> Json | None:
        """Merges that into the status; None if the resource has gone.

        For what apply cannot do: to give a field another type. Refused with 409 where the resource is not that version any more.
        """
        metadata = resource["metadata"]
        return await self._ask(
            "patch",
            kinds.RUN.name,
            body={"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status},
            name=f"{metadata['name']}/status",
            namespace=metadata["namespace"],
            field_manager=MANAGER,
            content_type="application/merge-patch+json",
        )

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        """Deletes it, dependents in the background; one that is not there, or is another by now, is no error."""
        body = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            await self._ask("delete", kind.name, name=name, namespace=namespace, body=body)
        except Refused as error:
            if error.code != 409:
                raise

    async def _apply(self, body: Json, subresource: str = "") -> Json | None:
        return await self._ask(
            "server_side_apply",
            body["kind"],
            body=body,
            name=body["metadata"]["name"] + subresource,
            namespace=body["metadata"]["namespace"],
            field_manager=MANAGER,
            force_conflicts=True,
        )

    async def _ask(self, verb: str, kind: str, **arguments: Any) -> Json | None:
        try:
            response = await getattr(self._dynamic, verb)(
                self._resources[kind], serialize=False, _request_timeout=TIMEOUT, **arguments
            )
            answer = await self._decoded(response, kind)
            self._requests.labels(verb, kind, str(response.status)).inc()
            return answer
        except FAULTS as error:
            self._requests.labels(verb, kind, type(error).__name__).inc()
            raise
        except (ApiException, DynamicApiError) as error:
            self._requests.labels(verb, kind, _code(error)).inc()
            if error.status == 404:
                return None
            raise _raised(error) from error

    async def _decoded(self, response: aiohttp.ClientResponse, kind: str) -> Json:
        """Reads the answer. Whoever may make objects with a run's label decides how long a list of them is.

        One that is large waits for its turn and holds nothing that others wait for; its TIMEOUT goes on meanwhile."""
        data = bytearray()
        async with contextlib.AsyncExitStack() as turn:
            turn.callback(response.close)
            turn.callback(data.clear)  # an exception would keep it for as long as somebody keeps that
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) - len(chunk) <= FREE < len(data):
                    await turn.enter_async_context(self._large)
                if len(data) > MOST:
                    raise Refused(413, f"{kind} objects with its label take more than {MOST // 1024**2} MiB")
            answer: Json = json.loads(data)
        return answer


def _resource(kind: Kind, client: DynamicClient) -> Resource:
    return Resource(
        prefix=kind.prefix,
        group=kind.group,
        api_version=kind.version,
        kind=kind.name,
        name=kind.plural,
        namespaced=kind.namespaced,
        client=client,
    )


def _raised(error: Any) -> Exception:
    """Turns an answer that is no success into one of our two kinds of exceptions."""
    message = _message(error)
    # Server-side apply answers 500 where a field has a name that no schema knows.
    # A webhook that does not answer is a 500 too: whoever waits for it is to be told.
    if error.status in (400, 403, 409, 422) or any(
        words in message for words in ("not declared in schema", "failed calling webhook")
    ):
        return Refused(error.status, message)
    return OSError(f"the API server answered {error.status}: {message}")


def _code(error: Any) -> str:
    """What a request counts under: a quota, a policy or a webhook answers 403, too, and goes by the reason that the run is told."""
    reason = reasons.refusal_reason(_message(error))
    return str(error.status) if error.status != 403 or reason is reasons.FORBIDDEN else reason.name


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"
