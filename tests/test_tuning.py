"""The search tries every setting exactly once, whatever interrupts it, and picks by the mean."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import tiny_network

from hw2 import runs, training, tuning
from hw2.recipes import Fit, TuningRecipe

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
    return lambda recipe=RECIPE: tuning.search(recipe, few, cache, torch.device("cpu"))


@pytest.fixture
def fits(monkeypatch):
    """Stands in for training: the settings that were tried, and what to do when one is."""
    tried, hooks = [], []

    def fit(network, *args, seed, label, **more):
        for hook in hooks:
            hook(len(tried))
        tried.append((seed, label))
        return network, None

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
