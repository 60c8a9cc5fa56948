# make demo   set everything up and run the main job, with no data of your own
# make test   set everything up and pass the tests
# make ready-model DATA=flickr8k   make a bundle to ship with the package (hours; each stage resumes)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PYTEST_OPTIONS ?=

DATA := flickr8k
READY := ready

.PHONY: demo test lint bench ready-model install clean

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

ready-model: install
	$(BIN)/capprune train configs/ready_model.yaml data.folder=$(DATA) --out $(READY)/runs
	rm -rf $(READY)/bundle
	$(BIN)/capprune export $(READY)/runs/tuned --target tflite --weights int8 --data $(DATA) --out $(READY)/bundle
	$(BIN)/capprune validate $(READY)/bundle --data $(DATA) --split val --record
	$(BIN)/capprune validate $(READY)/bundle --data $(DATA) --split test --record
	$(BIN)/capprune pack $(READY)/bundle --out $(READY)/flickr8k.capz

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
