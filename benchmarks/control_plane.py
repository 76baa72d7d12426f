"""etcd and kube-apiserver as processes on loopback, without controllers and nodes: the ground of operator_scale.py.

The program is the test cluster's (`scripts/build-tool.sh kube`). All state lies in one folder and ends with the block.
"""

import base64
import contextlib
import json
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from maft_operator.local.ports import free_port

ROOT = Path(__file__).parents[1]
ADMIN, OPERATOR = "admin", "system:serviceaccount:maft-system:maft-operator"
_GROUPS = {ADMIN: "system:masters", OPERATOR: "system:serviceaccounts,system:serviceaccounts:maft-system"}
_READY = 60.0  # seconds; it takes four


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where it listens. token: of the administrator; pids: of etcd and of the API server."""

    folder: Path
    url: str
    etcd: str
    token: str
    pids: tuple[int, ...]

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self.folder / "apiserver.crt"


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Both processes, ready, as long as the block lasts."""
    programs = _programs(folder)
    tokens = {user: secrets.token_hex(16) for user in _GROUPS}
    (folder / "tokens.csv").write_text("".join(f'{tokens[u]},{u},{u},"{groups}"\n' for u, groups in _GROUPS.items()))
    subprocess.run(["openssl", "genrsa", "-out", folder / "accounts.key", "2048"], check=True, capture_output=True)
    etcd, peers, port = free_port(), free_port(), free_port()
    with process(_etcd(programs["etcd"], folder, etcd, peers), folder / "etcd.log") as first:
        _wait(f"http://127.0.0.1:{etcd}/readyz", None)
        with process(_api(programs["kube-apiserver"], folder, etcd, port), folder / "api.log") as second:
            url = f"https://127.0.0.1:{port}"
            plane = ControlPlane(folder, url, f"http://127.0.0.1:{etcd}", tokens[ADMIN], (first.pid, second.pid))
            _wait(f"{url}/readyz", plane)
            (folder / "kubeconfig").write_text(_kubeconfig(plane, tokens[OPERATOR]))
            yield plane


@contextlib.contextmanager
def process(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process as long as the block lasts, or we do."""
    with log.open("ab") as output:
        line = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        started = subprocess.Popen(line, stdout=output, stderr=output, env=environment)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def _programs(folder: Path) -> dict[str, str]:
    """One binary that becomes what it is called by."""
    built = subprocess.run([ROOT / "scripts" / "build-tool.sh", "kube"], stdout=subprocess.PIPE, text=True, check=True)
    names = ("etcd", "kube-apiserver")
    for name in names:
        (folder / name).symlink_to(Path(built.stdout.strip()) / "kube")
    return {name: str(folder / name) for name in names}


def _etcd(program: str, folder: Path, port: int, peers: int) -> list[str]:
    clients = f"http://127.0.0.1:{port}"
    line = [program, f"--data-dir={folder / 'etcd-data'}", "--unsafe-no-fsync", "--log-level=warn"]
    line += [f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"]
    return [*line, f"--listen-peer-urls=http://127.0.0.1:{peers}", "--quota-backend-bytes=8000000000"]


def _api(program: str, folder: Path, etcd: int, port: int) -> list[str]:
    line = [program, f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}"]
    line += [f"--cert-dir={folder}", f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC"]
    line += ["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/12"]
    line += [f"--service-account-key-file={folder / 'accounts.key'}", "--endpoint-reconciler-type=none"]
    # Nobody is there to make the service accounts that pods want.
    return [*line, f"--service-account-signing-key-file={folder / 'accounts.key'}", "--disable-admission-plugins=ServiceAccount"]


def _wait(url: str, plane: ControlPlane | None) -> None:
    deadline = time.monotonic() + _READY
    while not _answers(url, plane):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url}: not ready within {_READY:.0f} s")
        time.sleep(0.2)


def _answers(url: str, plane: ControlPlane | None) -> bool:
    try:
        context = ssl.create_default_context(cafile=str(plane.authority)) if plane else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {plane.token}"} if plane else {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(request, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, json.JSONDecodeError):
        return False


def _kubeconfig(plane: ControlPlane, token: str) -> str:
    cluster = {"server": plane.url, "certificate-authority-data": base64.b64encode(plane.authority.read_bytes()).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "scale", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "operator"}}],
            "current-context": "scale",
        }
    )
