# embedpress: `make demo` and `make test` set everything up in .venv by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: help demo test test-all test-faults test-fuzz lint docs bench clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "==> Setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "embedpress needs Python 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[train,serve,demo,dev]'
	@touch $@

demo: $(VENV)/installed ## The whole pipeline on real text: figures, searches, pictures
	@$(BIN)/python scripts/demo.py --output $(DEMO)

test: $(VENV)/installed ## The quick tests
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest -m "not slow and not faults" -q

test-all: $(VENV)/installed ## All tests, the slow ones too
	@$(BIN)/python -m pytest -q

test-faults: $(VENV)/installed ## Jobs killed, damaged and out of disk, the long form
	@$(BIN)/python -m pytest -m faults -q

test-fuzz: $(VENV)/installed ## Damaged indexes and graphs by the thousand, a quarter of an hour
	@$(BIN)/python -m pytest tests/doors/test_door_fuzz.py -m slow -q

lint: $(VENV)/installed ## Style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

$(VENV)/docs-installed: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/docs-installed ## The documentation, built into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "==> site/index.html; with its search: $(BIN)/mkdocs serve"

bench: $(VENV)/installed ## Measure again what the README claims
	@$(BIN)/python benchmarks/equal_bytes.py
	@$(BIN)/python benchmarks/speed.py
	@$(BIN)/python benchmarks/serving.py
	@$(BIN)/python benchmarks/load.py
	@$(BIN)/python benchmarks/rerank.py
	@$(BIN)/python benchmarks/scale.py
	@$(BIN)/python benchmarks/clusters.py
	@$(BIN)/python benchmarks/outliers.py
	@$(BIN)/python benchmarks/denoising.py
	@$(BIN)/python benchmarks/drift.py
	@$(BIN)/python benchmarks/map.py
	@$(BIN)/python benchmarks/tables.py

clean: ## Remove .venv and what the demo made
	@rm -rf $(VENV) $(DEMO) site
