# The commands people need. `make demo` and `make test` create their environment in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than cores: tests wait for servers, disks and processes now and then.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
READY := $(VENV)/.ready

.PHONY: help demo test test-slow fuzz lint format docs bench clean
.DEFAULT_GOAL := help

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headsearch needs Python 3.11 or newer; set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	$(BIN)/python -m compileall -q headsearch
	@touch $@

demo: $(READY)  ## Search heads for a tiny ViT on the embedded digits; ends with the ranked table (under 4 minutes on 2 cores)
	rm -rf runs/demo
	$(if $(DEMO_THREADS),OMP_NUM_THREADS=$(DEMO_THREADS)) $(BIN)/headsearch run demo --out runs/demo
	@echo "Left out here: most of the screen, the controls same and mlp. 'headsearch run digits' has them, trains 40 epochs, and takes under an hour."

test: $(READY)  ## Run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: $(READY)  ## Run the tests that take minutes, and ten times the examples of the tests that draw them
	$(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile thorough --timeout 3600

fuzz: $(READY)  ## Try 66,300 mutated files, an hour
	HEADSEARCH_FUZZ=78 $(BIN)/python -m pytest tests/fuzz -s --timeout 7200

lint: $(READY)  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Fix style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## Build the pages and the reference into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY)  ## Run the benchmarks of speed, an hour in all; each prints a table and names what it compares with
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/proxy_step.py
	$(BIN)/python benchmarks/orchestration.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/proposals.py
	$(BIN)/python benchmarks/stopping.py
	$(BIN)/python benchmarks/zero_cost.py
	$(BIN)/python benchmarks/screening.py --epochs 3 --proxies 4 --threads 1
	$(BIN)/python benchmarks/dashboard.py
	$(BIN)/python benchmarks/pretrain_step.py
	$(BIN)/python benchmarks/limit.py --batch-size 256

clean:  ## Remove the environment and caches; runs are kept
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
