"""The walk, one function a stage. Each loads its run where a finished one is there, and trains it where not.

    teacher -> search, finalists -> distilled (and plain, its control) -> compressed -> the test set, read once for each

Without a profile named, a stage takes the strongest that was run to its end: `full` before `cpu`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from hw2 import distillation, networks, pruning, recipes, runs, training, tuning
from hw2.data import fashion_mnist
from hw2.errors import InputError
from hw2.recipes import Recipe
from hw2.runs import Run


def default_profile() -> str:
    """The profile that is trained where no run is found: the environment variable HW2_PROFILE, or `cpu`."""
    return recipes.check_profile(os.environ.get("HW2_PROFILE", "cpu"))


def _candidates(profile: str | None) -> list[str]:
    if profile:
        return [recipes.check_profile(profile)]
    return ["smoke"] if default_profile() == "smoke" else ["full", "cpu"]


def _load_or_train(make: Callable, train: Callable, profile: str | None, device: str) -> Run:
    for candidate in _candidates(profile):
        if run := runs.find(make(candidate), candidate):
            return run
    chosen = profile or default_profile()
    recipe = make(chosen)
    with runs.lock(recipe):  # of two processes that want it, one trains
        if not runs.find(recipe, chosen):
            train(recipe, chosen, training.pick_device(device))
    run = runs.find(recipe, chosen)
    runs.write_sums(chosen)
    return run


def _metrics(network: nn.Module, recipe: Recipe, started: float, device: torch.device, earlier: float) -> dict:
    data = fashion_mnist()
    rows = training.parts(data, recipe.images, recipe.validation)[1]
    classes = training.predict(network, data.train_images[rows])
    return {
        "val_correct": int((classes == data.train_labels[rows]).sum()),
        "val_total": len(rows),
        "test_correct": None,
        "test_total": None,
        "parameters": networks.count_parameters(network),
        "wall_s": round(time.monotonic() - started + earlier, 1),
        "peak_memory_bytes": runs.peak_memory(device),
    }


def fit(network: nn.Module, recipe: Recipe, numbers: recipes.Fit, device: torch.device, label: str, **more):
    """`training.fit` with what every stage passes alike; checkpoints go into the recipe's cache unless `more` says."""
    data = fashion_mnist()
    train, validation = training.parts(data, recipe.images, recipe.validation)
    return training.fit(
        network,
        data,
        train,
        validation,
        numbers,
        seed=recipe.seed,
        pad=recipe.pad,
        view_seed=recipe.view_seed,
        device=device,
        label=label,
        **{"checkpoint": runs.cache(recipe) / f"{label}.pt"} | more,
    )


def teacher(profile: str | None = None, seed: int = 0, weights: Path | None = None, device: str = "auto") -> Run:
    """The ResNet-50 and its soft targets; `weights` is the course's resnet-50.pth, used in place of training."""
    given = runs.sha256(Path(weights)) if weights and Path(weights).is_file() else None

    def make(name: str) -> recipes.TeacherRecipe:
        # A teacher made from the course's file stays the teacher until another one is trained in its place.
        recorded = Run(runs.root(name) / "teacher" / f"{name}-s{seed}")
        known = recorded.recipe["weights"] if (recorded.folder / "recipe.json").is_file() else None
        return recipes.teacher(name, seed, given or known)

    def train(recipe: recipes.TeacherRecipe, name: str, where: torch.device) -> None:
        started, data = time.monotonic(), fashion_mnist()
        if recipe.weights:
            network, history = networks.load_course_teacher(weights), training.History()
        else:
            torch.manual_seed(recipe.seed)
            network, history = fit(networks.teacher(recipe.stem), recipe, recipe.fit, where, "teacher",
                                    channels_last=False)  # fmt: skip
        cached = runs.cache(recipe)
        cached.mkdir(parents=True, exist_ok=True)
        networks.save(network, cached / "model.safetensors")
        network.to(where)
        rows = torch.cat(list(training.parts(data, recipe.images, recipe.validation))).sort().values
        targets = distillation.build_cache(
            network, data.train_images.to(where), rows, recipe.views, recipe.pad, recipe.view_seed, cached
        )
        with runs.new_folder(recipe, name) as folder:
            runs.write_training(
                folder, history, _metrics(network.cpu(), recipe, started, where, history.earlier), where
            )
            np.save(folder / "soft_targets.npy", targets)
            runs.write_json(
                folder / "soft_targets.json",
                {
                    "teacher": recipe.digest,
                    "pad": recipe.pad,
                    "view_seed": recipe.view_seed,
                    "views": recipe.views,
                    "sha256": runs.sha256(folder / "soft_targets.npy"),
                },
            )

    if weights and given is None:
        raise InputError(f"{weights}: no such file; expected the course's resnet-50.pth")
    if weights:
        networks.load_course_teacher(weights)  # a bad file is told before anything else happens
    return _load_or_train(make, train, profile, device)


def teacher_network(run: Run) -> nn.Module:
    """The teacher with its weights, where this machine trained it or was given them."""
    from safetensors.torch import load_file

    if not run.weights.is_file():
        raise InputError(f"{run.name}: its weights (94 MB) are not committed; train it here: `hw2 train teacher`")
    network = networks.teacher(run.recipe["stem"])
    network.load_state_dict(load_file(run.weights))
    return network.eval()


def searched(profile: str | None = None, device: str = "auto", storage: str | None = None) -> tuple[str, pd.DataFrame]:
    """The profile whose search was run to its end, and the search's trials, from runs/tuning/trials.csv.

    Finalists and arms are of that profile too, or runs of two budgets would be compared.
    """
    parent = teacher(profile, device=device)
    for name in (candidates := _candidates(profile)):
        recipe = recipes.tuning(name, parent.digest)
        folder = runs.root(name) / "tuning"
        recorded = folder / "recipe.json"
        if recorded.is_file() and runs.read_json(recorded).get("digest") == recipe.digest:
            return name, runs.read_csv(folder / "trials.csv", tuning.COLUMNS)
    name = profile or (default_profile() if default_profile() in candidates else candidates[-1])
    recipe = recipes.tuning(name, parent.digest)
    where = training.pick_device(device)
    rows = tuning.search(recipe, fashion_mnist(), parent.soft_targets, where, storage)
    folder = runs.root(name) / "tuning"
    runs.write_csv(folder / "trials.csv", tuning.COLUMNS, rows)
    runs.write_json(folder / "environment.json", runs.environment(where))
    # The recipe is written last: it says that the trials are whole.
    runs.write_json(folder / "recipe.json", {"digest": recipe.digest, **recipes.asdict(recipe)})
    runs.write_sums(name)
    return name, runs.read_csv(folder / "trials.csv", tuning.COLUMNS)


def tuned(profile: str | None = None, device: str = "auto", storage: str | None = None) -> pd.DataFrame:
    """The trials of the search over temperature and alpha."""
    return searched(profile, device, storage)[1]


def explored(profile: str, device: str, trials: int, sampler: str, pruner: str) -> pd.DataFrame:
    """Trials of a free search around the profile's grid (`tuning.explore`); nothing is kept."""
    parent = teacher(profile, device=device)
    recipe = recipes.tuning(profile, parent.digest)
    where = training.pick_device(device)
    return tuning.explore(recipe, fashion_mnist(), parent.soft_targets, where, trials, sampler, pruner)


def finalists(profile: str | None = None, device: str = "auto") -> dict[tuple[float, float], list[Run]]:
    """(temperature, alpha) -> a run for each of the search's seeds: the search's finalists, trained longer."""
    parent = teacher(profile, device=device)
    profile, trials = searched(profile, device)

    def one(number: int, setting: tuple[float, float], seed: int) -> Run:
        return _load_or_train(
            lambda name: recipes.finalist(name, number, seed, parent.digest, *setting),
            lambda recipe, name, where: _train_student(recipe, name, where, parent, keep=False),
            profile,
            device,
        )

    return {
        setting: [one(number, setting, seed) for seed in recipes.tuning(profile, parent.digest).seeds]
        for number, setting in enumerate(tuning.finalists(trials), start=1)
    }


def chosen(profile: str | None = None, device: str = "auto") -> tuple[float, float]:
    """Temperature and alpha of the finalist with the highest mean on validation; of equals, the search's first."""
    found = finalists(profile, device)
    return max(found, key=lambda setting: sum(run.metrics["val_correct"] for run in found[setting]))


def objective(recipe: recipes.StudentRecipe, origin: Run | None, where: torch.device) -> training.Objective | None:
    """The recipe's loss; None is the cross-entropy alone. `origin` is the run of the recipe's teacher.

    The ResNet-50's soft targets are cached; any other teacher is asked about every batch.
    """
    if recipe.teacher is None:
        return None
    if origin.recipe["stage"] == "teacher":
        cache = origin.soft_targets.to(where)
        return distillation.cached_objective(
            cache, recipe.temperature, recipe.alpha, recipe.loss, recipe.targets == "identity"
        )
    network, images = origin.network().to(where).eval(), fashion_mnist().train_images.to(where)
    return distillation.live_objective(network, images, recipe.temperature, recipe.alpha, recipe.pad, recipe.view_seed)


def _train_student(
    recipe: recipes.StudentRecipe, name: str, where: torch.device, origin: Run | None, keep: bool = True
) -> None:
    """A ResNet-14. Without `keep` its weights stay in the cache, and the run holds logits of the validation images."""
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    loss = objective(recipe, origin, where)
    network, history = fit(networks.ResNet14(), recipe, recipe.fit, where, recipe.stage, objective=loss,
                            view_count=recipe.views)  # fmt: skip
    with runs.new_folder(recipe, name) as folder:
        networks.save(network, (folder if keep else runs.cache(recipe)) / "model.safetensors")
        if not keep:
            data = fashion_mnist()
            rows = training.parts(data, recipe.images, recipe.validation)[1]
            logits = training.logits_of(network, data.train_images[rows])
            # Less the largest of each image, or float16 would make equals of near ties.
            np.save(folder / "validation_logits.npy", (logits - logits.amax(1, keepdim=True)).half())
        runs.write_training(folder, history, _metrics(network, recipe, started, where, history.earlier), where)


def distilled(
    profile: str | None = None,
    seed: int = 0,
    device: str = "auto",
    temperature: float | None = None,
    alpha: float | None = None,
) -> Run:
    """ResNet-14 (175,258 parameters) with the teacher's soft targets, at the tuned temperature and alpha or others."""
    tuned_too = temperature is None and alpha is None
    parent = teacher(profile, device=device)
    best = chosen(profile, device) if temperature is None or alpha is None else (temperature, alpha)
    setting = best[0] if temperature is None else temperature, best[1] if alpha is None else alpha
    return _load_or_train(
        lambda name: recipes.distilled(name, seed, parent.digest, *setting, tuned=tuned_too),
        lambda recipe, name, where: _train_student(recipe, name, where, parent),
        profile,
        device,
    )


def plain(profile: str | None = None, seed: int = 0, device: str = "auto") -> Run:
    """The control without distillation."""
    return _load_or_train(
        lambda name: recipes.plain(name, seed),
        lambda recipe, name, where: _train_student(recipe, name, where, None),
        profile,
        device,
    )


def arm(name: str, profile: str | None = None, seed: int = 0, device: str = "auto") -> Run:
    """One of `recipes.ARMS`, at the budget of the search's trials and the search's best setting."""
    if name not in recipes.ARMS:
        raise InputError(f"arm {name!r}: expected one of {', '.join(recipes.ARMS)}")
    parent = teacher(profile, device=device)
    found, trials = searched(profile, device)
    origin = compressed(profile, 0, device) if name == "compressed_teacher" else parent
    grid, setting = recipes.tuning(found, parent.digest), tuning.best(trials)
    return _load_or_train(
        lambda _: recipes.arm(name, grid, seed, *setting, origin.digest),
        lambda recipe, candidate, where: _train_student(recipe, candidate, where, origin, keep=False),
        found,
        device,
    )


def arms(profile: str | None = None, device: str = "auto") -> dict[str, list[Run]]:
    """Every arm, a run for each of its seeds."""
    found, _ = searched(profile, device)
    seeds = recipes.arm_seeds(recipes.tuning(found, ""))
    return {name: [arm(name, profile, seed, device) for seed in seeds] for name in recipes.ARMS}


def compressed(profile: str | None = None, seed: int = 0, device: str = "auto", ratio: float = recipes.RATIO) -> Run:
    """The distilled student made sparse, pruned to 85,956 parameters, recalibrated and fine-tuned with distillation."""
    recipes.check_ratio(ratio)
    origin = teacher(profile, device=device)
    parent = distilled(profile, seed, device)

    def make(name: str) -> recipes.CompressedRecipe:
        return recipes.compressed(name, seed, parent.recipe, ratio)

    def train(recipe: recipes.CompressedRecipe, name: str, where: torch.device) -> None:
        started, data = time.monotonic(), fashion_mnist()
        rows, held_out = training.parts(data, recipe.images, recipe.validation)
        loss = objective(recipe, origin, where)
        calibration = data.train_images[rows[: recipe.recalibration]]
        phases = {}

        def judge(phase: str, network: nn.Module) -> None:
            classes = training.predict(network, data.train_images[held_out])
            phases[phase] = int((classes == data.train_labels[held_out]).sum())

        def prune(network: networks.ResNet14, suffix: str) -> networks.ResNet14:
            pruned = pruning.prune(network, recipe.ratio)
            judge(f"pruned{suffix}", pruned)
            pruning.recalibrate(pruned, calibration)
            judge(f"recalibrated{suffix}", pruned)
            return pruned

        network = parent.network()
        judge("distilled", network)
        prune(network, "_without_sparse_learning")
        network, first = fit(network, recipe, recipe.sparse, where, "sparse", objective=loss, view_count=recipe.views,
                              **pruning.sparse_learning(network, recipe.ratio, recipe.reg))  # fmt: skip
        judge("sparse", network)
        network, second = fit(prune(network, ""), recipe, recipe.fit, where, "fine-tuning", objective=loss,
                               view_count=recipe.views)  # fmt: skip
        judge("fine_tuned", network)
        shift = len(first.epochs)
        second.epochs = first.epochs + [row | {"epoch": row["epoch"] + shift} for row in second.epochs]
        second.steps = first.steps
        with runs.new_folder(recipe, name) as folder:
            networks.save(network, folder / "model.safetensors")
            earlier = first.earlier + second.earlier
            metrics = _metrics(network, recipe, started, where, earlier) | {"phases": phases}
            runs.write_training(folder, second, metrics, where)

    return _load_or_train(make, train, profile, device)


def deliver(run: Run) -> None:
    """Name the delivered network, before the test set is read."""
    content = {"run": run.name, "sha256": runs.sha256(run.folder / "model.safetensors")}
    path = runs.root(run.profile) / "delivered.json"
    if not path.is_file() or runs.read_json(path) != content:
        runs.write_json(path, content)
        runs.write_sums(run.profile)


def delivered(profile: str | None = None) -> Run:
    """The run that runs/delivered.json names; `InputError` where its weights are not the named ones."""
    top = runs.root(recipes.check_profile(profile or default_profile()))
    named = runs.read_json(top / "delivered.json")
    if not all(isinstance(named.get(key), str) for key in ("run", "sha256")):
        raise InputError(f"{top / 'delivered.json'}: expected `run` and `sha256`; restore it with `git checkout`")
    run = Run(top / named["run"])
    weights = run.folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{run.name}: the delivered network has no model.safetensors; restore it with `git checkout`")
    if runs.sha256(weights) != named["sha256"]:
        raise InputError(f"{run.name}: model.safetensors is not the delivered one (SHA-256 differs); `git checkout` it")
    return run


def read_test_sets(found: list[Run]) -> None:
    """Read the test set for every run whose recipe has no reading in the ledger yet."""
    for run in found:
        if run.test_accuracy is None:
            network = teacher_network(run) if run.recipe["stage"] == "teacher" else run.network()
            runs.read_test_set(run, network, fashion_mnist())
            runs.write_sums(run.profile)


def walk(profile: str | None = None, seed: int = 0, device: str = "auto") -> list[Run]:
    """All stages for one seed, then the test set read once for each.

    Seed 0 names the delivered network before, and comes with the arms, whose seeds are the search's.
    """
    found = [
        teacher(profile, device=device),
        distilled(profile, seed, device),
        compressed(profile, seed, device),
        plain(profile, seed, device),
    ]
    if seed == 0:
        deliver(found[2])
        arms(profile, device)
    read_test_sets(found)
    return found
