# pyreg: everything a person runs.  `make demo` and `make test` need only python3 (with venv).

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check -q
# a plain path entry: the default finder module costs the start of every command
EDITABLE = --config-settings editable_mode=compat -c constraints.txt -e

.PHONY: help demo test check serve bench interop conformance pyz wheel clean

help:
	@echo "make demo         the main job: serve, push, pull and run a real Debian image (root)"
	@echo "make test         the whole test suite"
	@echo "make check        lint, format, strict types, import contracts"
	@echo "make serve        the registry on localhost:5000"
	@echo "make bench        figures against docker-registry, docker and podman, side by side"
	@echo "make interop      docker, podman, skopeo and buildah against our registry"
	@echo "make conformance  the official OCI distribution conformance suite (needs go)"
	@echo "make pyz          pyreg as one file that needs only python3"
	@echo "make wheel        the installable wheel, in dist/"

# The virtual environment, in two steps: what runs pyreg, and what develops it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "pyreg needs Python 3.11 to 3.13; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "this python3 cannot make virtual environments; run: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: $(BIN)/python pyproject.toml constraints.txt
	@$(PIP) install $(EDITABLE) '.[server,fast]'
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.run-installed
	@echo "Installing the test tools ..."
	@$(PIP) install $(EDITABLE) '.[dev]'
	@touch $@

demo: $(VENV)/.run-installed
	@$(BIN)/python deploy/demo.py

test: $(VENV)/.dev-installed
	$(BIN)/python -m pytest -q -p no:cacheprovider $(TESTS)

check: $(VENV)/.dev-installed
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

serve: $(VENV)/.run-installed
	$(BIN)/pyreg serve $(ARGS)

bench: $(VENV)/.dev-installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

interop: $(VENV)/.dev-installed
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/interop

conformance: $(VENV)/.dev-installed
	$(BIN)/python -m tests.interop.conformance $(ARGS)

wheel: $(VENV)/.dev-installed
	$(BIN)/python -m build --wheel --outdir dist .

pyz: $(VENV)/.run-installed
	$(BIN)/python deploy/make_pyz.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache
