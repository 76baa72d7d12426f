"""Configuration files of the parts, below the state folder."""

import json
import shutil
from pathlib import Path

import settings as s
import yaml
from host import CNI
from keys import Keys

AUDIT_POLICY = s.ETC / "audit-policy.yaml"
CONTAINERD = s.ETC / "containerd.toml"
KUBELET = s.ETC / "kubelet.yaml"
COREDNS = s.ETC / "Corefile"
REGISTRY = s.ETC / "registry.yaml"
_RESOLV = s.ETC / "resolv.conf"
_NETWORKS, _HOSTS = s.ETC / "cni", s.ETC / "hosts"


def write(keys: Keys) -> None:
    """Writes all of them."""
    AUDIT_POLICY.write_text(yaml.safe_dump(_audit_policy()))
    CONTAINERD.write_text(_containerd())
    KUBELET.write_text(yaml.safe_dump(_kubelet(keys)))
    COREDNS.write_text(_coredns())
    REGISTRY.write_text(yaml.safe_dump(_registry()))
    _RESOLV.write_text(f"nameserver {s.NODE}\n")
    _write(_NETWORKS / "maft.conflist", json.dumps(_network()))
    _write(
        _HOSTS / s.IMAGES / "hosts.toml",
        f'server = "http://{s.IMAGES}"\n[host."http://{s.IMAGES}"]\ncapabilities = ["pull", "resolve"]\n',
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _audit_policy() -> object:
    """Every request once, when it is answered: who, what, which object."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }


def _containerd() -> str:
    # restrict_oom_score_adj: in a machine that may not lower its scores, every sandbox fails without it.
    return f"""
version = 3
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
discard_unpacked_layers = true # half the disk; the registry is near
max_concurrent_downloads = 4
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{s.PAUSE}'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{_HOSTS}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{CNI}']
conf_dir = '{_NETWORKS}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{shutil.which("runc")}'
SystemdCgroup = false
"""


def _network() -> object:
    """The bridge is there already: it carries the node's address."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": s.PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": s.BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "maft", "plugins": [bridge, ports]}


def _kubelet(keys: Keys) -> object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": s.NODE,
        "authentication": {"x509": {"clientCAFile": str(keys.authority)}},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{s.CGROUP}",
        "clusterDNS": [s.NODE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": [],
        # Absolute and small: the machine's disk is not the cluster's, and its filling up not what tests are about.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "200Mi", "imagefs.available": "200Mi"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "resolvConf": str(_RESOLV),
        "serializeImagePulls": False,
        "volumeStatsAggPeriod": "5s",  # how soon an emptyDir over its limit is noticed; a minute by default
    }


def _coredns() -> str:
    """The cluster's names; any other does not exist, said at once rather than after a time-out."""
    return f"""
cluster.local in-addr.arpa {{
    bind {s.NODE}
    health {s.NODE}:8181
    ready {s.NODE}:8182
    errors
    kubernetes {{
        kubeconfig {s.ETC}/admin.kubeconfig maft
        ttl 2
    }}
}}
. {{
    bind {s.NODE}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def _registry() -> object:
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(s.REGISTRY)}, "delete": {"enabled": True}},
        "http": {"addr": s.IMAGES},
    }
