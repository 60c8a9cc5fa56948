# make demo   set everything up and run the main job, with no data of your own
# make test   set everything up and pass the tests
# make ready-model DATA=flickr8k    remake the bundle that comes with the package (hours; each stage resumes)
# make ready-bundle DATA=flickr8k   the same from the runs that are kept in ready_model/ (minutes)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PYTEST_OPTIONS ?=

DATA := flickr8k
READY := ready
STAGES := dense sparse tuned seeing scst rounded
RUNS := ready_model/runs

.PHONY: demo test lint bench ready-model ready-bundle install clean

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
	$(BIN)/capprune train configs/ready_model.yaml data.folder=$(DATA) --out $(READY)/trained
	rm -rf $(READY)/runs
	for stage in $(STAGES); do \
		$(BIN)/python -m capprune.training.slim $(READY)/trained/$$stage $(READY)/runs/$$stage || exit 1; done
	$(MAKE) ready-bundle RUNS=$(READY)/runs

ready-bundle: install
	rm -rf $(READY)/bundle
	$(BIN)/capprune export $(RUNS)/$(lastword $(STAGES)) --target tflite --weights int8 --data $(DATA) --out $(READY)/bundle
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
