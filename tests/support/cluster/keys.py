"""Certificates, tokens and kubeconfigs of the cluster: its own authority, made anew for every cluster."""

import base64
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import settings as s
import yaml

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
_SANS = (
    f"IP:{s.NODE},IP:{s.FIRST_SERVICE},IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
)

FRONT_PROXY = "front-proxy-client"
# Users of the API server with the groups that its built-in roles know.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{s.NODE_NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Files below the state folder."""

    authority: Path = s.ETC / "ca.crt"
    api: Path = s.ETC / "api.crt"
    kubelet_client: Path = s.ETC / "kubelet-client.crt"
    front_proxy: Path = s.ETC / "front-proxy.crt"
    """By it the API server shows servers of other APIs, such as metrics-server, on whose behalf it asks."""
    service_accounts: Path = s.ETC / "service-accounts.key"
    tokens: Path = s.ETC / "tokens.csv"


def kubeconfig(user: str) -> Path:
    """The kubeconfig of one of the users."""
    return s.ETC / f"{user}.kubeconfig"


def make() -> Keys:
    """Writes all of them."""
    keys = Keys()
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(
        "req", "-x509", *_KEY, "-subj", "/CN=maft-test-cluster", *usage, "-keyout", _key(keys.authority), "-out", keys.authority
    )
    _leaf(keys.authority, keys.api, "/CN=kube-apiserver", f"subjectAltName={_SANS}")
    _leaf(keys.authority, keys.kubelet_client, "/O=system:masters/CN=kube-apiserver-kubelet-client", "extendedKeyUsage=clientAuth")
    _leaf(keys.authority, keys.front_proxy, f"/CN={FRONT_PROXY}", "extendedKeyUsage=clientAuth")
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", keys.service_accounts)
    tokens = {user: secrets.token_hex(16) for user in _USERS}
    lines = [f'{tokens[user]},{name},{name},"{groups}"\n' for user, (name, groups) in _USERS.items()]
    keys.tokens.write_text("".join(lines))
    for user, token in tokens.items():
        kubeconfig(user).write_text(_kubeconfig(keys.authority, token))
    return keys


def _leaf(authority: Path, certificate: Path, subject: str, extension: str) -> None:
    extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature", extension]
    added = [part for each in extensions for part in ("-addext", each)]
    signer: list[str | Path] = ["-CA", authority, "-CAkey", _key(authority)]
    _openssl("req", "-x509", *signer, *_KEY, "-subj", subject, *added, "-keyout", _key(certificate), "-out", certificate)


def _key(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


def _kubeconfig(authority: Path, token: str) -> str:
    """Whole in itself: it is copied to where tests find it."""
    cluster = {"server": s.API, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "maft", "cluster": cluster}],
            "users": [{"name": "maft", "user": {"token": token}}],
            "contexts": [{"name": "maft", "context": {"cluster": "maft", "user": "maft"}}],
            "current-context": "maft",
        }
    )
