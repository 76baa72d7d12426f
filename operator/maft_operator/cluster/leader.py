"""One operator at a time: a Lease of kubernetes.aio's leader election, with what its documentation leaves to the caller.

A renewal that hangs must not outlive the lease, so the age of the last one is watched from outside; and a leader that stops
gives the lease back, so that another takes over at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

log = logging.getLogger("maft")
LEASE, RENEW, RETRY = 15, 10, 2  # seconds: how long a lease holds, when its holder gives up, between two tries
_NETWORK = (aiohttp.ClientError, OSError, TimeoutError)


class _Lock(LeaseLock):  # type: ignore[misc]
    """The library lets faults of the network through, and the election would end at the first one."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            return await super().get(name, namespace)
        except _NETWORK as error:
            return False, ApiException(status=0, reason=f"{type(error).__name__}: {error}")

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        # Not super().create(): in 37.0.1 it passes a bool where the client takes a string only.
        body = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except (ApiException, *_NETWORK):
            return False  # somebody was faster, or the next try says what is wrong
        return True

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            return bool(await super().update(name, namespace, updated_record))
        except _NETWORK:
            return False


class Leadership:
    """Takes part in an election. held: set once we lead; lost: set when we may no longer write."""

    def __init__(self, api: ApiClient, namespace: str, name: str, identity: str) -> None:
        self.held, self.lost = asyncio.Event(), asyncio.Event()
        self._api = api
        self._namespace, self._name = namespace, name
        lock = _Lock(name, namespace, identity, api)
        self._election = LeaderElection(Config(lock, LEASE, RENEW, RETRY, self._start, self._stop))

    async def _start(self) -> None:
        self.held.set()
        await self.lost.wait()

    async def _stop(self) -> None:
        self.lost.set()

    @contextlib.asynccontextmanager
    async def contested(self) -> AsyncIterator["Leadership"]:
        """Takes part in the election as long as the block lasts."""
        tasks = [asyncio.create_task(self._contest()), asyncio.create_task(self._watch())]
        try:
            yield self
        finally:
            holding = self.held.is_set() and not self.lost.is_set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if holding:
                await self._release()

    async def _contest(self) -> None:
        try:
            await self._election.run()
        except Exception:
            log.exception("the leader election failed")
        finally:
            self.lost.set()

    async def _watch(self) -> None:
        await self.held.wait()
        while (left := RENEW + RETRY - (time.time() - self._election.observed_time_milliseconds / 1000)) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lost.wait(), left)
                return
        self.lost.set()

    async def _release(self) -> None:
        """Gives the lease back: an empty holder lets the next candidate in at once. If this fails, the lease runs out."""
        body = {"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}
        with contextlib.suppress(Exception):
            await client.CoordinationV1Api(self._api).patch_namespaced_lease(
                self._name, self._namespace, body, _request_timeout=2, _content_type="application/merge-patch+json"
            )
