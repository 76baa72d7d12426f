# make demo: the environment, then the main job on real input. make test: the environment, then all tests.
# Everything is installed below this folder; a second run starts at once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help env demo test unit lint release-check images cluster cluster-down cluster-status tiny clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: .venv/.ready ## the environment in .venv (uv is fetched through pip where it is missing)

.venv/.ready: requirements/constraints.txt requirements/constraints-cuda.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh

demo: env ## multiagent finetuning of the tiny model: table, report
	@echo "== demo: maft run examples/arithmetic.yaml"
	@.venv/bin/maft run examples/arithmetic.yaml --dir runs

test: env ## all tests, with real vLLM servers and a real S3 server
	@for tool in versitygw helm helm-docs; do scripts/build-tool.sh $$tool >/dev/null || exit; done
	@echo "== lint, types, layers"
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports
	@echo "== tests"
	@$(PY) -m pytest -n 2 --dist loadgroup

unit: env ## the fast tests alone
	@$(PY) -m pytest -m "not engine and not s3 and not run and not cluster" -q

lint: env ## style, types, layers
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports

release-check: env ## the steps of a release against a registry on this machine (docker, or root on Debian)
	@$(PY) scripts/release_check.py --images operator

images: env ## the container images, with docker or buildah
	@$(PY) tests/support/cluster/images.py

cluster: env ## a Kubernetes cluster on this machine for the tests, without docker (needs root; once it is there: seconds)
	@$(PY) tests/support/cluster/cluster.py up

cluster-down: env ## ends it and removes all that is left of it
	@$(PY) tests/support/cluster/cluster.py down

cluster-status: env ## whether it is up and well
	@$(PY) tests/support/cluster/cluster.py status

tiny: env ## makes the demo's base model anew (about ten minutes)
	$(PY) examples/tiny/make.py

clean: ## removes what was installed and made
	rm -rf .venv .tools .cache runs
