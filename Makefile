# Everything a fresh machine needs: Python 3.11 to 3.13 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BACKTEST_CHAOS_SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

# Many processes import the same modules: what one has compiled to bytecode, the others read.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo fmt reference test test-slow fuzz fuzz-api chaos lint bench pin charts up clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

demo: $(READY)  ## the whole pipeline on the synthetic sample market
	$(BIN)/backtest-pipeline demo

up: $(READY)  ## the Dagster UI on http://127.0.0.1:3000; Ctrl-C ends it
	$(BIN)/backtest-pipeline up

# Three workers keep two cores busy: a tenth of the time, one waits for a server or a browser. Files are
# taken in the order of their names, which has the longest ones early and no worker idle at the end.
test: $(READY)  ## the whole suite
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)  ## what takes too long for the suite: every case of the benches at a tiny size
	$(BIN)/python -m pytest -m slow

fuzz: $(READY)  ## the suite with random examples that it has not drawn before
	BACKTEST_EXAMPLES=500 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --hypothesis-profile=other

chaos: $(READY)  ## a hundred kills, restarts and cut connections; BACKTEST_CHAOS_SEED repeats a run
	BACKTEST_CHAOS_SEED=$(BACKTEST_CHAOS_SEED) $(BIN)/python -m pytest -m chaos -s

fuzz-api: $(READY)  ## hundreds of requests that nobody expects to each route of the service
	BACKTEST_FUZZ_EXAMPLES=300 $(BIN)/python -m pytest --hypothesis-profile=other backtest_pipeline_tests/service/test_routes_fuzz.py

fmt: $(READY)  ## the style put right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(READY)  ## docs/reference, features.md and metrics.md, generated from the code
	$(BIN)/python -m backtest_pipeline_tests.docs.reference

lint: $(READY)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(READY)  ## speed beside peers; writes bench/RESULTS.md
	$(BIN)/python -m bench

pin: $(READY)  ## digests of all images into deploy/pinned, where there is a network
	$(BIN)/python -m deploy.pin

charts: $(READY)  ## values for the charts of Dagster and Dask checked; CHARTS=FOLDER has them already
	$(BIN)/python -m deploy.charts $(CHARTS)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, not %d.%d; run make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m backtest_pipeline.pipeline.pools.warm  # compiles what else each first process would
	@touch $(READY)

clean:
	rm -rf .venv
