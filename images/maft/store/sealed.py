"""Lines of JSON with a checksum in them, for objects that no commit vouches for: `{"crc":"0a1b2c3d",` and what the line had.

Readers that do not know of it pass it over as a field more; lines without it are read as before.
"""

import re
import zlib

_SEAL = re.compile(rb'\{"crc":"([0-9a-f]{8})",')


def seal(line: bytes) -> bytes:
    """Puts its checksum into the JSON object of a line, which has at least one field."""
    return b'{"crc":"%08x",' % zlib.crc32(line) + line[1:]


def is_sealed(line: bytes) -> bool:
    """Tells whether a line says what its checksum is."""
    return _SEAL.match(line) is not None


def is_whole(line: bytes) -> bool:
    """Tells whether a sealed line is what was written."""
    seal = _SEAL.match(line)
    return seal is not None and zlib.crc32(b"{" + line[seal.end() :]) == int(seal[1], 16)
