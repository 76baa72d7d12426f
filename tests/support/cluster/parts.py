"""The programs of the cluster, in the order of their start: command lines, and how to see that each is ready."""

import functools
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import configs
import settings as s
from keys import FRONT_PROXY, Keys, kubeconfig
from sandbox import PATH, Sandbox

PROGRAMS = ("etcd", "kubectl", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
AUDIT_LOG = s.LOGS / "audit.log"
_ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class Part:
    """`ready` is asked from outside the namespaces; a part without it is waited for by what comes after it."""

    name: str
    command: list[str]
    ready: Callable[[Sandbox], bool] | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class S3Keys:
    """The one account of the S3 server."""

    access: str = "maft-test"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Tools:
    """Folders of built programs, by the name of their module."""

    folders: dict[str, Path]

    def program(self, module: str, name: str) -> str:
        """An executable of a module."""
        return str(self.folders[module] / name)


def build_tools() -> Tools:
    """Builds what is missing, with the script's messages on the terminal."""
    names = ("pause", "versitygw", "containerd", "registry", "coredns", "kube")
    tools = Tools({name: build(name) for name in names})
    for program in PROGRAMS:
        link = tools.folders["kube"] / program
        if not link.is_symlink():
            link.symlink_to("kube")
    return tools


def build(module: str) -> Path:
    """The folder of a module's programs."""
    done = subprocess.run([s.ROOT / "scripts" / "build-tool.sh", module], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"the program {module} could not be built")
    return Path(done.stdout.strip())


def stages(tools: Tools, keys: Keys, s3: S3Keys) -> tuple[list[Part], list[Part]]:
    """Parts of a stage start together; those of the second once the first is ready."""
    kube = functools.partial(tools.program, "kube")
    base = [_etcd(kube("etcd")), _containerd(tools), _registry(tools), _s3(tools, s3), _api(kube("kube-apiserver"), keys)]
    others = [
        Part("controllers", _controllers(kube("kube-controller-manager"), keys)),
        Part("scheduler", [kube("kube-scheduler"), _as("scheduler"), "--leader-elect=false", "--secure-port=0"]),
        Part("kubelet", _kubelet(kube("kubelet")), _node_ready),
        Part("proxy", _proxy(kube("kube-proxy")), lambda _: answers(f"http://{s.NODE}:10256/healthz")),
        Part(
            "coredns",
            [tools.program("coredns", "coredns"), "-conf", str(configs.COREDNS)],
            lambda _: answers(f"http://{s.NODE}:8182/ready"),
        ),
    ]
    return base, others


def answers(url: str, token: str = "", authority: Path | None = None) -> bool:
    """Whether a GET succeeds at once."""
    return get(url, token, authority) is not None


def get(url: str, token: str = "", authority: Path | None = None) -> bytes | None:
    """The body of a GET; None if it fails."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    try:
        with _direct(context).open(urllib.request.Request(url, headers=headers), timeout=2) as response:
            return bytes(response.read())
    except (OSError, ssl.SSLError):
        return None


def _direct(context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """Past any proxy of the machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def api_get(path: str) -> bytes | None:
    """A path of the API server, as the administrator."""
    keys = Keys()
    try:
        token = keys.tokens.read_text().partition(",")[0]
    except FileNotFoundError:
        return None
    return get(f"{s.API}{path}", token, keys.authority)


def _node_ready(_: Sandbox) -> bool:
    """Ready, and the controllers have made the service account without which no pod starts."""
    node = api_get(f"/api/v1/nodes/{s.NODE_NAME}") or b""
    return b'"KubeletReady"' in node and api_get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def _as(user: str) -> str:
    return f"--kubeconfig={kubeconfig(user)}"


def _etcd(program: str) -> Part:
    folder = s.STATE / "etcd"
    line = [
        program,
        f"--data-dir={folder}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
    ]
    return Part("etcd", [*line, "--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn"])


def _containerd(tools: Tools) -> Part:
    path = f"{tools.folders['containerd']}:{PATH}"  # it looks for its shim there
    line = [tools.program("containerd", "containerd"), "--config", str(configs.CONTAINERD)]
    socket = "/run/containerd/containerd.sock"
    return Part("containerd", line, lambda sandbox: sandbox.path(socket).exists(), environment={"PATH": path})


def _registry(tools: Tools) -> Part:
    s.REGISTRY.mkdir(parents=True, exist_ok=True)
    line = [tools.program("registry", "registry"), "serve", str(configs.REGISTRY)]
    return Part("registry", line, lambda _: answers(f"http://{s.IMAGES}/v2/"), environment={"OTEL_TRACES_EXPORTER": "none"})


def _s3(tools: Tools, keys: S3Keys) -> Part:
    folder = s.STATE / "s3"
    folder.mkdir(parents=True, exist_ok=True)
    address = s.S3.partition("//")[2]
    line = [tools.program("versitygw", "versitygw"), "--health", "/health", "--port", address, "posix", str(folder)]
    environment = {"ROOT_ACCESS_KEY": keys.access, "ROOT_SECRET_KEY": keys.secret}
    return Part("s3", line, lambda _: answers(f"{s.S3}/health"), environment=environment)


def _api(program: str, keys: Keys) -> Part:
    line = [program, f"--etcd-servers={_ETCD}", "--bind-address=0.0.0.0", f"--advertise-address={s.NODE}"]
    line += [f"--secure-port={s.API.rpartition(':')[2]}", f"--service-cluster-ip-range={s.SERVICES}", "--allow-privileged=true"]
    line += [
        f"--tls-cert-file={keys.api}",
        f"--tls-private-key-file={keys.api.with_suffix('.key')}",
        f"--client-ca-file={keys.authority}",
    ]
    line += [
        f"--kubelet-client-certificate={keys.kubelet_client}",
        f"--kubelet-client-key={keys.kubelet_client.with_suffix('.key')}",
    ]
    line += [
        f"--proxy-client-cert-file={keys.front_proxy}",
        f"--proxy-client-key-file={keys.front_proxy.with_suffix('.key')}",
        f"--requestheader-client-ca-file={keys.authority}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]
    line += ["--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC", f"--token-auth-file={keys.tokens}"]
    line += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={keys.service_accounts}"]
    line += [f"--service-account-signing-key-file={keys.service_accounts}", "--enable-bootstrap-token-auth=false"]
    line += [f"--audit-policy-file={configs.AUDIT_POLICY}", f"--audit-log-path={AUDIT_LOG}"]
    return Part("api", line, lambda _: api_get("/readyz") is not None)


def _controllers(program: str, keys: Keys) -> list[str]:
    line = [
        program,
        _as("controllers"),
        f"--service-account-private-key-file={keys.service_accounts}",
        f"--root-ca-file={keys.authority}",
    ]
    return [*line, "--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]


def _kubelet(program: str) -> list[str]:
    line = [program, f"--config={configs.KUBELET}", _as("kubelet"), f"--hostname-override={s.NODE_NAME}", f"--node-ip={s.NODE}"]
    return [*line, f"--cert-dir={s.ETC}/kubelet-pki"]


def _proxy(program: str) -> list[str]:
    """Masquerading all: two pods of one bridge would otherwise answer each other past the address translation."""
    line = [program, _as("proxy"), "--proxy-mode=iptables", f"--cluster-cidr={s.PODS}", f"--hostname-override={s.NODE_NAME}"]
    line += ["--masquerade-all", "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"]
    return [*line, "--conntrack-tcp-timeout-close-wait=0"]
