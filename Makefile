# One command each; see README.md. Variables in capitals may be given on the command line: make demo IMAGES=photos LABELS="cat,dog"
PYTHON ?= python3
VENV ?= .venv
LABEL_STUDIO_VENV ?= .label-studio-venv
LABEL_STUDIO_VERSION := 1.23.2
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

BIN := $(VENV)/bin
LABEL_STUDIO := $(LABEL_STUDIO_VENV)/bin/label-studio
PIP := -m pip install -qq --disable-pip-version-check

.PHONY: install label-studio serve demo test torture check screenshot
.DEFAULT_GOAL := install

install: $(VENV)/installed

# torch comes first and alone, so that TORCH_INDEX chooses its build (CPU, CUDA) and nothing replaces it.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python $(PIP) --editable ".[dev]"
	touch $@

# In an environment of its own: Label Studio pins packages that we do not want to.
label-studio: $(LABEL_STUDIO_VENV)/installed-$(LABEL_STUDIO_VERSION)

$(LABEL_STUDIO_VENV)/installed-$(LABEL_STUDIO_VERSION):
	test -x $(LABEL_STUDIO_VENV)/bin/python || $(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/python $(PIP) label-studio==$(LABEL_STUDIO_VERSION)
	touch $@

serve: install
	$(BIN)/glip-label serve

demo: install label-studio
	$(BIN)/glip-label demo --label-studio $(LABEL_STUDIO) $(if $(IMAGES),--images "$(IMAGES)") $(if $(LABELS),--labels "$(LABELS)")

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not end_to_end"

test: check label-studio
	LABEL_STUDIO=$(abspath $(LABEL_STUDIO)) $(BIN)/pytest -m end_to_end

# 10,000 events and over 200 kills on SQLite and on PostgreSQL; `make test` has a short form of it.
torture: install
	$(BIN)/python -m tests.torture

# The picture in the README is the one that the editor's test takes.
screenshot: install label-studio
	LABEL_STUDIO=$(abspath $(LABEL_STUDIO)) $(BIN)/pytest tests/end_to_end/test_editor.py
	cp build/editor.png docs/screenshot.png
