# make demo   train, deploy and invoke a model with a Clary of its own
# make test   everything that a change must pass
# make bench  the benchmarks, one after the other
# make lock   choose the newest versions of all dependencies and write them down
#
# All of it happens in .venv, made with PYTHON; it is set up again only when the requirements change.

.DEFAULT_GOAL := help
.PHONY: help demo test bench lock clean

# The first that is 3.11 or later and starts: a name on the PATH may be a shim without a Python behind it.
PYTHON ?= $(shell for p in python3.11 python3 python3.14 python3.13 python3.12; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# Files of tests that run at the same time; they mostly wait.
TEST_PROCESSES ?= 4
BIN := $(VENV)/bin
UV := $(BIN)/uv
RUNTIME := $(VENV)/.runtime
TEST := $(VENV)/.test
COMPILE := pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate --python-version 3.11 pyproject.toml
# The model servers that the tests put into an image, without the third of MLflow's packages that its server leaves alone.
SERVERS := $(COMPILE:pyproject.toml=requirements/servers.in) $(foreach p,pyarrow matplotlib fonttools,--no-emit-package $(p))

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

# What is downloaded is kept here, so that trying Clary leaves nothing in the home but the demo's data folder.
demo: export UV_CACHE_DIR ?= $(abspath $(VENV))/uv-cache
demo: $(RUNTIME)
	@$(BIN)/clary demo

test: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

bench: $(TEST)
	@set -e; for name in gateway models cli relay; do echo "== bench/$$name.py"; $(BIN)/python "bench/$$name.py"; done

lock: $(UV)
	$(UV) $(COMPILE) -o requirements/runtime.txt
	$(UV) $(COMPILE) --extra test -o requirements/test.txt
	$(UV) $(SERVERS) -o requirements/servers.txt

clean:
	rm -rf $(VENV)

# uv in the version that the lock names, so that it is not fetched twice.
$(UV):
	@test -n "$(PYTHON)" || { echo "Clary needs Python 3.11 or later; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check "$$(grep -oE '^uv==[^ ;]+' requirements/runtime.txt)"

$(RUNTIME): requirements/runtime.txt pyproject.toml hatch_build.py $(wildcard src/clary/gateway/shortcut/*.p[yx][xi]) | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/runtime.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(TEST): requirements/test.txt | $(RUNTIME)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/test.txt
	@touch $@
