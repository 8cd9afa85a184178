"""The search tries every setting, counts each once whatever interrupts it, and picks by the mean."""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import tiny_network

from hw2 import data as source
from hw2 import training
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import environment, search, store
from hw2.experiments.recipes import TuningRecipe
from hw2.experiments.run import HISTORY
from hw2.files import read_csv, read_json
from hw2.training import Fit, Options

CPU = torch.device("cpu")
RECIPE = TuningRecipe(
    stage="tuning", seed=0, images=64, validation=32, views=2, fit=Fit(epochs=1, lr=0.1, batch=32),
    temperatures=(2.0, 4.0), alphas=(0.5, 0.9), seeds=(0, 1), teacher="t", targets="mean",
)  # fmt: skip
GRID = list(itertools.product(RECIPE.seeds, RECIPE.temperatures, RECIPE.alphas))
LABELS = [f"T = {temperature:g}, alpha = {alpha:g}, seed {seed}" for seed, temperature, alpha in GRID]
TARGETS = torch.zeros(2, 60000, 10, dtype=torch.float16)


@pytest.fixture
def searched(few, project, monkeypatch):
    monkeypatch.setattr(search, "ResNet14", tiny_network)

    def run(recipe=RECIPE, targets=TARGETS, **more):
        return search.search(recipe, targets, few, CPU, search.study(recipe, **more))

    return run


@pytest.fixture
def fits(monkeypatch):
    """Stands in for training: the settings that were tried, and what to do when one is."""
    tried, hooks = [], []

    def fit(network, *arguments, options, **more):
        for hook in hooks:
            hook(len(tried))
        tried.append(options.label)
        return network, training.History()

    monkeypatch.setattr(training, "fit", fit)
    return tried, hooks


def test_each_trial_tells_its_count_and_keeps_what_it_is_replayed_by(searched, few, tmp_path):
    targets = torch.randn(2, 576, 10).half()
    recipe = replace(RECIPE, fit=Fit(epochs=2, lr=0.1, batch=32), alphas=(0.9,))
    found = searched(recipe, targets)
    search.write(tmp_path, recipe, found)
    trials = read_csv(tmp_path / "trials.csv", store.TRIALS, words=("state",))
    history = read_csv(tmp_path / "history.csv", ("trial", *HISTORY))
    steps = read_csv(tmp_path / "steps.csv", ("trial", "step", "loss"))
    assert [tuple(row) for row in trials[["seed", "T", "alpha"]].to_numpy()] == [(*one[:2], 0.9) for one in GRID[::2]]
    assert trials.val_correct.tolist() == (history[history.epoch == 2].val_accuracy * 32).round().tolist()
    for number, one in enumerate(search.settings(recipe)):
        again = search.trained(recipe, one, targets, few, Options(), CPU)[1]
        assert [step["loss"] for step in again.steps] == steps[steps.trial == number].loss.tolist()
    told = read_json(tmp_path / "environment.json")
    assert told["of_trials"] == [0] * 4 and len(told["wall_s"]) == 4
    assert told["environments"] == [environment.environment(CPU)]


def test_a_finished_search_is_loaded_and_recipes_share_nothing(searched, fits):
    tried, _ = fits
    found = searched()
    assert len(found) == len(GRID) and sorted(tried) == sorted(LABELS)
    assert searched() == found and len(tried) == len(GRID)
    searched(replace(RECIPE, images=32))
    assert len(tried) == 2 * len(GRID)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_interrupted_search_goes_on_without_repeating_what_is_complete(searched, fits, kind, after):
    tried, hooks = fits

    def interrupt(number):
        if number == after:
            hooks.clear()
            raise kind

    hooks.append(interrupt)
    with pytest.raises(kind):
        searched()
    assert len(tried) == after
    assert len(searched()) == len(GRID)
    assert sorted(tried) == sorted(LABELS)


def test_a_search_that_other_code_began_is_not_gone_on_with(searched, fits, monkeypatch):
    tried, hooks = fits
    hooks.append(lambda number: number == 3 and pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        searched()
    hooks.clear()
    monkeypatch.setattr(environment, "code", lambda: "another")
    with pytest.raises(InputError, match="another state of hw2/ began this search"):
        searched()
    assert len(searched(replace=True)) == len(GRID)
    assert len(tried) == 3 + len(GRID)


WORKER = """
import sys, time
from pathlib import Path
import torch
from helpers import tiny_network
from hw2 import data, training
from hw2.experiments import search
from test_search import CPU, RECIPE, TARGETS

storage, log, patience = sys.argv[1:]
torch.set_num_threads(1)
search.HEARTBEAT, search.ResNet14 = 1, tiny_network
fashion, data.PROJECT = data.fashion_mnist(), Path(log).parent
fit = training.fit

def logged(*arguments, options, **more):
    with open(log, "a") as file:
        print(options.label, file=file, flush=True)
    time.sleep(float(patience))
    return fit(*arguments, options=options, **more)

training.fit = logged
for record in search.search(RECIPE, TARGETS, fashion, CPU, search.study(RECIPE, storage)):
    print(record["val_correct"], record["epochs"])
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request, tmp_path):
    """A database's URL; PostgreSQL is started where one is installed, with its driver."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'study.db'}"
        return
    pytest.importorskip("psycopg2")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    # It does not run as root: there its own user starts it.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="hw2-") as folder:

        def run(program, *words):
            command = [*as_user, programs[-1] / program, "-D", f"{folder}/data", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        os.chmod(folder, 0o777)
        run("initdb", "-U", "hw2", "-A", "trust")
        run("pg_ctl", "-w", "-o", f"-c listen_addresses='' -k {folder}", "start")
        yield f"postgresql+psycopg2://hw2@/postgres?host={folder}"
        run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture
def worker(tmp_path, storage):
    """Starts a process of its own that searches RECIPE's grid; kills it at the end where it still runs."""
    started, log = [], tmp_path / "log"
    log.touch()

    def start(patience=0.0):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, storage, str(log), str(patience)],
            env=os.environ | {"PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}", "TQDM_DISABLE": "1"},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start, lambda: log.read_text().splitlines()
    for process in started:
        process.kill()
        process.wait()


def test_workers_share_a_study_also_when_one_is_killed_in_the_middle(worker):
    start, log = worker
    victim = start(300)
    deadline = time.monotonic() + 120
    while not log() and time.monotonic() < deadline:
        time.sleep(0.1)
    (lost,) = log()
    others = start(0.2), start(0.2)
    while len(log()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    answers = [process.communicate(timeout=240)[0].splitlines() for process in others]
    assert [process.returncode for process in others] == [0, 0]
    assert answers[0] == answers[1] and len(answers[0]) == len(GRID)
    tried = Counter(log())
    assert tried.keys() == set(LABELS) and tried[lost] >= 2  # the lost one was begun again


NO_URL, LOST, UNUSABLE = "--storage: expected a URL", "in memory is lost", "the search's database cannot be used: "
STORAGES = {
    "": NO_URL,
    "study.db": NO_URL,
    "postgresql://user:pa@55@127.0.0.1:9/x": NO_URL,
    "postgresql://user:p@55:x@127.0.0.1:port/x": NO_URL,
    "sqlite://": LOST,
    "sqlite:///file::memory:?uri=true": LOST,
    "sqlite:////tmp/a.db?mode=memory&uri=true": LOST,
    "strange://user:pa55@here": UNUSABLE + r"strange://user:\*\*\*@here: Can't load plugin",
    "mssql+pymssql://user:{pa55}@127.0.0.1:9/x": UNUSABLE + r".*No module named 'pymssql'",
    "sqlite:///no-such-folder/study.db": UNUSABLE + ".*unable to open database file",
    "sqlite:///text.db": UNUSABLE + ".*file is not a database",
    "sqlite:///newer.db": UNUSABLE + ".*optuna",
}


@pytest.mark.parametrize(("storage", "told"), STORAGES.items())
def test_a_database_that_cannot_be_used_is_told_without_its_password(project, monkeypatch, storage, told):
    monkeypatch.chdir(project)
    (project / "text.db").write_text("no database" * 100)
    search.database("sqlite:///newer.db")
    with closing(sqlite3.connect("newer.db")) as newer, newer:
        newer.execute("update alembic_version set version_num = 'v99'")
    with pytest.raises(InputError, match=told) as error:
        search.study(RECIPE, storage)
    assert "\n" not in str(error.value) and "55" not in str(error.value)


def test_the_projects_folder_may_have_any_name(project, monkeypatch):
    for name in ("feature%2Fx", "a%20b", "why?", "{x}", "#é"):
        monkeypatch.setattr(source, "PROJECT", project / name)
        assert len(search.study(RECIPE).trials) == len(GRID)
        assert len(list((project / name).rglob("study.db"))) == 1
    assert sorted(path.name for path in project.iterdir()) == sorted(("feature%2Fx", "a%20b", "why?", "{x}", "#é"))


def test_a_search_of_another_recipe_is_replaced_only_when_asked(walk_done, monkeypatch):
    from conftest import SHRUNKEN
    from hw2.experiments import profiles

    monkeypatch.setitem(
        profiles.PROFILES, "smoke", SHRUNKEN | {"tuning": SHRUNKEN["tuning"] | {"alphas": (0.5,), "seeds": (0,)}}
    )
    for call in (lambda: search.obtain_trials("smoke"), lambda: store.trials("smoke")):
        with pytest.raises(
            InputError, match=r"tuning/smoke holds another recipe's run: its alphas is \(0.9,\), \(0.5,\)"
        ):
            call()
    search.obtain_trials("smoke", replace=True)
    assert store.trials("smoke").alpha.tolist() == [0.5, 0.5]


def trials(*rows):
    return pd.DataFrame(rows, columns=["T", "alpha", "seed", "val_correct"])


def test_the_best_setting_is_that_of_the_highest_mean():
    # 2.0, 0.5 has the best single trial, 4.0, 0.9 the best mean.
    table = trials((2.0, 0.5, 0, 99), (2.0, 0.5, 1, 80), (4.0, 0.9, 0, 90), (4.0, 0.9, 1, 91), (8.0, 0.1, 0, 90))
    assert store.best(table) == (4.0, 0.9)
    equal = trials((8.0, 0.1, 0, 90), (4.0, 0.9, 0, 90), (4.0, 0.6, 0, 90), (2.0, 0.3, 0, 89))
    assert store.best(equal) == store.best(equal.iloc[::-1]) == (4.0, 0.6)
    with pytest.raises(InputError, match="no trials"):
        store.finalists(trials())


def test_the_finalists_are_the_best_and_the_best_of_the_smallest_alpha():
    table = trials((2.0, 0.2, 0, 80), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 90))
    assert store.finalists(table) == [(4.0, 0.9), (4.0, 0.2)]
    table = trials((2.0, 0.2, 0, 90), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 80))
    assert store.finalists(table) == [(2.0, 0.2), (2.0, 0.9)]
    assert store.finalists(table[:1]) == [(2.0, 0.2)]
