# `make run` opens the app, `make test` runs the quick checks, `make thorough` the slow ones, `make timing` those of
# the app's speed, and `make bench` measures every paper. Each target first installs its packages from lock/, as
# wheels with locked versions and hashes. lock/make.py writes the lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps
LOCKED := $(PIP) --require-hashes --only-binary :all: --requirement

# The tests start hundreds of processes. Without kept bytecode each would compile readtrack again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test papers others thorough timing again bench docs lint style types imports clean

QUICK := -m "not slow and not timing"
MORE := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN) + 1)

run: $(VENV)/.run
	@$(BIN)/readtrack

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml lock/build.txt lock/run.txt lock/torch.txt lock/torch-cpu.txt | $(BIN)/python
	@echo "Setting up readtrack (the first time takes some minutes: PyTorch is large) ..."
	$(LOCKED) lock/build.txt
	$(LOCKED) lock/run.txt
	$(LOCKED) lock/torch-cpu.txt 2> /dev/null || $(LOCKED) lock/torch.txt
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run lock/dev.txt
	@echo "Setting up readtrack's tests and references ..."
	$(LOCKED) lock/dev.txt
	@touch $@

lint: style types imports

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs 2 lint
	@$(MAKE) --no-print-directory --keep-going papers others || $(MAKE) --no-print-directory again

papers: $(VENV)/.dev
	$(BIN)/pytest --numprocesses auto $(QUICK) tests/papers

# Many of these wait for a child, a terminal or a key, so that a processor has time for more than one; and they
# need not import every paper.
others: $(VENV)/.dev
	$(BIN)/pytest --numprocesses $(MORE) $(QUICK) --ignore tests/papers

thorough: $(VENV)/.dev
	$(BIN)/pytest --numprocesses auto -m slow || $(MAKE) --no-print-directory again

# The time limits were set on a machine with two cores. They are not meaningful on a busy machine.
timing: $(VENV)/.dev
	$(BIN)/pytest -m timing --ignore tests/papers

# Many tests start processes and terminals, and a busy machine can be too slow for one of them. Failed tests run
# again, alone; the first run keeps its record of them. If there is nothing to run again, pytest exits with code 5.
again:
	@echo "Running the failed tests once more, alone ..."
	$(BIN)/pytest --last-failed --last-failed-no-failures none -m "not timing"

# Takes the better part of an hour on an otherwise idle machine. Example: make bench PAPERS="bert vit" BUDGET=smoke
bench: $(VENV)/.dev
	$(BIN)/python tests/bench_every_paper.py --budget $(or $(BUDGET),quick) $(PAPERS)

# Writes the documentation with the shipped verdicts as web pages: docs/site/index.html
docs: $(VENV)/.run
	$(BIN)/readtrack report --shipped --output docs/site

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
