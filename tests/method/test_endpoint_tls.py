"""The society over TLS: by `maft serve`, with a certificate that is renewed while clients ask; and what cannot be used."""

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.request
from hashlib import sha256
from pathlib import Path

import pytest
from certified import certified, fingerprint
from conftest import MOCK, free_port
from societies import RUN, ask, endpoint, trained

from maft.certificate import LOOK
from maft.society_spec import SocietySpec
from maft_operator.local import ask as asking
from maft_operator.local import place, society

pytestmark = pytest.mark.programs


def shown(url: str) -> str:
    """The certificate that a client meets."""
    host, _, port = url.removeprefix("https://").partition(":")
    return sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))).hexdigest()


def answered(url: str, authority: Path) -> bool:
    """Whether the society answers who trusts that certificate alone."""
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(ask("society")).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60, context=ssl.create_default_context(cafile=str(authority))) as response:
        return bool(json.loads(response.read())["choices"][0]["message"]["content"])


def test_it_answers_by_https_alone_and_takes_up_a_new_certificate(tmp_path: Path) -> None:
    trained(tmp_path / "store")
    files = certified(tmp_path / "tls")
    wanted = society.Wanted(
        place.parse(f"{tmp_path}/store/{RUN}"),
        0,
        SocietySpec(),
        tmp_path,
        tls=(str(files[0]), str(files[1])),
        serve=(sys.executable, str(MOCK)),
    )

    async def scenario() -> None:
        async with society.running(wanted, society.facts(wanted), print) as running:
            url, lines = running.url, list[str]()
            assert url.startswith("https://127.0.0.1:")
            assert await asyncio.to_thread(answered, url, files[0])
            with pytest.raises(asking.Unanswered, match="certificate"):
                await asking.ask(url, "What is 2+3?", "society", lines.append)
            await asking.ask(url, "What is 2+3?", "society", lines.append, anybody=True)  # as kubectl maft ask does
            assert "margin" in lines[-1]
            with pytest.raises(OSError):
                await asyncio.to_thread(urllib.request.urlopen, url.replace("https", "http") + "/health", None, 10)
            before = await asyncio.to_thread(shown, url)
            certified(tmp_path / "tls", "renewed")
            assert before != fingerprint(files[0])
            async with asyncio.timeout(2 * LOOK):
                while await asyncio.to_thread(shown, url) != fingerprint(files[0]):
                    await asyncio.sleep(0.2)
            assert await asyncio.to_thread(answered, url, files[0])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("tls", "line"),
    [
        (("a", ""), "--tls-cert, --tls-key: one without the other; give both"),
        (("", "a"), "--tls-cert, --tls-key: one without the other; give both"),
        (
            ("missing.crt", "missing.key"),
            "--tls-cert missing.crt: [Errno 2] No such file or directory: 'missing.crt'; give a certificate and its key",
        ),
        (("swapped.key", "swapped.crt"), "give a certificate and its key as PEM files"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, tls: tuple[str, str], line: str) -> None:
    trained(tmp_path / "store")
    if tls[0] == "swapped.key":
        certificate, key = certified(tmp_path)
        tls = str(key), str(certificate)
    flags = [f"{flag}={value}" for flag, value in zip(("--tls-cert", "--tls-key"), tls, strict=True) if value]
    command = endpoint(tmp_path / "store", free_port(), "http://127.0.0.1:9", None, *flags)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, line in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
