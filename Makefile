# One command each; every target builds .venv when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# A synthetic typhoon stands east of Taiwan.
DEMO_INIT := 2021-06-07T12:00

.PHONY: demo test test-slow lint types format bench check clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## synthetic weather as GRIB2 in NOAA's layout -> corrdiff hourly -> Zarr archive and a picture
	$(BIN)/corrdiff nature write demo/gfs --init $(DEMO_INIT) --leads 0-2
	CORRDIFF_GFS_URL=demo/gfs $(BIN)/corrdiff hourly --init $(DEMO_INIT) --hours 3 --archive demo/archive
	$(BIN)/corrdiff show demo/archive --out demo/quicklook.png

test: $(STAMP)  ## everything that fits ten minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not benchmark"

test-slow: $(STAMP)  ## the long proofs
	$(BIN)/python -m pytest -m "slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## figures, not assertions
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m pytest tests/benchmarks -m benchmark -s

check: lint types test

clean:
	rm -rf .venv build demo
