"""A vLLM plug-in: an adapter that a server does not know is fetched from the store at the first request that names it.

vLLM calls `register` in its API server, its engine and its workers (entry point group `vllm.general_plugins`), with the
store and the run in the environment (`maft.serve` sets them). `Closed` is the middleware that shuts routes: those that load
adapters by hand, which vLLM opens together with run-time adapters, and those that answer without the servers' key.
Source: vLLM, "LoRA resolver plugins" (docs, design section).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what this imports is heavy, and every vLLM loads the plug-in
    from maft.store.base import Store

STORE, RUN, FOLDER = "MAFT_STORE", "MAFT_RUN", "MAFT_ADAPTERS"
_GUARDED = "/v1/"  # vLLM wants its key there
_CLOSED = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")  # they accept any local path
_OPEN = ("/health", "/ping", "/version", "/load", "/metrics")  # to everybody; what else there is (/invocations) asks the model


def register() -> None:
    """Registers the resolver: the plug-in's entry point. Does nothing in a vLLM that was not started by `maft.serve`."""
    if STORE not in os.environ:
        return
    if os.environ.get("MAFT_DIE_WITH_PARENT"):
        from maft import pod

        pod.die_with_parent()  # no engine outlives its API server
    from vllm.lora.resolver import LoRAResolverRegistry

    LoRAResolverRegistry.register_resolver("maft", make_resolver(os.environ[STORE], os.environ[RUN], Path(os.environ[FOLDER])))


def make_resolver(store_url: str, run: str, folder: Path) -> Any:
    """Makes a LoRAResolver over one run's adapters. Fetched directories stay: vLLM reads them again after an eviction."""
    from fastapi import HTTPException
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver

    from maft.errors import BadInput
    from maft.store.urls import open_store

    fetch = partial(_fetch, open_store(store_url), run, folder)
    threads = ThreadPoolExecutor(8, thread_name_prefix="maft-resolver")  # a hung store must not starve vLLM's own pool

    class MaftResolver(LoRAResolver):  # type: ignore[misc]
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
            try:
                path = await asyncio.get_running_loop().run_in_executor(threads, fetch, lora_name)
            except BadInput as error:  # it will not mend itself: clients stop, and say why
                raise HTTPException(422, f"adapter {lora_name}: {error}") from error
            except OSError as error:  # clients try again; any other exception would become a 400 or 500 and keep them from it
                raise HTTPException(503, f"adapter {lora_name}: {error}") from error
            return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path)) if path else None

    return MaftResolver()


def _fetch(store: "Store", run: str, folder: Path, name: str) -> Path | None:
    """Fetches the adapter of that name as a directory; None where there is none of that name and those weights."""
    from maft import adapters
    from maft.store.commits import committed, fetch_folder

    located = adapters.locate(name, run)
    commit = committed(store, located[0]) if located else None
    if located is None or commit is None:
        return None
    if not commit.file(adapters.WEIGHTS).sha256.startswith(located[1]):
        return None  # that name belonged to other weights
    return fetch_folder(store, commit, folder / name)


def is_open(path: str) -> bool:
    """Tells whether a server of a run has that route."""
    path = path.rstrip("/")
    return path in _OPEN or (path.startswith(_GUARDED) and not path.startswith(_CLOSED))


class Closed:
    """ASGI middleware: 403 on the routes that are closed."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes every other request on."""
        if scope["type"] == "http" and not is_open(scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"closed; adapters are loaded by their names\n"})
            return
        await self._app(scope, receive, send)
