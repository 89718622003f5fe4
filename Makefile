# Two commands; each sets up everything it needs in .venv and is quick the second time.
VENV   := .venv
PYTHON := $(VENV)/bin/python

.PHONY: demo test

demo: $(VENV)/.installed  ## train a VAE on the embedded digits and look at what it learned
	$(PYTHON) examples/demo.py

test: $(VENV)/.installed  ## lint, types and the fast test suite
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTHON) -m pytest -n 2

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
