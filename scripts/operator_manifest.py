"""Writes deploy/operator.yaml: the chart with its default values, for those without Helm. Where the images are, an overlay says."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# The operator for the whole cluster, without Helm: kubectl apply -k OVERLAY, or -f crds/ -f deploy/operator.yaml
# after putting the place of your images where images.invalid/maft stands (docs/operations.md). Made from charts/maft by
# scripts/operator_manifest.py.
apiVersion: v1
kind: Namespace
metadata:
  name: maft-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
NOWHERE = "images.invalid/maft"  # nobody has this name: a forgotten one is an image that cannot be pulled, and says so
HELMS = ("# Source:", "app.kubernetes.io/managed-by: Helm", "helm.sh/chart:")  # what only Helm's own objects have


def manifest(helm: str) -> str:
    """The Namespace, then what Helm would install into it but for the CustomResourceDefinition."""
    command = [helm, "template", "maft", str(ROOT / "charts" / "maft"), "--namespace", "maft-system"]
    command += ["--no-hooks", "--set", "crds.install=false", "--set", f"images.prefix={NOWHERE}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return HEAD + "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(HELMS))


def helm() -> str:
    """The Helm of the tests, built if it is not there."""
    done = subprocess.run([ROOT / "scripts" / "build-tool.sh", "helm"], check=True, stdout=subprocess.PIPE, text=True)
    return f"{done.stdout.strip()}/helm"


if __name__ == "__main__":
    (ROOT / "deploy" / "operator.yaml").write_text(manifest(helm()))
