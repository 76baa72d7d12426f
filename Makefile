# make demo: the environment, then the main job on real input. make test: the environment, then all tests.
# Everything is installed below this folder; a second run starts at once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help env demo test unit lint tiny clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: .venv/.ready ## the environment in .venv (uv is fetched through pip where it is missing)

.venv/.ready: constraints.txt constraints-cuda.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh

demo: env ## multiagent finetuning of the tiny model: table, report
	@echo "== demo: maft run examples/arithmetic.yaml"
	@.venv/bin/maft run examples/arithmetic.yaml --dir runs

test: env ## all tests, with real vLLM servers and a real S3 server
	@scripts/build-versitygw.sh
	@echo "== lint, types, layers"
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports
	@echo "== tests"
	@$(PY) -m pytest

unit: env ## the fast tests alone
	@$(PY) -m pytest -m "not engine and not s3 and not run" -q

lint: env ## style, types, layers
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports

tiny: env ## makes the demo's base model anew (about ten minutes)
	$(PY) examples/tiny/make.py

clean: ## removes what was installed and made
	rm -rf .venv .tools .cache runs
