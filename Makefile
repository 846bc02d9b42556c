# Every target sets up what it needs in .venv, which git ignores.
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
SITE := .venv-docs
BIN := $(VENV)/bin
JOBS ?= 4  # test processes at once; most tests wait for a database
PYTEST = -m pytest --numprocesses $(JOBS) --dist worksteal
READY := $(VENV)/.ready

.PHONY: help demo test coverage check docs bench format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)  ## crash workflows half-way and resume them; URL=postgresql://… for a server
	$(BIN)/python examples/resume_after_crash.py $(if $(URL),--url '$(URL)')
	$(BIN)/python examples/two_replicas.py $(if $(URL),--url '$(URL)')
	$(BIN)/python examples/payment.py $(if $(URL),--url '$(URL)')

test: $(READY)  ## all tests, on memory, SQLite and a PostgreSQL of their own
	$(BIN)/python $(PYTEST)

# Left out: what leaves the store no stack to spare leaves none for the tracer; and what is
# about whole processes, servers and documents, which is slow and reaches little else.
coverage: $(READY)  ## all other tests, with branch coverage of src
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run $(PYTEST) -k 'not near_the_end_of_the_callers_stack' \
		--ignore tests/test_claims_processes.py --ignore tests/test_cli_entry.py \
		--ignore tests/test_demo.py --ignore tests/test_documentation.py \
		--ignore tests/test_failover.py --ignore tests/test_host_alembic.py \
		--ignore tests/test_migrations_cli.py --ignore tests/test_partitioned.py \
		--ignore tests/test_processes.py --ignore tests/test_properties.py \
		--ignore tests/test_psql.py --ignore tests/test_roles.py --ignore tests/browser \
		--ignore tests/servers
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

check: $(READY)  ## lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs:  ## the documentation as a site, in site/
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --editable '.[cli,docs]'
	$(SITE)/bin/python docs/site.py
	$(SITE)/bin/zensical build --clean --strict
	$(SITE)/bin/python .ci/check_site.py site

bench:  ## compare with what else one would use; ARGS=--quick for a short run
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable . --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m benchmarks $(ARGS)

format: $(READY)  ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was made here
	rm -rf $(VENV)* .cache build dist htmlcov site .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
