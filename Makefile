# `make demo` and `make test` work on a fresh clone with Python 3.11+ and gcc, and can be run again and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check bench clean

demo: $(VENV)/demo
	$(BIN)/torchrun --standalone --nproc-per-node 1 -m geogrpo.train

test: $(VENV)/test
	$(BIN)/python -m pytest

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

bench: $(VENV)/test
	$(BIN)/python -m pytest benchmarks --benchmark-only

# One stamp per extra: installed again only when what is installed changed.
$(VENV)/%: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info geogrpo/regions/_region_index*.so
