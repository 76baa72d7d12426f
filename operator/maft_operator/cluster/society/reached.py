"""How a Society is reached: its pods' port, the Service before them, who is let in, and the URL that clients are told. Pure."""

import hashlib
from collections.abc import Iterable

import msgspec

from maft_operator.cluster import kinds, pods, policies
from maft_operator.cluster.fields import parts, text
from maft_operator.cluster.images import Images
from maft_operator.cluster.pod_template import DEBATE
from maft_operator.cluster.society.reading import Asked
from maft_operator.spec.schema import Json

# Annotations: what is taken out of an object is no difference by itself, these make it one.
NOTE = "maft.dev/ingress"  # hash of the field that the Ingress was made from
OPEN = "maft.dev/ports"  # names of the Service's ports
SOCIETY = kinds.SOCIETY.label
PORT = 8080  # of the program
PORTS = {"http": 80, "https": 443}  # of the Service, without and with a certificate


def selector(asked: Asked) -> dict[str, str]:
    """Finds the pods."""
    return {SOCIETY: asked.name}


def port_name(asked: Asked) -> str:
    """Names the port of pods and Service: monitors find by it how metrics are read."""
    return "https" if asked.served.tls else "http"


def spoken(pod: Json) -> str:
    """Names the protocol that a pod was made with, as its port is called; empty: it has no such port."""
    named = (text(p, "name") for c in parts(pod, "spec", "containers") if text(c, "name") == DEBATE for p in parts(c, "ports"))
    return next((name for name in named if name in PORTS), "")


def answered(asked: Asked, there: Iterable[Json]) -> str:
    """Names the protocol by which clients are answered: the one that is asked for, unless only pods of the other one are ready."""
    ready = {spoken(pod) for pod in there if pods.is_ready(pod) and not pods.is_terminating(pod)} - {""}
    wanted = port_name(asked)
    return wanted if wanted in ready or not ready else min(ready)


def url(asked: Asked, there: Iterable[Json] = ()) -> str:
    """Names what an OpenAI client takes as its base URL: from outside the cluster where there is a way in. there: its pods."""
    if outside := asked.served.ingress:
        return f"{'https' if outside.tls_secret_name else 'http'}://{outside.host}/v1"
    return f"{answered(asked, there)}://{asked.name}.{asked.namespace}.svc/v1"


def service(asked: Asked, there: Iterable[Json] = ()) -> Json:
    """Makes annotations and spec of the one address of all pods. there: its pods.

    While some speak the other protocol its port stays, and leads to them alone: each port finds the pods that have one of its
    name."""
    names = {port_name(asked), *(spoken(pod) for pod in there if pods.is_active(pod))} - {""}
    ports = [{"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"} for name in sorted(names)]
    return {"annotations": {OPEN: ".".join(sorted(names))}, "spec": {"selector": selector(asked), "ports": ports}}


def ingress(asked: Asked) -> Json | None:
    """Makes annotations and spec of the Ingress, where one is asked for. Metrics and health are no business of those outside."""
    outside = asked.served.ingress
    if outside is None:
        return None
    backend = {"service": {"name": asked.name, "port": {"name": port_name(asked)}}}
    secret = outside.tls_secret_name
    spec = {
        **({"ingressClassName": outside.class_name} if outside.class_name else {}),
        **({"tls": [{"hosts": [outside.host], "secretName": secret}]} if secret else {}),
        "rules": [{"host": outside.host, "http": {"paths": [{"path": "/v1", "pathType": "Prefix", "backend": backend}]}}],
    }
    digest = hashlib.sha256(msgspec.json.encode(outside, order="sorted")).hexdigest()[:12]
    return {"annotations": {**outside.annotations, NOTE: digest}, "spec": spec}


def network_policy(asked: Asked, images: Images) -> Json:
    """Lets in who may ask: anybody where API keys tell who may, else the namespace's own pods, and those who read metrics."""
    keys = asked.served.api_keys_secret
    return policies.of_society(selector(asked), PORT, images.scraped_from, open_to_all=bool(keys and keys.name))
