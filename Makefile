# make reproduce   set up, run every notebook, end with the claims table
# make test        set up, run all tests but those of `make test-faults` and `make test-paper`
# make help        the other targets
#
# PYTHON   the Python (3.11 to 3.13) that .venv is made with, e.g. make test PYTHON=python3.12
# PROFILE  smoke, quick (default), study or paper
# ONLY     notebooks to run, by number or name, e.g. ONLY=05 or ONLY="03 05"
# PARAMS   notebook parameters, e.g. PARAMS="SEED=2 DATA=generated"

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
WANTED := cat pyproject.toml requirements.lock
# A Python that is named on the command line or in the environment wins over the one that made .venv.
ASKED := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup reproduce publish test test-faults test-paper bench docs lint lab lock

help:
	@echo "make reproduce   set up, run every notebook at PROFILE=quick, end with the claims table"
	@echo "                 narrow it: make reproduce PROFILE=study ONLY=05 PARAMS='SEED=2'"
	@echo "make test        set up, run all tests but the next two, one process a core"
	@echo "make test-faults spoil functions one by one; a checked cell of a notebook has to notice each"
	@echo "make test-paper  plan every published training, check its shapes, do one step of it"
	@echo "make lab         set up, open JupyterLab on the first notebook"
	@echo "make publish     copy figures, tables and executed notebooks from build/; rewrites parts of README.md"
	@echo "make bench       time what is said to be fast against its reference, into figures/tables/benchmarks.csv"
	@echo "make docs        write the pages of the package's functions to build/api"
	@echo "make lint        check style and formatting"
	@echo "make lock        resolve pyproject.toml into requirements.lock"

setup:
	@if [ -x $(RUN) ] && $(WANTED) | cmp -s - $(VENV)/installed-from \
	  && { [ -z "$(ASKED)" ] || [ "`$(RUN) -V`" = "`$(ASKED) -V`" ]; }; \
	then :; else $(MAKE) --no-print-directory $(VENV)/installed-from; fi

# .venv counts as complete only when `installed-from`, written last, equals the two files it was made from.
.PHONY: $(VENV)/installed-from
$(VENV)/installed-from:
	@command -v $(PYTHON) >/dev/null || { echo "'$(PYTHON)' was not found; name a Python: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "Python 3.11 to 3.13 is needed, %s is %d.%d; name another: make PYTHON=python3.12" % (sys.executable, *v))'
	@$(PYTHON) -c 'import os, shutil, sys, sysconfig; \
	  cc = any(map(shutil.which, ("cc", "gcc", "clang"))); \
	  header = os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")); \
	  what = [w for ok, w in ((cc, "a C compiler"), (header, "the header files of Python")) if not ok]; \
	  sys.exit(0 if not what else "\n".join(( \
	    "The package noise is compiled on this machine, and that lacks " + " and ".join(what) + ". Install them:", \
	    "  Debian, Ubuntu:  sudo apt-get install build-essential python3-dev python3-venv", \
	    "  Fedora:          sudo dnf install gcc make python3-devel", \
	    "  macOS:           xcode-select --install", \
	    "  conda:           conda env create -f environment.yml, and no make is needed for the set-up")))'
	@echo "Setting up $(VENV): about 3 GB to download and 7 GB on disk the first time, a few minutes."
	@$(PYTHON) -m venv --clear $(VENV) || { echo "Python's venv module is missing (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; }
	@awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock > $(VENV)/uv.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@$(VENV)/bin/uv pip sync --python $(RUN) --require-hashes --build-constraints requirements.lock requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(WANTED) > $@

reproduce: setup
	@$(RUN) -m micro_lib reproduce --profile "$(PROFILE)" --only $(ONLY) -p $(PARAMS)

publish: setup
	@$(RUN) -m micro_lib publish --profile "$(PROFILE)"

# pytest-xdist: one process a core; the tests of a file stay together, they share what is costly to make.
test: setup
	@$(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile

test-faults: setup
	@$(RUN) -m pytest -n logical --maxprocesses 4 tests/faults

test-paper: setup
	@$(RUN) -m pytest tests/paper

# The package grown textures are compared with asks for another OpenCV, so it comes without what it asks for.
bench: setup
	@$(VENV)/bin/uv pip install --quiet --python $(RUN) --no-deps exemplar-based-inpainting==0.2.0
	@mkdir -p build
	@$(RUN) -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-json=build/benchmarks.json

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

lab: setup
	@$(RUN) -m jupyterlab notebooks/00_check_environment.ipynb

docs: setup
	@$(RUN) -W error::UserWarning -m pdoc --docformat numpy -o build/api micro_lib

# Existing pins stay unless pyproject.toml moved; `make lock UPGRADE=--upgrade` takes the newest of everything.
lock: setup
	@$(VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --all-extras --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE) --quiet pyproject.toml -o requirements.lock
