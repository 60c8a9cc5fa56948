# make demo   set everything up and run the main job, with no data of your own
# make test   set everything up and pass the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PYTEST_OPTIONS ?=

.PHONY: demo test lint bench install clean

demo: install
	rm -rf $(DEMO)
	$(BIN)/capprune demo --out $(DEMO)

test: install
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/decoder_step.py

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
