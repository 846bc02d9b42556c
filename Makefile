# Every target sets up what it needs in an environment of its own, which git ignores.
PYTHON ?= python3
VENV ?= .venv
BENCH := .venv-bench
DEMO := .venv-demo
SITE := .venv-docs
BIN := $(VENV)/bin
JOBS ?= 4  # test processes at once; most tests wait for a database
TESTS ?= tests
PYTEST := -m pytest --numprocesses $(strip $(JOBS)) --dist worksteal

# If set, each program that a test starts would compile the package again, for two seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all coverage check docs bench simulate chaos format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

DEV = --quiet --editable '.[cli,telemetry,testing]' --group dev $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# $(1) is the environment, $(2) what pip installs there: a variable, if it contains commas.
define install
@echo "Installing into $(1): $(2)"
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'  # the first with --group
@$(1)/bin/python -m pip install $(2)
@touch $(1)/.ready
endef

$(VENV)/.ready: pyproject.toml
	$(call install,$(VENV),$(DEV))

$(SITE)/.ready: pyproject.toml
	$(call install,$(SITE),--quiet --editable '.[cli]' --group docs)

$(BENCH)/.ready: pyproject.toml benchmarks/requirements.txt
	$(call install,$(BENCH),--quiet --editable . --requirement benchmarks/requirements.txt)

# Not quiet: pip's lines show the progress.
$(DEMO)/.ready: pyproject.toml
	$(call install,$(DEMO),--editable .)

demo: $(DEMO)/.ready  ## crash workflows half-way and resume them; URL=postgresql://… for a server
	$(DEMO)/bin/python examples/resume_after_crash.py $(if $(URL),--url '$(URL)')
	$(DEMO)/bin/python examples/two_replicas.py $(if $(URL),--url '$(URL)')
	$(DEMO)/bin/python examples/payment.py $(if $(URL),--url '$(URL)')

test: $(VENV)/.ready  ## the contract on every store and all other fast tests, under 3 minutes
	$(BIN)/python $(PYTEST) -m 'not slow' $(TESTS)

test-all: test  ## all tests: those of `make test`, then the slow ones
	$(BIN)/python $(PYTEST) -m slow $(TESTS)

coverage: $(VENV)/.ready  ## the fast tests and some slow ones, with branch coverage of src
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run $(PYTEST) -m 'not slow or measured' $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

chaos: $(VENV)/.ready  ## let the databases fail for 90 s each; ARGS='--help' shows more
	$(BIN)/python -m workflow_store.testing.chaos $(ARGS)

check: $(VENV)/.ready  ## lint, format, types, imports, plain words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_words.py

docs: $(SITE)/.ready  ## the documentation as a site, in site/
	$(SITE)/bin/python docs/site.py
	$(SITE)/bin/zensical build --clean --strict
	$(SITE)/bin/python .ci/check_site.py site

bench: $(BENCH)/.ready  ## compare with the alternatives; ARGS=--quick for a short run
	$(BENCH)/bin/python -m benchmarks $(ARGS)

simulate: $(VENV)/.ready  ## 2,000 simulations of faults, a seed each; ARGS='--seeds 0-100000'
	$(BIN)/python -m tests.simulation $(ARGS)

format: $(VENV)/.ready  ## format, and fix what can be fixed automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove everything that was made here
	rm -rf .venv* .cache build dist htmlcov site .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
