# The two that matter: `make run` shows Patrol at work and stays up; `make test` checks everything.
# Nothing but git, make and Python >= 3.11 is needed; every target builds what it needs in .venv first.
# PYTHON=... names another Python; WORKERS=... the number of test processes.

SHELL := /bin/bash
WORKERS ?= 2
BIN := .venv/bin

.PHONY: help setup setup-test setup-servers run run-real test chaos fuzz lint format bench lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## build .venv from the hash-pinned lock
	@scripts/setup.sh run

setup-test: ## the same, with what the tests need
	@scripts/setup.sh test

setup-servers: ## what the tests drive: found, or installed as root
	@scripts/test_servers.sh

run: setup ## the main job, end to end, then stay up
	@$(BIN)/patrol demo

run-real: setup ## the same on a real PostgreSQL and a real Redis, started and stopped with it
	@$(BIN)/python scripts/real_servers.py $(BIN)/patrol demo --on-these-engines

lint: setup-test ## style, types and the import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint setup-servers ## lint, then every test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

chaos: setup-test setup-servers ## faults under a stream of leaks; ARGS="--leaks 1000 --faults 50 --seed 1"
	$(BIN)/python -m tests.chaos.run $(ARGS)

fuzz: setup-test ## strange bytes for the matcher and archives; SECONDS=600
	$(BIN)/python -m tests.fuzz.target -max_total_time=$(or $(SECONDS),600) -timeout=20 -max_len=4096 -artifact_prefix=/tmp/patrol-fuzz-

format: setup-test ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-test ## measure, and print the tables of docs/benchmarks.md; ARGS=--long takes minutes more
	$(BIN)/python tests/bench $(ARGS)

# For maintainers only: needs uv on PATH, or UV=... . UPGRADE=--upgrade takes new versions too.
# requires-python is the lower bound, so the locks hold from 3.11.0 on (Redis needs a backport before 3.11.3).
UV ?= uv
COMPILE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' $(UPGRADE)

lock: ## write both locks anew from pyproject.toml
	$(COMPILE) --group build --output-file requirements.lock
	$(COMPILE) --group build --group test --constraint requirements.lock --output-file requirements-test.lock

clean: ## remove .venv and every cache; patrol-data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks dist
	find scanner notifier tests -name __pycache__ -type d -prune -exec rm -rf {} +
