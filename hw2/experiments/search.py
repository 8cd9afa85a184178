"""The search over temperature and alpha: a complete grid, on Optuna, judged on validation.

Several processes may share a study, which is a SQLite file in the cache. Optuna is imported where
it is used: loading a network needs none of it.
"""

import itertools
import time
import warnings
from urllib.parse import quote

import torch
from torch import Tensor

from hw2 import data, training
from hw2.data import FashionMNIST
from hw2.distillation import cached_objective
from hw2.experiments import environment, store
from hw2.experiments.recipes import TuningRecipe, written
from hw2.experiments.run import cache
from hw2.files import write_csv, write_json
from hw2.networks import ResNet14
from hw2.training import Options


def settings(recipe: TuningRecipe) -> dict[str, dict]:
    """The grid in order: name of a trial -> seed, T and alpha.

    Without soft targets the temperature changes nothing, so alpha = 0 has one trial a seed.
    """
    grid = {}
    for seed, temperature, alpha in itertools.product(
        recipe.seeds, recipe.temperatures, recipe.alphas
    ):
        if alpha > 0 or temperature == recipe.temperatures[0]:
            name = f"T = {temperature:g}, alpha = {alpha:g}, seed {seed}"
            grid[name] = {"T": temperature, "alpha": alpha, "seed": seed}
    return grid


def study(recipe: TuningRecipe):
    """The study of the recipe and of this state of the code."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cache(recipe).mkdir(parents=True, exist_ok=True)
    path = quote(str(cache(recipe) / "study.db"))
    with store.lock(recipe):  # one process makes the tables
        return optuna.create_study(
            study_name=f"{recipe.digest[:16]}-{environment.code_at_start()[:16]}",
            storage=f"sqlite:///{path}",
            sampler=optuna.samplers.GridSampler({"setting": list(settings(recipe))}, seed=0),
            direction="maximize",
            load_if_exists=True,
        )


def search(
    recipe: TuningRecipe, targets: Tensor, fashion: FashionMNIST, device, study
) -> list[dict]:
    """Run trials until each setting of the grid has a complete one; the rows of trials.csv.

    `targets` are the teacher's soft targets (views, 60000, 10). Where all that is left is under
    way in other processes, a setting may be trained twice: the first one counts.
    """
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    grid = settings(recipe)

    def objective(trial) -> int:
        name = trial.suggest_categorical("setting", list(grid))
        processor = time.process_time()
        network = trained(recipe, grid[name], name, targets, fashion, device)
        machine = environment.environment(device)
        trial.set_user_attr("processor_s", round(time.process_time() - processor, 1))
        trial.set_user_attr("device", machine["device"])
        trial.set_user_attr("hardware", machine["hardware"])
        return training.validate(network, *recipe.task(fashion).held_out)[1]

    def complete() -> dict:
        trials = study.get_trials(states=(TrialState.COMPLETE,))
        return {trial.params["setting"]: trial for trial in reversed(trials)}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the callback is called experimental
        retry = RetryHeartbeatStaleTrialCallback()
        for trial in study.get_trials(states=(TrialState.FAIL,)):
            retry(study, trial)  # it was interrupted, or it failed: the sampler would leave it out
        while len(done := complete()) < len(grid):
            study.optimize(objective, n_trials=1)
    rows = []
    for number, name in enumerate(grid):
        trial = done[name]
        row = {"trial": number, **grid[name], "val_correct": int(trial.value)}
        rows.append(row | trial.user_attrs)
    return rows


def trained(
    recipe: TuningRecipe, setting: dict, name: str, targets: Tensor, fashion: FashionMNIST, device
) -> ResNet14:
    """The student of one setting."""
    torch.manual_seed(setting["seed"])
    loss = cached_objective(
        targets.to(device), setting["T"], setting["alpha"], targets=recipe.targets
    )
    network, _ = training.fit(
        ResNet14(),
        recipe.fit,
        recipe.task(fashion),
        seed=setting["seed"],
        objective=loss,
        options=Options(name),
        device=device,
    )
    return network


def obtain_trials(profile: str, device: str = "auto", replace: bool = False) -> None:
    """Search where there is no finished search; `replace` allows to take another one's place."""
    known = store.Store(profile)
    recipe = known.tuning
    if known.searched():
        return
    folder = known.search_folder
    store.check_replaced(folder, recipe, replace)
    environment.check_code(profile)
    torch_device = environment.pick_device(device)
    targets = known.made_by(recipe.teacher).soft_targets
    rows = search(recipe, targets, data.fashion_mnist(), torch_device, study(recipe))
    # An older search's recipe goes first, this one's is written last: then the trials are whole.
    (folder / "recipe.json").unlink(missing_ok=True)
    write_csv(folder / "trials.csv", store.TRIALS, rows)
    write_json(folder / "environment.json", environment.environment(torch_device))
    write_json(folder / "recipe.json", written(recipe))
