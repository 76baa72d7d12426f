"""Builds the container images of this release with docker or, where there is no docker engine, with buildah.

All four carry one tag: the version and a hash of what they are made of. Their names are printed and written to .cache/images.json.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import host
from engines import Buildah, Docker, engine
from settings import IMAGES, OUTSIDE, REGISTRY, ROOT

RESULT = ROOT / ".cache" / "images.json"
LOG = ROOT / ".cache" / "images.log"
NAMES = ("operator", "debate", "trainer", "inference")
_SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements", "crds", "images", "operator", "client")
_VARIABLES = re.compile("(PIP|UV)_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|INSECURE_HOST)")
_AUTHORITIES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Build:
    """One call of the engine."""

    file: str
    name: str
    target: str = ""
    arguments: tuple[tuple[str, str], ...] = ()

    def flags(self) -> list[str]:
        """For docker and buildah alike."""
        target = ["--target", self.target] if self.target else []
        return ["--file", str(ROOT / self.file), "--tag", self.name, *target, *(f"--build-arg={k}={v}" for k, v in self.arguments)]


def builds(prefix: str, tag: str, python: str, inference: str) -> list[Build]:
    """What is built, in order. On the CPU, vLLM goes on top of the packages of the trainer; with CUDA one image is both."""
    common = (("PYTHON", python), ("VERSION", version()), ("SOURCE", source()))
    packages = f"{prefix}/packages:{tag}"
    cpu = (("BASE", packages), ("PACKAGES", "inference-cpu")) if inference == "cpu" else ()
    shared = [Build("images/trainer.Dockerfile", packages, "packages", common)] if inference == "cpu" else []
    trainer = "trainer" if inference == "cpu" else "inference"
    return [
        Build("Dockerfile", f"{prefix}/operator:{tag}", arguments=common),
        Build("images/debate.Dockerfile", f"{prefix}/debate:{tag}", arguments=common),
        *shared,
        Build(f"images/{trainer}.Dockerfile", f"{prefix}/trainer:{tag}", arguments=common),
        Build("images/inference.Dockerfile", f"{prefix}/inference:{tag}", arguments=(*common, *cpu)),
    ]


def version() -> str:
    """The one of pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def source() -> str:
    """Where the sources are, if that is a public address."""
    done = subprocess.run(["git", "-C", ROOT, "remote", "get-url", "origin"], capture_output=True, text=True)
    return done.stdout.strip() if done.stdout.startswith("https://") and "@" not in done.stdout else ""


def tag_of(base: str) -> str:
    """Changes when anything does that is built in, or the base."""
    digest = hashlib.sha256(base.encode())
    for path in sorted(file for each in _SOURCES for file in _files(ROOT / each)):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return f"{version()}-{digest.hexdigest()[:12]}"


def _files(path: Path) -> list[Path]:
    paths = path.rglob("*") if path.is_dir() else [path]
    return [file for file in paths if file.is_file() and "__pycache__" not in file.parts]


def secrets(folder: Path) -> list[str]:
    """How this machine reaches package registries, for the builds only: the flags that lend it to them."""
    flags = []
    if variables := _registries(os.environ):
        (folder / "registries").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(variables.items())))
        flags.append(f"--secret=id=registries,src={folder}/registries")
    bundles = [os.environ[key] for key in _AUTHORITIES if Path(os.environ.get(key, "")).is_file()]
    return [*flags, f"--secret=id=authorities,src={bundles[0]}"] if bundles else flags


def _registries(environment: Mapping[str, str]) -> dict[str, str]:
    """From the environment and pip's configuration, which uv does not read."""
    ours = {key: value for key, value in environment.items() if _VARIABLES.fullmatch(key)}
    done = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True)
    index = ours.get("PIP_INDEX_URL") or done.stdout.strip()
    return {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index, **ours} if index else ours


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("images.py", description=__doc__)
    parser.add_argument("--prefix", help="REGISTRY/FOLDER; default: maft, with buildah the test cluster's")
    parser.add_argument("--push", action="store_true", help="push them to where the prefix says")
    parser.add_argument(
        "--engine", choices=("docker", "buildah"), help="default: docker if it answers; of the test cluster: buildah"
    )
    parser.add_argument("--inference", choices=("cpu", "cuda"), help="build of vLLM; default: cuda with docker, cpu with buildah")
    arguments = parser.parse_args()
    chosen = engine(arguments.engine or "")
    RESULT.parent.mkdir(exist_ok=True)
    try:
        names = run(chosen, arguments.prefix or chosen.prefix, arguments.inference or chosen.inference, push=arguments.push)
    except (host.Unable, RuntimeError) as error:
        print(f"images: failed: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    RESULT.write_text(json.dumps(names, indent=1) + "\n")
    print(*names.values(), sep="\n")


def run(chosen: Docker | Buildah, prefix: str, inference: str, *, push: bool) -> dict[str, str]:
    """Builds, and pushes if that is wanted; the test cluster's registry keeps images. Their names, by what they are."""
    tag = tag_of(f"{chosen.python} {inference}")
    names = {name: f"{prefix}/{name}:{tag}" for name in NAMES}
    if kept(names):
        return names
    if push and prefix.startswith(IMAGES) and not Path(f"/sys/class/net/{OUTSIDE}").exists():
        raise host.Unable("the test cluster, whose registry that is, is not up; run: make cluster")
    chosen.prepare()
    with chosen.alone(), tempfile.TemporaryDirectory() as folder:
        lent = secrets(Path(folder))
        for build in builds(prefix, tag, chosen.python, inference):
            _call(chosen.build([*build.flags(), *lent]), f"building {build.name}")
    for name in names.values() if push else ():
        _call(chosen.push(name), f"pushing {name}")
    chosen.forget(prefix, tag)
    return names


def kept(names: Mapping[str, str]) -> bool:
    """Whether the test cluster's registry has all of them: it writes an image's tag down after everything else of it."""
    paths = [name.removeprefix(f"{IMAGES}/").rpartition(":") for name in names.values() if name.startswith(f"{IMAGES}/")]
    tags = [
        REGISTRY / "docker/registry/v2/repositories" / path / "_manifests/tags" / tag / "current/link" for path, _, tag in paths
    ]
    return len(tags) == len(names) and all(tag.exists() for tag in tags)


def _call(command: Sequence[str], what: str) -> None:
    print(f"images: {what}", file=sys.stderr)
    with LOG.open("w") as log:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if done.returncode:
        raise RuntimeError(f"{what}; the end of {LOG}:\n{LOG.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
