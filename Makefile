# `make demo` and `make test` need nothing but Python, its venv module and make.

PYTHON ?= python3
PAGE ?= 1

VENV := .venv
BIN := $(VENV)/bin
# What the demo needs, and that with the tools of the tests.
BASE := $(VENV)/.installed-base
INSTALLED := $(VENV)/.installed
DEMO := $(CURDIR)/.demo

# A worker for each core; each brings a PostgreSQL of its own, so that a large machine gets no more
# than 8. One more computes while others wait, for their servers, browsers and child processes.
CORES := $(shell n=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); \
	[ "$$n" -le 8 ] && echo "$$n" || echo 8)
JOBS ?= $(shell expr $(CORES) + 1)

# Sizes that are measured, and folders of photos with catalogue.csv and queries.csv.
ROWS ?= 100000
PHOTOS ?=

# The demo prunes what its catalogue does not have: it must not reach anybody's real database.
ONLY_DEMO := env -u LOOKALIKE_DATABASE_URL -u LOOKALIKE_INDEX_DIR LOOKALIKE_HOME="$(DEMO)"

.PHONY: help install demo test test-containers test-lowest lowest release audit docs soak soak-cluster mutants fuzz bench openapi fuzz-api lint format clean

help:
	@echo "make demo         install, draw and ingest a catalogue, search it, serve the page"
	@echo "make demo PAGE=0  the same, without the page"
	@echo "make test         install and run all tests"
	@echo "make test-containers  docs/containers.md with Docker, from a clone to a restore"
	@echo "make test-lowest  all tests with the lowest versions of dependencies that are allowed"
	@echo "make release      wheel, source distribution, list of components and hashes, in dist"
	@echo "make audit        look for known vulnerabilities of the dependencies"
	@echo "make docs         the documentation as a site, in docs/_build/html"
	@echo "make soak         write, build and search at once for a long time, and compare"
	@echo "make soak-cluster  ingest, embed, build and search while nodes of a cluster die; SECONDS=60"
	@echo "make mutants      introduce known mistakes into copies of the code; tests must fail"
	@echo "make fuzz         read mutated pictures, catalogues, indexes, backups and web answers"
	@echo "make bench        measure everything side by side; ROWS=\"100000 1000000\" PHOTOS=folder"
	@echo "make openapi      write docs/openapi.json anew"
	@echo "make fuzz-api     send generated requests to the HTTP API for ten minutes; SECONDS=60"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff rewrite the code"
	@echo "make install      only make $(VENV)"
	@echo "make clean        remove $(VENV), the demo's data and the caches"

demo: $(BASE)
	exec $(ONLY_DEMO) $(BIN)/lookalike demo $(if $(filter 0 no,$(PAGE)),--no-page)

# glibc keeps the memory that is freed: taking it from the kernel again and again costs more.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483648 \
	MALLOC_TOP_PAD_=67108864

test: $(INSTALLED)
	env -u PYTHONDONTWRITEBYTECODE $(KEEP_MEMORY) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# Takes minutes, gigabytes and Docker: not part of the tests.
test-containers:
	tests/containers/run.sh

# In an environment of its own.
test-lowest:
	"$(PYTHON)" -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install torch==2.13.0
	.venv-lowest/bin/python -m pip install --constraint release/lowest.txt -e ".[test]"
	.venv-lowest/bin/python -m pytest -n $(JOBS) --dist loadgroup $(TESTS)

# What torch needs for other hardware is left out, as in an installation without it.
lowest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e ".[release]"
	{ sed -n '/^#/p' release/lowest.txt; \
		$(BIN)/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct \
			--python-version 3.11 --extra test pyproject.toml \
		| grep -v -E '^(nvidia|cuda|triton)'; } > release/lowest.new
	mv release/lowest.new release/lowest.txt

release: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e ".[release]"
	rm -rf dist .venv-release
	$(BIN)/python release/build.py dist
	"$(PYTHON)" -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet torch==2.13.0
	.venv-release/bin/python -m pip install --quiet dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file dist/lookalike-$$($(BIN)/python release/version.py).cdx.json \
		.venv-release/bin/python
	$(BIN)/python release/licences.py --check
	cd dist && sha256sum * > SHA256SUMS

audit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e ".[release]"
	$(BIN)/python release/audit.py --requirement release/lowest.txt
	$(BIN)/python release/audit.py --local

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

soak: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/freshness/soak.py

soak-cluster: $(INSTALLED)
	PYTHONPATH=.:tests $(BIN)/python tests/cluster/soak.py --seconds $(or $(SECONDS),600)

mutants: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/freshness/mutants.py

fuzz: $(INSTALLED)
	PYTHONPATH=.:tests $(BIN)/python tests/fuzzing/fuzz_files.py

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	$(BIN)/python -m bench.harness.run_all $(foreach rows,$(ROWS),--rows $(rows)) \
		$(foreach photos,$(PHOTOS),--photos $(photos))

openapi: $(INSTALLED)
	$(BIN)/python -m app.api.openapi > docs/openapi.json

fuzz-api: $(INSTALLED)
	PYTHONPATH=.:tests $(BIN)/python tests/api/fuzz.py --seconds $(or $(SECONDS),600)

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(INSTALLED)
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

install: $(INSTALLED)

# The stamps are written last, so an installation that was interrupted is taken up again.
# torch comes first and pinned: a looser choice may bring gigabytes of libraries for other hardware.
# Nothing is compiled ahead: Python compiles what is imported, a small part, when it first is.
$(BASE): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "$(PYTHON) was not found. Name a Python 3.11 or newer: make PYTHON=python3.12 …" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$("$(PYTHON)" --version) is too old. Name a Python 3.11 or newer:" \
			"make PYTHON=python3.12 …" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. Install it (Debian: the package python3-venv)." >&2; \
		exit 1; }
	@rm -f "$@"
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile torch==2.13.0
	$(BIN)/python -m pip install --no-compile -e .
	@touch "$@"

$(INSTALLED): $(BASE)
	@rm -f "$@"
	$(BIN)/python -m pip install -e ".[test]"
	@touch "$@"

clean:
	@if [ -x $(BIN)/python ] && [ -d "$(DEMO)" ]; then \
		$(ONLY_DEMO) $(BIN)/lookalike db stop; fi
	rm -rf $(VENV) .venv-lowest .venv-release "$(DEMO)" *.egg-info build dist docs/_build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
