# `make demo` and `make test` work on a fresh clone with Python 3.11+ and gcc, and can be run again and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check bench asan clean

demo: $(VENV)/demo
	$(BIN)/torchrun --standalone --nproc-per-node 1 -m geogrpo.train

# Two processes of one thread each: more threads would wait for each other.
test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

bench: $(VENV)/bench
	GEOGRPO_BENCH_DEMO=1 GEOGRPO_BENCH_STEP=1 $(BIN)/python -m pytest benchmarks --benchmark-only

# The region index under AddressSanitizer and UndefinedBehaviorSanitizer: any points, any index file.
SANITIZE := -std=c++17 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -ffp-contract=off
asan: $(VENV)/test
	mkdir -p build
	$(CXX) $(SANITIZE) -fPIC -shared -pthread csrc/region_build.cpp csrc/region_lookup.cpp -o build/region_index_asan.so
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 GEOGRPO_REGION_LIBRARY=$(CURDIR)/build/region_index_asan.so \
	$(BIN)/python -m pytest -q tests/regions/test_index*.py tests/regions/test_place_polygons.py tests/regions/test_storage.py

# One stamp per extra: installed again only when what is installed changed.
$(VENV)/%: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info geogrpo/regions/_region_index*.so
