"""The operator's port over TLS: with a certificate of our own, which is renewed while somebody reads; and what cannot be used."""

import asyncio
import hashlib
import logging
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from certified import certified, fingerprint
from conftest import free_port
from prometheus_client import CollectorRegistry

from maft.certificate import Certificate
from maft_operator.cluster import health


async def read(port: int, authority: Path) -> tuple[int, str]:
    """The status of the metrics, asked by somebody who trusts that certificate alone, and the one that was shown."""
    context = ssl.create_default_context(cafile=str(authority))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status, hashlib.sha256(shown).hexdigest()


def test_metrics_are_read_by_who_trusts_the_certificate_and_a_new_one_is_taken_up(tmp_path: Path) -> None:
    files = certified(tmp_path)
    before = fingerprint(files[0])
    own, port = Certificate(*files), free_port()

    async def scenario() -> None:
        runner = await health.serve(port, lambda: "", lambda encode: encode(CollectorRegistry()), None, own.context)
        follows = asyncio.create_task(own.follow(pause=0.01))
        try:
            assert await read(port, files[0]) == (200, before)
            with pytest.raises(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics"):
                    pass
            certified(tmp_path, "renewed")
            after = fingerprint(files[0])
            assert after != before
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await read(port, files[0]))[1] == after
                        break
                    except ssl.SSLCertVerificationError:  # not seen yet
                        continue
        finally:
            follows.cancel()
            await runner.cleanup()

    asyncio.run(scenario())


def test_a_certificate_that_cannot_be_used_leaves_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = certified(tmp_path)
    own, before = Certificate(*files), fingerprint(files[0])
    authority = tmp_path / "ca.crt"
    authority.write_bytes(files[0].read_bytes())
    other = certified(tmp_path / "other")
    files[1].write_bytes(other[1].read_bytes())  # half of a change: the key of another one
    with caplog.at_level(logging.WARNING, "maft"):
        own.look()
    assert "cannot be used, and the one before stays" in caplog.text
    files[0].unlink()
    own.look()

    async def scenario() -> None:
        port = free_port()
        runner = await health.serve(port, lambda: "", lambda encode: encode(CollectorRegistry()), None, own.context)
        try:
            assert await read(port, authority) == (200, before)
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


def test_a_key_behind_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    hidden = tmp_path / "hidden.key"
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", hidden], check=True)
    with pytest.raises(OSError, match="the key is behind a passphrase; write it without one"):
        Certificate(certificate, hidden)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (("--metrics-tls-cert=x",), 2, "--metrics-tls-cert, --metrics-tls-key: one without the other; give both"),
        (("--metrics-tls-key=x",), 2, "one without the other"),
    ],
)
def test_what_is_asked_for_by_halves_is_refused(flags: tuple[str, ...], code: int, line: str) -> None:
    command = [sys.executable, "-m", "maft_operator", "operator", "--images=r.io/maft", "--port", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, line in done.stderr, "Traceback" in done.stderr) == (code, True, False)
