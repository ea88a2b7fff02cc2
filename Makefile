# Each target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
AXE := $(HOME)/.cache/augnet/axe-core
AXE_VERSION := 4.14.1
SOURCES := augnet transforms pipeline tests examples benchmarks setup.py

.PHONY: help demo test browser flink test-flink test-dataflow fuzz lint format bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/installed  ## train a small model on real digits with a planted shortcut, and audit it
	$(BIN)/augnet demo

test: .venv/installed  ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

browser:  ## install what the report is tried in: Chromium, its driver, and axe-core from npm
	command -v chromedriver >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }
	command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq npm; }
	mkdir -p $(AXE) && cd $(AXE) && test -e package/axe.min.js || tar xzf "$$(npm pack --silent axe-core@$(AXE_VERSION))"

flink: .venv/installed  ## fetch Flink (FLINK=1.20) and Beam's job server, once, into ~/.cache (or AUGNET_FLINK)
	$(BIN)/python tests/flink/fetch.py

test-flink: flink  ## run the tests that need Flink: in the job server, and on a cluster of processes
	$(BIN)/python -m pytest tests/flink -m flink

test-dataflow: .venv/installed-gcp  ## run the tests that build a Dataflow job and send it to a stub
	$(BIN)/python -m pytest tests/test_dataflow.py -m dataflow

fuzz: .venv/installed  ## feed random configs, images and records to what reads them, for a minute
	$(BIN)/python tests/fuzz/run.py --seconds 60

lint: .venv/installed  ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: .venv/installed  ## put the code into the project's format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: .venv/installed-bench  ## measure speed and memory; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

clean:  ## delete the environment, caches and the demo
	rm -rf .venv augnet-demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,test,viewer]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,test,viewer,bench]'
	touch $@

.venv/installed-gcp: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,gcp,test,viewer]'
	touch $@
