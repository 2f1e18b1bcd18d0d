# make demo   a demonstration             make test       all but a fresh installation
# make serve  run a server                make test-fast  without an engine, under 90 s
# make wheel  build the package           make test-all   also with a fresh installation
# make lock   resolve again (needs uv)    make bench      speed ratios, for docs/performance.md
CHECK := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := python3.11 python3.12 python3.13 python3
# The first that runs and is supported.
PYTHON ?= $(firstword $(foreach each,$(CANDIDATES),$(shell $(each) -c '$(CHECK)' 2>/dev/null && echo $(each))))
VENV := .venv
BIN := $(VENV)/bin
# Each worker may run an engine of 2.5 GB.
TEST_WORKERS ?= 2
PYTEST = $(BIN)/pytest --numprocesses $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder
# uv does not read pip's settings, so folders of wheels are passed to it.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.PHONY: demo test test-fast test-all lint serve bench lock wheel clean

demo: $(VENV)/.ready
	$(BIN)/python deploy/demo.py

test: lint
	$(PYTEST) -m "not install"

# No engine and no long training.
test-fast: lint
	$(PYTEST) tests/unit -m "not slow and not install"

# Also the tests that need a fresh environment.
test-all: test
	$(BIN)/pytest -m install

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

# The package for users; see docs/install.md.
wheel: $(VENV)/.ready
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
	cp deploy/requirements-cpu.lock dist/

clean:
	rm -rf $(VENV) build dist

# The environment to run.
$(VENV)/.ready: deploy/requirements-cpu.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(CHECK)' 2>/dev/null || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) deploy/install.py $(VENV) deploy/requirements-cpu.lock
	@touch $@

# The environment to test.
$(VENV)/.ready-dev: $(VENV)/.ready deploy/requirements-dev.lock
	@$(PYTHON) deploy/install.py $(VENV) deploy/requirements-dev.lock
	@touch $@
