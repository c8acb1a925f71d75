# `make demo` shows it, `make test` checks it. Both make their own environment, in .venv, first.

# The first Python from 3.10 to 3.13 that can make an environment; `make PYTHON=... demo` names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_GRAPH := pipelines/build/digits.pb
DEMO_SCRIPT := pipelines/digits/run_frozen.py
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test lint unit slow bench docs format clean

help:
	@echo 'make demo    freeze the digits model by its recipe, and run the result'
	@echo 'make test    lint, types, import contracts, and the tests'
	@echo 'make slow    the long tests'
	@echo 'make bench   the benchmarks'
	@echo 'make docs    write the schema and the reference page again'
	@echo 'make format  format the code'
	@echo 'make clean   remove what these have made (not the cache)'

# The script is run only when there is a new graph: doing nothing should take no time. TensorFlow
# talks to standard error about the processor; that is shown only if something went wrong.
demo: $(VENV)/.demo-ready
	@$(BIN)/freezeflow run pipelines/digits.yaml
	@echo
	@echo 'The frozen graph in eight lines of Python, $(DEMO_SCRIPT):'
	@echo
	@sed 's/^/    /' $(DEMO_SCRIPT)
	@if [ ! -e $(VENV)/.demo-run ] || [ $(DEMO_GRAPH) -nt $(VENV)/.demo-run ]; then \
	  echo; echo 'What it takes 20 digits for, and below what they are:'; echo; \
	  $(BIN)/python $(DEMO_SCRIPT) >$(VENV)/.demo-run 2>$(VENV)/.demo-log \
	    || { cat $(VENV)/.demo-log >&2; rm $(VENV)/.demo-run; exit 1; }; \
	  sed 's/^/    /' $(VENV)/.demo-run; fi

test: lint unit

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.test-ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow'

slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow

bench: $(VENV)/.test-ready
	$(BIN)/python -m bench --json $(VENV)/bench.json

docs: $(VENV)/.demo-ready
	$(BIN)/python -m tools.make_reference

format: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info pipelines/build \
	  .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.demo-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@$(MAKE) --no-print-directory compiled
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev,keras2,test]'
	@$(MAKE) --no-print-directory compiled
	@touch $@ $(VENV)/.demo-ready

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.10-3.13 with its venv module found;' \
	  'name one: make PYTHON=python3.12 demo' >&2; exit 1; }
	@echo 'Making an environment in $(VENV) with $(PYTHON) (TensorFlow is large: a few minutes)'
	$(PYTHON) -m venv $(VENV)

# Without compiled files every `import tensorflow` takes three times as long.
.PHONY: compiled
compiled:
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q freezeflow \
	  $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tensorflow
