# make demo    install, search the quickstart study, print its leaderboard
# make test    install, run the whole test suite
# make check   install, lint, formatting, types, layers, audit
# make test-cluster   tests on real Ray hosts in network namespaces (root, iproute2, postgresql)
# make audit   known vulnerabilities of the pinned packages, where the package index tells
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-cluster check audit format clean

demo: $(INSTALLED)
	$(BIN)/distprune search search_spaces/quickstart.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-cluster: $(INSTALLED)
	DISTPRUNE_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest -n 0 -m cluster tests/cluster

audit: $(INSTALLED)
	@test -x $(VENV)/audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit==2.10.1)
	@$(BIN)/python scripts/audit.py --pip-audit $(VENV)/audit/bin/pip-audit

check: $(INSTALLED) audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,onnx,s3,cluster,dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
