# Two commands on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
# Of Material for MkDocs: what docs/dependencies.md says of MkDocs 2.
export NO_MKDOCS_2_WARNING := 1
BIN := $(VENV)/bin
# The filter of FedPG-BR beside the same federation without one.
DEMO := attack=random-noise attack.agents=3 budget.trajectories=1500 seeds=3 runtime.compiling=quick
DEMO_TITLE := CartPole, ten agents, three of them send noise

.PHONY: demo docs test test-training test-slow test-faults test-metaworld lint format clean

# --no-cache-dir would slow every retry; pip's cache is the user's own. What is imported is compiled then: not all is.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	touch $@

# Groups of dependencies need a pip of 2025.
$(VENV)/.installed-all: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group oracles --group lint --group docs
	touch $@

demo: $(VENV)/.installed
	rm -rf runs/demo
	$(MAKE) --no-print-directory --jobs=2 runs/demo/fedpg-br runs/demo/svrpg
	$(BIN)/fedrax report runs/demo --out runs/demo/report.html --title "$(DEMO_TITLE)"

# Side by side: most of their time is compiling, which one core does. One of them tells how it goes.
runs/demo/fedpg-br:
	$(BIN)/fedrax train fedpg-br/cartpole $(DEMO) --out $@

runs/demo/svrpg:
	$(BIN)/fedrax train fedpg-br/cartpole $(DEMO) strategy=svrpg --out $@ --quiet > /dev/null

test: $(VENV)/.installed-all
	$(BIN)/python -m pytest

test-training: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m "training and not slow and not faults"

# Of the notebook among the examples.
$(VENV)/.installed-notebook: $(VENV)/.installed-all
	$(BIN)/python -m pip install --quiet --group notebook
	touch $@

test-slow: $(VENV)/.installed-notebook
	XLA_FLAGS=--xla_backend_optimization_level=2 $(BIN)/python -m pytest -m slow --dist load

test-faults: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m faults

# Meta-World's own package has a MuJoCo of its own, and so an environment: EnvPool's tasks are compared with it.
METAWORLD := .venv-metaworld
$(METAWORLD)/.installed: pyproject.toml
	$(PYTHON) -m venv $(METAWORLD)
	$(METAWORLD)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(METAWORLD)/bin/python -m pip install --quiet --editable ".[metaworld,envpool]" --group test
	touch $@

test-metaworld: $(METAWORLD)/.installed
	$(METAWORLD)/bin/python -m pytest -m "not slow" tests/environments/test_metaworld.py

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

# The documentation's site, in `site`: open site/index.html. Its settings are in mkdocs.yml.
docs: $(VENV)/.installed-all
	$(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed-all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(METAWORLD) runs site
