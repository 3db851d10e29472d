# Everything rests on `setup`, which builds .venv once and again when its inputs change.

# The first of these that runs and is new enough; `make PYTHON=/path/to/python` takes another. A
# command that is there may still be one that only says that it is not installed.
PYTHONS := python3.11 python3.12 python3.13 python3
NEW_ENOUGH := import sys, venv; sys.exit(sys.version_info < (3, 11))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
DEMO := studies/demo.toml
# One thread each. Many wait for processes of their own, so that three at a time keep two cores busy.
# Their compiled files are kept, so that no process of theirs compiles isoflop again.
TESTS := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-processors test-oldest test-lowest test-extras guards check dist site clean

help:
	@echo 'make demo      train the demonstration study and write its page'
	@echo 'make test      quick tests'
	@echo 'make test-all  quick and slow tests'
	@echo 'make test-processors  numeric tests under every instruction set that can be forced here'
	@echo 'make test-oldest      numeric tests under the oldest torch that is supported'
	@echo 'make test-lowest      some tests under the lowest versions that pyproject.toml names'
	@echo 'make test-extras      tests of what needs an extra: trackers, lm-eval'
	@echo 'make guards    remove each guard of the code in turn; some test must fail'
	@echo 'make check     linters, types, import layers, size of the house, quick tests'
	@echo 'make dist      build wheel and sdist, and try the wheel in an environment of its own'
	@echo 'make site      the documentation as pages in site/, warnings being errors'
	@echo 'make setup     build $(VENV) only'
	@echo 'make clean     remove $(VENV) and tool caches; runs, results and data stay'

setup: $(STAMP)

# An environment in a folder, of the first Python that is new enough.
define environment
@test -x $(1)/bin/python || { \
  for python in $(or $(PYTHON),$(PYTHONS)); do \
    if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then exec $$python -m venv $(1); fi; \
  done; \
  echo 'make: none of $(or $(PYTHON),$(PYTHONS)) is Python 3.11 or newer;' \
    'name one with make PYTHON=/path/to/python' >&2; exit 1; }
endef

$(STAMP): pyproject.toml constraints.txt
	$(call environment,$(VENV))
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/isoflop run $(DEMO)
	$(BIN)/isoflop report $(DEMO)

test: setup
	$(TESTS)

test-all: setup
	$(TESTS) -m 'slow or not slow'

# A minute or two for each setting that changes a bit: five of them on AVX2, about ten on AMX.
test-processors: setup
	$(BIN)/python tests/processors.py

# The numeric tests under the oldest torch that is supported, in an environment of its own (8 GB).
OLDEST := .venv-oldest
OLDEST_TESTS := $(addprefix tests/,ops model training check contracts generation evaluation checkpoint)
test-oldest: $(OLDEST)/.setup-stamp
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal $(OLDEST_TESTS)

$(OLDEST)/.setup-stamp: pyproject.toml
	$(call environment,$(OLDEST))
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check --quiet -e '.[dev]' 'torch==2.10.*'
	@touch $@

# What reads and writes, under the lowest versions of all but torch, in an environment of its own.
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/,config storage checkpoint cli/test_main.py fit/test_table_formats.py \
  data/test_foreign_tokenizers.py report/test_page.py interop tracking docs)
test-lowest: $(LOWEST)/.setup-stamp
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal $(LOWEST_TESTS)

$(LOWEST)/.setup-stamp: pyproject.toml tests/lowest.py
	$(call environment,$(LOWEST))
	$(LOWEST)/bin/python tests/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet -c $(LOWEST)/lowest.txt \
	  -e '.[train,parquet,excel,zstd,extras]' pytest pytest-xdist hypothesis
	@touch $@

# Trackers, lm-eval and what else is an extra, in an environment of its own (the packages take minutes).
EXTRAS := .venv-extras
test-extras: $(EXTRAS)/.setup-stamp
	OMP_NUM_THREADS=1 $(EXTRAS)/bin/python -m pytest -n 2 --dist worksteal tests/tracking tests/interop tests/docs

$(EXTRAS)/.setup-stamp: pyproject.toml
	$(call environment,$(EXTRAS))
	$(EXTRAS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,extras]'
	@touch $@

guards: setup
	$(BIN)/python tests/faults/mutation.py --write

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/house
	$(TESTS)

# What `pip install isoflop` gets: without torch, a hundredth of the size.
WHEEL := .venv-wheel
dist:
	rm -rf dist $(WHEEL)
	$(call environment,$(WHEEL))
	$(WHEEL)/bin/python -m pip install --disable-pip-version-check --quiet build
	$(WHEEL)/bin/python -m build --outdir dist .
	rm -rf $(WHEEL)
	$(call environment,$(WHEEL))
	$(WHEEL)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt dist/*.whl
	$(WHEEL)/bin/python tests/wheel.py $(WHEEL) dist/*.whl

# Nothing is fetched when its pages are read; `python -m http.server -d site` lets them be searched, too.
DOCS := .venv-docs
site: $(DOCS)/.setup-stamp
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --quiet

$(DOCS)/.setup-stamp: pyproject.toml
	$(call environment,$(DOCS))
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(LOWEST) $(EXTRAS) $(WHEEL) $(DOCS) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist site
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
