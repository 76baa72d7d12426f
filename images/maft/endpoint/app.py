"""The routes: chat completions and models as OpenAI has them, health, readiness and metrics."""

import asyncio
import sys
import time
import traceback
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from maft.endpoint import answer
from maft.endpoint.admission import AGAIN, Admission
from maft.endpoint.answer import Answer, Writing
from maft.endpoint.answering import Society, unknown
from maft.endpoint.kept import Kept
from maft.endpoint.keys import Keys
from maft.endpoint.measured import Measured
from maft.endpoint.refused import Refused
from maft.endpoint.request import Asked, read
from maft.endpoint.stream import KEEP_ALIVE, Events
from maft.errors import one_line
from maft.records import Turn
from maft.society_spec import SocietySpec

BODY = 4 << 20  # bytes of a request
_LONG = 10_000  # characters, whose tokens are counted within a few milliseconds
_ROUTES = "POST /v1/chat/completions and GET /v1/models"
GONE = 499  # the status, in metrics alone, of a request whose client went
_KEY, _MODEL, _STATUS = web.RequestKey("key", str), web.RequestKey("model", str), web.RequestKey("status", int)
_SECONDS = web.RequestKey("seconds", int)  # that the answer may take


@dataclass(slots=True)
class Endpoint:
    """What answers. society: None until its agents have answered for the first time."""

    spec: SocietySpec
    models: tuple[str, ...]
    keys: Keys | None
    kept: Kept
    measured: Measured
    admission: Admission
    society: Society | None = None
    started: int = field(default_factory=lambda: int(time.time()))
    keep_alive: float = KEEP_ALIVE
    """Seconds between two signs of life in a stream."""

    def application(self) -> web.Application:
        """Makes the routes."""
        app = web.Application(middlewares=[self._explained, self._authenticated], client_max_size=BODY)
        app.add_routes([web.post("/v1/chat/completions", self._chat), web.get("/v1/models", self._models)])
        app.add_routes([web.get(r"/v1/models/{model:.+}", self._one_model), web.get("/health", self._health)])
        app.add_routes([web.get("/ready", self._ready), web.get("/metrics", self._metrics)])
        return app

    def _refused(self, request: web.Request, error: Exception) -> Refused:
        return refused(error, request.get(_SECONDS, self.spec.timeout_seconds))

    # --- middleware ---

    @web.middleware
    async def _explained(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors as OpenAI's clients read them; counts requests of the API."""
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            self._count(request, GONE)
            raise
        except Exception as error:
            refusal = self._refused(request, error)
            response = web.json_response(refusal.body, status=refusal.status, headers=refusal.headers, dumps=_dumps)
        if self.admission.ending:  # clients that keep a connection go on elsewhere
            response.force_close()
        self._count(request, request.get(_STATUS, response.status))
        return response

    def _count(self, request: web.Request, status: int) -> None:
        if request.path.startswith("/v1/"):
            self.measured.requests.labels(request.get(_MODEL, ""), str(status)).inc()

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.keys and request.path.startswith("/v1/"):
            name = self.keys.name(request.headers.get("Authorization", ""))
            if name is None:
                text = "the API key is missing or none of this society's; send `Authorization: Bearer KEY`"
                raise Refused(401, text, code="invalid_api_key")
            request[_KEY] = name
        return await handler(request)

    # --- answers ---

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        asked = read(await http.read())
        if asked.model in self.models:
            http[_MODEL] = asked.model
        http[_SECONDS] = self._seconds(asked)
        with self.admission.admitted(http.get(_KEY, "")):
            assert self.society is not None, "ready"
            one = self.society.is_of_one_agent(asked)
            prompt = await self._prompt(asked)  # what is refused is no stream
            alone = prompt if one else None
            return await (self._streamed(http, asked, alone) if asked.stream else self._whole(http, asked, alone))

    def _seconds(self, asked: Asked) -> int:
        """Returns what the answer may take; Refused for more than the society allows."""
        seconds, most = asked.maft.timeout_seconds, self.spec.timeout_seconds
        if seconds is not None and seconds > most:
            text = f"maft.timeoutSeconds: {seconds}; the society allows {most}, ask for no more"
            raise Refused(400, text, param="maft.timeoutSeconds")
        return seconds or most

    async def _prompt(self, asked: Asked) -> list[int]:
        """Makes the prompt. The tokens of a long one take seconds, in which others are answered; a short one is not worth a
        thread."""
        assert self.society is not None
        if asked.characters < _LONG:
            return self.society.prompt(asked)
        return await asyncio.to_thread(self.society.prompt, asked)

    async def _whole(self, http: web.Request, asked: Asked, alone: list[int] | None) -> web.Response:
        started = time.monotonic()
        async with asyncio.timeout(http[_SECONDS]):
            result = await (self._heard(asked, alone) if alone else self._debated(asked, None))
        self.measured.answered(asked.model, result, time.monotonic() - started)
        return web.json_response(_writing(asked).whole(result), dumps=_dumps)

    async def _heard(self, asked: Asked, prompt: list[int]) -> Answer:
        assert self.society is not None
        hearing = self.society.hearing(asked)
        async for piece in self.society.one(asked, prompt):
            hearing.hear(piece)
        return hearing.answer()

    async def _debated(self, asked: Asked, turns: "asyncio.Queue[Any] | None") -> Answer:
        assert self.society is not None
        rounds = [0] * self.society.served.players.size

        def listen(agent: int, turn: Turn) -> None:
            rounds[agent] += 1
            if turns is not None:
                turns.put_nowait(answer.turn(agent, turn, rounds[agent]))

        transcript = await self.society.debate(asked, listen)
        result = self.society.answer(asked, transcript)
        decided = result.debate is not None and not result.debate["abstained"]  # else nobody may learn it
        if asked.store and decided and not self.society.setup.checker.runs_programs:  # a row of programs has inputs
            self.kept.add(transcript)
        return result

    async def _streamed(self, http: web.Request, asked: Asked, alone: list[int] | None) -> web.StreamResponse:
        """A stream: what goes wrong in it is its last event. alone: the prompt of one agent, whose first word begins it."""
        writing, started = _writing(asked), time.monotonic()
        events = Events(http, writing.chunk({"role": "assistant", "content": ""}))
        alive = asyncio.create_task(events.keep_alive(self.keep_alive))
        try:
            async with asyncio.timeout(http[_SECONDS]):  # the sending too: who asked may not read
                if not alone:
                    await events.send()
                result = await (self._speak(events, writing, asked, alone) if alone else self._show(events, writing, asked))
                await events.send(writing.last(result), *([writing.used(result)] if asked.stream_options.include_usage else []))
                await events.end()
        except ConnectionResetError:  # whoever asked went
            http[_STATUS] = GONE
        except Exception as error:
            if not events.begun:
                raise
            refusal = self._refused(http, error)
            http[_STATUS] = refusal.status
            await events.break_off(refusal.body)
        else:
            self.measured.answered(asked.model, result, time.monotonic() - started)
        finally:
            alive.cancel()
        return events.response

    async def _speak(self, events: Events, writing: Writing, asked: Asked, prompt: list[int]) -> Answer:
        assert self.society is not None
        hearing = self.society.hearing(asked)
        async with aclosing(self.society.one(asked, prompt)) as pieces:  # who went is nobody to write for, from this moment on
            async for piece in pieces:
                if new := hearing.hear(piece):
                    await events.send(writing.chunk({"content": new}))
        return hearing.answer()

    async def _show(self, events: Events, writing: Writing, asked: Asked) -> Answer:
        turns: asyncio.Queue[Any] = asyncio.Queue()
        debate = asyncio.create_task(self._debated(asked, turns))
        debate.add_done_callback(lambda _: turns.put_nowait(None))
        try:
            while turn := await turns.get():
                if asked.maft.progress:
                    await events.send(writing.chunk({}, maft={"turn": turn}))
            result = await debate
        finally:
            debate.cancel()
        await events.send(writing.chunk({"content": result.text}))
        return result

    # --- the rest ---

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._listed(model) for model in self.models]})

    async def _one_model(self, http: web.Request) -> web.Response:
        model = http.match_info["model"]
        if model not in self.models:
            raise unknown(model, self.models)
        return web.json_response(self._listed(model))

    def _listed(self, model: str) -> dict[str, Any]:
        return {"id": model, "object": "model", "created": self.started, "owned_by": "maft"}

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        if self.admission.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"{self.admission.why_not or 'ending'}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.measured.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def refused(error: Exception, seconds: int) -> Refused:
    """Says what whoever asked is told of an error. seconds: that an answer may take."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, web.HTTPNotFound | web.HTTPMethodNotAllowed):
        return Refused(error.status, f"no such route ({error.reason}); there are {_ROUTES}")
    if isinstance(error, web.RequestPayloadError):
        return Refused(400, f"the body of the request cannot be read: {one_line(error)}")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Refused(error.status, f"the request has more than {BODY:,} bytes; send a shorter chat")
    if isinstance(error, web.HTTPException):
        return Refused(error.status, one_line(error.text or error.reason))
    if isinstance(error, TimeoutError):
        return Refused(408, f"the answer took longer than the {seconds} s of timeoutSeconds; ask for less", code="timeout")
    if isinstance(error, OSError):  # of the servers: patience has ended
        return Refused(503, one_line(error), after=AGAIN)
    traceback.print_exception(error, file=sys.stderr)
    return Refused(500, "an error that nobody foresaw; the log of the endpoint has it")


def _writing(asked: Asked) -> Writing:
    return Writing.begun(f"chatcmpl-{uuid4().hex}", asked.model)


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()
