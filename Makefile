# `make demo` and `make test` set up everything they need themselves in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# processes that share the tests, each with one OpenMP thread
JOBS   ?= 2
STAMP   = $(VENV)/.installed-$(1)

.PHONY: demo test test-lowest lint bench gpu attacks clean

demo: $(call STAMP,demo)
	$(BIN)/prunekd demo --out demo

test: $(call STAMP,test) lint
	PRUNEKD_REQUIRE="$$(cat $(VENV)/.require)" OMP_NUM_THREADS=1 \
	    $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# The tests with the lowest versions that setup.py allows, in an environment of their own. DALI, FFCV and what docker/ is
# checked with are left out. The oldest Python here is taken: for the newest there are no wheels of these versions.
LOWEST = .venv-lowest
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest --ignore tests/docker $(PYTEST_ARGS)

lint: $(call STAMP,test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

bench: $(call STAMP,test)
	$(BIN)/python benchmarks/epoch_time.py

# Every attack of docs/reliability.md, for hours; ATTACKS="kills --sample 5" takes a part.
ATTACKS ?= --all
attacks: $(call STAMP,test)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m attacks $(ATTACKS)

# On a machine with a GPU whose python3 already has torch, timm, triton, numba and pytest, and perhaps no network. What is
# missing there (simplejpeg, say) is taken from wheels/*.whl if that folder exists; nothing is installed into the system.
GPU_PATH = engine:kernels:$(CURDIR)/build/wheels:$$PYTHONPATH
gpu:
	if ls wheels/*.whl >/dev/null 2>&1; then \
	    $(PYTHON) -m pip install -q --no-index --no-deps --upgrade --target build/wheels wheels/*.whl; fi
	PYTHONPATH=$(GPU_PATH) $(PYTHON) -m pytest -m gpu tests
	PYTHONPATH=$(GPU_PATH) $(PYTHON) benchmarks/kernels.py
	PYTHONPATH=$(GPU_PATH) $(PYTHON) benchmarks/teacher.py
	PYTHONPATH=$(GPU_PATH) $(PYTHON) benchmarks/step.py

$(call STAMP,demo): setup.py $(wildcard scripts/install*.sh)
	sh scripts/install.sh "$(PYTHON)" "$(VENV)" demo
	touch $@

$(call STAMP,test): setup.py $(wildcard scripts/install*.sh)
	sh scripts/install.sh "$(PYTHON)" "$(VENV)" test
	touch $@

$(LOWEST)/.installed: setup.py scripts/lowest.py scripts/install_python.sh
	mkdir -p build
	for python in python3.10 python3.11 python3.12 "$(PYTHON)"; do \
	    if "$$python" -c "" 2>/dev/null; then break; fi; done; \
	"$$python" scripts/lowest.py > build/lowest.txt && \
	CONSTRAINTS=build/lowest.txt sh scripts/install_python.sh "$$python" "$(LOWEST)" lowest
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info demo
