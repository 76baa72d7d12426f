"""S3 servers beyond the two of the suite: how each is had and started. scripts/stores_reference.py tries them.

What is fetched and built lies in the tests' cache. Versions are exact; what they consist of is not pinned, for no test of the suite
needs them.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import locked_tool
from s3server import MOTO, VERSITYGW, Kind, S3Server, binary

sys.path.append(str(Path(__file__).parent / "cluster"))
from settings import CACHE


@dataclass(frozen=True, slots=True)
class Had:
    """A server, its version, and how it is had."""

    kind: Kind
    version: str
    how: str
    install: Callable[[Path], object]
    """Into an empty folder."""

    @property
    def folder(self) -> Path:
        """Where it lies once it is had."""
        return CACHE / "stores" / f"{self.kind.name}-{self.version}"

    def have(self) -> None:
        """Fetches or builds it, once, all or nothing; CalledProcessError where it cannot be had."""
        if self.folder.exists():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            self.install(made)
            made.rename(self.folder)


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def go(package: str, version: str) -> Callable[[Path], None]:
    """Builds a program of a Go module."""

    def install(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for line in (
                ["mod", "init", "x"],
                ["get", f"{package}@{version}"],
                ["build", "-trimpath", "-o", f"{folder}/", package],
            ):
                _run("go", *line, cwd=Path(scratch))

    return install


def maven(artifact: str) -> Callable[[Path], None]:
    """Fetches a jar."""
    return lambda folder: _run("mvn", "-q", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}", cwd=folder)


def maven_with_all(*artifacts: str) -> Callable[[Path], None]:
    """Fetches jars and those that they need; one that is named is of that version, whatever the others ask for."""

    def install(folder: Path) -> None:
        own = "<modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>"
        wanted = "".join(_dependency(*artifact.split(":")) for artifact in artifacts)
        (folder / "pom.xml").write_text(f"<project>{own}<dependencies>{wanted}</dependencies></project>")
        _run("mvn", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={folder}", cwd=folder)

    return install


def _dependency(group: str, name: str, version: str) -> str:
    return f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"


def npm(package: str) -> Callable[[Path], None]:
    """Installs a package of npm and those that it needs."""
    return lambda folder: _run("npm", "install", "--silent", "--prefix", str(folder), package, cwd=folder)


def pypi(*packages: str) -> Callable[[Path], None]:
    """Installs packages of PyPI and those that they need into an environment of their own."""

    def install(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder), cwd=folder)
        _run(f"{folder}/bin/python", "-m", "pip", "install", "--quiet", *packages, cwd=folder)

    return install


def debian(*packages: str) -> Callable[[Path], None]:
    """Unpacks packages of Debian, and those that they need and this machine lacks; installs none."""

    def install(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "partial").mkdir()
            options = ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={scratch}/"]
            flags = ["-q", "-y", "--download-only", "--no-install-recommends"]
            _run("apt-get", "install", *flags, *options, *packages, cwd=folder)
            for package in sorted(Path(scratch).glob("*.deb")):
                _run("dpkg", "-x", str(package), str(folder), cwd=folder)

    return install


def _at(name: str, version: str, path: str) -> str:
    return str(CACHE / "stores" / f"{name}-{version}" / path)


def _rclone(folder: Path, server: S3Server) -> list[str]:
    flags = [
        "--addr",
        f"127.0.0.1:{server.port}",
        "--auth-key",
        f"{server.access_key},{server.secret_key}",
        "--vfs-cache-mode",
        "full",
    ]
    return [_at("rclone", "v1.76.0", "rclone"), "serve", "s3", str(folder), *flags, "--cache-dir", f"{folder}.cache"]


def _seaweedfs(folder: Path, server: S3Server) -> list[str]:
    ports = [f"-{what}={server.port + n}" for n, what in enumerate(("master.port", "volume.port", "filer.port"), 1)]
    grpc = [f"-{what}.port.grpc={server.port + n}" for n, what in enumerate(("master", "volume", "filer", "s3"), 5)]
    line = ["server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", "-filer", f"-s3.port={server.port}", *ports, *grpc]
    return [_at("seaweedfs", SEAWEED, "weed"), *line, "-volume.max=20"]


def _gofakes3(folder: Path, server: S3Server) -> list[str]:
    flags = ["-host", f"127.0.0.1:{server.port}", "-backend", "fs", "-fs.path", str(folder / "objects"), "-fs.create"]
    return [_at("gofakes3", "v1.2.0", "gofakes3"), *flags]


def _s3rver(folder: Path, server: S3Server) -> list[str]:
    program = _at("s3rver", "3.7.1", "node_modules/.bin/s3rver")
    return [program, "-d", str(folder), "-a", "127.0.0.1", "-p", str(server.port), "--no-vhost-buckets"]


def _s3mock(folder: Path, server: S3Server) -> list[str]:
    jar = _at("s3mock", "4.9.1", "s3mock-4.9.1-exec.jar")
    own = "com.adobe.testing.s3mock"
    properties = {f"{own}.httpPort": server.port, "server.port": 0, f"{own}.store.root": folder}
    return ["java", "-jar", jar, *(f"--{name}={value}" for name, value in properties.items())]


def _s3proxy(name: str, version: str, provider: str) -> Kind:
    def command(folder: Path, server: S3Server) -> list[str]:
        lines = {
            "s3proxy.endpoint": f"http://127.0.0.1:{server.port}",
            "s3proxy.authorization": "none",
            "jclouds.provider": provider,
            "jclouds.filesystem.basedir": folder,
        }
        settings, log = folder.parent / "s3proxy.conf", folder.parent / "logback.xml"
        settings.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        log.write_text(WARNINGS)
        line = ["java", f"-Dlogback.configurationFile={log}", "-cp", _at(name, version, "*")]
        return [*line, "org.gaul.s3proxy.Main", "--properties", str(settings)]

    return Kind(name, command, seconds=SLOW)


def _localstack(folder: Path, server: S3Server) -> list[str]:
    settings = {
        "GATEWAY_LISTEN": f"127.0.0.1:{server.port}",
        "FILESYSTEM_ROOT": folder,
        "SERVICES": "s3",
        "DNS_ADDRESS": 0,  # no name server
        "DISABLE_EVENTS": 1,  # asks nobody outside, as the next
        "SKIP_SSL_CERT_DOWNLOAD": 1,
    }
    program = [_at("localstack", LOCALSTACK, "bin/python"), "-I", "-m", "localstack.runtime.main"]
    return ["env", *(f"{name}={value}" for name, value in settings.items()), *program]


def _ceph(folder: Path, server: S3Server) -> list[str]:
    line = [sys.executable, str(Path(__file__).with_name("ceph.py")), _at("ceph-rgw", CEPH, ""), str(folder)]
    return [*line, str(server.port), server.access_key, server.secret_key]


SEAWEED = "v0.0.0-20261109003541-7506e5f91cd6"
# without it, S3Proxy logs each part of each body
WARNINGS = """<configuration>
<appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%level %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root>
</configuration>"""
LOCALSTACK = "4.9.2"
CEPH = "16.2.15+ds-0+deb12u2"
SLOW = 120.0  # seconds until it serves, on a busy machine
S3PROXY_4 = ("org.gaul:s3proxy:4.1.0", "com.fasterxml.jackson.core:jackson-annotations:2.21")  # it asks for one too old for it
LOCALSTACK_PACKAGES = (
    f"localstack-core[base-runtime]=={LOCALSTACK}",
    "moto-ext[all]==5.1.12.post22",
    "pyopenssl==25.3.0",
    "cryptography==46.0.7",
    "cbor2==5.7.1",
    "psutil==7.0.0",
    "service-identity==24.2.0",
)
CEPH_PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
TOOLS = "pinned by this repository, in `make prepare`"
KINDS = (
    Had(VERSITYGW, "1.8.0", TOOLS, lambda folder: binary()),
    Had(MOTO, "5.2.5", TOOLS, lambda folder: locked_tool.install("moto")),
    Had(Kind("rclone", _rclone), "v1.76.0", "Go", go("github.com/rclone/rclone", "v1.76.0")),
    Had(Kind("seaweedfs", _seaweedfs), SEAWEED, "Go", go("github.com/seaweedfs/seaweedfs/weed", SEAWEED)),
    Had(Kind("gofakes3", _gofakes3), "v1.2.0", "Go", go("github.com/johannesboyne/gofakes3/cmd/gofakes3", "v1.2.0")),
    Had(Kind("s3rver", _s3rver, keys=("S3RVER", "S3RVER")), "3.7.1", "npm", npm("s3rver@3.7.1")),
    Had(Kind("s3mock", _s3mock, seconds=SLOW), "4.9.1", "Maven", maven("com.adobe.testing:s3mock:4.9.1:jar:exec")),
    Had(_s3proxy("s3proxy", "2.6.0", "filesystem"), "2.6.0", "Maven", maven_with_all("org.gaul:s3proxy:2.6.0")),
    Had(_s3proxy("s3proxy-4", "4.1.0", "filesystem-nio2"), "4.1.0", "Maven", maven_with_all(*S3PROXY_4)),
    Had(Kind("localstack", _localstack, seconds=SLOW), LOCALSTACK, "PyPI", pypi(*LOCALSTACK_PACKAGES)),
    Had(Kind("ceph-rgw", _ceph, seconds=SLOW), CEPH, "Debian 12", debian(*(f"{name}={CEPH}" for name in CEPH_PACKAGES))),
)
