# Each target sets up .venv by itself, the first time and whenever the pins change (bootstrap.py). None needs root, git or
# conda. Without make, as on Windows: python bootstrap.py.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: run test test-quick test-serve test-nightly browser lint lab notebooks exercises site bench doctor clean help
.DEFAULT_GOAL := help

help:
	@echo "make run        run the lessons from start to end, results in runs/"
	@echo "make lab        open the lessons in JupyterLab"
	@echo "make test       unit tests, and every stored notebook output verified"
	@echo "make test-quick a part of the unit tests, in a minute or two"
	@echo "make test-serve what needs the extra serve: exports, llama.cpp, ONNX Runtime, the servers"
	@echo "make test-nightly the unit tests with many more cases: kills, drawn inputs, orders of the lessons"
	@echo "make browser    every notebook in JupyterLab, in a browser"
	@echo "make lint       style, types, and the order of the rooms"
	@echo "make notebooks  run the lessons and store their outputs in notebooks/"
	@echo "make exercises  write the exercises from their solutions, and run and check the solutions"
	@echo "make site       the whole course as a web site, in site/"
	@echo "make bench      measure a newcomer's first run"
	@echo "make doctor     look at this machine and say what to do"

run: $(READY)
	@$(BIN)/ftlab run

lab: $(READY)
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

# Models this small gain nothing from a second thread; several tests at once gain from a second core.
test: $(READY)
	@$(BIN)/ftlab fetch
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal -m "not night"
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 2 --nbval --nbval-current-env --nbval-cell-timeout 600 \
		--nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

# The rooms whose tests take least, and the rules of the stored notebooks.
QUICK := $(addprefix tests/,docs evaluation freezing/test_plans.py internals test_files.py test_notebooks.py \
	test_packaging.py test_wording.py) --ignore tests/evaluation/test_sandbox.py
test-quick: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal -m "not slow and not assets and not night" $(QUICK)

# What `make test` skips where the extra `serve` is not installed, and lesson 06 with its export.
test-serve: $(READY)
	@$(call extra,xllamacpp,serve)
	@$(BIN)/ftlab fetch
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 2 --dist worksteal -m "serve and not night"

# Many cases of every test that counts them, and new ones each time; with the extra `serve`, so that none is left out. It
# takes hours, and a machine of its own.
test-nightly: $(READY)
	@$(call extra,xllamacpp,serve)
	@$(BIN)/ftlab fetch
	@FTLAB_NIGHTLY=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal

# $(call extra,MODULE,EXTRA): install an extra of pyproject.toml when a module of it is first needed.
define extra
$(BIN)/python -c 'import $(1)' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(2)]' >> $(VENV)/setup.log 2>&1 \
		|| { grep -h ERROR $(VENV)/setup.log | tail -n 3 >&2; \
		echo "ftlab: pip could not install the extra '$(2)'; its words are in $(VENV)/setup.log; mend that and run make $@ again" >&2; exit 1; }
endef

# Every notebook in JupyterLab, in a browser without a window. It needs Chromium or Chrome.
browser: $(READY)
	@$(call extra,playwright,browser)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_jupyterlab.py

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

notebooks: $(READY)
	@$(BIN)/python -m ftlab.course.refresh

exercises: $(READY)
	@$(BIN)/python -m ftlab.exercises.authoring

# A link that leads nowhere is a warning, and a warning is an error.
site: $(READY)
	@$(call extra,sphinx_book_theme,site)
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir .cache/site \
		--conf-dir docs . site
	@rm -rf jupyter_execute  # where myst-nb keeps what it has copied into site/
	@echo "ftlab: open site/index.html"

bench: $(READY)
	@$(BIN)/ftlab bench first_run --save
	@$(BIN)/python docs/generated.py

doctor: $(READY)
	@$(BIN)/ftlab doctor

clean:
	rm -rf $(VENV) runs site

# bootstrap.py has the steps, and says nothing if all is done. If python3 is missing and no PYTHON=... was typed, the
# Python in .venv runs it.
TYPED = make $(MAKECMDGOALS)$(if $(TORCH), TORCH=$(TORCH))
CHOSEN = $(if $(findstring command,$(origin PYTHON)),$(PYTHON))

.PHONY: $(READY)
$(READY):
	@for python in $(if $(CHOSEN),$(CHOSEN),$(PYTHON) $(BIN)/python); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2> /dev/null; then \
			TORCH="$(TORCH)" exec $$python bootstrap.py --again "$(TYPED)$(if $(CHOSEN), PYTHON=$(CHOSEN))" $(if $(CHOSEN),,--quiet); \
		fi; \
	done; \
	echo "ftlab: $(PYTHON) is missing, or older than 3.6; expected Python 3.11 to 3.13: $(TYPED) PYTHON=python3.12" >&2; exit 2
