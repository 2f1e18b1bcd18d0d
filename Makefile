# make demo   see it work          make test   every check
# make serve  keep a server        make bench  ratios of speed, side by side
# make wheel  build the package    make lock   resolve the dependencies again (needs uv)
CHECK := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := python3.11 python3.12 python3.13 python3
# The first that runs and is supported.
PYTHON ?= $(firstword $(foreach each,$(CANDIDATES),$(shell $(each) -c '$(CHECK)' 2>/dev/null && echo $(each))))
VENV := .venv
BIN := $(VENV)/bin
# uv reads no settings of pip: tell it of folders of wheels.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.PHONY: demo test lint serve bench lock wheel clean

demo: $(VENV)/.ready
	$(BIN)/python deploy/demo.py

test: lint
	$(BIN)/pytest

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(VENV)/.ready
	$(BIN)/t2l serve

bench: $(VENV)/.ready-dev
	$(BIN)/python -m tests.benchmarks.bench

lock: $(VENV)/.ready-dev
	$(BIN)/python deploy/lock.py

# What users install: README and docs/install.md.
wheel: $(VENV)/.ready
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
	cp deploy/requirements-cpu.lock dist/

clean:
	rm -rf $(VENV) build dist

# Enough to run.
$(VENV)/.ready: deploy/requirements-cpu.lock pyproject.toml
	@$(or $(PYTHON),python3) -c '$(CHECK)' 2>/dev/null || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) deploy/install.py $(VENV) deploy/requirements-cpu.lock
	@touch $@

# Enough to test.
$(VENV)/.ready-dev: $(VENV)/.ready deploy/requirements-dev.lock
	@$(PYTHON) deploy/install.py $(VENV) deploy/requirements-dev.lock
	@touch $@
