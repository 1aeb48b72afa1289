# Each target sets up .venv by itself, the first time and whenever the pins change. None needs root, git or conda.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: run test lint lab notebooks exercises bench doctor clean help
.DEFAULT_GOAL := help

help:
	@echo "make run        run the lessons from start to end, results in runs/"
	@echo "make lab        open the lessons in JupyterLab"
	@echo "make test       unit tests, and every stored notebook output verified"
	@echo "make lint       style, types, and the order of the rooms"
	@echo "make notebooks  run the lessons and store their outputs in notebooks/"
	@echo "make exercises  write the exercises from their solutions, and run and check the solutions"
	@echo "make bench      measure a newcomer's first run"
	@echo "make doctor     look at this machine and say what to do"

run: $(READY)
	@$(BIN)/ftlab run

lab: $(READY)
	@$(BIN)/jupyter lab notebooks

# Models this small gain nothing from a second thread; several tests at once gain from a second core.
test: $(READY)
	@$(BIN)/ftlab fetch
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal
	@$(BIN)/python -m pytest -q --nbval --nbval-current-env --nbval-cell-timeout 600 \
		--nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

notebooks: $(READY)
	@$(BIN)/python -m ftlab.course.refresh

exercises: $(READY)
	@$(BIN)/python -m ftlab.exercises.authoring

bench: $(READY)
	@$(BIN)/ftlab bench first_run --save
	@$(BIN)/python benchmarks/first_run.py

doctor: $(READY)
	@$(BIN)/ftlab doctor

clean:
	rm -rf $(VENV) runs

# The stamp is written last, so a set-up that was cut off is done again. pip's words go to a log: they are many, and
# when it fails the last ones say why.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
		echo "ftlab: $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing); expected Python 3.11 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "ftlab: setting up $(VENV), once; this downloads the pinned packages and takes some minutes"
	@rm -f $(READY)
	@$(PYTHON) -m venv $(VENV) > /dev/null 2>&1 || { rm -rf $(VENV); \
		echo "ftlab: $(PYTHON) cannot make a virtual environment; install its venv module (Debian and Ubuntu: python3-venv) and run make again" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip setuptools > $(VENV)/setup.log 2>&1 \
		&& $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lab,test]' >> $(VENV)/setup.log 2>&1 \
		|| { grep -h ERROR $(VENV)/setup.log | tail -n 3 >&2; echo "ftlab: pip could not set up $(VENV); its words are in $(VENV)/setup.log; mend that and run make again" >&2; exit 1; }
	@touch $(READY)
