"""A client for the API server: of the pod that we are in, else of the kubeconfig, which is read as kubectl reads it."""

import contextlib
import os
import warnings
from collections.abc import AsyncIterator
from urllib.request import getproxies_environment

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from maft_operator import kubeconfig

_UNREADABLE = (config.ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError)


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
                await config.load_kube_config(context=context or kubeconfig.present() or None, client_configuration=settings)
    except _UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        where = "" if in_cluster else f"kubeconfig {os.pathsep.join(map(str, kubeconfig.paths()))}: "
        raise NoCluster(f"no cluster: {where}{why}; run this in a pod, or set KUBECONFIG") from None
    # Where no proxy is set there is nothing to look for in the environment; aiohttp would read ~/.netrc at each request.
    settings.client_session_kwargs = {"trust_env": bool(getproxies_environment())}
    async with ApiClient(settings) as client:
        yield client


def _check(context: str) -> None:
    paths = kubeconfig.paths()
    if not any(path.exists() for path in paths):
        raise NoCluster(f"no cluster: no kubeconfig {os.pathsep.join(map(str, paths))}; run this in a pod, or set KUBECONFIG")
    names = kubeconfig.contexts()
    if context and context not in names:
        raise NoCluster(f"--context {context}: the kubeconfig has none of that name; there are: {', '.join(names) or 'none'}")
