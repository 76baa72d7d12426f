"""How a Society is reached: its pods' port, the Service before them, who is let in, and the URL that clients are told. Pure."""

import hashlib

import msgspec

from maft_operator.cluster import kinds, policies
from maft_operator.cluster.images import Images
from maft_operator.cluster.society.reading import Asked
from maft_operator.spec.schema import Json

NOTE = "maft.dev/ingress"  # annotation: hash of the field that the Ingress was made from
SOCIETY = kinds.SOCIETY.label
PORT, PUBLIC, SECURED = 8080, 80, 443  # of the program; of the Service, without and with a certificate


def selector(asked: Asked) -> dict[str, str]:
    """Finds the pods."""
    return {SOCIETY: asked.name}


def port_name(asked: Asked) -> str:
    """Names the port of pods and Service: monitors find by it how metrics are read."""
    return "https" if asked.served.tls else "http"


def port(asked: Asked) -> int:
    """Numbers the Service's port."""
    return SECURED if asked.served.tls else PUBLIC


def url(asked: Asked) -> str:
    """Names what an OpenAI client takes as its base URL: from outside the cluster where there is a way in."""
    if outside := asked.served.ingress:
        return f"{'https' if outside.tls_secret_name else 'http'}://{outside.host}/v1"
    return f"{port_name(asked)}://{asked.name}.{asked.namespace}.svc/v1"


def service(asked: Asked) -> Json:
    """Makes the one address of all pods."""
    name = port_name(asked)
    return {"selector": selector(asked), "ports": [{"name": name, "port": port(asked), "targetPort": name, "protocol": "TCP"}]}


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
    # What is taken out of the Society is no difference by itself: this makes it one.
    digest = hashlib.sha256(msgspec.json.encode(outside, order="sorted")).hexdigest()[:12]
    return {"annotations": {**outside.annotations, NOTE: digest}, "spec": spec}


def network_policy(asked: Asked, images: Images) -> Json:
    """Lets in who may ask: anybody where API keys tell who may, else the namespace's own pods, and those who read metrics."""
    keys = asked.served.api_keys_secret
    return policies.of_society(selector(asked), PORT, images.scraped_from, open_to_all=bool(keys and keys.name))
