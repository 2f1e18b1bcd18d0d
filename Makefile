# make demo   see it work          make test   every check
# make serve  keep a server        make bench  ratios of speed, side by side
# make lock   resolve deploy/requirements.in again
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOCK := deploy/requirements-cpu.lock
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test lint serve bench lock clean

demo: $(VENV)/.ready
	$(BIN)/python deploy/demo.py

test: $(VENV)/.ready lint
	$(BIN)/pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(VENV)/.ready
	$(BIN)/t2l serve

bench: $(VENV)/.ready
	$(BIN)/python -m tests.benchmarks.bench

lock:
	$(PYTHON) deploy/lock.py

clean:
	rm -rf $(VENV)

# torch first: PyPI's default build is CUDA's, so the CPU build may have to come from PyTorch's own index.
$(VENV)/.ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "The lock is for Python 3.11: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	grep -A1 '^torch==' $(LOCK) > $(VENV)/torch.lock
	$(PIP) --require-hashes -r $(VENV)/torch.lock || $(PIP) --require-hashes --extra-index-url $(TORCH_INDEX) -r $(VENV)/torch.lock
	$(PIP) --require-hashes -r $(LOCK)
	$(PIP) --no-build-isolation --editable .
	touch $@
