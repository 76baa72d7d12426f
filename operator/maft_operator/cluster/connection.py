"""A client for the API server: of the pod that we are in, else of the kubeconfig."""

import contextlib
import warnings
from collections.abc import AsyncIterator

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import kube_config


class NoCluster(Exception):
    """Neither a pod's account nor a kubeconfig names a cluster. One line."""


@contextlib.asynccontextmanager
async def connected(*, in_cluster: bool) -> AsyncIterator[ApiClient]:
    """Opens a client for the cluster that we are in, else for the one of the kubeconfig."""
    settings = Configuration()
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=settings)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await config.load_kube_config(client_configuration=settings)
    except config.ConfigException as error:
        raise NoCluster(f"no cluster: {error}; run this in a pod, or set KUBECONFIG") from None
    async with ApiClient(settings) as client:
        yield client


def chosen_namespace() -> str:
    """Reads the namespace of the kubeconfig's present context, as kubectl takes it."""
    try:
        _, context = kube_config.list_kube_config_contexts(kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    except config.ConfigException:
        return "default"
    return str((context.get("context") or {}).get("namespace") or "default")
