"""Runs of a cluster: resources, and what their status says."""

import copy
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maft_client.client import Client, key
from maft_client.results import Event, Json, MaftError, NoSuchRun, Refused, Results, Status, Unreachable, flat, score
from maft_operator import kubeconfig
from maft_operator.ended import is_over
from maft_operator.spec import files
from maft_operator.spec.schema import COMPARISON, GROUP, KIND, PLURALS, VERSION, BadSpec

MANAGER = "maft-client"  # field manager of what is applied
APPLY = "application/apply-patch+yaml"
TIMEOUT = 60.0  # seconds of one request
_NOT_FOUND = 404
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class ClusterClient(Client):
    """Runs of the cluster of a kubeconfig's context, with that user's rights."""

    def __init__(self, context: str | None, namespace: str | None) -> None:
        try:
            from kubernetes import client, config
        except ModuleNotFoundError as error:
            raise MaftError(f"the package {error.name} is missing; pip install 'maft[client]'") from None
        self._errors = client.ApiException
        try:
            made, present = _connected(config, context)
        except (config.ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise MaftError(f"no cluster: {' '.join(str(error).split())}; set KUBECONFIG, or run this in a pod") from None
        self._namespace = namespace or present
        self._kind = KIND
        self._runs, self._core = client.CustomObjectsApi(made), client.CoreV1Api(made)

    @functools.cached_property
    def comparisons(self) -> Client:
        """Opens the comparisons of this cluster."""
        made = copy.copy(self)
        made._kind = COMPARISON
        return made

    def submit(self, resource: Mapping[str, Any] | str | Path) -> str:
        """Applies it on the server; fields that the schema does not know are refused. One that is suspended goes on."""
        body = _body(resource, self._namespace, self._kind)
        about = {"namespace": body["metadata"]["namespace"], "name": body["metadata"]["name"], "body": body}
        options = {"field_manager": MANAGER, "force": True, "field_validation": "Strict", "_content_type": APPLY}
        self._call(self._runs.patch_namespaced_custom_object, **about, **options)
        return f"{about['namespace']}/{about['name']}"

    def status(self, run: str) -> Status:
        """Reads it from the resource."""
        whole = self._get(run)
        state = whole.get("status") or {}
        conditions = {c["type"]: c for c in state.get("conditions") or ()}
        telling = (("Accepted", "False"), ("Failed", "True"), ("Complete", "True"), ("Suspended", "True"))
        chosen = next((conditions[kind] for kind, value in telling if conditions.get(kind, {}).get("status") == value), None)
        condition = chosen or conditions.get("Progressing") or {}
        artifacts = state.get("artifacts") or {}
        return Status(
            f"{whole['metadata']['namespace']}/{whole['metadata']['name']}",
            state.get("phase") or "Pending",
            over=is_over(whole),
            iteration=(state.get("iteration") or {}).get("text", ""),
            progress=(state.get("progress") or state.get("runs") or {}).get("text", ""),
            accuracy=score(state.get("accuracy")),
            base=score(state.get("baseAccuracy")),
            reason=condition.get("reason", ""),
            message=" ".join(condition.get("message", "").split()),
            report=artifacts.get("report", "") or state.get("report", ""),
            adapters=artifacts.get("adapters", ""),
        )

    def events(self, run: str) -> Sequence[Event]:
        """Reads Kubernetes' Events about the resource."""
        metadata = self._get(run)["metadata"]
        selector = f"involvedObject.uid={metadata['uid']}"
        answer = self._call(self._core.list_namespaced_event, namespace=metadata["namespace"], field_selector=selector)
        events = [Event(_time(e), e.reason or "", e.message or "", e.type == "Warning") for e in answer.items]
        return sorted(events, key=lambda event: event.time)

    def results(self, run: str) -> Results:
        """Reads the rows of the status: of a run its iterations, of a comparison its runs."""
        whole = self._get(run)
        status = whole.get("status") or {}
        rows = status.get("iterations" if self._kind == KIND else "rows") or ()
        return Results(f"{whole['metadata']['namespace']}/{whole['metadata']['name']}", tuple(flat(row) for row in rows))

    def stop(self, run: str) -> None:
        """Suspends it: its pods go, and what is committed stays."""
        namespace, name = self._key(run)
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": self._kind, "spec": {"suspend": True}}
        options = {"_content_type": "application/merge-patch+json", "field_manager": MANAGER}
        self._call(self._runs.patch_namespaced_custom_object, namespace=namespace, name=name, body=body, **options)

    def _get(self, run: str) -> Json:
        namespace, name = self._key(run)
        whole: Json = self._call(self._runs.get_namespaced_custom_object, namespace=namespace, name=name)
        return whole

    def _key(self, run: str) -> tuple[str, str]:
        parts = key(run, self._namespace)
        if not all(map(_NAME.fullmatch, parts)):  # they become a part of a path
            raise MaftError(f"run {run!r}: no name; expected small letters, digits and -")
        return parts

    def _call(self, method: Any, **arguments: Any) -> Any:
        ours = {} if method.__self__ is self._core else {"group": GROUP, "version": VERSION, "plural": PLURALS[self._kind]}
        try:
            return method(**ours, **arguments, _request_timeout=TIMEOUT)
        except self._errors as error:
            raise _raised(error, f"{arguments['namespace']}/{arguments.get('name', '')}") from None
        except Exception as error:  # urllib3's, of a server that is away
            raise Unreachable(f"the API server does not answer: {type(error).__name__}: {' '.join(str(error).split())}") from None


def _connected(config: Any, context: str | None) -> tuple[Any, str]:
    """A client, and the namespace that its context names. The environment is read now: the library reads it once."""
    there = [path for path in kubeconfig.paths() if path.exists()]
    if not there and not context:
        config.load_incluster_config()
        return None, _own_namespace()
    for path in there:
        kubeconfig.read(path)  # what cannot be read is told
    wanted, names = context or kubeconfig.present(), kubeconfig.contexts()
    if wanted not in names:
        raise ValueError(f"the kubeconfig has no context {wanted!r}; there are: {', '.join(names) or 'none'}")
    client = config.new_client_from_config(os.pathsep.join(map(str, there)), context=wanted)
    return client, kubeconfig.namespace(wanted)


def _own_namespace() -> str:
    try:
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    except OSError:
        return "default"


def _body(resource: Mapping[str, Any] | str | Path, namespace: str, kind: str) -> Json:
    """Reads it as far as its place goes: the rest is the API server's to judge, whose release may be another."""
    try:
        made = json.loads(json.dumps(resource)) if isinstance(resource, Mapping) else files.load(Path(resource), kinds=(kind,))
        metadata = made["metadata"]
        named = {**metadata, "name": str(metadata["name"]), "namespace": metadata.get("namespace") or namespace}
    except (BadSpec, ValueError) as error:
        raise Refused(" ".join(str(error).split())) from None
    except (KeyError, TypeError, AttributeError):
        raise Refused("metadata.name: missing; a run has a name") from None
    if made.get("apiVersion") != f"{GROUP}/{VERSION}" or made.get("kind") != kind:
        raise Refused(f"kind: {made.get('apiVersion')} {made.get('kind')}; expected {GROUP}/{VERSION} {kind}")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in (named["name"], named["namespace"])):
        raise Refused(f"metadata: {named['namespace']}/{named['name']}: no name; expected small letters, digits and -")
    spec = {"suspend": False, **made["spec"]} if isinstance(made.get("spec"), dict) else made.get("spec")
    return {**made, "metadata": named, "spec": spec}


def _raised(error: Any, run: str) -> MaftError:
    try:
        message = " ".join(str(json.loads(error.body)["message"]).split())
    except (ValueError, TypeError, KeyError):
        message = f"{error.status} {error.reason}"
    if error.status == _NOT_FOUND and f'"{run.partition("/")[2]}"' in message:
        return NoSuchRun(f"{run}: there is none of that name")
    # Server-side apply answers 500 where a field has a name that no schema knows.
    if error.status in (400, 401, 403, 409, 422) or "not declared in schema" in message:
        return Refused(message)
    return Unreachable(f"the API server answered {error.status}: {message}")


def _time(event: Any) -> str:
    moment = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return moment.isoformat() if moment else ""
