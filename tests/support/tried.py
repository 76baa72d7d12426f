"""Pages tried as a new user would: their fenced blocks, and the commands in these, run in a folder that looks like the checkout.

A block that begins with the comment `# for example` needs what tests have not (the hub, somebody's names), and is not run.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from small import ROOT

SERVING, COMPARING, KUEUE = (ROOT / "docs" / f"{name}.md" for name in ("serving", "comparing", "kueue"))
EXAMPLE = "# for example"
_PROGRAMS = {"maft": "maft_operator", "kubectl-maft": "maft_operator.kubectl"}
_WITH_US = ("setpriv", "--pdeathsig", "INT", "--")  # it ends where the tests are ended
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. section: the heading above it."""

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines that a shell is given, continued ones in one."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    heads = [(head.start(), head[1]) for head in re.finditer(r"^#+ (.+)$", _FENCED.sub(_blank, text), re.MULTILINE)]
    return [Block([h for at, h in heads if at < one.start()][-1], one[1], one[2]) for one in _FENCED.finditer(text)]


def _blank(block: "re.Match[str]") -> str:
    return " " * len(block[0])


def of(page: Path, section: str, language: str = "sh") -> list[Block]:
    """The blocks below a heading that are not examples."""
    several = [one for one in blocks(page) if (one.section, one.language) == (section, language)]
    return [one for one in several if not one.text.startswith(EXAMPLE)]


def calls(command: str) -> list[list[str]]:
    """The words of each program that a line of a shell calls."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, several = True, [list[str]()]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            several.append([])
        else:
            several[-1].append(word)
    return [words for words in several if words]


def checkout(folder: Path) -> Path:
    """A folder with the examples and, as after `make env`, the programs in .venv/bin."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in _PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def on_cluster(kubeconfig: Path, kubectl: str, namespace: str, folder: Path) -> "Terminal":
    """A terminal in a checkout, with kubectl and a context of the namespace."""
    config = yaml.safe_load(kubeconfig.read_text())
    for one in config["contexts"]:
        one["context"]["namespace"] = namespace
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    checkout(folder)
    (folder / ".venv" / "bin" / "kubectl").symlink_to(kubectl)
    return Terminal(folder, {"KUBECONFIG": str(folder / "kubeconfig")})


@dataclass(frozen=True)
class Terminal:
    """Where a user types. variables: of the environment."""

    folder: Path
    variables: Mapping[str, str]

    def run(self, line: str, limit: float = 600) -> str:
        """What the command prints; fails where it does."""
        done = subprocess.run(**self._call(line), capture_output=True, text=True, timeout=limit)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def until_interrupted(self, line: str) -> "Iterator[Going]":
        """The command in a terminal of its own, which gets Ctrl-C at the end."""
        log = self.folder / f"{line.split(maxsplit=1)[0].rpartition('/')[2]}.txt"
        with log.open("w") as output:
            process = subprocess.Popen(**self._call(line, *_WITH_US), stdout=output, stderr=output, start_new_session=True)
        going = Going(process, log)
        try:
            yield going
        finally:
            going.interrupt()

    def _call(self, line: str, *before: str) -> dict[str, object]:
        path = os.pathsep.join([str(self.folder / ".venv" / "bin"), os.environ["PATH"]])
        return {"args": [*before, "bash", "-c", line], "cwd": self.folder, "env": {**os.environ, "PATH": path, **self.variables}}


@dataclass(frozen=True)
class Going:
    """A command that goes on."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
