"""The flags of `maft operator`. What they are for is app.py's, which is read only where the command is used."""

import argparse
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from maft_operator import __version__
from maft_operator.cluster import pod_defaults
from maft_operator.cluster.images import ROLES, Images
from maft_operator.cluster.pod_settings import NVIDIA, PodSettings
from maft_operator.spec.schema import BadSpec

HELP = """Runs the MultiAgentFinetunes of a cluster. In a pod it uses its service account, elsewhere the kubeconfig.
Exit code 0: told to stop; 1: cannot go on, for a reason that it logs."""


# Of an image (OCI, distribution spec): host with its port, then folders.
_REPOSITORY = r"([A-Za-z0-9.-]+(:[0-9]+)?/|\[[0-9a-f:]+\](:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
_PREFIX = rf"{_REPOSITORY}|[A-Za-z0-9.-]+:[0-9]+"  # the last: the root of a registry
_RESOURCE = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the flags to the parser of the command."""
    environment = os.environ.get
    parser.add_argument(
        "--namespace", action="append", default=[], help="serve this namespace only; may be repeated [all namespaces]"
    )
    parser.add_argument(
        "--images",
        default=environment("MAFT_IMAGES", ""),
        metavar="PREFIX",
        help="where the workload images are: PREFIX/debate and so on [MAFT_IMAGES]",
    )
    parser.add_argument("--tag", default=environment("MAFT_TAG", __version__), help=f"their tag [MAFT_TAG, {__version__}]")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="ROLE=IMAGE",
        help="the image of debate, trainer or inference, in place of PREFIX/ROLE:TAG; once for each",
    )
    parser.add_argument("--pull-policy", default="IfNotPresent", choices=("Always", "IfNotPresent", "Never"), help="of their pods")
    parser.add_argument("--no-leader-election", action="store_true", help="this is the only replica: do without the Lease")
    parser.add_argument("--lease-namespace", help="where the Lease lies [the pod's own namespace]")
    parser.add_argument(
        "--lease-name", default="maft-operator", help="replicas with the same Lease are one operator [maft-operator]"
    )
    parser.add_argument("--port", type=int, default=8080, help="of /healthz and /readyz [8080]")
    parser.add_argument("--metrics-tls-cert", type=Path, metavar="FILE", help="certificate of the port, read anew when it changes")
    parser.add_argument("--metrics-tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--metrics-auth", action="store_true", help="/metrics, over TLS, asks for a token that may get that URL")
    parser.add_argument("--network-policies", action="store_true", help="let only a run's own pods reach its pods; metrics also us")
    parser.add_argument(
        "--scrape-namespace", action="append", default=[], help="with it: and pods of this namespace; may be repeated"
    )
    parser.add_argument("--no-server-keys", action="store_true", help="servers of runs want no key of whoever asks them")
    parser.add_argument("--no-cpu-limits", action="store_true", help="pods of runs have no limit of processors")
    parser.add_argument("--no-disk-requests", action="store_true", help="pods of runs name no ephemeral-storage")
    parser.add_argument(
        "--no-pod-ids", action="store_true", help="pods of runs name no user and group: the cluster does (OpenShift)"
    )
    parser.add_argument(
        "--gpu-resource", default=NVIDIA, metavar="NAME", help=f"what a GPU of runs is, where they do not say it [{NVIDIA}]"
    )
    parser.add_argument("--pod-defaults", type=Path, metavar="FILE", help="a podTemplate in YAML for all runs, before their own")
    parser.add_argument(
        "--inherit-label", action="append", default=[], metavar="NAME", help="a run's label that its pods have; may be repeated"
    )
    parser.add_argument(
        "--inherit-annotation", action="append", default=[], metavar="NAME", help="the same of an annotation; may be repeated"
    )
    parser.add_argument("--log-format", default="text", choices=("text", "json"), help="[text]")
    parser.add_argument("--verbose", action="store_true", help="log what kopf does, too")
    parser.set_defaults(call=_operator)


def _operator(arguments: argparse.Namespace) -> int:
    from maft_operator.cluster import app

    options = app.Options(
        images=replace(images(arguments), operated_from=app.own_namespace()),
        namespaces=tuple(arguments.namespace),
        own=arguments.lease_namespace or app.own_namespace(),
        lease=arguments.lease_name,
        elect=not arguments.no_leader_election,
        port=arguments.port,
        log_format=arguments.log_format,
        verbose=arguments.verbose,
        metrics_auth=arguments.metrics_auth,
        certificate=certificate(arguments),
    )
    return app.operate(options)


def certificate(arguments: argparse.Namespace) -> tuple[Path, Path] | None:
    """Reads where the port's certificate and its key are; BadSpec for one alone, and for tokens that would go unencrypted."""
    files = arguments.metrics_tls_cert, arguments.metrics_tls_key
    if files == (None, None):
        if arguments.metrics_auth:
            both = "--metrics-tls-cert and --metrics-tls-key"
            raise BadSpec(f"--metrics-auth: without {both} tokens would be read on their way; give both")
        return None
    if None in files:
        raise BadSpec("--metrics-tls-cert, --metrics-tls-key: one without the other; give both")
    return files


def images(arguments: argparse.Namespace) -> Images:
    """Reads where the images are and what all pods of runs have; BadSpec for the first flag that is wrong."""
    named = _named(arguments.image)
    prefix, tag = arguments.images.rstrip("/"), arguments.tag
    if not prefix and set(named) != set(ROLES):
        raise BadSpec("--images: not set; name where nodes find the images, such as registry.example.com/maft")
    if prefix and not re.fullmatch(_PREFIX, prefix):
        raise BadSpec(f"--images {prefix}: expected HOST/FOLDER without https:// and a tag, such as registry.example.com:5000/maft")
    if not re.fullmatch(_TAG, tag):
        raise BadSpec(f"--tag {tag}: expected letters, digits, _, . and -, at most 128")
    return Images(
        prefix,
        tag,
        arguments.pull_policy,
        named,
        isolated=arguments.network_policies,
        scraped_from=tuple(arguments.scrape_namespace),
        keyed=not arguments.no_server_keys,
        pods=_pods(arguments),
    )


def _named(given: Iterable[str]) -> dict[str, str]:
    """Reads ROLE=IMAGE; of one role the last one counts."""
    pairs = {role: image for role, _, image in (each.partition("=") for each in given)}
    for role, image in pairs.items():
        if role not in ROLES or not re.fullmatch(rf"{_REPOSITORY}(:{_TAG})?(@sha256:[0-9a-f]{{64}})?", image):
            raise BadSpec(f"--image {role}={image}: expected ROLE=IMAGE; roles are {', '.join(ROLES)}")
    return pairs


def _pods(arguments: argparse.Namespace) -> PodSettings:
    return PodSettings(
        cpu_limits=not arguments.no_cpu_limits,
        disk=not arguments.no_disk_requests,
        ids=not arguments.no_pod_ids,
        gpu_resource=_resource(arguments.gpu_resource),
        defaults=pod_defaults.read(arguments.pod_defaults),
        labels=pod_defaults.names("--inherit-label", arguments.inherit_label),
        annotations=pod_defaults.names("--inherit-annotation", arguments.inherit_annotation),
    )


def _resource(name: str) -> str:
    """Kubernetes keeps names of its own domain, and those that quotas begin with, for itself."""
    if not re.fullmatch(_RESOURCE, name) or "kubernetes.io/" in name or name.startswith("requests."):
        raise BadSpec(f"--gpu-resource {name}: expected a name such as nvidia.com/gpu, amd.com/gpu or nvidia.com/mig-1g.10gb")
    return name
