# `make help` lists the targets. Everything is installed into .venv, from pinned requirements with hashes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The first supported Python on PATH; PYTHON=/path/to/python chooses another.
IS_SUPPORTED := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(IS_SUPPORTED)' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment -------------------------------------------------------------

$(BIN)/python:
	@"$(PYTHON)" -c '$(IS_SUPPORTED)' 2>/dev/null || { echo "make: Match needs Python 3.11 to 3.14 with its venv module (Debian: python3-venv), set PYTHON=/path/to/python; for 3.15 numpy and numkong are missing: their pinned versions have no wheels" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The client is installed in place: `match` in $(BIN) runs the files of client/.
$(VENV)/.dev: $(REQUIREMENTS)/dev.txt client/pyproject.toml | $(BIN)/python
	@echo "installing the dependencies of Match, and the command line match, into $(VENV) …"
	@$(PIP) -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable client
	@touch $@

$(VENV)/.test: $(REQUIREMENTS)/test.txt $(REQUIREMENTS)/oracle.txt | $(VENV)/.dev
	@echo "installing the dependencies of the tests into $(VENV) …"
	@$(PIP) -r $(REQUIREMENTS)/test.txt
	@$(PIP) --no-deps -r $(REQUIREMENTS)/oracle.txt
	@touch $@

$(VENV)/.bench: $(REQUIREMENTS)/bench.txt | $(VENV)/.test
	@echo "installing matplotlib for the benchmarks into $(VENV) …"
	@$(PIP) -r $<
	@touch $@

$(VENV)/.lint: $(REQUIREMENTS)/lint.txt | $(VENV)/.test
	@echo "installing linters and the type checker into $(VENV) …"
	@$(PIP) -r $<
	@touch $@

$(VENV)/.manifests: $(REQUIREMENTS)/manifests.txt | $(VENV)/.test
	@echo "installing the checks of Docker and Kubernetes files into $(VENV) …"
	@$(PIP) -r $<
	@touch $@

# Environments of their own: generators of clients, for tests that run them, and a downloader of images, which
# benchmarks/ingest.py measures beside Match if it is installed. uv, since pip takes four times as long.
GENERATORS := .cache/generators
DOWNLOADER := .cache/downloader

$(GENERATORS)/.installed $(DOWNLOADER)/.installed: .cache/%/.installed: $(REQUIREMENTS)/%.txt | $(VENV)/.lint
	@echo "installing the $* into $(@D) …"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D) --require-hashes --no-deps -r $<
	@touch $@

# --- run ---------------------------------------------------------------------

.PHONY: dev
dev: $(VENV)/.dev ## Run Redis, API, workers and flower until Ctrl-C, without Docker
	@exec $(BIN)/python -m dev.stack

.PHONY: demo
demo: $(VENV)/.dev ## Add the example images to a running `make dev`, and find two by a copy and a screenshot
	@$(BIN)/python examples/demo.py

.PHONY: reindex
reindex: $(VENV)/.dev ## Copy the index of Elasticsearch or OpenSearch into a new one with the current settings, while the service runs
	@$(BIN)/python -m common.store.reindex

# --- check -------------------------------------------------------------------

.PHONY: sure
sure: format-check lint types contracts promtool test ## Run all checks that a change has to pass

# More processes than cores, since many tests wait. In the order of their names: the short unit tests run last.
.PHONY: test
test: $(VENV)/.test $(VENV)/.manifests $(GENERATORS)/.installed ## Run the tests, except those on a Kubernetes cluster (make k8s-apply)
	$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder --ignore=tests/faults --ignore=tests/cluster --ignore=tests/acceptance
	$(BIN)/python -m pytest -n 4 tests/faults

# A separate environment, installed by uv: pip takes four times as long.
OTHER_VENV := .cache/other-python

.PHONY: test-python
test-python: $(VENV)/.lint ## Run the unit and contract tests on another Python: PYTHON=/path/to/python
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(OTHER_VENV)
	$(BIN)/uv pip install --quiet --python $(OTHER_VENV) --require-hashes --no-deps -r $(REQUIREMENTS)/test.txt -r $(REQUIREMENTS)/oracle.txt
	$(OTHER_VENV)/bin/python -m pytest -n 2 -m "not elasticsearch and not opensearch" tests/unit tests/contract

.PHONY: promtool
promtool: $(VENV)/.dev ## Build Prometheus's promtool with Go, once, for the tests of the alert rules
	@$(BIN)/python -m dev.promtool

# Source distributions with conformance sets: PngSuite in pypng; bmpsuite and sets of APNG, TIFF and others in Pillow.
CONFORMANCE := .cache/conformance

$(CONFORMANCE): $(REQUIREMENTS)/conformance.txt | $(VENV)/.test
	@echo "downloading the conformance sets into $@ …"
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --no-binary :all: -r $< -d $@
	@touch $@

.PHONY: acceptance
acceptance: $(VENV)/.test $(GENERATORS)/.installed $(CONFORMANCE) ## Compare the decoder with an independent one, send 100,000 requests of keys, try the web page and the command line, run six generators of clients, test on OpenSearch, follow the README on a fresh clone
	MATCH_CONFORMANCE=$(CONFORMANCE) MATCH_CLIENTS=all $(BIN)/python -m pytest tests/acceptance tests/e2e/test_generators.py tests/e2e/test_clients.py
	MATCH_INDEX_SERVERS=all $(BIN)/python -m pytest -m opensearch tests/contract tests/integration tests/faults tests/e2e

.PHONY: faults
faults: $(VENV)/.test ## Kill, stall and flood the service for half an hour; print the outcome of each image
	MATCH_FAULTS=long MATCH_INDEX_SERVERS=all $(BIN)/python -m pytest --timeout=1800 tests/faults

.PHONY: fuzz
fuzz: $(VENV)/.test ## Send the service more than 100,000 random inputs; print their kinds
	MATCH_FUZZ=long $(BIN)/python -m pytest --timeout=7200 -n auto tests/fuzz tests/e2e/test_schema.py

.PHONY: format
format: $(VENV)/.lint ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: format-check
format-check: $(VENV)/.lint
	$(BIN)/ruff format --check

.PHONY: lint
lint: $(VENV)/.lint ## Lint code, prose and names, and compare the declared dependencies with the imports
	$(BIN)/ruff check
	$(BIN)/deptry .
	$(BIN)/deptry client --config client/pyproject.toml
	$(BIN)/python -m dev.lua_lint
	$(BIN)/python -m dev.prose

.PHONY: types
types: $(VENV)/.lint ## Check the types
	$(BIN)/mypy

.PHONY: contracts
contracts: $(VENV)/.lint ## Check the import contracts between packages
	$(BIN)/lint-imports

# --- containers --------------------------------------------------------------

# REGISTRY=registry.example.com/team is the target of `make push`. TAG has to be unique to a build.
IMAGE ?= match
REGISTRY ?=
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TRACING ?= false
AWS ?= false
DOCKER ?= docker
IMAGES := $(if $(REGISTRY),$(REGISTRY:/=)/)$(IMAGE)
DOCKER_BUILD = $(DOCKER) build --build-arg VERSION=$(TAG) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.PHONY: build
build: ## Build the images: API, worker, flower (TAG, REGISTRY, IMAGE, TRACING=true, AWS=true)
	$(DOCKER_BUILD) --build-arg TRACING=$(TRACING) --build-arg AWS=$(AWS) -f Dockerfile.api -t $(IMAGES)-api:$(TAG) .
	$(DOCKER_BUILD) --build-arg TRACING=$(TRACING) --build-arg AWS=$(AWS) -f Dockerfile.worker --target worker -t $(IMAGES)-worker:$(TAG) .
	$(DOCKER_BUILD) -f Dockerfile.worker --target flower -t $(IMAGES)-flower:$(TAG) .

.PHONY: push
push: build ## Build the images and push them to REGISTRY
	@test -n "$(REGISTRY)" || { echo "make push: set REGISTRY, for example REGISTRY=registry.example.com/team" >&2; exit 2; }
	$(DOCKER) push $(IMAGES)-api:$(TAG)
	$(DOCKER) push $(IMAGES)-worker:$(TAG)
	$(DOCKER) push $(IMAGES)-flower:$(TAG)

.PHONY: run
run: ## Run nginx, API, worker and Redis as containers until Ctrl-C, with the index server of ELASTICSEARCH_URL
	@test -n "$(ELASTICSEARCH_URL)" || { echo "make run: set ELASTICSEARCH_URL=http://host.docker.internal:9200 or another Elasticsearch 9 or OpenSearch; docker compose up starts one" >&2; exit 2; }
	@test -n "$(REDIS_PASSWORD)" || grep -qs '^REDIS_PASSWORD=.' .env || { echo "make run: set REDIS_PASSWORD to a random text of letters and digits, here or in .env" >&2; exit 2; }
	FLOWER_BASIC_AUTH=not:started ELASTIC_PASSWORD=unused $(DOCKER) compose up --build --no-deps redis worker api-1 api-2 proxy

.PHONY: rollout
rollout: ## Replace the API containers of docker compose one by one with the built images
	@DOCKER=$(DOCKER) proxy/rollout.sh

.PHONY: k8s-check
k8s-check: $(VENV)/.manifests ## Check Dockerfiles, compose file and all overlays
	$(BIN)/python -m pytest tests/manifests

.PHONY: k8s-programs
k8s-programs: $(VENV)/.dev ## Build the programs of a Kubernetes cluster with Go, once: half an hour
	@$(BIN)/python -m dev.cluster.programs

.PHONY: k8s-apply
k8s-apply: k8s-programs $(VENV)/.manifests ## Apply all overlays to a local control plane, roll them out and scale them
	$(BIN)/python -m pytest tests/cluster

KUBECTL ?= kubectl
# A folder of k8s/overlays, or the path of one outside the clone: it contains a slash.
OVERLAY ?= prod
OVERLAY_PATH = $(if $(findstring /,$(OVERLAY)),$(OVERLAY),k8s/overlays/$(OVERLAY))
NAMESPACE ?= match
SERVICES := app.kubernetes.io/component notin (api,worker,flower)

.PHONY: k8s-rollout
k8s-rollout: ## Apply OVERLAY to NAMESPACE: dependencies first, then the index, then API, workers and flower
	$(KUBECTL) -n $(NAMESPACE) delete job/match-prepare --ignore-not-found
	$(KUBECTL) -n $(NAMESPACE) apply -k $(OVERLAY_PATH) -l '$(SERVICES)'
	$(KUBECTL) -n $(NAMESPACE) wait --for=condition=complete --timeout=15m job/match-prepare
	$(KUBECTL) -n $(NAMESPACE) apply -k $(OVERLAY_PATH)
	$(KUBECTL) -n $(NAMESPACE) rollout status --timeout=15m deployment/match
	$(KUBECTL) -n $(NAMESPACE) rollout status --timeout=15m deployment/match-worker

# --- measure -----------------------------------------------------------------

.PHONY: bench
bench: $(VENV)/.bench $(DOWNLOADER)/.installed ## Run every benchmark (docs/benchmarks.md explains their output)
	@for script in $(filter-out benchmarks/soak.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; PYTHONPATH=.:tests $(BIN)/python $$script; done

.PHONY: soak
soak: $(VENV)/.bench ## Run the service at full rate for 20 minutes with bad input and a kill each minute; plot its memory
	PYTHONPATH=.:tests $(BIN)/python benchmarks/soak.py --plot docs/soak.svg

# --- pin ---------------------------------------------------------------------

CLIENT := client/pyproject.toml --extra cli --extra images

.PHONY: requirements
requirements: | $(VENV)/.lint ## Compile the pinned requirements again
	$(COMPILE) pyproject.toml --extra api -o $(REQUIREMENTS)/api.txt
	$(COMPILE) pyproject.toml --extra worker -o $(REQUIREMENTS)/worker.txt
	$(COMPILE) --group flower -o $(REQUIREMENTS)/flower.txt
	$(COMPILE) pyproject.toml $(CLIENT) --extra dev -o $(REQUIREMENTS)/dev.txt
	$(COMPILE) pyproject.toml $(CLIENT) --extra parquet --extra dev --extra tracing --extra aws --group test -o $(REQUIREMENTS)/test.txt
	$(COMPILE) pyproject.toml $(CLIENT) --extra parquet --extra dev --extra tracing --extra aws --group bench -o $(REQUIREMENTS)/bench.txt
	$(COMPILE) pyproject.toml --extra tracing -o $(REQUIREMENTS)/tracing.txt
	$(COMPILE) pyproject.toml --extra aws -o $(REQUIREMENTS)/aws.txt
	$(COMPILE) --group manifests -o $(REQUIREMENTS)/manifests.txt
	$(COMPILE) --group lint -o $(REQUIREMENTS)/lint.txt
	$(COMPILE) --group generators -o $(REQUIREMENTS)/generators.txt
	$(COMPILE) --group downloader -o $(REQUIREMENTS)/downloader.txt
	echo image-match==1.1.2 | $(COMPILE) --no-deps - -o $(REQUIREMENTS)/oracle.txt

.PHONY: clean
clean: ## Remove the environment and the caches, but not the data in MATCH_HOME
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
