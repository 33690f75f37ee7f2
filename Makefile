# A fresh clone and Python 3.11-3.13 are enough: every target sets up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-for-$(shell cksum < pyproject.toml | cut -d' ' -f1)-$(shell cksum < constraints.txt | cut -d' ' -f1)

.PHONY: help install quickstart check test bench chaos docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## set up .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "raymill needs Python 3.11-3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	rm -f $(VENV)/.installed-for-*
	touch $@

quickstart: $(STAMP)  ## example data, the whole road, a live endpoint, predictions, a clean stop
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/fraud/quickstart.sh quickstart

check: $(STAMP)  ## lint and types
	$(BIN)/ruff check
	$(BIN)/mypy

test: $(STAMP)  ## lint, types, unit and integration tests; ARGS="tests/data -x" for a part
	$(BIN)/ruff check
	$(BIN)/mypy & types=$$!; \
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS); tests=$$?; \
	wait $$types && exit $$tests

BENCH := $(BIN)/python -c 'import litserve, schemathesis' 2>/dev/null || $(BIN)/python -m pip install \
  --quiet --disable-pip-version-check --constraint constraints.txt litserve schemathesis

bench: $(STAMP)  ## figures: ours beside the floor or the peer; NAME=ingest for one
	$(BENCH)
	$(BIN)/python -m benchmarks $(NAME)

chaos: $(STAMP)  ## faults: what was injected, what survived; NAME=bundle-flip for one
	$(BENCH)
	$(BIN)/python -m benchmarks.chaos $(NAME)

docs: $(STAMP)  ## the spec's JSON Schema, and RESULTS.md from the measured figures
	$(BIN)/raymill schema > docs/spec.schema.json
	$(BIN)/python -m benchmarks --render

clean:  ## remove .venv, caches and the quickstart
	rm -rf $(VENV) quickstart build dist .mypy_cache .ruff_cache .pytest_cache
