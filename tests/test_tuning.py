"""The search tries every setting exactly once, whatever interrupts it, and picks by the mean."""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import tiny_network
from optuna.trial import TrialState

from hw2 import training
from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import search as tuning
from hw2.experiments import store as runs
from hw2.experiments.recipes import Fit, TuningRecipe

RECIPE = TuningRecipe(
    stage="tuning",
    seed=0,
    images=64,
    validation=32,
    views=1,
    fit=Fit(epochs=1, lr=0.1, batch=32),
    temperatures=(2.0, 4.0),
    alphas=(0.5, 0.9),
    seeds=(0, 1),
    teacher="t",
)
GRID = list(itertools.product(RECIPE.seeds, RECIPE.temperatures, RECIPE.alphas))


@pytest.fixture
def search(few, project, monkeypatch):
    monkeypatch.setattr(tuning, "ResNet14", tiny_network)
    cache = torch.zeros(1, 576, 10, dtype=torch.float16)
    return lambda recipe=RECIPE: tuning.search(recipe, few, cache, torch.device("cpu")).trials


@pytest.fixture
def fits(monkeypatch):
    """Stands in for training: the settings that were tried, and what to do when one is."""
    tried, hooks = [], []

    def fit(network, *args, seed, label, **more):
        for hook in hooks:
            hook(len(tried))
        tried.append((seed, label))
        return network, training.History()

    monkeypatch.setattr(training, "fit", fit)
    return tried, hooks


def settings(rows):
    return [(row["seed"], row["T"], row["alpha"]) for row in rows]


LABELS = [(seed, f"T = {temperature:g}, alpha = {alpha:g}") for seed, temperature, alpha in GRID]


def test_the_search_trains_every_setting_once_and_tells_its_count(search, few):
    recipe = replace(RECIPE, seeds=(0,))
    rows = search(recipe)
    assert [list(row) for row in rows] == [list(tuning.COLUMNS)] * 4
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert settings(rows) == GRID[:4]
    assert {(row["lr"], row["epochs"], row["images"], row["state"]) for row in rows} == {(0.1, 1, 64, "COMPLETE")}

    # One of the counts, by training again outside of the search.
    _, history = training.fit(
        tiny_network(), few, few.split[0][:64], few.split[1][:32], recipe.fit, seed=0, view_count=1,
        objective=tuning.cached_objective(torch.zeros(1, 576, 10), 4.0, 0.5),
    )  # fmt: skip
    assert rows[2]["val_correct"] == round(history.epochs[-1]["val_accuracy"] * 32)


def test_each_trial_keeps_what_it_is_replayed_by(few, project, monkeypatch):
    monkeypatch.setattr(tuning, "ResNet14", tiny_network)
    cache = torch.randn(2, 576, 10).half()
    recipe = replace(RECIPE, fit=Fit(epochs=2, lr=0.1, batch=32), views=2, targets="mean")
    found = tuning.search(recipe, few, cache, torch.device("cpu"))
    columns, history = found.tables["history.csv"]
    assert columns == ("trial", *runs.HISTORY) and [row["trial"] for row in history] == [n // 2 for n in range(16)]
    for trial, last in zip(found.trials, history[1::2], strict=True):
        assert trial["val_correct"] == round(last["val_accuracy"] * 32)
    _, steps = found.tables["steps.csv"]
    for row in found.trials:
        mine = [{"step": step["step"], "loss": step["loss"]} for step in steps if step["trial"] == row["trial"]]
        correct, again = tuning._trial(
            recipe, few, cache, torch.device("cpu"), (row["T"], row["alpha"], row["lr"], row["seed"])
        )
        assert (again["steps"], correct) == (mine, row["val_correct"])
    environments = found.environments
    assert environments["of_trials"] == [0] * 8 and len(environments["wall_s"]) == 8
    assert environments["environments"] == [runs.environment(torch.device("cpu"))]


def test_a_search_that_other_code_began_is_not_gone_on_with(search, fits, few, monkeypatch):
    tried, hooks = fits
    hooks.append(lambda number: number == 3 and pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        search()
    hooks.clear()
    monkeypatch.setattr(runs, "CODE", "another")
    with pytest.raises(InputError, match="another state of hw2/ began this search"):
        search()
    cache = torch.zeros(1, 576, 10)
    assert settings(tuning.search(RECIPE, few, cache, torch.device("cpu"), replace=True).trials) == GRID
    assert len(tried) == 3 + len(GRID)


def test_a_finished_search_is_loaded(search, fits):
    tried, _ = fits
    rows = search()
    assert sorted(tried) == sorted(LABELS)
    assert search() == rows
    assert len(tried) == len(GRID)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_interrupted_search_goes_on_without_repeating_what_is_complete(search, fits, kind, after):
    tried, hooks = fits

    def interrupt(number):
        if number == after:
            hooks.clear()
            raise kind

    hooks.append(interrupt)
    with pytest.raises(kind):
        search()
    assert len(tried) == after
    assert settings(search()) == GRID
    assert sorted(tried) == sorted(LABELS)


def test_searches_of_different_recipes_share_nothing(search, fits):
    tried, _ = fits
    other = replace(RECIPE, images=32)
    search()
    assert [row["images"] for row in search(other)] == [32] * len(GRID)
    assert len(tried) == 2 * len(GRID)
    assert runs.cache(other) != runs.cache(RECIPE)


WORKER = """
import sys, time
import torch
from pathlib import Path
from helpers import tiny_network
from hw2 import training
from hw2.experiments import search as tuning, store as runs
from hw2.data import fashion_mnist
from test_tuning import RECIPE

storage, log, patience = sys.argv[1:]
torch.set_num_threads(1)
tuning.HEARTBEAT = 1
tuning.ResNet14 = tiny_network
runs.PROJECT = Path(log).parent
fit = training.fit

def logged(*args, seed, label, **more):
    with open(log, "a") as file:
        print(seed, label, file=file, flush=True)
    time.sleep(float(patience))
    return fit(*args, seed=seed, label=label, **more)

training.fit = logged
cache = torch.zeros(1, 60000, 10, dtype=torch.float16)
for row in tuning.search(RECIPE, fashion_mnist(), cache, torch.device("cpu"), storage).trials:
    print(row["seed"], row["T"], row["alpha"], row["val_correct"])
"""


@pytest.fixture
def worker(tmp_path):
    """Starts a process of its own that searches RECIPE's grid; kills it at the end where it still runs."""
    started, log = [], tmp_path / "log"
    log.touch()

    def start(patience=0.0):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, f"sqlite:///{tmp_path / 'study.db'}", str(log), str(patience)],
            env=os.environ | {"PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}", "TQDM_DISABLE": "1"},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start, lambda: log.read_text().splitlines()
    for process in started:
        process.kill()
        process.wait()


NAMES = Counter(f"{seed} {label}" for seed, label in LABELS)


def test_two_workers_try_every_setting_exactly_once(worker):
    start, log = worker
    first, second = start(0.2), start(0.2)
    answers = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert answers[0] == answers[1] and len(answers[0]) == len(GRID)
    assert Counter(log()) == NAMES


def test_a_study_completes_though_a_worker_is_killed_in_the_middle(worker):
    start, log = worker
    victim = start(300)
    deadline = time.monotonic() + 60
    while not log() and time.monotonic() < deadline:
        time.sleep(0.1)
    (lost,) = log()
    survivor = start()
    while len(log()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    answer = survivor.communicate(timeout=120)[0].splitlines()
    assert survivor.returncode == 0 and len(answer) == len(GRID)
    assert Counter(log()) == NAMES + Counter([lost])  # the lost one was begun twice, every other once


def test_helpers_share_the_cores_and_are_gone_afterwards(monkeypatch):
    monkeypatch.setattr(tuning.os, "cpu_count", lambda: 2)
    before = torch.get_num_threads()
    with tuning.helpers(1, ["--help"]) as started:
        assert torch.get_num_threads() == 1
    assert [process.returncode for process in started] == [0] and torch.get_num_threads() == before
    monkeypatch.setattr(tuning.sys, "executable", "sleep")
    monkeypatch.setattr(tuning, "COMMAND", ["600"])
    with pytest.raises(KeyboardInterrupt), tuning.helpers(1, []) as started:
        raise KeyboardInterrupt
    assert started[0].wait(timeout=10) == -signal.SIGKILL


def test_a_helper_that_fails_is_told(capfd):
    with tuning.helpers(1, ["nonsense"]):
        pass
    assert "a worker of the search ended with status 2" in capfd.readouterr().err


def trials(*rows):
    return pd.DataFrame(rows, columns=["T", "alpha", "seed", "val_correct"])


def test_the_best_setting_is_that_of_the_highest_mean():
    # 2.0, 0.5 has the best single trial, 4.0, 0.9 the best mean.
    table = trials((2.0, 0.5, 0, 99), (2.0, 0.5, 1, 80), (4.0, 0.9, 0, 90), (4.0, 0.9, 1, 91), (8.0, 0.1, 0, 90))
    assert tuning.best(table) == (4.0, 0.9)


def test_of_equals_the_lower_temperature_and_then_the_lower_alpha_is_best():
    table = trials((8.0, 0.1, 0, 90), (4.0, 0.9, 0, 90), (4.0, 0.6, 0, 90), (2.0, 0.3, 0, 89))
    assert tuning.best(table) == (4.0, 0.6)
    assert tuning.best(table.iloc[::-1]) == (4.0, 0.6)


def test_the_finalists_are_the_best_and_the_best_of_the_smallest_alpha():
    table = trials((2.0, 0.2, 0, 80), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 90))
    assert tuning.finalists(table) == [(4.0, 0.9), (4.0, 0.2)]


def test_where_the_best_has_the_smallest_alpha_the_second_best_is_the_other_finalist():
    table = trials((2.0, 0.2, 0, 90), (4.0, 0.2, 0, 85), (2.0, 0.9, 0, 88), (4.0, 0.9, 0, 80))
    assert tuning.finalists(table) == [(2.0, 0.2), (2.0, 0.9)]
    assert tuning.finalists(table[:1]) == [(2.0, 0.2)]


@pytest.mark.parametrize("beat", [None, "2999-01-01 00:00:00"], ids=["no heartbeat", "the clock was set back"])
def test_a_trial_is_taken_up_again_whose_worker_died_whatever_the_clock_says(search, fits, monkeypatch, beat):
    tried, _ = fits
    monkeypatch.setattr(tuning, "HEARTBEAT", 1)
    grid, (seed, temperature, alpha) = tuning.study(RECIPE), GRID[0]
    grid.enqueue_trial(
        {"T": temperature, "alpha": alpha, "seed": seed}, user_attrs={"setting": [seed, temperature, alpha]}
    )
    with pytest.warns(UserWarning, match="Heartbeat"):
        lost = grid.ask()
    if beat:
        insert = "INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, ?)"
        with sqlite3.connect(runs.cache(RECIPE) / "study.db") as database:
            database.execute(insert, (lost._trial_id, beat))
        database.close()
    assert settings(search()) == GRID
    assert sorted(tried) == sorted(LABELS)


def test_a_trial_that_others_took_for_dead_is_tried_by_them(search, fits):
    tried, hooks = fits

    def bury(number):
        hooks.clear()
        grid = tuning.study(RECIPE)
        (running,) = grid.get_trials(states=(TrialState.RUNNING,))
        grid.tell(running.number, state=TrialState.FAIL)

    hooks.append(bury)
    assert settings(search()) == GRID
    assert len(tried) == len(GRID) + 1


def test_a_database_that_cannot_be_used_is_told(few, project):
    with pytest.raises(InputError, match=r"the search's database cannot be used: .*unable to open"):
        tuning.search(RECIPE, few, None, torch.device("cpu"), f"sqlite:///{project}/no-such-folder/study.db")


def test_of_no_trials_none_is_best():
    with pytest.raises(InputError, match="no trials"):
        tuning.finalists(trials())
