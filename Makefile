# make run | check | test | test-all | lab | bench | notebooks | pocket | clean      (README.md says what each is for)
# Parameters of a run: make run CORPUS=ravdess ROOT=~/ravdess MODEL=microsoft/wavlm-base-plus EMOTION=angry K=50 ...

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Notebooks and tests run side by side; each worker gets its share of the cores (conftest.py, xai_lib/workbook/command_line.py).
WORKERS ?= $(shell n=$(CORES); [ $$n -gt 4 ] && n=4; echo $$n)
# The first Python that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --retries 10 --timeout 60
# Python compiles what it imports, once: of all that is installed, that is a small part. An environment that forbids it to
# keep what it compiled would have every kernel and every test compile torch anew.
INSTALL := $(PIP) install --no-compile
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest
# Each worker takes whole files. If one crashes the others finish what they hold, and the run ends: replaced, it would
# be waited for for ever.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --max-worker-restart=0 --benchmark-disable
# Notebooks: a kernel is waited for as long as it lives (conftest.py), whatever limits nbval has.
NBVAL := --nbval-lax --nbval-current-env --nbval-kernel-startup-timeout=100000 --nbval-sanitize-with=tests/sanitize.cfg
# No test has a limit on time of its own: these many minutes are around all of them.
LIMIT ?= 40
LIMIT_ALL ?= 240

.PHONY: run check test test-all lab bench validation notebooks pocket clean
.DEFAULT_GOAL := run

$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found: install one, or name it with make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "No virtual environment could be made: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }; }
	@echo "Installing requirements.txt (once; a few minutes, and about 6 GB where torch brings its CUDA libraries)"
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -e .
	@touch $@

run: $(STAMP)
	@$(BIN)/python -m xai_lib.workbook

# Tests that load no model, start no process and take no seconds.
check: $(STAMP)
	$(BIN)/python tests/limit.py $(LIMIT) $(PYTEST) tests -m "not heavy and not browser and not full and not bench" $(SIDE_BY_SIDE)

test: $(STAMP)
	$(BIN)/python tests/limit.py $(LIMIT) $(PYTEST) tests notebooks -m "not full and not bench" $(SIDE_BY_SIDE) $(NBVAL)

# Also models of true size, long campaigns, and all notebooks on other models, on real recordings (where
# XAI_REAL_DATA names them) and in the browser.
test-all: $(STAMP)
	$(BIN)/python tests/limit.py $(LIMIT_ALL) $(PYTEST) tests notebooks -m "not bench" $(SIDE_BY_SIDE) $(NBVAL)

lab: $(STAMP)
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

bench: $(STAMP)
	$(BIN)/python tests/limit.py $(LIMIT_ALL) $(PYTEST) tests/bench -m bench -q --benchmark-quiet

# False-positive rate and power of every test: takes hours; writes the table of docs/validation.md.
validation: $(STAMP)
	$(BIN)/python -m tests.validation

# Stored outputs, made anew in place.
notebooks: $(STAMP)
	@$(BIN)/python -m xai_lib.workbook --refresh

# The pocket models, trained anew: make pocket REAL=~/corpora, a folder that holds ravdess/, librispeech/ and esc10/.
pocket: export XAI_REAL_DATA := $(or $(REAL),$(XAI_REAL_DATA))
pocket: $(STAMP)
	@for corpus in esc10 librispeech; do test -d "$$XAI_REAL_DATA/$$corpus" || { \
		echo "make pocket REAL=~/corpora, a folder that holds esc10/, librispeech/ and ravdess/ (see data/README.md): there is no $$XAI_REAL_DATA/$$corpus" >&2; exit 1; }; done
	$(BIN)/python tests/librosa_cache.py
	$(BIN)/python data/recipes/pocket_ast.py
	$(BIN)/python data/recipes/pocket_wavlm.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .benchmarks .ruff_cache
