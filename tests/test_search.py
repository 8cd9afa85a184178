"""The search counts every setting once, whatever interrupts it, and picks by the mean."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import tiny_network

from hw2 import data as source
from hw2 import training
from hw2.errors import Ended, InputError
from hw2.experiments import environment, search, store
from hw2.experiments.recipes import TuningRecipe
from hw2.files import read_csv, write_csv
from hw2.training import Fit

CPU = torch.device("cpu")
RECIPE = TuningRecipe(
    stage="tuning",
    seed=0,
    images=64,
    validation=32,
    pad=0,
    fit=Fit(epochs=1, lr=0.1, batch=32),
    temperatures=(2.0, 4.0),
    alphas=(0.5, 0.9),
    seeds=(0, 1),
    teacher="1" * 64,
    targets="mean",
)
GRID = search.settings(RECIPE)
TARGETS = torch.zeros(2, 60000, 10, dtype=torch.float16)


@pytest.fixture
def searched(few, project, monkeypatch):
    monkeypatch.setattr(search, "ResNet14", tiny_network)

    def run(recipe=RECIPE, targets=TARGETS):
        return search.search(recipe, targets, few, CPU, search.study(recipe))

    return run


@pytest.fixture
def fits(monkeypatch):
    """Stands in for training: the settings that were tried, and what to do when one is."""
    tried = []
    hooks = []

    def fit(network, *arguments, options, **more):
        for hook in hooks:
            hook(len(tried))
        tried.append(options.label)
        return network, training.History()

    monkeypatch.setattr(training, "fit", fit)
    return tried, hooks


def test_labels_alone_have_one_trial_a_seed():
    grid = search.settings(replace(RECIPE, alphas=(0.0, 0.5)))
    settings = [tuple(each.values()) for each in grid.values()]
    first = [(2.0, 0.0, 0), (2.0, 0.5, 0), (4.0, 0.5, 0)]
    assert settings == first + [(*setting, 1) for *setting, _ in first]


def test_each_trial_leaves_its_row(searched, few, tmp_path):
    targets = torch.randn(2, 576, 10).half()
    recipe = replace(RECIPE, alphas=(0.9,))
    rows = searched(recipe, targets)
    write_csv(tmp_path / "trials.csv", store.TRIALS, rows)
    trials = read_csv(tmp_path / "trials.csv", store.TRIALS, words=("device", "hardware"))
    grid = search.settings(recipe)
    assert trials[["T", "alpha", "seed"]].to_dict("records") == list(grid.values())
    machine = environment.environment(CPU)
    assert set(trials.device) == {"cpu"} and set(trials.hardware) == {machine["hardware"]}
    for name, row in zip(grid, rows, strict=True):
        network = search.trained(recipe, grid[name], name, targets, few, CPU)
        assert training.validate(network, *recipe.task(few).held_out)[1] == row["val_correct"]


def test_recipes_and_code_share_no_trials(searched, fits, monkeypatch):
    tried, _ = fits
    searched()
    searched(replace(RECIPE, images=32))
    assert len(tried) == 2 * len(GRID)
    monkeypatch.setattr(environment, "code_at_start", lambda: "another")
    searched()
    assert len(tried) == 3 * len(GRID)


@pytest.mark.parametrize(("kind", "after"), [(KeyboardInterrupt, 7), (RuntimeError, 0), (Ended, 3)])
def test_an_interrupted_search_goes_on_without_repeating_what_is_complete(
    searched, fits, kind, after
):
    tried, hooks = fits

    def interrupt(number):
        if number == after:
            hooks.clear()
            raise kind

    hooks.append(interrupt)
    with pytest.raises(kind):
        searched()
    assert len(tried) == after
    found = searched()
    assert len(found) == len(GRID) and sorted(tried) == sorted(GRID)
    assert searched() == found and len(tried) == len(GRID)


def test_workers_share_a_study_also_when_another_is_dead(searched, fits):
    """tests/torture/faults.py kills a real one."""
    tried, hooks = fits
    hooks.append(lambda number: time.sleep(0.05))
    search.study(RECIPE).ask()  # a worker took a trial, and nothing more was heard of it
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: searched(), range(2))
    assert one == other and len(one) == len(GRID)
    assert set(tried) == set(GRID) and len(tried) < 2 * len(GRID)  # most of them once


def test_the_projects_folder_may_have_any_name(project, monkeypatch):
    name = "a%20b %2F, why? {x} #é"
    monkeypatch.setattr(source, "PROJECT", project / name)
    assert search.study(RECIPE).trials == []
    assert len(list((project / name).rglob("study.db"))) == 1
    assert [path.name for path in project.iterdir()] == [name]


def test_the_finalists_are_the_highest_mean_and_the_best_other_of_the_smallest_alpha():
    def found(*trials):
        rows = [*trials, (2.0, 0.0, 100)]  # labels alone are no setting
        table = pd.DataFrame(rows, columns=["T", "alpha", "val_correct"])
        return store.finalists(table[::-1])

    highest_trial = (2.0, 0.5, 99), (2.0, 0.5, 80)
    assert found(*highest_trial, (4.0, 0.9, 90), (4.0, 0.9, 91)) == [(4.0, 0.9), (2.0, 0.5)]
    equal = (8.0, 0.6, 90), (4.0, 0.9, 90), (4.0, 0.6, 90)
    assert found(*equal) == [(4.0, 0.6), (4.0, 0.9)]  # the lower ones first
    assert found((2.0, 0.2, 80), (2.0, 0.9, 88), (4.0, 0.9, 90)) == [(4.0, 0.9), (2.0, 0.2)]
    assert found((2.0, 0.2, 90)) == [(2.0, 0.2)]
    with pytest.raises(InputError, match="no trials"):
        found()
