# `make demo` and `make test` set up everything they need themselves in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP   = $(VENV)/.installed-$(1)

.PHONY: demo test lint bench gpu clean

demo: $(call STAMP,demo)
	$(BIN)/prunekd demo --out demo

test: $(call STAMP,test) lint
	PRUNEKD_REQUIRE="$$(cat $(VENV)/.require)" $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(call STAMP,test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

bench: $(call STAMP,test)
	$(BIN)/python benchmarks/epoch_time.py

# On a machine with a GPU whose python3 already has torch, triton and pytest: nothing is installed.
gpu:
	PYTHONPATH=engine:kernels:$$PYTHONPATH $(PYTHON) -m pytest -m gpu tests/kernels
	PYTHONPATH=engine:kernels:$$PYTHONPATH $(PYTHON) benchmarks/kernels.py

$(call STAMP,demo): setup.py $(wildcard scripts/install*.sh)
	sh scripts/install.sh "$(PYTHON)" "$(VENV)" demo
	touch $@

$(call STAMP,test): setup.py $(wildcard scripts/install*.sh)
	sh scripts/install.sh "$(PYTHON)" "$(VENV)" test
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
