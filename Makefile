# make demo: the main job on the embedded corpus.  make test: the tests.  Both set up .venv by themselves.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PLUGINS := $(sort $(dir $(wildcard plugins/*/pyproject.toml)))
EDITABLE := $(foreach p,$(PLUGINS),-e $(p))
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test check check-all lint types coverage wheels oldest docs format bench clean determinism canary mutation audit sbom
.DELETE_ON_ERROR:

$(VENV)/.demo: $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . $(EDITABLE)
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]' $(EDITABLE)
	touch $@

$(VENV)/.release: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/xaibench run --cm lcnn --xai all --keep-maps --out results/demo
	$(BIN)/xaibench leaderboard results/demo --quiet --out results/demo/site

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m 'not heavy' -q

# All that a release must pass: about 45 minutes on two cores. `oldest` and `wheels` each make an environment (8 GB) and remove it.
check: lint types coverage docs wheels oldest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m 'not heavy' -q --cov --cov-report=term:skip-covered

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

wheels: $(VENV)/.test
	$(BIN)/python tests/release/wheels.py build dist
	$(BIN)/python tests/release/wheels.py try dist

# The newest versions that the pyprojects allow are those of $(VENV); these are the oldest.
oldest: $(VENV)/.test
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	$(BIN)/python tests/release/oldest.py > build/oldest.txt
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir -c build/oldest.txt \
	  -e '.[test]' $(EDITABLE)
	build/oldest/bin/python -m pytest -n 2 -m 'not heavy' -q
	rm -rf build/oldest

# The real thing twice, in fresh processes that share nothing but the machine: every file must be the same.
determinism: $(VENV)/.test
	$(BIN)/python tests/steady.py

# New numbers for tests/canary/board.json, after BENCHMARK_VERSION was raised: docs/determinism.md says when.
canary: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python tests/canary/make.py

# One small mistake at a time, and whether a test notices: docs/mutation.md. An hour or two; resumes where it stopped.
mutation: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.3'
	$(BIN)/python tests/mutation/run.py

# Known vulnerabilities of what is installed here (needs a network: PyPI's advisories). A package that could not be looked up
# is a failure, never "none known".
audit: $(VENV)/.release
	mkdir -p build
	$(BIN)/python -m pip list --disable-pip-version-check --format=freeze --exclude-editable > build/audit.txt
	$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner off -r build/audit.txt

# What an installation consists of, in CycloneDX.
sbom: $(VENV)/.release
	$(BIN)/python tests/release/sbom.py dist/sbom.cdx.json

check-all: check determinism
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
