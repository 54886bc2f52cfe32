# Every target is a plain command; the logic lives in the programs they call.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/headrace
AT_ONCE := -n 2 --dist loadscope --no-loadscope-reorder -rs  # the long files, which stand first, begin first

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all chaos bounds simulate check bench up down up-compose clean lock schemas

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: .venv/installed  ## Make .venv with everything, pinned by requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing Headrace and its libraries into .venv (once; about 250 MB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -j0 -x '/(pip|matplotlib|fontTools|tests)/' .venv/lib headrace infra schemas services
	@touch .venv/installed

demo: install  ## Run a real stream through the whole system on Apache Kafka and show what happened
	@$(RUN) demo

test: install  ## All tests that need no container engine and no browser (where present they run too)
	@$(BIN)/python -m pytest $(AT_ONCE) -m "not slow"

test-all: install  ## Every test, the long ones too; 60 kills instead of 20, freezes of 60 s instead of 10
	@CHAOS_KILLS=60 CHAOS_FREEZE_S=60 $(BIN)/python -m pytest $(AT_ONCE)

chaos: install  ## Kill services at random on a broker of its own while a stream runs (KILLS=1000), and report
	@CHAOS_KILLS=$(or $(KILLS),1000) CHAOS_SEED=$(or $(SEED),5) $(BIN)/python -m pytest -q -s -o faulthandler_timeout=0 --log-disable=librdkafka tests/e2e/test_chaos.py

simulate: install  ## The whole system under N schedules of faults (make simulate N=10000)
	@$(BIN)/python -m tests.simulation -n $(or $(N),1000)

check: install  ## Format, lint, types, unit and contract tests
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest -q -n auto --no-loadscope-reorder --hypothesis-profile=few -m "not long" tests/contract tests/unit; \
		tests=$$?; wait $$types && exit $$tests

bounds: install  ## Memory, disk and queues over a long stream (ROWS=5000000); fails where a bound does not hold
	@$(BIN)/python benchmarks/bounds.py --rows $(or $(ROWS),5000000)

bench: install  ## Every benchmark of speed and weight (benchmarks/bench_*.py), beside a baseline of the same run
	@$(BIN)/python benchmarks/run.py

up: install  ## Start a broker and all services in the background
	@$(RUN) up

down:  ## Stop them
	@$(RUN) down

up-compose: .env  ## The same as containers
	@docker compose up --build --wait

.env:
	@umask 077 && echo "HEADRACE_ARTIFACT_KEY=$$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" > .env
	@echo "Wrote a key for your models to .env; keep it, and keep it secret."

schemas: install  ## Write the exported JSON Schemas and the AsyncAPI document again
	@$(BIN)/python -m headrace.schemas.export

lock:  ## Pin the libraries again
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --extra services --extra plots --group dev pyproject.toml -o requirements.lock

clean:  ## Remove what was made: the environment, state, caches
	@rm -rf .venv .headrace .pytest_cache .mypy_cache .ruff_cache dist build
