"""The image of the container that keeps a pod's namespaces: one static program, put into containerd's store."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import parts
import settings as s
from sandbox import Sandbox


def import_pause(sandbox: Sandbox, tools: parts.Tools) -> None:
    """Makes the image known to containerd."""
    archive = s.STATE / "pause.tar"
    write_image(archive, tools.folders["pause"] / "pause")
    command = [tools.program("containerd", "ctr"), "--namespace", "k8s.io", "images", "import", str(archive)]
    done = subprocess.run(sandbox.enter(command), capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ctr images import: {done.stderr.strip()}")


def write_image(archive: Path, program: Path) -> None:
    """An image archive in Docker's format with one layer."""
    layer = _tar({"pause": program.read_bytes()}, mode=0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [s.PAUSE], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    archive.write_bytes(_tar(files))


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
