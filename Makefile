# make demo   sets up and runs the main job          make test   sets up and runs the tests
# make check  format, lint, types, import layers     make test-slow, make bench, make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	touch $@

.PHONY: demo test test-slow check format bench clean

demo: $(VENV)/.base
	$(BIN)/braidwater demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist demo-output src/*.egg-info
