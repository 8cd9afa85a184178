"""The walk, one function a stage. Each loads its run where a finished one is there, and trains it where not.

    teacher -> search, finalists -> distilled (and plain, its control) -> compressed -> the test set, read once for each

A chain has one profile. Without one named it is HW2_PROFILE, or else that of the delivered network: no stage asks for,
replaces or shows a run of another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from torch import nn

from hw2 import networks, training
from hw2.data import fashion_mnist
from hw2.errors import InputError
from hw2.experiments import recipes, trainers
from hw2.experiments import search as tuning
from hw2.experiments import store as runs
from hw2.experiments.store import Run


def default_profile() -> str:
    """HW2_PROFILE (empty counts as unset), or else the delivered network's, or `cpu` where none is delivered."""
    if name := os.environ.get("HW2_PROFILE"):
        return recipes.check_profile(name)
    return _named(runs.root())[0].profile if (runs.root() / "delivered.json").is_file() else "cpu"


def _profile(name: str | None) -> str:
    return recipes.check_profile(name or default_profile())


def _load_or_train(recipe: recipes.Recipe, train: Callable, profile: str, device: str, replace: bool) -> Run:
    """`train` is called with the recipe, the profile and the device.

    A folder that holds another recipe's run is an `InputError` that names the field, unless `replace` allows to train
    in its place.
    """
    run = runs.find(recipe, profile)
    if not run:
        with runs.lock(recipe):  # of two processes that want it, one trains
            if not runs.find(recipe, profile):
                where = training.pick_device(device)
                runs.check_replaced(runs.place(recipe, profile), recipe, replace)
                runs.check_code(profile)
                runs.check_checkpoints(recipe, replace)
                if recipe.fit.precision == "bfloat16" and runs.lacks_bfloat16(where):
                    print("hw2: this processor has no bfloat16: training takes about 15 times as long", file=sys.stderr)
                train(recipe, profile, where)
                runs.clear(recipe)
        run = runs.find(recipe, profile)
    runs.ensure_sums(profile)
    return run


def teacher(
    profile: str | None = None,
    seed: int = 0,
    weights: Path | None = None,
    device: str = "auto",
    replace: bool = False,
) -> Run:
    """The ResNet-50 and its soft targets; `weights` is the course's resnet-50.pth, used in place of training."""
    profile = _profile(profile)
    if weights and not Path(weights).is_file():
        raise InputError(f"{weights}: no such file; expected the course's resnet-50.pth")
    if weights:
        networks.load_course_teacher(weights)  # a bad file is told before anything else happens
    # A teacher made from the course's file stays the teacher until another one is trained in its place.
    recorded = Run(runs.root(profile) / "teacher" / f"{profile}-s{seed}")
    known = recorded.recipe["weights"] if (recorded.folder / "recipe.json").is_file() else None
    return _load_or_train(
        recipes.teacher(profile, seed, runs.sha256(Path(weights)) if weights else known),
        lambda recipe, name, where: trainers.teacher(recipe, name, where, weights),
        profile,
        device,
        replace,
    )


def teacher_network(run: Run) -> nn.Module:
    """The teacher with its weights, where this machine trained it or was given them."""
    from safetensors.torch import load_file

    if not run.weights.is_file():
        raise InputError(f"{run.name}: its weights (94 MB) are not committed; train it here: `hw2 train teacher`")
    network = networks.teacher(run.recipe["stem"])
    network.load_state_dict(load_file(run.weights))
    return network.eval()


def tuned(
    profile: str | None = None, device: str = "auto", storage: str | None = None, replace: bool = False
) -> pd.DataFrame:
    """The trials of the search over temperature and alpha, from runs/tuning/<profile>/trials.csv."""
    profile = _profile(profile)
    parent = teacher(profile, device=device)
    recipe = recipes.tuning(profile, parent.digest)
    folder = runs.root(profile) / "tuning" / profile
    recorded = folder / "recipe.json"
    if not recorded.is_file() or runs.read_json(recorded).get("digest") != recipe.digest:
        where = training.pick_device(device)
        runs.check_replaced(folder, recipe, replace)
        runs.check_code(profile)
        found = tuning.search(recipe, fashion_mnist(), parent.soft_targets, where, storage, replace)
        with runs.changing(profile):
            # An older search's recipe goes first, this one's is written last: it says that the trials are whole.
            recorded.unlink(missing_ok=True)
            for name, (columns, rows) in found.tables.items():
                runs.write_csv(folder / name, columns, rows)
            runs.write_json(folder / "environment.json", found.environments)
            runs.write_json(recorded, {"digest": recipe.digest, **recipes.asdict(recipe)})
    return runs.read_csv(folder / "trials.csv", tuning.COLUMNS)


def finalists(
    profile: str | None = None, device: str = "auto", replace: bool = False
) -> dict[tuple[float, float], list[Run]]:
    """(temperature, alpha) -> a run for each of the search's seeds: the search's finalists, trained longer."""
    profile = _profile(profile)
    parent = teacher(profile, device=device)
    trials = tuned(profile, device)

    def one(number: int, setting: tuple[float, float], seed: int) -> Run:
        return _load_or_train(
            recipes.finalist(profile, number, seed, parent.digest, *setting),
            lambda recipe, name, where: trainers.student(recipe, name, where, parent, ("logits",)),
            profile,
            device,
            replace,
        )

    return {
        setting: [one(number, setting, seed) for seed in recipes.tuning(profile, parent.digest).seeds]
        for number, setting in enumerate(tuning.finalists(trials), start=1)
    }


def chosen(profile: str | None = None, device: str = "auto") -> tuple[float, float]:
    """Temperature and alpha of the finalist with the highest mean on validation; of equals, the search's first."""
    found = finalists(profile, device)
    return max(found, key=lambda setting: sum(run.metrics["val_correct"] for run in found[setting]))


def distilled(
    profile: str | None = None,
    seed: int = 0,
    device: str = "auto",
    temperature: float | None = None,
    alpha: float | None = None,
    replace: bool = False,
) -> Run:
    """ResNet-14 (175,258 parameters) with the teacher's soft targets, at the tuned temperature and alpha or others."""
    profile = _profile(profile)
    tuned_too = temperature is None and alpha is None
    parent = teacher(profile, device=device)
    best = chosen(profile, device) if temperature is None or alpha is None else (temperature, alpha)
    setting = best[0] if temperature is None else temperature, best[1] if alpha is None else alpha
    return _load_or_train(
        recipes.distilled(profile, seed, parent.digest, *setting, tuned=tuned_too),
        lambda recipe, name, where: trainers.student(recipe, name, where, parent),
        profile,
        device,
        replace,
    )


def plain(profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> Run:
    """The control without distillation."""
    profile = _profile(profile)
    return _load_or_train(
        recipes.plain(profile, seed),
        lambda recipe, name, where: trainers.student(recipe, name, where, None),
        profile,
        device,
        replace,
    )


def scratch(profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> Run:
    """The control without pruning: the pruned network's widths, trained from random weights for as long."""
    return _as_long(recipes.scratch, profile, seed, device, replace)


def unpruned(profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> Run:
    """The control at full size: ResNet-14, trained from random weights for as long as the pruned network."""
    return _as_long(recipes.unpruned, profile, seed, device, replace)


def _as_long(make: Callable, profile: str | None, seed: int, device: str, replace: bool) -> Run:
    profile = _profile(profile)
    origin = teacher(profile, device=device)
    parent = distilled(profile, seed, device)
    return _load_or_train(
        make(profile, seed, parent.recipe),
        lambda recipe, name, where: trainers.student(recipe, name, where, origin),
        profile,
        device,
        replace,
    )


def _known(name: str, arms: dict[str, str]) -> None:
    if name not in arms:
        raise InputError(f"arm {name!r}: expected one of {', '.join(arms)}")


def _start(profile: str, device: str) -> tuple[Run, recipes.TuningRecipe, tuple[float, float]]:
    """What all arms start from: the teacher, the search's recipe and best setting."""
    recipes.check_studies(profile)
    origin = teacher(profile, device=device)
    return origin, recipes.tuning(profile, origin.digest), tuning.best(tuned(profile, device))


def _for_each_seed(
    one: Callable, names: dict[str, str], profile: str | None, device: str, replace: bool
) -> dict[str, list[Run]]:
    """Arm -> a run for each of the arms' seeds."""
    profile = _profile(profile)
    recipes.check_studies(profile)
    seeds = recipes.arm_seeds(recipes.tuning(profile, ""))
    return {name: [one(name, profile, seed, device, replace) for seed in seeds] for name in names}


def arm(name: str, profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> Run:
    """One of `recipes.ARMS`, at the budget of the search's trials and the search's best setting."""
    _known(name, recipes.ARMS)
    profile = _profile(profile)
    origin, grid, setting = _start(profile, device)
    if name == "compressed_teacher":
        origin = compressed(profile, 0, device)
    keep = ("logits", "weights") if name == "vanilla" else ("logits",)  # the ablation prunes vanilla's network
    return _load_or_train(
        recipes.arm(name, grid, seed, *setting, origin.digest),
        lambda recipe, candidate, where: trainers.student(recipe, candidate, where, origin, keep),
        profile,
        device,
        replace,
    )


def arms(profile: str | None = None, device: str = "auto", replace: bool = False) -> dict[str, list[Run]]:
    """Every arm of the study of distillation."""
    return _for_each_seed(arm, recipes.ARMS, profile, device, replace)


def compressed(
    profile: str | None = None,
    seed: int = 0,
    device: str = "auto",
    ratio: float = recipes.RATIO,
    replace: bool = False,
) -> Run:
    """The distilled student made sparse, pruned to 85,956 parameters, recalibrated and fine-tuned with distillation."""
    recipes.check_ratio(ratio)
    profile = _profile(profile)
    origin = teacher(profile, device=device)
    parent = distilled(profile, seed, device)
    return _load_or_train(
        recipes.compressed(profile, seed, parent.recipe, ratio),
        lambda recipe, name, where: trainers.compressed(recipe, name, where, origin, parent),
        profile,
        device,
        replace,
    )


def ablated(name: str, profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> Run:
    """One of `recipes.ABLATION`: all spend the same number of images, counted from the first initial weights."""
    _known(name, recipes.ABLATION)
    profile = _profile(profile)
    origin, grid, setting = _start(profile, device)
    parent = arm("vanilla", profile, seed, device)
    recipe = recipes.ablated(name, grid, profile, seed, *setting, origin.digest, parent.digest)

    def train(recipe: recipes.StudentRecipe, candidate: str, where) -> None:
        asked = origin if recipe.teacher else None
        if isinstance(recipe, recipes.CompressedRecipe):
            trainers.compressed(recipe, candidate, where, asked, parent, ("classes",))
        else:
            trainers.student(recipe, candidate, where, asked, ("classes",))

    return _load_or_train(recipe, train, profile, device, replace)


def ablation(profile: str | None = None, device: str = "auto", replace: bool = False) -> dict[str, list[Run]]:
    """Every arm of the ablation, with the seeds of the arms that it prunes."""
    return _for_each_seed(ablated, recipes.ABLATION, profile, device, replace)


def frontier(profile: str | None = None, device: str = "auto", replace: bool = False) -> dict[float, list[Run]]:
    """Pruning ratio -> runs: the distilled students pruned by it and fine-tuned shortly, for every seed of it."""
    profile = _profile(profile)
    recipes.check_studies(profile)
    origin = teacher(profile, device=device)

    def one(ratio: float, seed: int) -> Run:
        parent = distilled(profile, seed, device)
        return _load_or_train(
            recipes.frontier(profile, seed, parent.recipe, ratio),
            lambda recipe, name, where: trainers.compressed(recipe, name, where, origin, parent, ("classes",)),
            profile,
            device,
            replace,
        )

    numbers = recipes.NUMBERS[profile]["frontier"]
    return {ratio: [one(ratio, seed) for seed in numbers["seeds"]] for ratio in numbers["ratios"]}


def deliver(run: Run) -> None:
    """Name the delivered network, before the test set is read."""
    content = {"run": run.name, "sha256": runs.sha256(run.folder / "model.safetensors")}
    path = runs.root(run.profile) / "delivered.json"
    if not path.is_file() or runs.read_json(path) != content:
        with runs.changing(run.profile):
            runs.write_json(path, content)


def _named(top: Path) -> tuple[Run, str]:
    """The run that delivered.json names, and the SHA-256 of its weights."""
    named = runs.read_json(top / "delivered.json")
    if not all(isinstance(named.get(key), str) for key in ("run", "sha256")):
        raise InputError(f"{top / 'delivered.json'}: expected `run` and `sha256`; restore it with `git checkout`")
    return Run(top / named["run"]), named["sha256"]


def delivered(profile: str | None = None) -> Run:
    """The run that runs/delivered.json names; `InputError` where its weights are not the named ones."""
    profile = _profile(profile)
    run, digest = _named(runs.root(profile))
    if run.profile != profile:
        raise InputError(f"profile {profile}: the delivered network is {run.name}, of another profile")
    weights = run.folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{run.name}: the delivered network has no model.safetensors; restore it with `git checkout`")
    if runs.sha256(weights) != digest:
        raise InputError(f"{run.name}: model.safetensors is not the delivered one (SHA-256 differs); `git checkout` it")
    return run


def read_test_sets(found: list[Run]) -> None:
    """Read the test set for every run whose recipe has no reading in the ledger yet."""
    for run in found:
        if run.test_accuracy is None:
            network = teacher_network(run) if run.recipe["stage"] == "teacher" else run.network()
            runs.read_test_set(run, network, fashion_mnist())


def walk(profile: str | None = None, seed: int = 0, device: str = "auto", replace: bool = False) -> list[Run]:
    """All stages for one seed, then the test set read once for each.

    Seed 0 names the delivered network before, and comes with all arms and the frontier, whose seeds are their own.
    """
    profile = _profile(profile)
    found = [teacher(profile, device=device, replace=replace)]
    tuned(profile, device, replace=replace)
    finalists(profile, device, replace)
    found += [
        distilled(profile, seed, device, replace=replace),
        compressed(profile, seed, device, replace=replace),
        plain(profile, seed, device, replace=replace),
        scratch(profile, seed, device, replace=replace),
        unpruned(profile, seed, device, replace=replace),
    ]
    if seed == 0:
        named = runs.root(profile) / "delivered.json"
        if not named.is_file() or _named(named.parent)[0].profile == profile:  # another profile's stays delivered
            deliver(found[2])
        if recipes.has_studies(profile):
            arms(profile, device, replace)
            ablation(profile, device, replace)
            frontier(profile, device, replace)
    read_test_sets(found)
    return found
