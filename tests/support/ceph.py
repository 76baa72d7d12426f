"""A Ceph of one monitor, one OSD in memory and one S3 gateway, in the foreground: `ceph.py UNPACKED FOLDER PORT KEY SECRET`.

UNPACKED is a folder into which Debian's packages were unpacked. Nothing of it is installed, nothing runs as a service, and no
daemon outlives this process.
"""

import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

MACHINE = f"{platform.machine()}-linux-gnu"
LIBRARIES = (f"usr/lib/{MACHINE}", f"usr/lib/{MACHINE}/ceph", f"lib/{MACHINE}")
CONFIGURATION = """[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# else an OSD that asks before it was told what the cluster is ends
osd crush update on start = false
osd class update on start = false
mon allow pool size one = true
mon max pg per osd = 1000
mon data = {folder}/mon
osd data = {folder}/osd
osd class dir = {library}/rados-classes
plugin dir = {library}/ceph
erasure code dir = {library}/ceph/erasure-code
keyring = {folder}/keyring
run dir = {folder}
log file =
log to stderr = true
mon cluster log to file = false
debug rocksdb = 0
debug mon = 0
admin socket =
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
"""


class Ceph:
    """Its programs, over a folder."""

    def __init__(self, unpacked: Path, folder: Path) -> None:
        self._bin, self._configuration = unpacked / "usr" / "bin", folder / "ceph.conf"
        paths = {
            "LD_LIBRARY_PATH": ":".join(str(unpacked / part) for part in LIBRARIES),
            "PYTHONPATH": str(unpacked / "usr" / "lib" / "python3" / "dist-packages"),
        }
        self._environment: Mapping[str, str] = {**os.environ, **paths}

    def line(self, program: str, *arguments: str) -> list[str]:
        """A program with its configuration."""
        return [str(self._bin / program), "-c", str(self._configuration), *arguments]

    def run(self, program: str, *arguments: str) -> None:
        """Waits for its end."""
        subprocess.run(self.line(program, *arguments), check=True, env=self._environment, stdin=subprocess.DEVNULL)

    def start(self, program: str, *arguments: str) -> None:
        """Goes on beside it, until this process ends."""
        line = ["setpriv", "--pdeathsig", "KILL", *self.line(program, *arguments, "-f")]
        subprocess.Popen(line, env=self._environment, stdin=subprocess.DEVNULL)

    def become(self, program: str, *arguments: str) -> None:
        """Replaces this process by it."""
        line = self.line(program, *arguments, "-f")
        os.execve(line[0], line, self._environment)


def _configure(unpacked: Path, folder: Path, port: int, fsid: str) -> None:
    library = unpacked / LIBRARIES[0]
    text = CONFIGURATION.format(fsid=fsid, monitor=port + 1, folder=folder, library=library, port=port)
    (folder / "ceph.conf").write_text(text)
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()


def main(unpacked: Path, folder: Path, port: int, *, key: str, secret: str) -> None:
    """Serves until it is ended."""
    fsid, disk, monitors = str(uuid.uuid4()), str(uuid.uuid4()), str(folder / "monmap")
    _configure(unpacked, folder, port, fsid)
    ceph = Ceph(unpacked, folder)
    ceph.run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{port + 1}]", "--fsid", fsid, monitors)
    ceph.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
    ceph.start("ceph-mon", "-i", "a")
    ceph.run("ceph", "osd", "new", disk)
    ceph.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    ceph.run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")
    ceph.start("ceph-osd", "-i", "0")
    user = ["--uid=maft", "--display-name=maft", f"--access-key={key}", f"--secret-key={secret}"]
    ceph.run("radosgw-admin", "user", "create", *user)
    ceph.become("radosgw", "-n", "client.rgw")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), key=sys.argv[4], secret=sys.argv[5])
