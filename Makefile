# Two commands matter: `make report` and `make test`. Both set up what they need, without root.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The pins are constraints: where an index gives a CPU build of torch, none of CUDA's libraries are asked for.
WANTED := -c requirements.txt -e '.[make,test]'
# A copied .venv runs the project that it was made in; one that was moved, or lost its interpreter, runs nothing.
OWN := import hw2, os, sys; sys.exit(not os.path.samefile(hw2.__path__[0], "hw2"))
FOREIGN := $(if $(wildcard .venv),$(shell $(BIN)/python -I -c '$(OWN)' 2> /dev/null || echo foreign))

.DELETE_ON_ERROR:
.PHONY: help foreign setup report test lab pdf smoke reproduce replay bench weekly clean

help:
	@echo "make report     run the four notebooks; write figures/, report.md, submission.csv; print the grade"
	@echo "make test       lint, unit tests, and the notebooks under nbval"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make pdf        set report.md as report.pdf"
	@echo "make smoke      everything on a tiny subset, from nothing, in build/smoke"
	@echo "make reproduce  train the delivered profile where runs are missing (HW2_PROFILE=smoke: another), then report"
	@echo "make replay     train the first steps of every run again, evaluate its weights: are they as recorded?"
	@echo "make bench      measure speeds side by side, on an otherwise idle machine; KEEP=1 writes runs/bench.json and docs/speed.md"
	@echo "make weekly     what is slow: replay, all tests under coverage, JupyterLab in a browser; an hour or two"
	@echo "make setup      environment in .venv and data set; the others call it first"
	@echo "make clean      remove .venv, build/ and cache/; runs/ and data/ stay"

foreign:
	@echo "hw2: .venv was not made here, or its Python is gone: it is made again"
	rm -rf .venv

$(READY): requirements.txt pyproject.toml $(FOREIGN)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@$(PIP) -c requirements.txt uv || echo "uv cannot be had here: pip installs, which takes minutes longer"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(WANTED) || $(PIP) $(WANTED)
	@touch $@

setup: $(READY)
	@$(BIN)/hw2 data

report: setup
	$(BIN)/python tools/notebooks.py
	$(BIN)/hw2 grade

pdf: setup
	@$(PIP) -c requirements.txt -e '.[pdf]'
	$(BIN)/python tools/pdf.py

# Each file of tests, and each notebook, runs whole in one of two processes.
# Threads that wait leave the cores to the other process.
test: export OMP_WAIT_POLICY = passive
test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest "-m=not weekly" --numprocesses=2 --dist=loadfile --nbval --nbval-current-env --nbval-cell-timeout=600 tests notebooks

# Under smoke copies are opened: saving them leaves the committed notebooks as they are.
LAB = $(if $(filter smoke,$(HW2_PROFILE)),build/smoke/)notebooks
SETTINGS := .venv/share/jupyter/lab/settings
lab: setup
	@mkdir -p "$(LAB)" $(SETTINGS)
	@for file in notebooks/*; do test -e "$(LAB)/$${file##*/}" || cp "$$file" "$(LAB)"; done
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(SETTINGS)/overrides.json
	@test "$$(id -u)" != 0 || echo "You are root: whatever a notebook runs may change the whole machine."
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --allow-root $(FLAGS) "$(LAB)"

smoke: export HW2_PROFILE = smoke
smoke: setup
	rm -rf build/smoke
	$(BIN)/hw2 train all
	$(BIN)/hw2 deliver
	$(BIN)/python tools/notebooks.py
	$(BIN)/hw2 grade

reproduce: setup
	-@$(BIN)/hw2 train all --estimate
	$(BIN)/hw2 train all
	$(BIN)/hw2 deliver
	$(BIN)/python tools/notebooks.py
	$(BIN)/hw2 grade

replay: setup
	$(BIN)/python -m pytest tests/test_replay.py

bench: setup
	$(BIN)/python tools/bench.py $(if $(KEEP),--keep)

weekly: replay
	@$(PIP) --no-build-isolation -e '.[weekly,pdf]'
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=95 tests
	$(BIN)/python -m pytest tests/lab.py tests/torture/faults.py tests/torture/fuzz.py

clean:
	rm -rf .venv build cache *.egg-info .ruff_cache .pytest_cache .coverage
	find . \( -path ./runs -o -path ./data -o -path ./.git \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
