# `make` prints what there is. Every target installs what it needs, once, outside the checkout
# (RUNKEYS_CACHE, else ~/.cache/runkeys), and is quick when it is there.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PY := .venv/bin/python
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)
export PYTHONDONTWRITEBYTECODE :=

# End-to-end tests mostly wait: three times as many workers as a small machine has cores.
WORKERS ?= 6
# One test at a time for each worker, so that the long ones, which come first, keep no short ones waiting.
DIST = --dist load --maxschedchunk 1
PYTEST = $(PY) -m pytest
# The whole run is bounded as each test is, so that a hang ends with a report. It is no measure of speed.
BOUND = --session-timeout=4800
CLUSTER = $(PY) -m testing.cluster

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv system ## run the main job on a real cluster and watch it
	@$(PY) scripts/demo.py $(ARGS)

.PHONY: demo-down
demo-down: venv ## stop the demo's cluster
	@$(PY) scripts/demo.py down

.PHONY: test
test: lint build-tests ## lint, unit tests and end-to-end tests
	@$(PYTEST) -n $(WORKERS) $(DIST) $(BOUND) tests/unit tests/e2e

.PHONY: unit
unit: venv ## unit tests only: no cluster, no root
	@$(PYTEST) tests/unit $(ARGS)

.PHONY: e2e
e2e: build-tests ## end-to-end tests only; ARGS='-k cancel' chooses
	@$(PYTEST) -n $(WORKERS) $(DIST) $(BOUND) tests/e2e $(ARGS)

.PHONY: test-1.34
test-1.34: build-cluster ## kinds, policies and who may what, on an API server of Kubernetes 1.34 (builds it)
	@$(CLUSTER) build-oldest
	@$(PYTEST) $(BOUND) tests/oldest $(ARGS)

.PHONY: test-engines
test-engines: build-cluster ## Argo Workflows, Tekton and JobSet with pods that ask for secrets (builds all)
	@$(CLUSTER) build-engines
	@$(PYTEST) $(BOUND) tests/engines $(ARGS)

.PHONY: test-kind
test-kind: export RUNKEYS_E2E_PROVIDER = kind
test-kind: build-tests ## chart, kinds, policies, runs, sealed values and CLI on a cluster of kind
	@$(PYTEST) -n $(WORKERS) $(DIST) $(BOUND) tests/kind $$($(PY) -m tests.e2e.on_kind) $(ARGS)

.PHONY: proof
proof: test-1.34 ## the long proofs in their full size (hours)
	@RUNKEYS_PROOF=full $(PYTEST) -n $(WORKERS) $(DIST) -m proof -rP $(ARGS)

.PHONY: bench
bench: build-cluster ## measure; prints tables and writes JSON
	@$(PY) -m bench $(ARGS)

.PHONY: lint
lint: venv ## ruff, mypy --strict, import-linter
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo "make format mends this"; exit 1; }
	@$(PY) -m mypy
	@found=$$(.venv/bin/lint-imports --no-logo) || { echo "$$found"; exit 1; }

.PHONY: format
format: venv ## write the code in the one format
	@$(PY) -m ruff check --fix-only --quiet
	@$(PY) -m ruff format

.PHONY: crds
crds: venv ## write crds/ and the copy in the chart from the models
	@$(PY) -m runkeys.api.crd crds/ helm/runkeys/files/crds/

.PHONY: chart-docs
chart-docs: venv ## write the table of values in the chart's README
	@$(PY) -m scripts.chart_values

.PHONY: manifests
manifests: venv ## write deploy/, the chart's objects for kubectl apply -k
	@$(PY) -m scripts.manifests

.PHONY: docs
docs: venv ## build the documentation into build/docs; a link that leads nowhere fails it
	@$(PY) -m sphinx -q -W --keep-going -c docs -b html . build/docs
	@echo build/docs/docs/index.html

.PHONY: version
version: venv ## write the version of operator/runkeys/_version.py into the chart and deploy/
	@$(PY) -m scripts.version
	@$(PY) -m scripts.manifests

.PHONY: release-artifacts
release-artifacts: venv ## wheel, sdist, chart package, SBOM, notes and checksums, into dist/
	@$(PY) -m scripts.release artifacts $(ARGS)

.PHONY: image
image: venv ## the operator's image by docker build, tried and listed (ARGS='--base debian')
	@scripts/system-packages kind
	@$(PY) -m scripts.image $(ARGS)

.PHONY: test-image
test-image: build-cluster ## the image that Docker builds: who it runs as, what is in it, and as the tests' own
	@scripts/system-packages kind
	@$(PYTEST) $(BOUND) tests/image $(ARGS)

# Without REGISTRY=registry.example/owner/name nothing leaves this machine.
.PHONY: release
release: venv ## a step of the release workflow: STEP=check, image, index, …
	@$(PY) -m scripts.release $(STEP)

.PHONY: policies
policies: venv ## write policies/ and the chart's template from operator/runkeys/policies/
	@$(PY) -m runkeys.policies write policies/ helm/runkeys/templates/policies.yaml helm/runkeys/templates/policies-pods.yaml helm/runkeys/templates/policies-stores.yaml

.PHONY: lock
lock: venv ## write requirements/ from pyproject.toml; ARGS=--upgrade for newer versions
	@scripts/lock $(ARGS)

.PHONY: venv
venv: ## the Python environment of the tools (.venv)
	@scripts/venv >/dev/null

.PHONY: system
system: ## the system packages of the test cluster (apt, root only)
	@scripts/system-packages $(if $(filter kind,$(RUNKEYS_E2E_PROVIDER)),kind,node)

.PHONY: build-cluster
build-cluster: venv system ## the programs of the test cluster, from source
	@$(CLUSTER) build

.PHONY: build-tests
build-tests: venv system ## everything else that the end-to-end tests need, too
	@$(PY) -m tests.e2e.prepare
	@$(PY) -m compileall -q operator  # once, and not by each of a thousand operators

.PHONY: cluster-up
cluster-up: build-cluster ## start a cluster to try things on
	@$(CLUSTER) up $(ARGS)

.PHONY: cluster-down
cluster-down: venv ## stop it
	@$(CLUSTER) down $(ARGS)

.PHONY: cluster-status
cluster-status: venv ## what runs, and where its logs are
	@$(CLUSTER) status $(ARGS)

.PHONY: cluster-shell
cluster-shell: venv ## a shell in which kubectl is ready
	@$(CLUSTER) shell $(ARGS)

.PHONY: clean-cache
clean-cache: ## remove everything that was built or installed outside the checkout
	@scripts/clean-cache
