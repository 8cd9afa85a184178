"""The search over temperature and alpha, on Optuna: a complete grid, judged on the validation split."""

from __future__ import annotations

import itertools
import time
import warnings

import optuna
import pandas as pd
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from hw2 import runs, training
from hw2.data import FashionMNIST
from hw2.distillation import cached_objective
from hw2.networks import ResNet14
from hw2.recipes import TuningRecipe

COLUMNS = ("trial", "T", "alpha", "lr", "seed", "epochs", "images", "val_correct", "state")


def study(recipe: TuningRecipe, storage: str | None = None) -> optuna.Study:
    """The recipe's study. Storage is a URL; SQLite in the cache by default.

    A trial whose worker died is taken up again after its heartbeat stops.
    """
    folder = runs.cache(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, since Optuna 2.8
        database = RDBStorage(
            storage or f"sqlite:///{folder / 'study.db'}",
            heartbeat_interval=30,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
    return optuna.create_study(storage=database, study_name=recipe.digest, direction="maximize", load_if_exists=True)


def _tried(grid: optuna.Study, *states: TrialState) -> dict[tuple, FrozenTrial]:
    """(seed, T, alpha) -> the first trial of that setting in one of these states."""
    trials = [trial for trial in grid.get_trials(states=states) if "setting" in trial.user_attrs]
    return {tuple(trial.user_attrs["setting"]): trial for trial in reversed(trials)}


def search(
    recipe: TuningRecipe, data: FashionMNIST, cache: torch.Tensor, device: torch.device, storage: str | None = None
) -> list[dict]:
    """Run what is left of the study; rows of trials.csv, in the grid's order."""
    train, validation = training.parts(data, recipe.images, recipe.validation)

    def objective(trial: Trial) -> int:
        if "setting" not in trial.user_attrs:  # another worker took the last one: nothing to make up
            raise optuna.TrialPruned
        temperature = trial.suggest_categorical("T", recipe.temperatures)
        alpha = trial.suggest_categorical("alpha", recipe.alphas)
        seed = trial.suggest_categorical("seed", recipe.seeds)
        torch.manual_seed(seed)
        network, _ = training.fit(
            ResNet14(),
            data,
            train,
            validation,
            recipe.fit,
            seed=seed,
            pad=recipe.pad,
            view_count=recipe.views,
            view_seed=recipe.view_seed,
            objective=cached_objective(cache.to(device), temperature, alpha),
            device=device,
            label=f"T = {temperature:g}, alpha = {alpha:g}",
        )
        return training.evaluate(network, data.train_images[validation], data.train_labels[validation])[1]

    settings = list(itertools.product(recipe.seeds, recipe.temperatures, recipe.alphas))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        grid = study(recipe, storage)
        while missing := set(settings) - _tried(grid, TrialState.COMPLETE).keys():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(grid)
            taken = _tried(grid, TrialState.WAITING, TrialState.RUNNING)
            for seed, temperature, alpha in (s for s in settings if s in missing and s not in taken):
                grid.enqueue_trial(
                    {"T": temperature, "alpha": alpha, "seed": seed}, user_attrs={"setting": [seed, temperature, alpha]}
                )
            if grid.get_trials(states=(TrialState.WAITING,)):
                grid.optimize(objective, n_trials=1)
            else:
                time.sleep(1)  # another worker is at the last ones
        done = _tried(grid, TrialState.COMPLETE)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return [
        {
            "trial": number,
            "T": temperature,
            "alpha": alpha,
            "lr": recipe.fit.lr,
            "seed": seed,
            "epochs": recipe.fit.epochs,
            "images": recipe.images,
            "val_correct": int(done[seed, temperature, alpha].value),
            "state": done[seed, temperature, alpha].state.name,
        }
        for number, (seed, temperature, alpha) in enumerate(settings)
    ]


def best(trials: pd.DataFrame) -> tuple[float, float]:
    """Temperature and alpha with the highest mean count of correct validation images over the seeds.

    Of equals, the lower temperature and then the lower alpha.
    """
    means = trials.groupby(["T", "alpha"], sort=True).val_correct.mean()
    temperature, alpha = means.idxmax()
    return float(temperature), float(alpha)
