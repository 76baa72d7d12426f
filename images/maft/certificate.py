"""The certificate of a port, the operator's or a society's: read at the start, and again whenever its files change.

A Secret that is mounted changes its files within a minute; connections that are open keep the certificate that they began with.
"""

import asyncio
import logging
import ssl
from pathlib import Path

log = logging.getLogger("maft")
LOOK = 15.0  # seconds between two looks at the files


class Certificate:
    """Certificate and key as PEM files, in a context for servers. OSError where they cannot be used."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._read = self._stamps()
        _load(self.context, certificate, key)

    async def follow(self, pause: float = LOOK) -> None:
        """Reads the files again when they have changed, until cancelled."""
        while True:
            await asyncio.sleep(pause)
            self.look()

    def look(self) -> None:
        """Reads them if they have changed. Those that cannot be used, as in the midst of a change, leave the old ones in force."""
        try:
            if (stamps := self._stamps()) == self._read:
                return
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *self._files)  # a key of another certificate would stay in ours
            _load(self.context, *self._files)
        except OSError as error:  # SSLError is one
            log.warning("the certificate %s cannot be used, and the one before stays: %s", self._files[0], error)
            return
        self._read = stamps
        log.info("the certificate %s is read anew", self._files[0])

    def _stamps(self) -> list[tuple[int, int]]:
        return [(stat.st_mtime_ns, stat.st_ino) for stat in (file.stat() for file in self._files)]


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Reads both; OSError where they cannot be used, also for a passphrase, which OpenSSL would wait for at a terminal."""
    context.load_cert_chain(certificate, key, password=_refuse)


def _refuse() -> str:
    raise OSError("the key is behind a passphrase; write it without one, with `openssl pkey`")
