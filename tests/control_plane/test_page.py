"""The live page: what it shows, that nothing of it is anybody else's markup, who gets it, and how it looks in a browser."""

import asyncio
import base64
import contextlib
import hashlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from conftest import free_port
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client import ApiClient, Configuration
from PIL import Image

from maft_operator.cluster import kinds
from maft_operator.cluster.user_api import UserApi
from maft_operator.page import others, server, view
from maft_operator.page.curve import MOST, Point, curve
from maft_operator.page.shown import Shown, shown
from maft_operator.spec.schema import Json

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = '</title></style></code><script>document.title="owned"</script><img src=x onerror=alert(1)>"\' onload=x \u202e\x1b[2J'


def run(name: str = "one", namespace: str = "default", created: str = "2026-01-01T00:00:00Z", **status: object) -> Json:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"storage": {"endpoint": "http://s3.example:9000"}}, "status": status}


WORKING = run(
    "working",
    phase="Training",
    iteration={"text": "1/2"},
    progress={"percent": 40, "text": "40 %, 5m00s left", "stage": "iteration 1: training"},
    accuracy={"mean": 0.9, "stderr": 0.02, "text": "90.0 ± 2.0"},
    baseAccuracy={"text": "40.0 ± 1.0"},
    spent={"text": "2:05 h, 3.1 GPU h"},
    iterations=[
        {"iteration": 0, "accuracy": {"mean": 0.5, "stderr": 0.03}, "promptTokens": 1000, "completionTokens": 234},
        {"iteration": 1, "accuracy": {"mean": 0.9, "stderr": 0.02}},
    ],
)
COMPLETE = run(
    "complete",
    phase="Complete",
    completionTime="2026-01-01T05:00:00Z",
    artifacts={"report": "s3://bucket/runs/default/complete/report/index.html"},
    conditions=[{"type": "Complete", "status": "True", "reason": "Succeeded", "message": "done"}],
)
FAILED = run(
    "failed",
    "team",
    phase="Failed",
    completionTime="2026-01-01T06:00:00Z",
    conditions=[{"type": "Failed", "status": "True", "reason": "SourceMissing", "message": "no such file"}],
)


def written(*runs: Json, fault: str = "") -> str:
    return view.page([shown(r) for r in runs], fault, NOW)


class Read(HTMLParser):
    """What a browser would make of it: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


# --- what it shows ---


def test_runs_that_go_on_come_first_then_those_that_ended_last() -> None:
    text = written(COMPLETE, WORKING, FAILED)
    assert [text.index(f"{name}</th>") for name in ("working", "failed", "complete")] == sorted(
        text.index(f"{name}</th>") for name in ("working", "failed", "complete")
    )
    words = Read(text).words
    for part in ("3 runs", "1/2", "iteration 1: training", "90.0 ± 2.0", "40.0 ± 1.0", "3.1 GPU h", "1,234 tokens", "2026-01-02"):
        assert part in words, part
    assert "SourceMissing: no such file" in words and "Succeeded" not in words and "iteration 1: 90.0 ± 2.0 %" in words


def test_a_report_is_a_link_where_a_browser_can_follow_it() -> None:
    (link,) = [attributes for tag, attributes in Read(written(COMPLETE)).elements if tag == "a"]
    assert link["href"] == "http://s3.example:9000/bucket/runs/default/complete/report/index.html"
    assert link["rel"] == "noreferrer noopener"
    amazon = {**COMPLETE, "spec": {"storage": {}}}
    assert "<code>s3://bucket/runs/default/complete/report/index.html</code>" in written(amazon)


@pytest.mark.parametrize(
    "endpoint", ["javascript:alert(1)//", "http://x/y", 'http://x" onclick="y', "http://user@x", "data:text/html,x"]
)
def test_no_link_leads_elsewhere(endpoint: str) -> None:
    assert "<a " not in written({**COMPLETE, "spec": {"storage": {"endpoint": endpoint}}})


def test_many_runs_and_many_iterations_make_a_page_of_bounded_size() -> None:
    rows = [{"iteration": i, "accuracy": {"mean": 0.5, "stderr": 0.1}} for i in range(1000)]
    many = [run(f"r{i}", phase="Training", iterations=rows if i < 3 else []) for i in range(2000)]
    text = written(*many)
    assert f"{2000 - view.MOST} older runs are not shown" in text and len(text) < 1_000_000
    drawing = str(curve([Point(i, 0.5, 0.1) for i in range(1000)]))
    assert drawing.count("<circle") == MOST


def test_a_fault_is_said_beside_what_is_known() -> None:
    assert 'role="alert">403: may not</p>' in written(WORKING, fault="403: may not") and "No runs." in written()


# --- whose markup it is ---


def hostile() -> Json:
    """Every text that a user or a strange writer of a status can set."""
    text = {"text": HOSTILE, "percent": 7, "stage": HOSTILE}
    return {
        "metadata": {"name": HOSTILE, "namespace": HOSTILE, "creationTimestamp": HOSTILE},
        "spec": {"storage": {"endpoint": HOSTILE}},
        "status": {
            "phase": HOSTILE, "iteration": text, "progress": text, "accuracy": text, "baseAccuracy": text, "spent": text,
            "completionTime": HOSTILE, "artifacts": {"report": HOSTILE},
            "conditions": [{"type": "Failed", "status": "True", "reason": HOSTILE, "message": HOSTILE}],
            "iterations": [{"iteration": 1, "accuracy": {"mean": 0.5, "stderr": 0.1}}],
        },
    }  # fmt: skip


def test_what_users_write_is_text() -> None:
    text = written(hostile(), fault=HOSTILE)
    plain = Read(written(run(), fault="x"))
    read = Read(text)
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in plain.elements} | {
        "svg", "title", "line", "path", "circle", "code", "small",
    }  # fmt: skip
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on") or name in ("src", "style")]
    assert 'document.title="owned"' in read.words and "\u202e" not in text and "\x1b" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["text", "mean", "stderr", "accuracy", "iteration", "x"]), inner)
    ),
)
STATUS = st.dictionaries(
    st.sampled_from(
        ["phase", "iteration", "progress", "accuracy", "spent", "iterations", "conditions", "artifacts", "completionTime"]
    ),
    JSON,
)


@given(STATUS, JSON)
def test_any_status_gives_a_page(status: Json, rest: object) -> None:
    several = [shown({"metadata": rest, "status": status}), shown({"status": rest}), shown(run())]
    text = view.page(several, "", NOW)
    assert text.count("<tr>") == 4 and "<script" not in text


@given(st.lists(st.builds(Point, st.integers(), st.floats(), st.floats())))
def test_any_points_are_drawn_inside(points: list[Point]) -> None:
    drawing = str(curve(points) or "")
    lines = drawing.rpartition("</title>")[2]
    assert "nan" not in lines and "inf" not in lines
    assert all(0 <= float(y) <= 56 for y in re.findall(r' (?:y1|y2|cy)="([^"]+)"', drawing))


def test_it_needs_no_other_host_and_allows_none() -> None:
    text = written(WORKING, FAILED)
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe|<form", text)
    policy = view.HEADERS["Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None and base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy


# --- who gets it ---


class World:
    """An API server: its runs in pages of two, or of as many as are asked for, or a refusal. asked: how often for runs;
    others: what it has of other kinds, by plural, or the code that it answers."""

    def __init__(self, *runs: Json, page: int = 2) -> None:
        self.runs, self.refusal, self.asked, self.page = list(runs), 0, 0, page
        self.others: dict[str, list[Json] | int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if (plural := request.path.rpartition("/")[2]) != kinds.RUN.plural:
            return self._others(self.others.get(plural, 404))
        self.asked += 1
        if self.refusal:
            return web.json_response({"message": "may not list"}, status=self.refusal)
        start, page = int(request.query.get("continue", "0")), min(self.page, int(request.query["limit"]))
        more = {"continue": str(start + page)} if start + page < len(self.runs) else {}
        return web.json_response({"metadata": more, "items": self.runs[start : start + page]})

    def _others(self, there: list[Json] | int) -> web.Response:
        if isinstance(there, int):
            return web.json_response({"message": "may not list these"}, status=there)
        return web.json_response({"metadata": {}, "items": there})


@contextlib.asynccontextmanager
async def served(world: World, clock=None) -> AsyncIterator[str]:
    api = web.Application()
    api.router.add_get("/{path:.*}", world.answer)
    async with contextlib.AsyncExitStack() as stack:
        behind = await stack.enter_async_context(server.listening(api, "127.0.0.1", 0))
        client = await stack.enter_async_context(ApiClient(Configuration(host=f"http://127.0.0.1:{behind}")))
        runs = server.Looked(UserApi(client), ("default",), *([clock] if clock else []))
        port = await stack.enter_async_context(server.listening(server.app(runs), server.LOOPBACK, 0))
        yield f"http://127.0.0.1:{port}"


def asked(world: World, *looks: dict[str, str], clock=None) -> list[tuple[int, str, dict[str, str]]]:
    async def scenario() -> list[tuple[int, str, dict[str, str]]]:
        answers = []
        async with served(world, clock) as url, aiohttp.ClientSession() as session:
            for headers in looks:
                async with session.get(url, headers=headers) as response:
                    answers.append((response.status, await response.text(), dict(response.headers)))
        return answers

    return asyncio.run(scenario())


def test_all_pages_of_the_list_are_shown_with_its_headers() -> None:
    ((status, text, headers),) = asked(World(WORKING, COMPLETE, FAILED, run("a"), run("b")), {})
    assert status == 200 and "5 runs" in text
    assert view.HEADERS.items() <= headers.items() and headers["Content-Type"].startswith("text/html")


def test_runs_as_large_as_etcd_takes_them_are_shown() -> None:
    long = {"iterations": [{"iteration": 1, "words": "x" * (3 << 19)}]}
    ((status, text, _),) = asked(World(*(run(f"r{number}", **long) for number in range(25)), page=1000), {})
    assert status == 200 and "25 runs" in text and "MiB" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example:1", "localhost.evil:1", ""])
def test_a_name_of_another_host_is_refused(host: str) -> None:
    world = World(WORKING)
    ((status, text, _),) = asked(world, {"Host": host})
    assert status == 403 and "working" not in text and world.asked == 0


@pytest.mark.parametrize("host", ["localhost", "localhost:8090", "127.0.0.1:1", "[::1]:8090"])
def test_names_of_this_host_are_not(host: str) -> None:
    assert asked(World(WORKING), {"Host": host})[0][0] == 200


def test_many_who_look_ask_the_cluster_once() -> None:
    world, moment = World(WORKING), iter((0.0, 1.0, server.FRESH - 0.1, server.FRESH + 0.1, server.FRESH + 0.2))
    asked(world, {}, {}, {}, {}, clock=lambda: next(moment))
    assert world.asked == 2


def test_a_cluster_that_refuses_is_told_and_what_was_there_stays() -> None:
    world = World(WORKING)
    world.refusal = 403
    ((status, text, _),) = asked(world, {})
    assert status == 502 and "403: may not list" in text

    later = World(WORKING)
    moments = iter((0.0, 100.0, 100.0))

    def clock() -> float:
        later.refusal = 0 if later.asked == 0 else 503
        return next(moments)

    _, (status, text, _) = asked(later, {}, {}, clock=clock)
    assert status == 200 and "503: may not list" in text and "working" in text


COMPARISON = {
    "metadata": {"name": "methods", "namespace": "team"},
    "spec": {"template": {"storage": {"endpoint": "http://s3.example:9000"}}},
    "status": {
        "phase": "Complete",
        "runs": {"text": "6/6"},
        "best": {"text": "multiagent 91.0"},
        "table": "method       accuracy\nmultiagent   91.0 ± 1.7\n",
        "report": "s3://bucket/runs/team/methods/compare/index.html",
    },
}
WAITING = {"type": "Ready", "status": "False", "reason": "RunUnfinished", "message": "run r goes on"}
SOCIETY = {
    "metadata": {"name": "s", "namespace": "team"},
    "spec": {"run": "arithmetic"},
    "status": {"phase": "Waiting", "iteration": 2, "ready": "0/1", "url": "http://s.team.svc/v1", "conditions": [WAITING]},
}


def test_comparisons_and_societies_have_their_own_tables() -> None:
    world = World(WORKING)
    world.others = {kinds.COMPARISON.plural: [COMPARISON], kinds.SOCIETY.plural: [SOCIETY]}
    ((status, text, _),) = asked(world, {})
    read = Read(text)
    assert status == 200 and "1 runs" in text
    for part in ("team/methods", "6/6", "multiagent 91.0", "multiagent   91.0 ± 1.7\n", "RunUnfinished: run r goes on", "0/1"):
        assert part in read.words, part
    (link,) = [attributes for tag, attributes in read.elements if tag == "a"]
    assert link["href"] == "http://s3.example:9000/bucket/runs/team/methods/compare/index.html"


def test_a_comparison_says_which_of_its_runs_wait_and_why() -> None:
    rows = [{"run": "methods-a-0"}, {"run": "methods-a-1", "reason": "Queued"}, {"method": "b", "seed": 3, "reason": "NameTaken"}]
    text = view.page([], "", NOW, [others.comparison({"status": {"rows": rows}})])
    assert [small for small in re.findall("<small>(.*?)</small>", text) if small] == ["methods-a-1: Queued", "b, seed 3: NameTaken"]
    many = others.comparison({"status": {"rows": [{"run": f"r-{i}", "reason": "Queued"} for i in range(others.HELD + 7)]}})
    assert many.held[-2:] == (f"r-{others.HELD - 1}: Queued", "and 7 more")


@pytest.mark.parametrize("code", [403, 404])
def test_kinds_that_the_cluster_does_not_know_or_show_are_left_out(code: int) -> None:
    world = World(WORKING)
    world.others = {kinds.COMPARISON.plural: code, kinds.SOCIETY.plural: [SOCIETY]}
    ((status, text, _),) = asked(world, {})
    assert status == 200 and "Comparisons" not in text and "Societies" in text and "alert" not in text


def test_another_fault_of_theirs_is_said() -> None:
    world = World(WORKING)
    world.others = {kinds.COMPARISON.plural: 500}
    ((status, text, _),) = asked(world, {})
    assert status == 200 and "500: may not list these" in text and "working" in text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_any_status_of_theirs_gives_a_page(status: object) -> None:
    for read in (others.comparison, others.society):
        read({"status": status, "metadata": status, "spec": status})
    view.page([], "", NOW, [others.comparison({"status": status})], [others.society({"status": {"conditions": status}})])


def test_what_users_write_of_them_is_text() -> None:
    words = {"text": HOSTILE}
    status = dict.fromkeys(("phase", "table", "report", "ready", "url"), HOSTILE) | {"runs": words, "best": words}
    thing = {"metadata": hostile()["metadata"], "spec": {"run": HOSTILE}, "status": status}
    text = view.page([], "", NOW, [others.comparison(thing)], [others.society(thing)])
    assert not {"script", "img"} & {tag for tag, _ in Read(text).elements}
    assert "\u202e" not in text and "\x1b" not in text


def test_the_page_for_probes_says_nothing_of_runs() -> None:
    async def scenario() -> tuple[str, int]:
        async with server.listening(server.health(), None, free_port()) as port, aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
                text = await response.text()
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                return text, response.status

    assert asyncio.run(scenario()) == ("ok\n", 404)


# --- in a browser ---

THEMES = {"light": 1, "dark": 0}


def chromium(folder: Path, theme: str = "light") -> list[str]:
    """The browser with its flags and a folder of its own."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    return [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--window-size=1400,700",
        f"--user-data-dir={folder / theme}",
        f"--blink-settings=preferredColorScheme={THEMES[theme]}",
        "--virtual-time-budget=2000",
    ]


def look(folder: Path, theme: str, *runs: Json) -> tuple[Path, str, str]:
    """A picture of the page, a comparison and a society on it, in Chromium; the document after it was loaded, and complaints."""
    browser, picture = chromium(folder, theme), folder / f"{theme}.png"

    async def scenario() -> tuple[str, str]:
        world = World(*runs)
        held = [{"run": "methods-debate-0", "reason": "Queued"}]
        compared = {**COMPARISON, "status": {**COMPARISON["status"], "rows": held}}
        world.others = {kinds.COMPARISON.plural: [compared], kinds.SOCIETY.plural: [SOCIETY]}
        async with served(world) as url:
            shot = await asyncio.to_thread(
                subprocess.run, [*browser, f"--screenshot={picture}", url], capture_output=True, text=True, timeout=120
            )
            document = await asyncio.to_thread(
                subprocess.run, [*browser, "--dump-dom", url], capture_output=True, text=True, timeout=120
            )
            return document.stdout, shot.stderr

    return picture, *asyncio.run(scenario())


@pytest.mark.tools
@pytest.mark.parametrize("theme", THEMES)
def test_in_chromium(theme: str, tmp_path: Path) -> None:
    picture, document, complaints = look(tmp_path, theme, WORKING, COMPLETE, FAILED)
    assert "methods-debate-0: Queued" in document and "multiagent   91.0 ± 1.7" in document and "RunUnfinished" in document
    assert "<title>maft: 3 runs</title>" in document and "</line><path" in document and "</line></line>" not in document
    assert "Content Security Policy" not in complaints and "Refused to" not in complaints
    with Image.open(picture) as image:
        corner = image.convert("L").getpixel((3, 3))
        shades = {shade for _, shade in image.convert("L").getcolors(256)}
        blue = sum(number for number, (r, g, b) in image.convert("RGB").getcolors(1 << 20) if b > r + 60)
    assert corner > 240 if theme == "light" else corner < 40
    assert len(shades) > 40 and blue > 1000  # words, a bar and a curve are there, in that theme's colours


@pytest.mark.tools
def test_strange_words_in_chromium(tmp_path: Path) -> None:
    _, document, complaints = look(tmp_path, "light", hostile())
    assert "<title>maft: 1 runs</title>" in document and "<script" not in document and "<img" not in document
    assert "Content Security Policy" not in complaints and "Refused to" not in complaints


def _contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_words_can_be_read_in_both_themes() -> None:
    themes = re.findall(r":root \{([^}]*)\}", view.STYLE)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for name in ("text", "quiet", "mark", "good", "bad", "still"):
            assert _contrast(colours[name], colours["back"]) >= 4.5, name


def test_all_of_it_is_typed() -> None:
    assert isinstance(shown({}), Shown) and shown({}).phase == "Pending"
