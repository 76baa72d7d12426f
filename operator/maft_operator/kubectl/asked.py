"""What the commands ask the API server about runs, with the user's rights."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import part, parts, text
from maft_operator.cluster.reasons import line
from maft_operator.cluster.user_api import TABLE, Unanswered, UserApi, place
from maft_operator.spec.schema import BadSpec, Json

KINDS = {"runs": kinds.RUN, "comparisons": kinds.COMPARISON, "societies": kinds.SOCIETY}  # by what `--kind` calls them
CHOSEN = {kind.plural: name for name, kind in KINDS.items()}
WORDS = {kinds.RUN.plural: "run", kinds.COMPARISON.plural: "comparison", kinds.SOCIETY.plural: "society"}
PAGE = 500  # objects of one answer, as kubectl asks
AGAIN = 1.0  # seconds before a watch that ended is opened again
_GONE = 410  # the watch knows nothing that old any more
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Where:
    """Which runs, or objects of another kind. namespace: empty for all."""

    api: UserApi
    namespace: str
    kind: kinds.Kind = kinds.RUN

    @property
    def word(self) -> str:
        """Names the kind as people say it."""
        return WORDS[self.kind.plural]

    async def run(self, name: str) -> Json:
        """Reads one by its name; BadSpec where there is none."""
        try:
            return await self.api.json(place(self.kind, self.namespace, name))
        except Unanswered as error:
            if error.code != _NOT_FOUND:
                raise
            flag = "" if self.kind == kinds.RUN else f" --kind {CHOSEN[self.kind.plural]}"
            hint = f"`kubectl maft list -A{flag}` shows all"
            raise BadSpec(f"{self.word} {self.namespace}/{name}: there is none of that name; {hint}") from None

    async def pages(self, selector: str) -> AsyncIterator[Json]:
        """Yields the list as tables, page by page."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        token = ""
        while True:
            table = await self.api.json(
                place(self.kind, self.namespace), {**query, **({"continue": token} if token else {})}, TABLE
            )
            yield table
            if not (token := text(table, "metadata", "continue")):
                return

    async def changes(self, query: Mapping[str, str]) -> AsyncIterator[tuple[str, Json]]:
        """Yields what is there as one table (`LISTED`), then each change (`ADDED`, `MODIFIED`, `DELETED`) as a table of one row.

        It goes on for ever: a watch that ends is opened again, one that is too old begins anew."""
        version = ""
        while True:
            if not version:
                listed = await self.api.json(place(self.kind, self.namespace), query, TABLE)
                version = text(listed, "metadata", "resourceVersion")
                yield "LISTED", listed
            async for kind, table in self._watch({**query, "resourceVersion": version}):
                if kind == "ERROR":
                    version = ""
                    break
                version = _version(table) or version
                if kind != "BOOKMARK":
                    yield kind, table
            await asyncio.sleep(AGAIN)

    async def _watch(self, query: Mapping[str, str]) -> AsyncIterator[tuple[str, Json]]:
        opened = False
        try:
            async for line in self.api.lines(
                place(self.kind, self.namespace), {**query, "watch": "true", "allowWatchBookmarks": "true"}, TABLE
            ):
                opened = True
                event = json.loads(line)
                if text(event, "type") == "ERROR" and event.get("object", {}).get("code") != _GONE:
                    raise Unanswered(text(event, "object", "message"))
                yield text(event, "type"), part(event, "object")
        except ValueError:  # half a line of a stream that was cut
            return
        except Unanswered as error:
            if error.code == _GONE:
                yield "ERROR", {}
            elif error.code or not opened:  # a stream that is cut is opened again; one that cannot be opened is told
                raise

    async def children(self, kind: kinds.Kind, selector: str) -> list[Json]:
        """Lists objects of that kind by labels."""
        return parts(await self.api.json(place(kind, self.namespace), {"labelSelector": selector}), "items")


def _version(table: Json) -> str:
    rows = parts(table, "rows")
    return text(table, "metadata", "resourceVersion") or (text(rows[-1], "object", "metadata", "resourceVersion") if rows else "")


def failure(run: Json) -> str:
    """Says why it failed or was rejected; empty where it was not."""
    telling = (("Failed", "True"), ("Accepted", "False"))
    conditions = [c for c in parts(run, "status", "conditions") if (text(c, "type"), text(c, "status")) in telling]
    with contextlib.suppress(IndexError):
        return line(f"{text(conditions[0], 'reason')}: {text(conditions[0], 'message')}")
    return ""
