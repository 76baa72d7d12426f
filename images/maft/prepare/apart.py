"""What models bring along is tried in a process of its own: a template may never end, and a damaged tokenizer may end its reader.

The child has limits of time and memory. What it says, or how it died, comes back as one line.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from maft.errors import BadInput, one_line

SECONDS = 20  # of processor time: loading the largest tokenizers takes some
MEMORY = 4 << 30  # bytes beside what the program has already
_SAID = 4000  # bytes; a pipe holds them without a reader


def tried(work: Callable[[], object], what: str, *, seconds: int = SECONDS, memory: int = MEMORY) -> None:
    """Does the work in a child; BadInput if it fails in any way. what: names it, such as `model.source: the template of m`."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if not (child := os.fork()):
        _child(work, what, writer, seconds, memory)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            message = pipe.read().decode(errors="replace")
    except BaseException:  # this program is told to stop
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if message or status:
        raise BadInput(message or f"{what} {_death(status, seconds)}")


def _child(work: Callable[[], object], what: str, writer: int, seconds: int, memory: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit(seconds, memory)
        work()
        code = 0
    except BadInput as error:
        _say(writer, str(error))
    except MemoryError:
        _say(writer, f"{what} needs more than {memory >> 20} MiB of memory")
    except BaseException as error:  # also the panics of tokenizers, which are no Exception
        _say(writer, f"{what} fails: {one_line(error, 300)}")
    finally:
        os._exit(code)


def _limit(seconds: int, memory: int) -> None:
    with open("/proc/self/statm") as sizes:
        now = int(sizes.read().split()[0]) * resource.getpagesize()
    for limit, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, now + memory), (resource.RLIMIT_CORE, 0)):
        most = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _say(writer: int, text: str) -> None:
    os.write(writer, text.encode(errors="replace")[:_SAID])


def _death(status: int, seconds: int) -> str:
    if status == -signal.SIGXCPU:
        return f"does not end within {seconds} s of processor time"
    return f"ends its process with {signal.Signals(-status).name if status < 0 else f'code {status}'}"
