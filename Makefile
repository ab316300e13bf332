# One command each; every target builds .venv when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Of tests/corrdiff_core, those that need an S3 server.
S3_TESTS := $(addprefix tests/corrdiff_core/, test_archive.py test_archive_objects.py test_archive_races.py \
	test_archive_readers.py test_archive_retention.py test_faults.py test_s3_credentials.py test_registry.py \
	sources/test_gfs_remote.py sources/test_gfs_faults.py)
# A synthetic typhoon stands east of Taiwan.
DEMO_INIT := 2021-06-07T12:00

.PHONY: demo test test-service test-s3 test-slow test-operations lint types format bench check clean
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
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not service and not slow and not benchmark"

test-service: $(STAMP)  ## what takes longer: flows, servers, killed processes, faulty storage (half an hour; PostgreSQL for some)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "service and not slow"

test-s3: $(STAMP)  ## what is stored on S3, against a real Ceph gateway (Debian; see infra/README.md)
	infra/ceph-rgw.sh $(BIN)/python -m pytest -m "not slow and not benchmark" $(S3_TESTS)

test-slow: $(STAMP)  ## the long proofs
	$(BIN)/python -m pytest -m "slow"

test-operations: $(STAMP)  ## of these, the service from nothing, through everything that befalls it (15 minutes)
	$(BIN)/python -m pytest -m service tests/flows/test_operations.py tests/flows/test_degraded.py

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

check: lint types test test-service

clean:
	rm -rf .venv build demo

.PHONY: stack stack-stop
stack: $(STAMP)  ## the whole service on this host, without containers (infra/README.md); again to heal what died
	infra/stack start
	infra/stack run corrdiff ops bootstrap
	infra/stack run prefect --no-prompt deploy --all

stack-stop: $(STAMP)
	infra/stack stop

# Policies are what only a real gateway can check.
S3_TESTS += tests/flows/test_s3_policies.py

.PHONY: audit
audit:  ## known vulnerabilities of the pinned packages; exit code 75 where the data cannot be reached
	@$(PYTHON) infra/audit
