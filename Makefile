# `make book` makes the website, `make test` runs every check. Either can come first.
# `make wheel` makes what others install, `make lock` writes the exact versions down that are in .venv.
# Settings: PYTHON (the interpreter .venv is made with), WORKERS (processes that run tests),
# LATEST=1 (install the newest packages that pyproject.toml allows, not the locked ones), UV (the resolver of `lock`).

PYTHON ?= python3
WORKERS ?= 2
UV ?= uv

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHICH := $(if $(LATEST),the newest,the locked)
INSTALLED := .venv/.installed$(if $(LATEST),-latest)
SOURCES := $(shell find poolnb ext -name '*.py' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.def' -o -name '*.h' 2>/dev/null)
ONE_RUN := book/experiments/one-run.ipynb

.PHONY: book test native wheel lock clean

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

# The library, a pure wheel that builds its kernels where it is, and one that brings those for every level of processors.
wheel: $(INSTALLED)
	@rm -rf build dist _build/levels
	@$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' >/dev/null
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(BIN)/poolnb build --levels _build/levels
	@rm -rf build
	@POOLNB_LIBRARIES=_build/levels $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls -sh dist

$(INSTALLED): pyproject.toml setup.py requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; poolnb needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "poolnb needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@rm -f .venv/.installed*
	@echo "installing $(WHICH) packages into .venv (PyTorch is large: this takes minutes the first time)"
ifdef LATEST
	@$(INSTALL) --upgrade --upgrade-strategy eager -e '.[lab,book,test]'
else
	@$(INSTALL) --require-hashes -r requirements.lock || { \
		echo "the packages of requirements.lock could not be installed for $$($(BIN)/python --version) on this machine" \
			"(they are for Python 3.11.5 to 3.14). make LATEST=1 takes the newest that fit, see README.md"; exit 1; }
	@$(INSTALL) --no-deps --no-build-isolation -e .
endif
	@touch $@

# The versions that are in .venv, for all platforms, with the digests of their files. To move to newer ones: `make book
# LATEST=1`, execute the chapters, `make lock`.
lock:  ## exact versions anew, from what .venv holds (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or name it: make lock UV=..."; exit 1; }
	@mkdir -p _build
	@$(BIN)/python -m pip freeze --all --exclude-editable > _build/installed.txt
	@$(UV) pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-header --no-annotate \
		--constraint _build/installed.txt --extra lab --extra book --extra test pyproject.toml > _build/requirements.lock
	@{ echo "# What the chapters were executed with. Made by \`make lock\` with uv from what .venv held then; do not edit."; \
		echo "# For Python 3.11.5 to 3.14: pip install --require-hashes -r requirements.lock"; \
		cat _build/requirements.lock; } > requirements.lock
	@grep -c == requirements.lock | sed 's/$$/ packages in requirements.lock/'

clean:  ## remove what was built; .venv stays
	rm -rf _build

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16
