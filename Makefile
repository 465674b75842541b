# make all     the demo: environment, installation, every stage, a table of APs, pictures, a report as a page of HTML
# make test    the whole test suite
# make docs    the documentation as a site, in site/index.html
# make all RECIPE=recipes/voc2007-alexnet.toml    the same for another recipe

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/shapes.toml
WORK ?= $(if $(RCNN_WORK),$(RCNN_WORK),work)
DEVICE ?= auto
JOBS ?=
EXAMPLES ?= 2000
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
DOCUMENTED := $(VENV)/.documented

.PHONY: all install test lint docs bench chaos fuzz clean

all: $(INSTALLED)
	$(BIN)/rcnn run $(RECIPE) --work $(WORK) --device $(DEVICE) $(if $(JOBS),--jobs $(JOBS))
	$(BIN)/rcnn report $(RECIPE) --work $(WORK)

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# OpenCV's full package needs libGL and X11, which most servers lack: there the headless build of the same version
# takes its place.
$(INSTALLED): setup.cfg setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  echo "OpenCV's full package cannot be imported here (no libGL or X11): taking the headless build of the same version."; \
	  $(BIN)/python -m pip uninstall --disable-pip-version-check -q -y opencv-contrib-python && \
	  $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --force-reinstall --no-deps \
	    opencv-contrib-python-headless; }
	@$(BIN)/python -c 'import cv2.ximgproc, torch, torchvision' || { echo "The installation in $(VENV) does not work; see above."; exit 1; }
	@echo "Compiling selective search for this processor (about 20 s) ..."
	@$(BIN)/python -c 'from stages.propose.selective_search import check_available; check_available()'
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt \
	  $$($(BIN)/python -c 'import configparser; c = configparser.ConfigParser(); c.read("setup.cfg"); e = c["options.extras_require"]; print(*(e["test"] + e["docs"] + e["zstd"] + e["dask"] + e["efficientnet"]).split())')
	@touch $@

test: $(TESTABLE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(DOCUMENTED): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt \
	  $$($(BIN)/python -c 'import configparser; c = configparser.ConfigParser(); c.read("setup.cfg"); print(*c["options.extras_require"]["docs"].split())')
	@touch $@

# A broken link, or one to a heading that is not there, is an error.
docs: $(DOCUMENTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html; its search needs a server: $(BIN)/python -m http.server -d site"

bench: $(TESTABLE)
	$(BIN)/python -m benchmarks

# Two hundred faults, and the caches are those of an undisturbed run: docs/faults.md
chaos: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.chaos --faults 200 --seed 0

# Every property test on new examples, and many: geometry, caches, metrics, spoilt files of every kind (docs/faults.md)
fuzz: $(TESTABLE)
	OMP_NUM_THREADS=1 RCNN_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n 2 --dist worksteal -m hypothesis

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
