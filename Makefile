# Everything starts from a Python 3.11 or newer, make and pip; the rest is set up here, in .venv.
# `make PYTHON=/path/to/python` chooses the Python; `ARGS=...` is handed on to what a target runs.

PYTHON ?=
ARGS ?=
STORE ?= sqlite:///demo.db
PORT ?= 8080

# The Python that sets up: the one asked for, the one already in use, or the newest that can.
CANDIDATES = $(or $(PYTHON),.venv/bin/python python3.13 python3.12 python3.11 python3)
SET_UP = python=""; \
	for candidate in $(CANDIDATES); do \
		"$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			>/dev/null 2>&1 </dev/null && python="$$candidate" && break; \
	done; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11 or newer with venv and pip was found among: $(CANDIDATES)." \
			"Install one, or name it: make $@ PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	"$$python" scripts/setup_venv.py

# Tests start many processes: each module is compiled for the first of them only.
PYTEST = env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo demo-swarm demo-live services test soak test-system bench check lock clean setup setup-dev

help: ## show this list
	@echo "make TARGET [PYTHON=/path/to/python] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: ## set up .venv with what the package needs, all extras included
	@$(SET_UP) --package .venv runtime

setup-dev: ## the same, with the tests and linters
	@$(SET_UP) --package .venv runtime dev

demo: setup ## hold a conversation in the terminal (ARGS="--model ..."); kept in demo.db
	@exec .venv/bin/tertulia chat --store "$(STORE)" $(ARGS)

demo-swarm: setup ## talk with two agents behind policies that refuse and ban; kept in demo.db
	@exec .venv/bin/tertulia chat --swarm tertulia.cli.demo_swarm --store "$(STORE)" $(ARGS)

demo-live: setup ## serve a chat page with its live graph beside it (PORT=8080); kept in demo.db
	@exec .venv/bin/python -m tertulia.server.demo --port "$(PORT)" --store "$(STORE)" $(ARGS)

services: setup-dev ## run a PostgreSQL and a NATS for development, until Ctrl-C; prints their addresses
	@exec .venv/bin/python -m tertulia.testing.servers

test: setup-dev ## run the tests, but for the long ones (ARGS="-k name")
	@exec $(PYTEST) -n 3 -m "not soak and not system" $(ARGS)

soak: setup-dev ## run the long tests: kill -9, power loss, load
	@exec $(PYTEST) -m soak $(ARGS)

test-system: setup-dev ## run the tests that use the whole system: a browser, a full disk, a cut network
	@.venv/bin/python scripts/setup_chromium.py
	@.venv/bin/python scripts/setup_iproute.py
	@exec $(PYTEST) -m system $(ARGS)

bench: ## run the benchmarks, the neighbours beside us, in .venv-bench
	@$(SET_UP) --package .venv-bench bench
	@exec .venv-bench/bin/python -m benchmarks $(ARGS)

check: setup-dev ## run everything that continuous integration runs after the tests
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || { echo "run: .venv/bin/ruff format" >&2; exit 1; }
	@.venv/bin/basedpyright
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/python scripts/budgets.py
	@.venv/bin/python scripts/docs_check.py
	@.venv/bin/python scripts/contract.py --check
	@.venv/bin/python scripts/hygiene.py

COMPILE = .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header

lock: ## make requirements/*.txt again, with the newest versions
	@$(SET_UP) .venv-lock lock
	@$(COMPILE) --output-file requirements/lock.txt requirements/lock.in
	@$(COMPILE) --output-file requirements/runtime.txt --all-extras pyproject.toml requirements/runtime.in
	@$(COMPILE) --output-file requirements/dev.txt requirements/dev.in
	@$(COMPILE) --output-file requirements/bench.txt --extra server --extra postgres --extra nats \
		--override requirements/bench.override pyproject.toml requirements/bench.in

clean: ## remove the environments, caches and demo databases
	rm -rf .venv .venv-bench .venv-lock .venv*.lock build dist demo.db demo.db-* demo.db.workers .coverage htmlcov
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
