"""Makes what tests need before the test runner starts: `prepare.py [NEED...] [-- COMMAND...]`.

No step has a limit of time: the first time, or on a machine that does other work too, it takes as long as it takes. Each says a
line when it takes more than a moment, and when it is ready. What waits for the network goes beside what keeps the processors busy;
one Go build at a time, for each uses all of them.

With a COMMAND, runs that then, ends the cluster if it was not up before, and exits as the command did: that is `make test`.
conftest.py calls it for the tests that were chosen. Runs under the system's Python: the project's environment is made here too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tests" / "support" / "cluster"
sys.path.append(str(CLUSTER))

import host  # noqa: E402
from settings import CACHE, KUBECONFIG  # noqa: E402

LOGS = ROOT / ".cache" / "prepare"
LOG_TAIL = 3000  # characters shown of what failed
PATIENCE = 2.0  # seconds without a word
LOCKED = str(ROOT / "tests" / "support" / "locked_tool.py")
IN_PYTHON = {"moto": "s3", "mlflow": "tools", "trackers": "tools", "llama": "tools"}  # servers of tests, and what needs them
PYTHON = str(ROOT / ".venv" / "bin" / "python")
# The project's environment; what tests of a marker need; the project's images; that the cluster is up and has them; and what its
# nightly tests need.
NEEDS = ("environment", "s3", "tools", "tokenizers", "pretrained", "cluster", "images", "up", "nightly")
OWN = {"cluster", "images", "up", "nightly"}  # of the project's own cluster
# Each group first that takes longest: the others' steps fill the time beside it.
TOOLS = {
    "cluster": (
        "kube",
        "kueue",
        "kube-router",
        "containerd",
        "coredns",
        "registry",
        "versitygw",
        "helm",
        "pause",
        "prometheus-operator",
        "kserve",
        "kueue-chart",
    ),
    "nightly": ("metrics-server", "skipper"),
    "tools": ("helm", "helm-docs", "registry", "actionlint"),
    "s3": ("versitygw",),
}


class Failed(Exception):
    """A step failed, and has said why."""


@dataclass(frozen=True)
class Step:
    """What is made, by which command."""

    what: str
    command: tuple[str, ...]

    def run(self) -> None:
        """Makes it; Failed with the end of its output."""
        begun = time.monotonic()
        log = LOGS / f"{self.what.replace(' ', '-')}.log"
        with log.open("w") as output:
            process = subprocess.Popen(self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            say(f"{self.what} ...")
            code = process.wait()
            if code == 0:
                say(f"{self.what}: ready after {time.monotonic() - begun:.0f} s")
        if code:
            say(f"{self.what}: failed")
            raise Failed(f"{self.what} failed; the end of {log}:\n{log.read_text(errors='replace')[-LOG_TAIL:]}")


def say(text: str) -> None:
    """A line of progress, whole: two steps may speak at the same time."""
    sys.stderr.write(f"prepare: {text}\n")
    sys.stderr.flush()


_PACKAGES = {"cluster": "cluster", "chaos": "cluster", "images": "images"}  # host.py's kinds, and what needs them


def downloads(needs: set[str]) -> list[Step]:
    """What mostly waits for the network, one after the other: there is one package manager, and images need its programs."""
    steps = []
    packages = [kind for kind, need in _PACKAGES.items() if need in needs]
    if "cluster" in needs or ("tools" in needs and host.can_install()):
        packages.append("prometheus")
    if "tools" in needs and host.can_install():
        packages.append("browser")
    if packages:
        steps.append(Step("packages", (sys.executable, str(CLUSTER / "host.py"), *packages)))
    if "environment" in needs:
        steps.append(Step("environment", ("make", "--no-print-directory", "env")))
    steps += [Step(tool, (PYTHON, LOCKED, tool)) for tool, need in IN_PYTHON.items() if need in needs]
    if "tokenizers" in needs:
        steps.append(Step("tokenizers", (sys.executable, str(ROOT / "tests" / "support" / "real_tokenizers.py"))))
    if "pretrained" in needs:
        steps.append(Step("pretrained model", (PYTHON, str(ROOT / "scripts" / "real_model.py"))))
    if "images" in needs:
        steps.append(Step("images", (PYTHON, str(CLUSTER / "images.py"), "--engine=buildah")))
    return steps


def builds(needs: set[str]) -> list[Step]:
    """The Go tools, each once."""
    names = dict.fromkeys(name for need, tools in TOOLS.items() if need in needs for name in tools)
    return [Step(name, (str(ROOT / "scripts" / "build-tool.sh"), name)) for name in names]


def make(needs: set[str]) -> None:
    """All but what runs; Failed with what failed first. One at a time, also from several clones."""
    stop = threading.Event()

    def lane(steps: list[Step]) -> None:
        try:
            for step in steps:
                if not stop.is_set():
                    step.run()
        except BaseException:
            stop.set()
            raise

    LOGS.mkdir(parents=True, exist_ok=True)
    with alone(), ThreadPoolExecutor() as pool:
        lanes = [pool.submit(lane, steps) for steps in (downloads(needs), builds(needs))]
        wait(lanes)
    for done in lanes:
        done.result()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While another process prepares, it waits: most of what it needs will be there then."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "prepare.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that prepares ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bring_up() -> None:
    """The cluster, and the images in its registry."""
    Step("cluster", (PYTHON, str(CLUSTER / "cluster.py"), "use")).run()
    Step("images in the cluster", (PYTHON, str(CLUSTER / "images.py"), "--engine=buildah", "--push")).run()


def possible(needs: set[str]) -> set[str]:
    """Without what this machine cannot have, which is said; where tests must not be left out, Failed."""
    if not needs & OWN:
        return needs
    if os.environ.get("KUBECONFIG") not in (None, "", str(KUBECONFIG)):
        say("cluster: the one of KUBECONFIG is used")
        return needs - OWN
    why = host.unable()
    if why and (os.environ.get("CI") or os.environ.get("MAFT_REQUIRE_CLUSTER")):
        raise Failed(f"{why}; or set KUBECONFIG to a cluster of yours")
    if why:
        say(f"no cluster: {why}; its tests are left out")
    return needs - OWN if why else needs


def cluster(command: str) -> int:
    """`cluster.py COMMAND`, without a word; its exit code."""
    line = [PYTHON, str(CLUSTER / "cluster.py"), command]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True).returncode


def arguments(line: list[str]) -> tuple[set[str], list[str]]:
    """Needs, and the command after `--`."""
    at = line.index("--") if "--" in line else len(line)
    parser = argparse.ArgumentParser("prepare.py", description=__doc__.partition("\n")[0])
    parser.add_argument("needs", nargs="*", metavar="NEED", help=f"{', '.join(NEEDS)}; default: all")
    needs = parser.parse_args(line[:at]).needs
    if unknown := set(needs) - set(NEEDS):
        parser.error(f"{' '.join(sorted(unknown))}: no such need; known are {', '.join(NEEDS)}")
    return set(needs or NEEDS), line[at + 1 :]


def after(command: list[str]) -> int:
    """Runs it, and passes its exit code on. An interrupt is its own affair: we wait for its end."""
    if not command:
        return 0
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "MAFT_PREPARED": "1"})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return process.wait()


def prepared(wanted: set[str], command: list[str]) -> int:
    """Makes all, runs the command, and ends the cluster that was not up before."""
    begun = time.monotonic()
    needs = possible(wanted)
    make(needs)
    leave = not command or "up" not in needs or os.environ.get("MAFT_KEEP_CLUSTER") or cluster("status") == 0
    try:
        if "up" in needs:
            bring_up()
        say(f"all ready after {time.monotonic() - begun:.0f} s")
        return after(command)
    finally:
        if not leave:
            cluster("down")


def main() -> int:
    """The command line."""
    try:
        return prepared(*arguments(sys.argv[1:]))
    except Failed as why:
        print(f"prepare: failed: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # what ran has heard it too
        return 130


if __name__ == "__main__":
    sys.exit(main())
