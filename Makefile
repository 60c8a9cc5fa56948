# make demo   set everything up and run the main job, with no data of your own
# make test   set everything up and pass the tests
# make test-slow   the tests that take minutes each: full-size fuzzing, every family trained and compared
# make test-all   both
# make lint   style, types, and the spelling and grammar of the text
# make docs   build the documentation site into build/site
# make ready-model DATA=flickr8k OTHER=coco_small    remake the bundle that comes with the package (hours; each stage resumes)
# make ready-bundle DATA=flickr8k OTHER=coco_small   the same from the run that is kept in ready_model/ (minutes)
# make ready-blocks DATA=flickr8k OTHER=coco_small   its fast variant in blocks, on the same encoder (an hour; each stage resumes)
# make ready-flickr8k DATA=flickr8k   a bundle from photos of Flickr8k alone (hours; each stage resumes)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PYTEST_OPTIONS ?= -n auto --dist loadfile --no-loadscope-reorder

DATA := flickr8k
OTHER := coco_small
READY := ready
RUN := ready_model/runs/wide
NAME := flickr8k-coco
KNOWN = --known $(OTHER)
ENCODER := static_int8
STAGES := dense sparse tuned seeing scst int8 rounded

.PHONY: demo test test-slow test-all lint docs bench ready-model ready-bundle ready-blocks ready-flickr8k install clean

demo: install
	rm -rf $(DEMO)
	$(BIN)/capprune demo --out $(DEMO)

test: install
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-slow: install
	$(BIN)/python -m pytest --slow -m slow $(PYTEST_OPTIONS)

test-all: install
	$(BIN)/python -m pytest --slow $(PYTEST_OPTIONS)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python docs_build/check_prose.py

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python benchmarks/decoder_step.py

ready-model: install
	$(BIN)/capprune train configs/ready_model.yaml data.folder=$(DATA) 'data.sources.*.folder=$(OTHER)' --out $(READY)/trained
	$(BIN)/capprune length $(READY)/trained/scst --data $(DATA) --data $(OTHER) --out $(READY)/trained/length
	$(BIN)/python -m capprune.training.slim $(READY)/trained/length $(READY)/runs/wide
	$(MAKE) ready-bundle RUN=$(READY)/runs/wide

ready-bundle: install
	rm -rf $(READY)/$(NAME)
	$(BIN)/capprune export $(RUN) --plan size --encoder-weights $(ENCODER) --no-repeat-ngram 2 --data $(DATA) --out $(READY)/$(NAME)
	$(BIN)/capprune validate $(READY)/$(NAME) --data $(DATA) --split val --record $(KNOWN)
	$(BIN)/capprune validate $(READY)/$(NAME) --data $(DATA) --split test --record
	$(BIN)/capprune pack $(READY)/$(NAME) --out $(READY)/$(NAME).capz

ready-blocks: install
	$(BIN)/capprune train configs/ready_model_blocks.yaml data.folder=$(DATA) 'data.sources.*.folder=$(OTHER)' --out $(READY)/blocks
	$(BIN)/capprune length $(READY)/blocks/scst --data $(DATA) --data $(OTHER) --out $(READY)/blocks/length
	$(BIN)/python -m capprune.training.slim $(READY)/blocks/length $(READY)/runs/blocks
	$(MAKE) ready-bundle RUN=$(READY)/runs/blocks NAME=flickr8k-coco-blocks

ready-flickr8k: install
	$(BIN)/capprune train configs/ready_model_flickr8k.yaml data.folder=$(DATA) --out $(READY)/flickr8k-trained
	for stage in $(STAGES); do \
		$(BIN)/python -m capprune.training.slim $(READY)/flickr8k-trained/$$stage $(READY)/runs/$$stage || exit 1; done
	$(MAKE) ready-bundle RUN=$(READY)/runs/$(lastword $(STAGES)) NAME=flickr8k KNOWN=

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
