"""Child processes that cannot outlive us: own session, own log, killed by the kernel when we die."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE = 20.0  # seconds between SIGTERM and SIGKILL, as pods have; vLLM needs about one
TASK_GRACE = 60.0  # the same of a task, as training pods have: it may write a checkpoint of gigabytes
TAIL = 6  # lines of a log that a failure shows
_ERROR = re.compile(r"\b\w*(Error|Exception): ")


class Child:
    """One process with its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """Returns None while it runs; negative: killed by that signal."""
        return self._process.returncode

    @property
    def pid(self) -> int:
        """Returns the process id, also of its session."""
        return self._process.pid

    async def stop(self, grace: float = GRACE) -> None:
        """Ends the process and all it started: asked first, then killed. grace: seconds in between."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace)
        # What it started may still be there after it went.
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def tail(self) -> list[str]:
        """Reads the last lines of its log that say something; before them the last that names an error, if none of them does."""
        text = self.log.read_bytes()[-200_000:].decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        named = [line for line in lines[:-TAIL] if _ERROR.search(line)][-1:]
        return [*([] if any(_ERROR.search(line) for line in lines[-TAIL:]) else named), *lines[-TAIL:]]


async def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Starts the command. It gets SIGKILL if this process ends in any way (prctl PR_SET_PDEATHSIG, set by setpriv)."""
    setpriv = shutil.which("setpriv")
    if not setpriv:
        raise FileNotFoundError("setpriv is missing; install the package util-linux")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(setpriv, "--pdeathsig", "KILL", "--", *command),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we end the children in order
        )
    return Child(process, log)
