# Every target sets up what it needs first (scripts/setup.sh), and skips what is done.
# On a machine with another Python:  make setup PYTHON=/path/to/python3.12

BIN := .venv/bin
KERNEL := $(wildcard $(foreach folder,ffvit/jpeg tests/jpeg/cross tests/fuzz tests/sanitize benchmarks,$(folder)/*.cpp $(folder)/*.h))
SCRIPTS := scripts/*.sh .ci/run

.DEFAULT_GOAL := help
.PHONY: help setup kernel quickstart fmt lint type test test-all test-faults check-aarch64 fuzz sanitize bench report docs offline-bundle clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup:  ## system packages, .venv, Python packages, tools for tests
	@scripts/setup.sh dev

kernel:  ## compile the JPEG kernel anew if its sources changed
	@scripts/setup.sh run

quickstart: kernel  ## images -> beton -> trained model -> report; DATA=/class/folders takes your own images
	@scripts/quickstart.sh "$(DATA)"

fmt: setup  ## format Python and C++
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(KERNEL)

lint: setup  ## look for mistakes, misspellings and unformatted code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(KERNEL)
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/codespell

type: setup  ## check types
	$(BIN)/mypy

test: lint type  ## lint, types and the tests that take seconds
	$(BIN)/python -m pytest

test-faults: kernel  ## kill workers and ranks, fill disks, damage files: docs/reliability.md, minutes
	$(BIN)/python -m pytest -m fault

test-all: lint type  ## all tests: the slow ones, those that need ../shared/data, those that need a GPU
	$(BIN)/python -m pytest -m ""

check-aarch64: kernel  ## the JPEG kernel on an emulated 64-bit ARM gives the bits that it gives here
	@scripts/check_aarch64.sh

fuzz: kernel  ## look for inputs that break the JPEG kernel, for SECONDS=60
	@scripts/fuzz.sh "$(or $(SECONDS),60)"

sanitize: setup  ## the JPEG kernel's tests under the sanitizers for addresses, undefined behaviour and threads
	@scripts/sanitize.sh -q

bench: kernel  ## measure loaders against their peers, 25 minutes; OPTIONS="--quick --output=FILE"
	@scripts/bench.sh $(OPTIONS)

report: kernel  ## table and charts of RUNS="runs/a runs/b"; default: every run
	$(BIN)/python -m ffvit report $(or $(RUNS),$(wildcard runs/*))

docs: setup  ## the documentation as a site: build/site/index.html
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt --group docs
	$(BIN)/mkdocs build

offline-bundle: kernel  ## what a machine without a network needs, but for torch: FOR_PYTHON=3.12 OMIT="numba llvmlite"
	@FOR_PYTHON="$(FOR_PYTHON)" OMIT="$(OMIT)" scripts/offline_bundle.sh

clean:  ## remove what builds and tests leave; .venv, .bench-venv, .prefix, betons and runs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
