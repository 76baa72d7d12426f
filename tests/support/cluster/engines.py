"""What builds images: docker, or buildah with a storage below the cluster's cache and a stand-in for the Python image."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import host
from settings import CACHE, IMAGES, ROOT

PYTHON = "python:3.11-slim-bookworm"
_FOLDER = CACHE / "images"
_PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-pip", "python3-venv")
# chroot: needs no more rights than the machine gives. TMPDIR: layers are as large as a disk may be small elsewhere.
_BUILDAH = ["env", "BUILDAH_ISOLATION=chroot", f"TMPDIR={_FOLDER}/tmp", "buildah", f"--root={_FOLDER}/storage"]
_BUILDAH += [f"--runroot={_FOLDER}/run", "--storage-driver=overlay"]


class Docker:
    """The docker engine."""

    prefix = "maft"
    inference = "cuda"
    python = PYTHON

    def prepare(self) -> None:
        """The engine fetches the Python image itself."""

    def build(self, flags: Sequence[str]) -> list[str]:
        """The command line of a build."""
        return ["docker", "build", *flags, str(ROOT)]

    def push(self, name: str) -> list[str]:
        """The command line of a push."""
        return ["docker", "push", name]

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """The engine keeps builds apart itself."""
        return contextlib.nullcontext()

    def forget(self, prefix: str, tag: str) -> None:
        """Old images are the user's."""


class Buildah:
    """For machines without docker, for the test cluster: Debian's Python is the base, the CPU build of vLLM is served."""

    prefix = f"{IMAGES}/maft"
    inference = "cpu"
    python = f"localhost/{PYTHON}"

    def prepare(self) -> None:
        """The Python image is made of Debian's packages if it is not there."""
        if why := host.unable():
            raise host.Unable(f"{why}; or install docker")
        host.require(host.IMAGES)
        (_FOLDER / "tmp").mkdir(parents=True, exist_ok=True)
        with self.alone():
            if subprocess.run([*_BUILDAH, "inspect", "--type=image", self.python], capture_output=True).returncode:
                _stand_in(self.python)

    def build(self, flags: Sequence[str]) -> list[str]:
        """The command line of a build."""
        return [*_BUILDAH, "build", "--layers", "--pull-never", *flags, str(ROOT)]

    def push(self, name: str) -> list[str]:
        """The command line of a push; over plain HTTP if the registry has nothing else."""
        return [*_BUILDAH, "push", "--tls-verify=false", "--compression-format=zstd", name]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One build at a time, also from several clones: what an interrupted one left can go."""
        with (_FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _run([*_BUILDAH, "rm", "--all"])
            yield

    def forget(self, prefix: str, tag: str) -> None:
        """Removes the images of other tags. Layers that they share with those of this one stay."""
        listed = json.loads(_run([*_BUILDAH, "images", "--json"]))
        names = [name for image in listed for name in image["names"] or ()]
        if old := [name for name in names if name.startswith(prefix) and not name.endswith(f":{tag}")]:
            _run([*_BUILDAH, "rmi", *old])


def engine(name: str = "") -> Docker | Buildah:
    """The one of that name; without one, docker if it answers."""
    if name:
        return {"docker": Docker, "buildah": Buildah}[name]()
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return Docker()
    return Buildah()


def _stand_in(image: str) -> None:
    print(f"images: making {image} of Debian's packages", flush=True)
    root = _FOLDER / "debian"
    shutil.rmtree(root, ignore_errors=True)
    _run(["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", "bookworm", str(root)])
    for waste in (root / "var/cache/apt/archives", root / "var/lib/apt/lists"):
        shutil.rmtree(waste)
        waste.mkdir()
    container = _run([*_BUILDAH, "from", "scratch"]).strip()
    _run([*_BUILDAH, "add", "--quiet", container, str(root), "/"])
    _run([*_BUILDAH, "config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container])
    _run([*_BUILDAH, "commit", "--quiet", "--rm", container, image])
    shutil.rmtree(root)


def _run(command: Sequence[str]) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
