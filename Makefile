# `make demo` shows it, `make test` checks it. Both make their own environment, in .venv, first.

# Any Python from 3.10 to 3.13: `make PYTHON=python3.12 demo` names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test lint unit slow bench docs clean

help:
	@echo 'make demo    freeze the digits model by its recipe, and show how to run the result'
	@echo 'make test    lint, types, import contracts, and the tests'
	@echo 'make slow    the long tests'
	@echo 'make bench   the benchmarks'
	@echo 'make docs    write the schema and the reference page again'
	@echo 'make clean   remove what these have made (not the cache)'

# The result is run with eight lines of Python, which are shown.
demo: $(VENV)/.demo-ready
	@$(BIN)/freezeflow run pipelines/digits.yaml
	@echo
	@echo 'Run it ($(BIN)/python pipelines/digits/predict.py):'
	@echo
	@sed 's/^/    /' pipelines/digits/predict.py

test: lint unit

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.test-ready
	$(BIN)/python -m pytest -q -m 'not slow'

slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -q -m slow

bench: $(VENV)/.test-ready
	$(BIN)/python -m bench

docs: $(VENV)/.demo-ready
	$(BIN)/python -m tools.make_reference

clean:
	rm -rf $(VENV) build dist pipelines/build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.demo-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@$(MAKE) --no-print-directory compiled
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@$(MAKE) --no-print-directory compiled
	@touch $@ $(VENV)/.demo-ready

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'no Python 3.10-3.13 found: make PYTHON=... names one' >&2; exit 1; }
	@echo 'Making an environment in $(VENV) with $(PYTHON) (TensorFlow is large: a few minutes)'
	$(PYTHON) -m venv $(VENV)

# Without compiled files every `import tensorflow` takes three times as long.
.PHONY: compiled
compiled:
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q freezeflow \
	  $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tensorflow
