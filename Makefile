# Needs Python 3.11 or newer and make. Everything else is installed into .venv at the first use.

VENV ?= .venv
PY := $(VENV)/bin/python
PYTHON ?= $(call first-python,python3.14 python3.13 python3.12 python3.11 python3)
PYTHON_LOWEST ?= $(call first-python,python3.11 python3.12)
PYTHONS ?= python3.11 python3.12 python3.13 python3.14

# The first of these commands that runs, is new enough and can make virtual environments.
usable = import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
first-python = $(shell for python in $(1); do \
	if $$python -c '$(usable)' 2>/dev/null; then echo $$python; break; fi; done)

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/installed  ## Run the demonstration
	@$(VENV)/bin/dflow demo

.PHONY: test
test: lint types contracts pytest  ## Run all that has to pass: lint, types, contracts, pytest

.PHONY: lint
lint: $(VENV)/installed  ## Check style and format
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo "Not formatted: run 'make format'."; exit 1; }

.PHONY: types
types: $(VENV)/installed  ## Check types
	@$(PY) -m mypy --no-error-summary

.PHONY: contracts
contracts: $(VENV)/installed  ## Check which room imports which
	@report=$$($(VENV)/bin/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }

.PHONY: pytest
pytest: $(VENV)/installed  ## Run the tests
	@$(PY) -m pytest --quiet

.PHONY: test-lowest
test-lowest:  ## Run the tests with the oldest dependencies that dflow works with
	@$(MAKE) --no-print-directory pytest VENV=.venv-lowest PYTHON='$(PYTHON_LOWEST)' \
		CONSTRAINTS=constraints/lowest.txt

.PHONY: test-all-pythons
test-all-pythons:  ## Run `make test` with each of PYTHONS that is installed
	@ran=0; for python in $(PYTHONS); do \
		version=$$($$python -c '$(usable)' 2>/dev/null && \
			$$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || \
			{ echo "$$python: not here, left out"; continue; }; \
		echo "$$python:"; ran=1; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	done; [ $$ran = 1 ] || { echo "None of these runs: $(PYTHONS)"; exit 1; }

.PHONY: format
format: $(VENV)/installed  ## Put the code into its format, and mend what can be mended
	@$(PY) -m ruff check --quiet --fix-only
	@$(PY) -m ruff format --quiet

.PHONY: bench
bench: $(VENV)/installed  ## Measure
	@$(PY) -m tests.benchmarks

.PHONY: bench-peers
bench-peers: $(VENV)/installed  ## Measure peers, each installed into an environment of its own
	@$(PY) -m tests.benchmarks.peers

.PHONY: faults
faults: $(VENV)/installed  ## Hold the fault campaigns: kills, full disks, corruption
	@$(PY) -m tests.faults $(FAULTS)

.PHONY: diagrams
diagrams: $(VENV)/installed  ## Draw the diagrams of ARCHITECTURE.md from the code
	@$(PY) -m tests.diagrams --write

.PHONY: clean
clean:  ## Remove everything that was made here, .venv too
	@rm -rf .venv .venv-* build dist *.egg-info .coverage
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installing ------------------------------------------------------------------------------------------

# The mark names this folder: an environment that was moved or copied here is made anew.
MARK := $(shell cat $(VENV)/installed 2>/dev/null)
ifneq "$(MARK)" "$(CURDIR)"
.PHONY: $(VENV)/installed
endif

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	@case '$(MARK)' in '$(CURDIR)'|'') $(PY) -c '$(usable)' 2>/dev/null;; *) false;; esac || { \
		[ -n '$(PYTHON)' ] || { echo "No Python 3.11 or newer with its venv module was found." \
			"Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }; \
		echo "Installing into $(VENV) …"; \
		'$(PYTHON)' -m venv --clear $(VENV); }
	@report=$$($(PY) -m pip install --disable-pip-version-check --editable '.[dev]' \
		$(addprefix --constraint ,$(CONSTRAINTS)) 2>&1) || { echo "$$report"; exit 1; }
	@printf '%s\n' '$(CURDIR)' > $@
