# `make book` makes the website, `make test` runs every check. Either can come first.
# Settings: PYTHON (the interpreter .venv is made with), WORKERS (processes that run tests).

PYTHON ?= python3
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
SOURCES := $(shell find poolnb ext -name '*.py' -o -name '*.cpp' -o -name '*.cu' -o -name '*.h' 2>/dev/null)
ONE_RUN := book/experiments/one-run.ipynb

.PHONY: book test native clean

book: native _build/one-run.ipynb  ## the website, in _build/html
	@$(BIN)/poolnb book build

# What is read and run between two edits: style, types, and the tests that are not marked (see pyproject.toml).
.PHONY: check
check: native  ## style, types and the quick tests: under two minutes
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy poolnb
	@OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests \
		-m "not (slow or book or site or gpu)"

test: native  ## every test, every chapter once more, the site and its pages
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

# The run that a reader can change: papermill, on data that needs no download.
_build/one-run.ipynb: $(ONE_RUN) $(SOURCES) | $(INSTALLED)
	@mkdir -p _build
	@$(BIN)/papermill --no-progress-bar --log-level WARNING -p dataset digits -p results _build/results \
		--cwd . $(ONE_RUN) _build/one-run.partial.ipynb
	@mv _build/one-run.partial.ipynb $@
	@echo "one run on digits: $@"

# Compiled kernels, where they can be built. Everything works without them, more slowly; POOLNB_NATIVE=require insists.
native: $(INSTALLED)  ## the compiled kernels, where they can be built
	@if [ "$$POOLNB_NATIVE" = require ]; then POOLNB_NATIVE=1 $(BIN)/poolnb build; \
	else $(BIN)/poolnb build --if-possible; fi

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; poolnb needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "poolnb needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing into .venv (PyTorch is large: this takes minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lab,book,test]'
	@touch $@

clean:  ## remove what was built; .venv stays
	rm -rf _build

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16
