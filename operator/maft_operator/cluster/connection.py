"""A client for the API server: of the pod that we are in, else of the kubeconfig, which is read as kubectl reads it."""

import contextlib
import os
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import kube_config

from maft_operator.cluster.fields import parts, text

_UNREADABLE = (config.ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)


class NoCluster(Exception):
    """Neither a pod's account nor a kubeconfig names a cluster. One line."""


@contextlib.asynccontextmanager
async def connected(*, in_cluster: bool, context: str = "") -> AsyncIterator[ApiClient]:
    """Opens a client for the cluster that we are in, else for the one of the kubeconfig. context: another than its present one."""
    settings = Configuration()
    if not in_cluster:
        _check(context)
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=settings)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await config.load_kube_config(context=context or _present(), client_configuration=settings)
    except _UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise NoCluster(f"no cluster: {why}; run this in a pod, or set KUBECONFIG") from None
    async with ApiClient(settings) as client:
        yield client


def chosen_namespace(context: str = "") -> str:
    """Reads the namespace of that context of the kubeconfig, else of its present one, as kubectl takes it."""
    wanted = context or _present()
    several = [entry for file in _files() for entry in parts(file, "contexts") if text(entry, "name") == wanted]
    return next((text(entry, "context", "namespace") for entry in several[:1]), "") or "default"


def _present() -> str | None:
    """Of several files the first that names a context decides; the library would take the last."""
    return next((name for file in _files() if (name := text(file, "current-context"))), None)


def _check(context: str) -> None:
    paths = _paths()
    if not any(path.exists() for path in paths):
        raise NoCluster(f"no cluster: no kubeconfig {os.pathsep.join(map(str, paths))}; run this in a pod, or set KUBECONFIG")
    names = [text(entry, "name") for file in _files() for entry in parts(file, "contexts")]
    if context and context not in names:
        raise NoCluster(f"--context {context}: the kubeconfig has none of that name; there are: {', '.join(names) or 'none'}")


def _files() -> list[Any]:
    """The files of KUBECONFIG that are there; what cannot be read is told when the client is made."""
    files = []
    for path in _paths():
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            files.append(yaml.safe_load(path.read_text()))
    return files


def _paths() -> list[Path]:
    return [Path(path).expanduser() for path in kube_config.KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if path]
