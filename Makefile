# make demo: see it work. make test: check everything. Nothing else has to be installed first but Python 3.11 and a C++ compiler.

PYTHON ?= python3
VENV ?= .venv
DEPLOY := .venv-deploy
DEMO_OUT := demo-out

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

ENGINE := $(shell find engine -type f -not -path '*/tests/*' -not -path '*/fuzz/*' 2>/dev/null)
PACKAGE := $(shell find src -type f -not -name '*.pyc' 2>/dev/null)
TOOLS = PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# A test uses one thread: a file on each core, four at most, in the order of collection (tests/conftest.py).
BESIDE = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo demo-detect demo-train test test-slow lint format clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: demo-detect demo-train ## detect with the carried model, then train, pack and prove a tiny one (about 6 minutes)

demo-detect: $(DEPLOY)/.done ## part 1: the carried model on the carried photos, without torch
	@$(DEPLOY)/bin/python tools/demo.py detect --out $(DEMO_OUT)

demo-train: $(VENV)/.train $(VENV)/.engine ## part 2: the whole way in miniature
	@$(VENV)/bin/python tools/demo.py train --out $(DEMO_OUT)

test: lint ## lint, types, import rules, all tests (under 15 minutes)
	@$(TOOLS) python -m pytest $(BESIDE)

test-slow: $(VENV)/.dev $(VENV)/.engine ## the tests that take longer, too
	@$(TOOLS) python -m pytest $(BESIDE) -m 'slow or not slow'

lint: $(VENV)/.dev $(VENV)/.engine ## style, types, the arrow of imports
	@$(TOOLS) ruff check src tests tools experiments benchmarks
	@$(TOOLS) ruff format --check --quiet src tests tools experiments benchmarks
	@$(TOOLS) mypy
	@$(TOOLS) lint-imports

format: $(VENV)/.dev ## put Python files into the one style
	@$(TOOLS) ruff format src tests tools experiments benchmarks
	@$(TOOLS) ruff check --fix src tests tools experiments benchmarks

clean: ## remove everything that make has made
	rm -rf .venv .venv-ci $(DEPLOY) $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

# Environments. Each stamp is older than what it depends on exactly when there is something to do.

$(VENV)/bin/python $(DEPLOY)/bin/python:
	@bash tools/prepare.sh "$(PYTHON)" "$(@D)/.."

$(DEPLOY)/.done: pyproject.toml $(ENGINE) $(PACKAGE) | $(DEPLOY)/bin/python
	@echo "installing the deploy package (numpy, Pillow, cyclopts and the engine; no torch) ..."
	@$(DEPLOY)/bin/python -m pip install --quiet .
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what training needs (torch and others) ..."
	@$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[train]'
	@touch $@ $(VENV)/.engine

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what tests need (torch and others) ..."
	@$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[train,export,video,dev]'
	@touch $@ $(VENV)/.train $(VENV)/.engine

$(VENV)/.engine: $(ENGINE) | $(VENV)/bin/python
	@echo "building the engine ..."
	@$(VENV)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@
