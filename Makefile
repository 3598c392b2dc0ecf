# Everything runs in .venv, which `make env` creates or refreshes from the pinned requirements.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
OUT := _build/reproduced

.PHONY: env reproduce test test-all book bench attack meta mutants audit lint notebooks words clean

env: .venv/.installed

.venv/.installed: requirements.txt requirements-tools.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-tools.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

reproduce: env
	$(BIN)/rlvr reproduce --profile book --jobs $(JOBS) --out $(OUT)
	$(BIN)/python book/build.py --reproduced $(OUT)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval --nbval-sanitize-with tests/nbval.cfg -n $(JOBS) --dist loadfile

# The chapters under nbval and every test that is not slow.
test: env lint
	$(PYTEST) -m "not slow" $(wildcard notebooks/*.ipynb) tests

# The evidence as well, kills, every notebook end to end, every page under axe.
test-all: env lint
	$(PYTEST) notebooks tests

book: env
	$(BIN)/python book/build.py

bench: env
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks $(ONLY)

# Attacks on the project; each writes results/NAME.json, which the book's trust page shows.
attack: env
	JOBS=$(JOBS) $(BIN)/python -m tests.attack kills faults machines

meta: env
	JOBS=$(JOBS) $(BIN)/python -m tests.attack meta

mutants: env
	JOBS=$(JOBS) $(BIN)/python -m tests.attack mutants

audit: env
	$(BIN)/python -m tests.attack audit

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

notebooks: env
	$(BIN)/rlvr reproduce --profile book --jobs $(JOBS) --out $(OUT) || test $$? -eq 1
	$(BIN)/python book/publish.py $(OUT)

# Carries prose and comments of the sources into the committed notebooks, without executing anything.
words: env
	$(BIN)/python book/publish.py

clean:
	rm -rf _build .cache
