# Two commands matter: `make report` and `make test`. Both set up what they need, without root.
PYTHON ?= python3
PROFILE ?= cpu
BIN := .venv/bin
READY := .venv/.ready

.DELETE_ON_ERROR:
.PHONY: help setup report test extras coverage mutants lab smoke reproduce torture replay clean

help:
	@echo "make report     run the four notebooks; write figures/, report.md, submission.csv; print the grade"
	@echo "make test       lint, unit tests, and the notebooks under nbval"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make smoke      the whole walk on a tiny subset, in build/smoke"
	@echo "make reproduce  train everything again (PROFILE=cpu or full)"
	@echo "make coverage   the tests again, failing where they leave more than 5 % of the branches of hw2/ untried"
	@echo "make mutants    mistakes made on purpose in grading, distillation and runs: does a test see each?"
	@echo "make torture    kill, fill the disk under, and feed mutated files to everything: an hour or two"
	@echo "make replay     train the first steps of every run again, evaluate its weights: are they as recorded?"
	@echo "make setup      environment in .venv and data set; the others call it first"
	@echo "make clean      remove .venv, build/ and cache/; runs/ and data/ stay"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

setup: $(READY)
	@$(BIN)/hw2 data

report: setup
	$(BIN)/python -m hw2.tools.notebooks
	$(BIN)/hw2 grade

# Each file of tests, and each notebook, runs whole in one of two processes.
# Threads that wait leave the cores to the other process.
test: export OMP_WAIT_POLICY = passive
test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 tests notebooks

extras: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[torture]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[fuzz]' || \
		echo "atheris cannot be installed here: hypothesis takes its place"

coverage: extras
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=95 tests

mutants: extras
	$(BIN)/python tests/torture/mutants.py --keep

lab: setup
	$(BIN)/jupyter lab notebooks

smoke: export HW2_PROFILE = smoke
smoke: setup
	rm -rf build/smoke
	$(BIN)/hw2 train all
	$(BIN)/python -m hw2.tools.notebooks
	$(BIN)/hw2 grade

reproduce: setup
	@$(BIN)/hw2 train all --profile $(PROFILE) --estimate
	$(BIN)/hw2 train all --profile $(PROFILE)

replay: setup
	$(BIN)/hw2 replay --all

torture: extras
	$(BIN)/python tests/torture/faults.py --keep
	$(BIN)/python tests/torture/fuzz.py --keep

clean:
	rm -rf .venv build cache mutants *.egg-info .ruff_cache .pytest_cache .coverage
	find . \( -path ./runs -o -path ./data -o -path ./.git \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
