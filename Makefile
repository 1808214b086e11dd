# The commands of the house. `make` alone prints them.

# Python 3.11 or newer, the first of these that will do. 3.12 and 3.11 come first: the wheel with a Redis is for them.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

# Where Python may not keep what it compiled, each of many processes compiles all of it again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check bench torture docs lock clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## start everything, with a sandbox in place of the providers
	@exec $(BIN)/tocsin serve --sandbox

test: $(READY) ## run all tests; they start what they need
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, formatting, types, and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(READY) ## measure each stage beside its limit
	$(BIN)/python bench/run.py

torture: $(READY) ## run everything under faults for half an hour, and check what came of it
	$(BIN)/python -m tests.torture.run

docs: $(READY) ## make docs/settings.md from settings.toml
	$(BIN)/python docs/settings_page.py

# No address of a registry and no path of this machine gets into the locks.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --upgrade

lock: $(READY) ## choose the newest versions that pyproject.toml allows
	$(LOCK) pyproject.toml --extra build -o requirements.lock
	$(LOCK) pyproject.toml --extra build --extra dev -c requirements.lock -o requirements-dev.lock
	echo uv | $(LOCK) --python-version 3.11 - -o requirements-uv.lock

clean: ## remove the environment and what tools left; data/ stays
	rm -rf .venv .link .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: uv by pip, everything else by uv, in an eighth of the time. The marker is made last, so that an
# environment that was not finished is made anew.
$(READY): requirements-uv.lock requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "Tocsin needs Python 3.11 or newer; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments; install its venv (Debian, Ubuntu: apt install python3-venv)" >&2; \
		exit 1; }
	@echo "Making the environment in .venv; this is done once."
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes -r requirements-dev.lock
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@mkdir -p .link && ln -sfn .. .link/tocsin
	@touch $@
