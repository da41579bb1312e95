# Two commands: `make demo` sets up and runs the main job, `make test` sets up and runs everything that must pass.
# `make demo-legal`, `demo-lora` and `demo-duo` run a recipe's demo each: a whole training program on a volume that is too small.
# `make torture` runs the torture tests with the counts of the issues (200 kills ...) instead of a seeded sample.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-legal demo-lora demo-duo test torture lint types layers unit torture-sample clean

demo: $(READY)
	$(BIN)/python examples/demo.py

demo-legal demo-lora demo-duo: demo-%: $(READY)
	$(BIN)/python recipes/$*/demo.py

test: lint types layers unit torture-sample

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/pytest -q -n 2 --ignore=tests/torture

torture-sample: $(READY)
	$(BIN)/pytest -q -n 2 tests/torture

torture: $(READY)
	OUTLAST_TORTURE=full $(BIN)/pytest -q -n 2 tests/torture

clean:
	rm -rf $(VENV) demo-run demo-legal demo-lora demo-duo
