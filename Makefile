# Two commands do everything: `make demo` and `make test`. Each makes its own environment.
PYTHON ?= python3
DAYS ?= 60
PORT ?= 3000
SERVE_PORT ?= 6566
BOARD_PORT ?= 6568
SEED ?= $(shell date +%s)
BIN := .venv/bin

.PHONY: demo test exam up check lock clean

demo: .venv/ready  ## replay real flights, materialize through Dagster, train, serve, prove
	$(BIN)/python -m examples.flights.demo --days $(DAYS)

test: .venv/ready  ## the gate: every test at its everyday size
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-seed=0

exam: .venv/ready  ## the full counts: all property cases, kills, a year of data, the browser
	@echo "exam scale $${FEATURESTORE_EXAM_SCALE:-1}, seed $(SEED)"
	FEATURESTORE_EXAM_SCALE=$${FEATURESTORE_EXAM_SCALE:-1} FEATURESTORE_EXAM_SEED=$(SEED) $(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-seed=$(SEED) -p no:cacheprovider

up: .venv/ready  ## Dagster UI and daemon, the online store, the feature server and the board, until Ctrl-C
	@echo "Starting the online store, the feature server, the board and Dagster; their addresses follow. Ctrl-C stops everything."
	PORT=$(PORT) SERVE_PORT=$(SERVE_PORT) BOARD_PORT=$(BOARD_PORT) $(BIN)/python -m deploy.up

check: .venv/ready  ## style, types, import rules, the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy featurestore feature_assets resources checks sensors definitions.py examples deploy benchmarks
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

lock: .venv/ready  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --system-certs --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --extra platform --group dev --output-file requirements.lock pyproject.toml

clean:  ## forget the demo's data, Dagster's storage and the environment
	rm -rf .featurestore .dagster .venv

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("featurestore needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
