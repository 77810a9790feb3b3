# make run    the demo: a table of models on real data
# make test   the test suite; TESTS=tests/data runs a part of it
# make lint   ruff and mypy
# make docs   the documentation as a site: build/docs/index.html
# Each first creates the environment if it is missing or out of date.

VENV := .venv
TESTS := tests
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
READY := $(VENV)/ready

.PHONY: run test lint docs clean

run: $(READY)
	@$(VENV)/bin/recbole-xfer demo

test: $(READY)
	@$(VENV)/bin/python -m pytest -n auto --maxprocesses=8 --dist loadscope --no-loadscope-reorder $(TESTS)

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

docs: $(READY)
	@$(VENV)/bin/python -m sphinx -q -W --keep-going docs build/docs
	@echo 'Open build/docs/index.html.'

clean:
	rm -rf $(VENV) build/docs

$(READY): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'Python 3.10 or newer is required. Name one: make PYTHON=/path/to/python3'; exit 1; }
	@echo 'Installing into $(VENV) with the versions of constraints.txt; this takes some minutes the first time.'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,docs,images]'
	@touch $@
