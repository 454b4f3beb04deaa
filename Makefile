# make stable   set everything up, then StABlE-train a SchNet on bundled data and print before against after
# make test     set everything up, then run the test suite
# make bench    set everything up, then run the benchmarks (about ten minutes, nothing else running)
# make soak     set everything up, then look for growing memory over long runs (about ten minutes)
# make docs     set everything up, then build the manual into build/docs
SHELL := /bin/bash
PYTHON ?= python3
WORKERS ?= 2
SEED ?= 123
VENV := .venv
BIN := $(VENV)/bin
STABLE := configs/stable_training/aspirin_gfn2
RUN := runs/aspirin_gfn2/schnet_aspirin_seed$(SEED)
RUN_FLAGS := --seed $(SEED) --exp_name=seed$(SEED) --resume

.PHONY: setup stable soak bench test test-all lint docs clean-runs clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Every step continues where a stopped one was saved, and is skipped over when it is done.
stable: setup
	@start=$$(date +%s); set -e; \
	$(BIN)/python stable_training.py --config-yml $(STABLE)/simulate.yml --eval_model pre $(RUN_FLAGS); \
	$(BIN)/python stable_training.py --config-yml $(STABLE)/train.yml $(RUN_FLAGS); \
	$(BIN)/python stable_training.py --config-yml $(STABLE)/simulate.yml --eval_model post $(RUN_FLAGS); \
	$(BIN)/mdsim compare $(RUN); \
	echo "total: $$(( $$(date +%s) - start )) s"

test: setup
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

test-all: setup
	$(BIN)/python -m pytest -q -n $(WORKERS)

bench: setup
	@set -e; for name in dynamics estimator pretraining observables epoch startup; do \
		echo; echo "=== $$name"; $(BIN)/python -m benchmarks.$$name; \
	done

soak: setup
	$(BIN)/python -m benchmarks.soak

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

clean-runs:
	rm -rf runs

clean: clean-runs
	rm -rf $(VENV) build *.egg-info
