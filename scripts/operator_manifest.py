"""Prints deploy/operator.yaml: the chart with its default values, for those without Helm. Its argument: the program helm.

scripts/operator_manifest.py "$(scripts/build-tool.sh helm)/helm" > deploy/operator.yaml
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# The operator for the whole cluster, without Helm: kubectl apply -f crds/ -f deploy/operator.yaml
# Made from charts/maft with its default values by scripts/operator_manifest.py.
apiVersion: v1
kind: Namespace
metadata:
  name: maft-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
HELMS = ("# Source:", "app.kubernetes.io/managed-by: Helm", "helm.sh/chart:")  # what only Helm's own objects have


def manifest(helm: str) -> str:
    """The Namespace, then what Helm would install into it but for the CustomResourceDefinition."""
    command = [helm, "template", "maft", str(ROOT / "charts" / "maft"), "--namespace", "maft-system"]
    command += ["--no-hooks", "--set", "crds.install=false"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return HEAD + "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(HELMS))


if __name__ == "__main__":
    print(manifest(sys.argv[1]), end="")
