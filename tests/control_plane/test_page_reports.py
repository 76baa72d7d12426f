"""Reports that the live page shows itself: which ones, from a real S3 server, and that nothing else is read or runs."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import test_report
from aiohttp import web
from conftest import free_port
from kubernetes.aio.client import ApiClient, Configuration
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from test_page import COMPARISON, NOW, Read, World, chromium
from yarl import URL

from maft.readable import FILES, Readable, is_place
from maft.report import reader
from maft.report.scripts import DEBATES, THEME, packaged, sha256
from maft.store.files import FileStore
from maft_operator.cluster import kinds
from maft_operator.cluster.user_api import UserApi
from maft_operator.page import others, server, view
from maft_operator.page.reports import Reader
from maft_operator.page.shown import shown
from maft_operator.spec.schema import Json

ENDPOINT = "http://s3.example:9000"
READABLE = Readable(ENDPOINT, ("bucket/runs", "whole"))
HTML = b"<!doctype html><title>a report</title><script>document.title='owned'</script>"


def ended(name: str = "one", report: str = "s3://bucket/runs/default/one/report/index.html", **storage: str) -> Json:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"storage": {"endpoint": ENDPOINT, "bucket": "bucket", "prefix": "runs", **storage}},
        "status": {"phase": "Complete", "completionTime": "2026-01-01T05:00:00Z", "artifacts": {"report": report}},
    }


# --- which ones ---


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ({}, "bucket/runs/default/one/report/"),
        ({"prefix": "runs/deep/er"}, "bucket/runs/deep/er/default/one/report/"),
        ({"prefix": "runs/"}, "bucket/runs/default/one/report/"),
        ({"endpoint": f"{ENDPOINT}/"}, "bucket/runs/default/one/report/"),
        ({"bucket": "whole", "prefix": ""}, "whole/default/one/report/"),
        ({"prefix": ""}, ""),
        ({"prefix": "runs2"}, ""),
        ({"prefix": "other/runs"}, ""),
        ({"prefix": "runs/../secret"}, ""),
        ({"prefix": "runs/./x"}, ""),
        ({"prefix": "runs//x"}, ""),
        ({"prefix": "runs/\n"}, ""),
        ({"bucket": "bucket2"}, ""),
        ({"bucket": "Whole"}, ""),
        ({"bucket": "bucket/runs", "prefix": ""}, "bucket/runs/default/one/report/"),  # no bucket of that name: the same file
        ({"bucket": ".."}, ""),
        ({"bucket": ""}, ""),
        ({"endpoint": ""}, ""),
        ({"endpoint": "https://s3.example:9000"}, ""),
        ({"endpoint": "http://s3.example:9001"}, ""),
        ({"endpoint": "http://evil.example"}, ""),
    ],
)
def test_a_report_is_read_where_its_storage_lies_within_what_the_chart_names(storage: dict[str, str], folder: str) -> None:
    assert shown(ended(**storage), READABLE).folder == folder


def test_without_an_endpoint_it_is_amazons() -> None:
    amazon = Readable("", ("bucket",))
    run = ended()
    assert shown(run, amazon).folder == "" and shown(run, READABLE).folder
    del run["spec"]["storage"]["endpoint"]
    assert shown(run, amazon).folder == "bucket/runs/default/one/report/" and shown(run, READABLE).folder == ""


def test_a_status_decides_nothing() -> None:
    elsewhere = ended(report="s3://other/secret/index.html")
    assert shown(elsewhere, READABLE).folder == "bucket/runs/default/one/report/"
    assert shown(ended(bucket="other"), READABLE).folder == ""
    unfinished = ended()
    del unfinished["status"]["completionTime"]
    assert shown(unfinished, READABLE).folder == "" and shown(ended(report=""), READABLE).folder == ""


@pytest.mark.parametrize(
    "path",
    [
        "bucket/runs/default/one/run.json",
        "bucket/runs/default/one/report/other.html",
        "bucket/runs/default/one/report/",
        "bucket/runs/default/one/report",
        "bucket/runs/default/one/report/compare.json",
        "bucket/runs/default/one/problems/report.json",
        "bucket/runs/default/one/../two/report/index.html",
        "bucket/runs/default/one//report/index.html",
        "bucket/runs2/default/one/report/index.html",
        "bucket/report/index.html",
        "whole/report/index.html",
        "/bucket/runs/default/one/report/index.html",
        "elsewhere/default/one/report/index.html",
        "",
    ],
)
def test_nothing_but_files_of_reports_is_read(path: str) -> None:
    assert not READABLE.allows(path)


def test_all_files_of_a_report_are() -> None:
    assert all(READABLE.allows(f"bucket/runs/a/b/{folder}/{name}") for folder, names in FILES.items() for name in names)


@pytest.mark.parametrize("place", ["s3://bucket", "bucket/", "bucket//x", "bucket/../x", "/x", "b", "B.x", "bucket/.", ""])
def test_a_place_is_a_bucket_with_or_without_a_prefix(place: str) -> None:
    assert not is_place(place) and is_place("bucket") and is_place("bucket/a b/c")


def test_the_link_leads_to_the_page_itself_where_it_may_read() -> None:
    text = view.page([shown(ended(), READABLE)], "", NOW, [others.comparison(compared(ENDPOINT), READABLE)])
    links = {attributes["href"] for tag, attributes in Read(text).elements if tag == "a"}
    assert links == {"/reports/default/one/index.html", "/comparisons/team/methods/index.html"}
    other = view.page([shown(ended(bucket="other"), READABLE)], "", NOW)
    assert [a["href"] for tag, a in Read(other).elements if tag == "a"] == [f"{ENDPOINT}/bucket/runs/default/one/report/index.html"]


def compared(endpoint: str) -> Json:
    return {**COMPARISON, "spec": {"template": {"storage": {"endpoint": endpoint, "bucket": "bucket", "prefix": "runs"}}}}


# --- from a real server ---


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server whose keys the reader has, with two reports in its bucket, and another one that it may not read."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    for key in (
        "runs/default/one/report/index.html",
        "runs/team/methods/compare/index.html",
        "secret/default/one/report/index.html",
    ):
        s3.client().put_object(Bucket=s3.bucket, Key=f"page/{key}", Body=HTML)
    s3.client().put_object(Bucket=s3.bucket, Key="page/runs/default/one/run.json", Body=b"{}")
    yield s3


@contextlib.asynccontextmanager
async def page(world: World, readable: Readable, socket: Path, *, there: bool = True) -> AsyncIterator[str]:
    """The page and the program that reads for it. there: does that run?"""
    api = web.Application()
    api.router.add_get("/{path:.*}", world.answer)
    async with contextlib.AsyncExitStack() as stack:
        if there:
            runner = web.AppRunner(reader.app(readable, "us-east-1"))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.UnixSite(runner, str(socket)).start()
        behind = await stack.enter_async_context(server.listening(api, "127.0.0.1", 0))
        client = await stack.enter_async_context(ApiClient(Configuration(host=f"http://127.0.0.1:{behind}")))
        looked = server.Looked(UserApi(client), (), reader=Reader(str(socket), readable))
        port = await stack.enter_async_context(server.listening(server.app(looked), server.LOOPBACK, 0))
        yield f"http://127.0.0.1:{port}"


def fetched(
    world: World, readable: Readable, socket: Path, *paths: str, there: bool = True, host: str = "localhost"
) -> list[tuple[int, bytes, dict[str, str]]]:
    async def scenario() -> list[tuple[int, bytes, dict[str, str]]]:
        async with page(world, readable, socket, there=there) as url, aiohttp.ClientSession() as session:
            answers = []
            for path in paths:
                async with session.get(URL(url + path, encoded=True), headers={"Host": host}) as response:
                    answers.append((response.status, await response.read(), dict(response.headers)))
            return answers

    return asyncio.run(scenario())


def place(server: S3Server) -> Readable:
    return Readable(server.endpoint, (f"{server.bucket}/page/runs",))


def run_of(server: S3Server, prefix: str = "page/runs", name: str = "one") -> Json:
    return ended(name, endpoint=server.endpoint, bucket=server.bucket, prefix=prefix)


@pytest.mark.s3
def test_reports_are_passed_on_for_a_browser_that_runs_no_script_of_theirs(bucket: S3Server, tmp_path: Path) -> None:
    world = World(run_of(bucket))
    of_runs = compared(bucket.endpoint)
    of_runs["spec"]["template"]["storage"] |= {"bucket": bucket.bucket, "prefix": "page/runs"}
    world.others = {kinds.COMPARISON.plural: [of_runs]}
    paths = ("/reports/default/one/index.html", "/comparisons/team/methods/index.html")
    for status, body, headers in fetched(world, place(bucket), tmp_path / "socket", *paths):
        assert (status, body, headers["Content-Type"]) == (200, HTML, "text/html; charset=utf-8")
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["sandbox"] == "allow-scripts" and policy["default-src"] == "'none'"  # no allow-same-origin
        assert policy["script-src"].split() == [f"'{sha256(packaged(name))}'" for name in (THEME, DEBATES)]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "Cross-Origin-Opener-Policy" not in headers  # with a sandbox, browsers refuse the document


@pytest.mark.s3
def test_nothing_else_of_the_bucket_is_read_with_its_key(bucket: S3Server, tmp_path: Path) -> None:
    world = World(run_of(bucket), run_of(bucket, "page/secret", "hidden"), run_of(bucket, "page/runs/../secret", "up"))
    paths = (
        "/reports/default/one/run.json",
        "/reports/default/one/..%2frun.json",
        "/reports/default/one/%2e%2e%2frun.json",
        "/reports/default/one/nested%2freport%2findex.html",
        "/reports/default/hidden/index.html",
        "/reports/default/up/index.html",
        "/reports/default/none/index.html",
        "/comparisons/default/one/index.html",
        "/reports/team/one/index.html",
    )
    answers = fetched(world, place(bucket), tmp_path / "socket", *paths)
    assert [status for status, _, _ in answers] == [404] * len(paths)
    assert all(HTML not in body for _, body, _ in answers)


@pytest.mark.s3
def test_the_reader_itself_reads_nothing_else(bucket: S3Server, tmp_path: Path) -> None:
    """Whatever it is asked."""

    async def scenario() -> list[int]:
        async with page(World(), place(bucket), tmp_path / "socket"):
            connector = aiohttp.UnixConnector(str(tmp_path / "socket"))
            async with aiohttp.ClientSession(connector=connector) as session:
                codes = []
                for path in (
                    "runs/default/one/report/index.html",
                    "runs/default/one/run.json",
                    "secret/default/one/report/index.html",
                ):
                    async with session.get(f"http://reader/{bucket.bucket}/page/{path}") as response:
                        codes.append(response.status)
                return codes

    assert asyncio.run(scenario()) == [200, 404, 404]


@pytest.mark.s3
def test_to_head_a_report_says_nothing_of_itself(bucket: S3Server, tmp_path: Path) -> None:
    """A body behind the headers would be read as the next answer of the connection."""

    async def scenario() -> list[int]:
        async with page(World(run_of(bucket)), place(bucket), tmp_path / "socket") as url, aiohttp.ClientSession() as session:
            codes = []
            for path, ask in (("/reports/default/one/index.html", session.head), ("/", session.head), ("/", session.get)):
                async with ask(f"{url}{path}", headers={"Host": "localhost"}) as response:
                    codes.append(response.status)
            return codes

    assert asyncio.run(scenario()) == [405, 200, 200]


@pytest.mark.s3
def test_names_of_other_hosts_get_no_report(bucket: S3Server, tmp_path: Path) -> None:
    ((status, body, _),) = fetched(
        World(run_of(bucket)), place(bucket), tmp_path / "socket", "/reports/default/one/index.html", host="evil.example"
    )
    assert status == 403 and HTML not in body


@pytest.mark.s3
def test_what_is_missing_or_too_large_is_said(bucket: S3Server, tmp_path: Path) -> None:
    key = "page/runs/default/large/report/index.html"
    bucket.client().put_object(Bucket=bucket.bucket, Key=key, Body=b"x" * (reader.LARGEST + 1))
    world = World(run_of(bucket), run_of(bucket, name="large"), run_of(bucket, name="gone"))
    paths = ("/reports/default/large/index.html", "/reports/default/gone/index.html", "/reports/default/one/report.json")
    (large, gone, lacking) = fetched(world, place(bucket), tmp_path / "socket", *paths)
    assert large[0] == 502 and b"more than 32 MiB" in large[1]
    assert gone[0] == lacking[0] == 404 and b"there is no such file" in gone[1]


@pytest.mark.s3
def test_a_key_that_does_not_reach_it_is_said_in_the_log(
    bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    ((status, body, _),) = fetched(World(run_of(bucket)), place(bucket), tmp_path / "socket", "/reports/default/one/index.html")
    assert status == 502 and b"the log of its container" in body and b"AWS" not in body
    assert "the secret key is wrong" in capfd.readouterr().err


@pytest.mark.tools
@pytest.mark.s3
def test_in_chromium_a_report_runs_its_own_scripts_alone(bucket: S3Server, tmp_path: Path) -> None:
    """Those of this release show the debates; what a tenant has put beside them does nothing."""
    browser = chromium(tmp_path)
    store = FileStore(tmp_path / "store")
    test_report.put_run(store)
    _, made, _ = test_report.make(store)
    stranger = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></body>"
    key = "page/runs/default/one/report/index.html"
    bucket.client().put_object(Bucket=bucket.bucket, Key=key, Body=made.replace("</body>", stranger).encode())

    async def scenario() -> str:
        async with page(World(run_of(bucket)), place(bucket), tmp_path / "socket") as url:
            line = [*browser, "--dump-dom", f"{url}/reports/default/one/index.html"]
            return (await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=120)).stdout

    document = asyncio.run(scenario())
    assert f"<title>{test_report.RUN} " in document and "<title>owned" not in document and "onerror=" in document
    assert '<button id="theme" type="button">Dark theme</button>' in document  # theme.js has run, and named it
    assert '<div id="cards"></div>' in made and '<div id="cards"></div>' not in document  # script.js has put the debates there


def test_a_reader_that_is_away_is_said(tmp_path: Path) -> None:
    ((status, body, _),) = fetched(World(ended()), READABLE, tmp_path / "socket", "/reports/default/one/index.html", there=False)
    assert status == 502 and b"does not answer" in body


def test_no_redirect_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "page")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "page")
    asked: list[str] = []
    port = free_port()

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{port}/elsewhere")

    async def scenario() -> int:
        store = web.Application()
        store.router.add_get("/{path:.*}", elsewhere)
        readable = Readable(f"http://127.0.0.1:{port}", ("bucket",))
        run = ended(endpoint=readable.endpoint)
        async with (
            server.listening(store, "127.0.0.1", port),
            page(World(run), readable, tmp_path / "socket") as url,
            aiohttp.ClientSession() as session,
            session.get(f"{url}/reports/default/one/index.html") as response,
        ):
            return response.status

    assert asyncio.run(scenario()) == 502 and set(asked) == {"/bucket/runs/default/one/report/index.html"}


@pytest.mark.programs
@pytest.mark.s3
def test_the_program_listens_until_it_is_told_to_end(bucket: S3Server, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    command = [sys.executable, "-m", "maft.report.reader", f"--socket={socket}", f"--endpoint={bucket.endpoint}"]
    program = subprocess.Popen([*command, f"--read={bucket.bucket}/page/runs", "--region=us-east-1"], stderr=subprocess.PIPE)
    try:
        while not socket.exists() and program.poll() is None:
            time.sleep(0.05)
        ((status, body, _),) = fetched(World(run_of(bucket)), place(bucket), socket, "/reports/default/one/index.html", there=False)
    finally:
        program.send_signal(signal.SIGTERM)
        _, complaints = program.communicate(timeout=30)
    assert (status, body, program.returncode, complaints) == (200, HTML, 0, b"")


@pytest.mark.programs
def test_a_place_that_is_none_is_refused_in_a_line() -> None:
    command = [sys.executable, "-m", "maft.report.reader", "--socket=s", "--read=s3://bucket"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (
        (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1 and "--read s3://bucket: expected" in done.stderr
    )
