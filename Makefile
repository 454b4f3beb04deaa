# make setup    set everything up; TORCH=cpu or TORCH=cuda chooses the build of torch [cuda if there is a GPU]
# make stable   set everything up, then StABlE-train a SchNet on bundled data and print before against after
# make test     set everything up, then run the test suite
# make test-mace  the same for tests of MACE, in an environment with its release of e3nn
# make bench    set everything up, then run the benchmarks (about ten minutes, nothing else running)
# make soak     set everything up, then look for growing memory over long runs (about ten minutes)
# make gpu      set everything up, then measure what needs a GPU (under eight minutes, on a machine that has one)
# make docs     set everything up, then build the manual into build/docs
# make docs-pictures  build the manual, and open every page in Chromium; pictures are in build/pictures
SHELL := /bin/bash
PYTHON ?= python3
WORKERS ?= 3
SEED ?= 123
TORCH ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
CPU_INDEX := https://download.pytorch.org/whl/cpu
VENV := .venv
VENV_MACE := .venv-mace
BIN := $(VENV)/bin
STABLE := configs/stable_training/aspirin_gfn2
RUN := runs/aspirin_gfn2/schnet_aspirin_seed$(SEED)
RUN_FLAGS := --seed $(SEED) --exp_name=seed$(SEED) --resume

.PHONY: setup setup-mace stable soak bench gpu test test-mace test-all lint docs docs-pictures clean-runs clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH=$(TORCH): must be cpu or cuda"; exit 1;; esac
ifeq ($(TORCH),cpu)
	$(BIN)/pip install --quiet --retries 1 --timeout 20 -c constraints.txt --index-url $(CPU_INDEX) torch || \
		echo "no torch from $(CPU_INDEX): taking that of the default index, which may contain CUDA"
endif
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# mace-torch needs e3nn 0.4.4, and the other packages newer releases: a small environment in front of the first one.
setup-mace: $(VENV_MACE)/.installed

$(VENV_MACE)/.installed: $(VENV)/.installed tests/mace_environment.txt
	$(PYTHON) -m venv $(VENV_MACE)
	$(VENV_MACE)/bin/python -c "import site, sys; open(site.getsitepackages()[0] + '/below.pth', 'w').write(\
		'import site; site.addsitedir(%r)' % sys.argv[1])" "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	$(VENV_MACE)/bin/python -m pip install --quiet --no-deps -r tests/mace_environment.txt
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
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow" --durations=30

test-mace: setup-mace
	$(VENV_MACE)/bin/python -m pytest -q -n $(WORKERS) -m "not slow" -k "mace or packages" \
		tests/unit/models/adapters tests/contracts/test_stress.py tests/integration/test_documented_commands.py

test-all: setup
	$(BIN)/python -m pytest -q -n $(WORKERS)

bench: setup
	@set -e; for name in dynamics estimator pretraining observables epoch startup; do \
		echo; echo "=== $$name"; $(BIN)/python -m benchmarks.$$name; \
	done

soak: setup
	$(BIN)/python -m benchmarks.soak

gpu: setup
	$(BIN)/python -m pytest -q -m "not slow" tests/device
	$(BIN)/python -m benchmarks.gpu

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

docs-pictures: docs
	MDSIM_MANUAL=build/docs MDSIM_MANUAL_PICTURES=build/pictures $(BIN)/python -m pytest -q tests/integration/test_manual_in_browser.py

clean-runs:
	rm -rf runs

clean: clean-runs
	rm -rf $(VENV) $(VENV_MACE) build *.egg-info
