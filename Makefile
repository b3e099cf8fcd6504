# make demo: the main job on the embedded corpus.  make test: the tests.  Both set up .venv by themselves.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
EDITABLE := $(foreach p,$(PLUGINS),-e $(p))
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test check check-all format bench clean
.DELETE_ON_ERROR:

$(VENV)/.demo: $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . $(EDITABLE)
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]' $(EDITABLE)
	touch $@

demo: $(VENV)/.demo
	$(BIN)/xaibench run --cm lcnn --xai all --keep-maps --out results/demo
	$(BIN)/xaibench leaderboard results/demo --quiet --out results/demo/site

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m 'not heavy' -q

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-all: check
	$(BIN)/python -m pytest -n 2 -q

bench: $(VENV)/.test
	report=$$(mktemp) && $(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds \
	  --benchmark-json=$$report -q && $(BIN)/python benchmarks/page.py $$report > $$report.md && \
	  cp $$report.md benchmarks/README.md && rm -f $$report $$report.md

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) results
