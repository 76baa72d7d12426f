# make demo: the environment, then the main job on real input. make test: the environment and whatever else tests need, then the tests.
# Packages are installed below this folder, tools and images kept in the user's cache; a second run starts at once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
PREPARE := $(or $(PYTHON),python3) tests/support/prepare.py
LINT := echo "== lint, types, layers" && $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports
# Two workers take group by group, in the order of conftest.py: what takes longest begins.
PYTEST := $(PY) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder
TRAINER := $(PY) benchmarks/trainer.py --write
GPU := --inside --batch 16 --lengths 600 300
# Row 14 is defined at a vocabulary of about 150,000, which is what makes all logits at once large.
WIDE := 256x4x150016
WIDE_GPU := 896x24x151936
CHAOS := echo "== chaos" && $(PY) benchmarks/chaos.py
TESTS := echo "== tests" && $(PYTEST)

.PHONY: help env demo demo-real prepare test nightly chaos unit lint release-check images cluster cluster-down cluster-status bench bench-gpu bench-quick tiny clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: .venv/.ready ## the environment in .venv (uv is fetched through pip where it is missing)

.venv/.ready: requirements/constraints.txt requirements/constraints-cuda.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh

demo: env ## multiagent finetuning of the tiny model: table, report
	@echo "== demo: maft run examples/arithmetic.yaml"
	@.venv/bin/maft run examples/arithmetic.yaml --dir runs

demo-real: env ## the same of a real pretrained model of 135 million parameters, in about ten minutes
	@$(PY) scripts/real_model.py
	@echo "== demo: maft run examples/real.yaml"
	@.venv/bin/maft run examples/real.yaml --dir runs

prepare: ## all that tests need, built, installed and running: tools, images, a cluster (the first time about a quarter of an hour)
	@$(PREPARE)

test: ## prepares, then style, types and the tests: real vLLM servers, a real S3 server, a real cluster
	@$(PREPARE) environment s3 tools tokenizers pretrained cluster images up -- bash -c '$(LINT) && $(TESTS) -m "not nightly"'

nightly: ## the same with all tests, also those that take long by nature, what benchmarks use, and runs on vLLM under chaos
	@$(PREPARE) -- bash -c '$(LINT) && $(PY) -m mypy --config-file benchmarks/mypy.ini && $(TESTS) && $(CHAOS) --runs 5 --engine vllm --at-once 1'

chaos: ## runs whose pods, operator, node, store and API server are killed, stopped and filled up at random (RUNS=50 SEED=0)
	@$(PREPARE) -- bash -c '$(CHAOS) --runs $(or $(RUNS),50) --seed $(or $(SEED),0)'

unit: env ## the fast tests alone
	@$(PYTEST) -q -m "not (engine or s3 or run or cluster or tools or tokenizers or models or programs or nightly)"

lint: env ## style, types, layers
	@$(LINT)

OF_TRAINER := trl adapters memory trl-defaults trl-best adapters-processes adapters-steps
MODEL_OF = $(if $(filter memory,$(1)),--model random:$(WIDE),$(MODEL:%=--model %))

bench: env ## speed as ratios, into docs/performance.md (hours; PART=client or others of bench.py and of trainer.py; there MODEL=135m)
	@$(if $(if $(PART),$(filter-out $(OF_TRAINER),$(PART)),all),$(PY) benchmarks/bench.py --write $(addprefix --part ,$(filter-out $(OF_TRAINER),$(PART))))
	@$(foreach part,$(if $(PART),$(filter $(OF_TRAINER),$(PART)),trl adapters memory),$(TRAINER) --part $(part) $(call MODEL_OF,$(part)) &&) true

bench-gpu: env ## on a machine with a GPU: what training does there, beside TRL, and the rows on a server, into docs/performance.md
	@failed=0; $(PY) benchmarks/gpu_check.py || failed=1; \
	for part in trl adapters; do $(TRAINER) --part $$part --model random:896x24x49152 $(GPU) || failed=1; done; \
	$(TRAINER) --part memory --model random:$(WIDE_GPU) $(GPU) || failed=1; \
	$(PY) scripts/real_model.py || failed=1; \
	$(PY) benchmarks/bench.py --part gpu --write || failed=1; \
	$(PY) benchmarks/bench.py --part warm-start-gpu --write || failed=1; \
	$(PY) benchmarks/bench.py --part iteration-gpu --write || failed=1; exit $$failed

bench-quick: env ## the same with small samples, in under three minutes: fails on gross loss alone
	@$(PY) benchmarks/bench.py --quick $(PART:%=--part %)

release-check: env ## the steps of a release against a registry on this machine (docker, or root on Debian)
	@$(PY) scripts/release_check.py --images operator

images: env ## the container images, with docker or buildah; PREFIX=REGISTRY/maft pushes them there, INFERENCE=cpu: for nodes without GPUs
	@$(PY) tests/support/cluster/images.py $(PREFIX:%=--prefix % --push) $(INFERENCE:%=--inference %)

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
