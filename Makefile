# Two commands on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-faults lint format clean

# --no-cache-dir would slow every retry; pip's cache is the user's own.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group test
	touch $@

$(VENV)/.installed-all: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint
	touch $@

demo: $(VENV)/.installed
	rm -rf runs/demo
	$(BIN)/fedrax train fedpg-br/cartpole attack=random-noise attack.agents=3 budget.trajectories=2000 \
		"name=Demo: ten agents, three of them Byzantine" --out runs/demo
	$(BIN)/fedrax report runs/demo

test: $(VENV)/.installed-all
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m slow

test-faults: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m faults

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs
