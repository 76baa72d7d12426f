"""Takes the steps of a release (scripts/release.sh) against a registry on this machine: `make release-check`.

Says each step in a line and signs with a key of its own. What needs the public registry or GitHub is left out: the identity of the
workflow in signatures, provenance, the release page. `--images` builds, pushes and signs images, too (docker, or root on Debian).
"""

import argparse
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "scripts" / "release.sh"
START_SECONDS = 30.0  # the registry takes less than one


class Failed(Exception):
    """A step did not do what it should; the message says which."""


def output(*command: str | Path, **environment: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(command, check=False, env={**os.environ, **environment}, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def fails(*command: str | Path) -> bool:
    """Say whether a command ends with an error, as it has to."""
    return subprocess.run(command, check=False, capture_output=True, cwd=ROOT).returncode != 0


def tool(name: str) -> Path:
    """Return a program that scripts/build-tool.sh builds, the first time in some minutes."""
    return Path(output(ROOT / "scripts" / "build-tool.sh", name)) / name


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Serve an empty registry below the folder as long as the block lasts; gives HOST:PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yaml"
    config.write_text(
        f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder / 'registry'}'}}}}\n"
    )
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([tool("registry"), "serve", config], stdout=log, stderr=log, env=environment)
        try:
            _wait_for(f"http://{address}/v2/", process)
            yield address
        finally:
            process.terminate()
            process.wait(15)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.05)
    raise Failed(f"the registry does not answer at {url}")


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key for signing; returns its private and its public half."""
    folder.mkdir(exist_ok=True)
    output(tool("cosign"), "generate-key-pair", "--output-key-prefix", str(folder / name))
    return folder / f"{name}.key", folder / f"{name}.pub"


def check_signature(reference: str, keys: tuple[Path, Path], other: tuple[Path, Path]) -> None:
    """Sign, verify, and see that another key does not verify it."""
    output(RELEASE, "sign", reference, COSIGN_KEY=str(keys[0]))
    output(RELEASE, "verify", reference, str(keys[1]))
    if not fails(RELEASE, "verify", reference, str(other[1])):
        raise Failed(f"the signature of {reference} is taken for one of another key")
    print(f"release-check: signed and verified {reference}", flush=True)


def check_chart(folder: Path, prefix: str) -> str:
    """Push the chart, and see that what comes back by its digest is what was pushed; returns its reference."""
    reference = output(RELEASE, "push-chart", str(folder), prefix)
    name, _, digest = reference.partition("@")
    back = folder / "back"
    back.mkdir()
    output(tool("helm"), "pull", f"oci://{name}@{digest}", "--plain-http", "--destination", str(back))
    ours, theirs = (hashlib.sha256(next(where.glob("maft*.tgz")).read_bytes()).hexdigest() for where in (folder, back))
    if ours != theirs:
        raise Failed(f"{reference} holds another chart than the one that was pushed")
    print(f"release-check: chart {reference}", flush=True)
    return reference


def pushed_images(prefix: str, names: Sequence[str]) -> Iterator[str]:
    """Build images with docker or buildah as the test cluster's are built, and push them; yields their references."""
    sys.path.insert(0, str(ROOT / "tests" / "support" / "cluster"))
    import images
    from engines import engine
    from host import Unable

    chosen = engine()
    try:
        chosen.prepare()
        base = chosen.python
    except (Unable, RuntimeError) as error:
        raise Failed(str(error)) from None
    with chosen.alone(), tempfile.TemporaryDirectory() as lent:
        flags = images.secrets(Path(lent))
        for build in images.builds(prefix, images.version(), base, "cpu"):
            if build.name.removeprefix(f"{prefix}/").partition(":")[0] in names:
                output(*chosen.build([*build.flags(), *flags]))
                output(*chosen.push(build.name))
                yield f"{build.name.rpartition(':')[0]}@{_digest(build.name)}"
                chosen.forget(prefix, "")


def _digest(name: str) -> str:
    """Ask the registry what a tag stands for."""
    address, _, path = name.partition("/")
    repository, _, tag = path.rpartition(":")
    kinds = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": ", ".join(kinds)})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.headers["Docker-Content-Digest"])


def check(folder: Path, images: Sequence[str]) -> None:
    """Take all steps, in the order of a release."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    os.environ["COSIGN_PASSWORD"] = ""  # of keys that last as long as this check
    output(RELEASE, "version", f"v{version}")
    output(sys.executable, ROOT / "scripts" / "release_notes.py", version)
    print(f"release-check: version {version}, with notes", flush=True)
    with registry(folder) as address:
        prefix, dist = f"{address}/maft", folder / "dist"
        output(RELEASE, "packages", str(dist), prefix)
        output(RELEASE, "sbom", str(dist))
        for file in sorted(dist.iterdir()):
            print(f"release-check: {file.name}, {file.stat().st_size:,} bytes", flush=True)
        keys, other = key_pair(folder / "keys", "ours"), key_pair(folder / "keys", "other")
        check_signature(check_chart(dist, prefix), keys, other)
        for reference in pushed_images(prefix, images) if images else ():
            check_signature(reference, keys, other)


def main() -> None:
    """Run the check in a temporary folder."""
    parser = argparse.ArgumentParser("release_check.py", description=__doc__)
    parser.add_argument("--images", nargs="*", default=[], metavar="NAME", help="operator, debate, trainer, inference")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), arguments.images)
    except (Failed, urllib.error.URLError) as error:
        print(f"release-check: failed: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print("release-check: passed")


if __name__ == "__main__":
    main()
