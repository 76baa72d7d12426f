"""A way for benchmarks alone to empty a server's prefix cache: maft's servers close that route of vLLM's (resolver.Closed)."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

ROUTE = "/reset_prefix_cache"


class Forgetful:
    """ASGI middleware around all others: answers this one request."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes every other request on."""
        if scope["type"] != "http" or scope["path"] != ROUTE:
            await self._app(scope, receive, send)
            return
        done = await scope["app"].state.engine_client.reset_prefix_cache()
        await send({"type": "http.response.start", "status": 200 if done in (True, None) else 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})
