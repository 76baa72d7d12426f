"""Where the parts of the test cluster lie and listen. Every other module takes its paths and addresses from here."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def _cache() -> Path:
    """Kept between runs and shared by all clones of the repository: built tools, base images, the registry's blobs."""
    chosen = os.environ.get("MAFT_CLUSTER_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maft-cluster"


CACHE = _cache().absolute()
REGISTRY = CACHE / "registry"

# One cluster per machine (its routes are the machine's), so its state lies beside the cache, not in a clone.
STATE = CACHE / "state"
LOGS = STATE / "log"
ETC = STATE / "config"  # configuration, keys and tokens
RECORD = STATE / "cluster.json"  # what runs; there from the first process on
LOCK = CACHE / "lock"

# What a test needs to know, in the clone that asked for the cluster.
FACTS = ROOT / ".cache" / "cluster" / "cluster.json"
KUBECONFIG = FACTS.with_name("kubeconfig")

BRIDGE, NODE, PODS = "maft0", "10.244.0.1", "10.244.0.0/24"
SERVICES, FIRST_SERVICE = "10.96.0.0/16", "10.96.0.1"
# The pair that leads from the machine into the cluster's network namespace.
OUTSIDE, OUTSIDE_IP, INSIDE, INSIDE_IP, PAIR_BITS = "maft-host", "10.245.0.1", "maft-node", "10.245.0.2", 30

API = f"https://{NODE}:6443"
S3 = f"http://{NODE}:7070"
IMAGES = f"{NODE}:5001"
PAUSE = "localhost/maft/pause:1"
NODE_NAME = "node-1"
CGROUP = "maft"
