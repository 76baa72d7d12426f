"""What the pod of an export has that no other one has: the secret of its target, as the target's own clients read it. Pure."""

from maft.spec import ExportSpec, SecretKey
from maft_operator.cluster.pod_template import from_secret
from maft_operator.spec.schema import Json

_VOLUME, _FOLDER = "target", "/target"
_HUB = "HF_TOKEN"
_NAMED = {"hub": _HUB, "otel": "OTEL_EXPORTER_OTLP_HEADERS"}  # variables with the whole secret, by kind of target


def of_target(container: Json, export: ExportSpec) -> Json:
    """Adds the secret to the container of an export, which loads no model and gets no token for one."""
    others = [variable for variable in container["env"] if variable["name"] != _HUB]
    made = {**container, "env": [*others, *(_variables(export.to, export.token_secret) if export.token_secret else [])]}
    if not _is_mounted(export):
        return made
    mount = {"name": _VOLUME, "mountPath": _FOLDER, "readOnly": True}
    return {**made, "volumeMounts": [*container["volumeMounts"], mount]}


def _variables(to: str, secret: SecretKey) -> list[Json]:
    if to == "oci":
        return [{"name": "DOCKER_CONFIG", "value": _FOLDER}]
    if to in _NAMED:
        return [from_secret(_NAMED[to], secret.name, secret.key)]
    token = from_secret("MLFLOW_TRACKING_TOKEN", secret.name, secret.key, optional=True)
    pair = {"MLFLOW_TRACKING_USERNAME": "username", "MLFLOW_TRACKING_PASSWORD": "password"}
    return [token, *(from_secret(name, secret.name, key, optional=True) for name, key in pair.items())]


def volumes(export: ExportSpec, others: list[Json]) -> Json:
    """Makes the volumes of an export's pod, where it has more than others."""
    if not _is_mounted(export) or export.token_secret is None:
        return {}
    item = {"key": export.token_secret.key, "path": "config.json"}  # as docker's own clients call it
    return {"volumes": [*others, {"name": _VOLUME, "secret": {"secretName": export.token_secret.name, "items": [item]}}]}


def _is_mounted(export: ExportSpec) -> bool:
    return export.to == "oci" and export.token_secret is not None
