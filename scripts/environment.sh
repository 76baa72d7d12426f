#!/usr/bin/env bash
# Makes .venv with everything that tests and demo need, exactly as requirements/constraints.txt says (hashes checked).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: python3 is missing or older than 3.11; install Python 3.11 or newer, or set PYTHON" >&2
  exit 2
fi

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  uv=.tools/uv/bin/uv
  if [ ! -x "$uv" ]; then
    echo "== environment: fetching uv through pip into .tools"
    # --target leaves the system's Python alone, also where that is externally managed.
    if ! "$python" -m pip --version >/dev/null 2>&1; then
      echo "error: pip is missing; run: apt install python3-pip" >&2
      exit 2
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade --target .tools/uv uv
  fi
fi

constraints=requirements/constraints.txt build=CPU
if [ -e /dev/nvidiactl ]; then constraints=requirements/constraints-cuda.txt build=CUDA; fi
echo "== environment: installing packages into .venv ($build build of vLLM; about 6 GB, half a minute to some minutes)"
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
# --no-deps: the file is the whole resolution, and the CPU build of vLLM names a build of torch that no registry has.
# --compile-bytecode: a run starts many processes, and where Python may not write bytecode each would compile all that it imports.
"$uv" pip install --quiet --python .venv/bin/python --compile-bytecode --no-deps --require-hashes -r "$constraints"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
touch .venv/.ready
echo "== environment: ready"
