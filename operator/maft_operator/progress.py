"""How far a running task is, as its own metrics say. A failed read is never an error."""

import re

import aiohttp

_PROGRESS = re.compile(r"^maft_progress_(done|expected) ([0-9.e+]+)$", re.MULTILINE)


async def read(session: aiohttp.ClientSession, url: str) -> tuple[float, float] | None:
    """Reads units of work done and in all; None where the task does not say."""
    try:
        async with session.get(url) as response:
            values = dict(_PROGRESS.findall(await response.text()))
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        return None
    return (float(values["done"]), float(values["expected"])) if float(values.get("expected", 0)) else None
