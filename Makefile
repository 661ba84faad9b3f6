# Everything runs in .venv, which is made on demand and kept until pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/pytest
# Workers share the cores; more than eight gain nothing and cost memory. A file's tests stay together, so that what a
# file prepares for all its tests is prepared once. A worker that crashes ends the run: replacing it may wait for ever.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --max-worker-restart 0

.PHONY: demo test test-slow lint format docs web clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)  ## the whole way once, on the embedded photographs; leaves runs/demo/report.html
	$(BIN)/vitrail demo

test: $(INSTALLED)  ## everything but the slow tests
	$(PYTEST) $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(INSTALLED)  ## only the slow tests, one after another
	$(PYTEST) -m slow --timeout 1200 $(PYTEST_ARGS)

lint: $(INSTALLED)  ## style, types, import directions, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

format: $(INSTALLED)  ## mend what can be mended without thinking
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## execute the documentation, check its links, and build the site: site/index.html
	$(PYTEST) $(PARALLEL) tests/docs $(PYTEST_ARGS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

web: $(INSTALLED)  ## onnxruntime-web, with npm, into the package: a wheel that is built then carries it
	$(BIN)/python -m vitrail.serve.browser.fetch

clean:  ## everything that can be made again, runs excepted
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	touch $@
