"""Files of reports, which another program reads for the page.

That program (`maft.report.reader`) has the key of the buckets and nothing else; this one has the rights in the cluster and no key.
"""

from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from maft.readable import Readable
from maft_operator.page.view import HEADERS

_TIMEOUT = aiohttp.ClientTimeout(total=120)  # seconds of one file
_PASSED = ("Content-Type", "Content-Length", "Content-Security-Policy")
# A sandboxed document with Cross-Origin-Opener-Policy is refused by browsers; its origin is one of its own anyway.
_HEADERS = {name: value for name, value in HEADERS.items() if name != "Cross-Origin-Opener-Policy"}


@dataclass(frozen=True, slots=True)
class Reader:
    """The program that reads them. socket: where it listens; readable: what it may read."""

    socket: str
    readable: Readable


async def passed_on(reader: Reader, path: str, request: web.Request) -> web.StreamResponse:
    """Answers with the file at /BUCKET/KEY, as it comes."""
    url = URL(f"http://reader/{quote(path)}", encoded=True)
    connector = aiohttp.UnixConnector(reader.socket)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False) as session:
        try:
            answer = await session.get(url, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return web.Response(status=502, text="the program that reads reports does not answer\n", headers=_HEADERS)
        headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        passed = web.StreamResponse(status=answer.status, headers={**_HEADERS, **headers})
        await passed.prepare(request)
        async for chunk in answer.content.iter_any():
            await passed.write(chunk)
        return passed
