"""Writes deploy/operator.yaml: the chart with its default values, for those without Helm."""

import subprocess
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


def helm() -> str:
    """The Helm of the tests, built if it is not there."""
    done = subprocess.run([ROOT / "scripts" / "build-tool.sh", "helm"], check=True, stdout=subprocess.PIPE, text=True)
    return f"{done.stdout.strip()}/helm"


if __name__ == "__main__":
    (ROOT / "deploy" / "operator.yaml").write_text(manifest(helm()))
