"""The search tries every setting, counts each once whatever interrupts it, and picks by the mean."""

import itertools
import os
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import tiny_network

from hw2 import data as source
from hw2 import training
from hw2.errors import InputError
from hw2.experiments import environment, search, store
from hw2.experiments.recipes import TuningRecipe
from hw2.experiments.run import HISTORY
from hw2.files import read_csv, read_json
from hw2.training import Fit, Options

CPU = torch.device("cpu")
RECIPE = TuningRecipe(
    stage="tuning", seed=0, images=64, validation=32, views=2, fit=Fit(epochs=1, lr=0.1, batch=32),
    temperatures=(2.0, 4.0), alphas=(0.5, 0.9), seeds=(0, 1), teacher="1" * 64, targets="mean",
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


@pytest.mark.parametrize(("kind", "after"), [(KeyboardInterrupt, 7), (RuntimeError, 0)])
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
    search.study(RECIPE)
    monkeypatch.setattr(environment, "code", lambda: "another")
    with pytest.raises(InputError, match="another state of hw2/ began this search"):
        searched()
    assert len(searched(replace=True)) == len(fits[0]) == len(GRID)


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


def test_workers_share_a_study_also_when_another_is_dead(searched, fits, monkeypatch, storage):
    """tests/torture/faults.py kills a real one."""
    tried, hooks = fits
    hooks.append(lambda number: time.sleep(0.05))
    monkeypatch.setattr(search, "HEARTBEAT", 1)
    shared = search.study(RECIPE, storage)
    shared._storage.record_heartbeat(shared.ask()._trial_id)  # a trial was taken, and there was one sign of life
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: searched(storage=storage), range(2))
    assert one == other and len(one) == len(GRID)
    assert set(tried) == set(LABELS) and len(tried) < 2 * len(GRID)  # the dead worker's too, and most of them once


def test_no_two_workers_take_the_same_trial(project, storage):
    one, other = (search.study(replace(RECIPE, seeds=(0, 1, 2)), storage) for _ in range(2))
    with ThreadPoolExecutor() as pool:
        taken = pool.map(lambda study: [study.ask().number for _ in range(6)], (one, other))
    assert sorted(itertools.chain(*taken)) == list(range(12))


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
    if "newer" in storage:
        search.database(storage)
        with closing(sqlite3.connect("newer.db")) as newer, newer:
            newer.execute("update alembic_version set version_num = 'v99'")
    with pytest.raises(InputError, match=told) as error:
        search.study(RECIPE, storage)
    assert "\n" not in str(error.value) and "55" not in str(error.value)


def test_the_projects_folder_may_have_any_name(project, monkeypatch):
    name = "a%20b %2F, why? {x} #é"
    monkeypatch.setattr(source, "PROJECT", project / name)
    assert len(search.study(RECIPE).trials) == len(GRID)
    assert len(list((project / name).rglob("study.db"))) == 1
    assert [path.name for path in project.iterdir()] == [name]


def trials(*rows):
    return pd.DataFrame(rows, columns=["T", "alpha", "seed", "val_correct"])


def test_the_best_setting_is_that_of_the_highest_mean_and_the_finalists_differ_in_alpha():
    # 2.0, 0.5 has the best single trial, 4.0, 0.9 the best mean.
    table = trials((2.0, 0.5, 0, 99), (2.0, 0.5, 1, 80), (4.0, 0.9, 0, 90), (4.0, 0.9, 1, 91), (8.0, 0.1, 0, 90))
    assert store.best(table) == (4.0, 0.9)
    equal = trials((8.0, 0.1, 0, 90), (4.0, 0.9, 0, 90), (4.0, 0.6, 0, 90), (2.0, 0.3, 0, 89))
    assert store.best(equal) == store.best(equal.iloc[::-1]) == (4.0, 0.6)
    with pytest.raises(InputError, match="no trials"):
        store.finalists(trials())
    # The finalists are the best, and the best of the smallest alpha.
    table = trials((2.0, 0.2, 0, 80), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 90))
    assert store.finalists(table) == [(4.0, 0.9), (4.0, 0.2)]
    table = trials((2.0, 0.2, 0, 90), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 80))
    assert store.finalists(table) == [(2.0, 0.2), (2.0, 0.9)]
    assert store.finalists(table[:1]) == [(2.0, 0.2)]
