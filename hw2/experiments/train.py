"""From a recipe to a finished run's folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hw2 import data, distillation, networks, pruning, training
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import catalogue, environment, store
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import HISTORY, STEPS, Run, cache
from hw2.experiments.store import Store
from hw2.files import sha256, write_array, write_csv, write_json
from hw2.training import History, Options

SPARSE = "sparse learning"  # phases in which a compression trains
FINE = "fine-tuning"


@dataclass
class Work:
    """What a training needs besides its recipe. `started` and `processor` are read when made."""

    profile: str
    device: torch.device
    data: FashionMNIST
    own: bool = False  # whether the recipe is not the catalogue's
    phases: dict[str, int] = field(default_factory=dict)  # validation images right after each
    norms: dict[str, list] = field(default_factory=dict)  # before and after sparse learning
    started: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)


def unfinished(recipe: Recipe) -> Path:
    """Where checkpoints lie until the run is complete. Other code finds none, and begins again."""
    return cache(recipe) / environment.code_at_start()[:16]


def correct(network: nn.Module, recipe: Recipe, work: Work) -> int:
    """How many of the recipe's validation images."""
    return training.validate(network, *recipe.task(work.data).held_out)[1]


def prune(network: nn.Module, recipe: Recipe, work: Work, suffix: str = "") -> nn.Module:
    """Pruned, then recalibrated on the recipe's training images; both are phases."""
    torch.manual_seed(recipe.seed)  # for channels that are chosen at random
    pruned = pruning.prune(network, recipe.ratio, recipe.importance)
    work.phases[f"pruned{suffix}"] = correct(pruned, recipe, work)
    rows = recipe.task(work.data).train[: recipe.recalibration]
    pruning.recalibrate(pruned, work.data.train_images[rows])
    work.phases[f"recalibrated{suffix}"] = correct(pruned, recipe, work)
    return pruned


def prepare(recipe: Recipe, work: Work) -> tuple[nn.Module, str]:
    """The first network and, of a compression, the phase in which it is trained first."""
    torch.manual_seed(recipe.seed)
    if recipe.stem:
        return networks.teacher(recipe.stem), ""
    if not recipe.parent:
        return networks.ResNet14(recipe.widths or networks.WIDTHS), ""
    network = Store(work.profile).made_by(recipe.parent).network()
    if recipe.ratio is None:
        return network, ""
    return (network, SPARSE) if recipe.sparse.epochs else (prune(network, recipe, work), FINE)


def fit(
    network: nn.Module, recipe: Recipe, work: Work, phase: str = "", **fields
) -> tuple[nn.Module, History]:
    """`training.fit` by the recipe, in a run and in its replay alike; `fields` are options."""
    label = f"{recipe.stage}, seed {recipe.seed}" + (f", {phase}" if phase else "")
    if phase == SPARSE:
        fields |= pruning.sparse_learning(network, recipe.ratio, recipe.reg)
    options = Options(label, environment=environment.environment(work.device), **fields)
    checkpoint = unfinished(recipe) / f"{(phase or recipe.stage).replace(' ', '-')}.pt"
    return training.fit(
        network,
        recipe.sparse if phase == SPARSE else recipe.fit,
        recipe.task(work.data),
        seed=recipe.seed,
        objective=objective(recipe, work),
        options=options,
        device=work.device,
        checkpoint=None if options.first_steps else checkpoint,
    )


def objective(recipe: Recipe, work: Work) -> training.Objective:
    """The loss: with the labels, and where the recipe names a teacher with its soft targets."""
    if recipe.teacher is None:
        return training.cross_entropy
    targets = soft_targets(recipe, work).to(work.device)
    return distillation.cached_objective(
        targets, recipe.temperature, recipe.alpha, recipe.loss, recipe.targets
    )


def soft_targets(recipe: Recipe, work: Work) -> Tensor:
    """The logits that a student learns from, float16 (views, 60000, 10): of the teacher's views.

    A ResNet-50's are in its run. Those of a student that teaches are computed from its weights.
    """
    run = Store(work.profile).made_by(recipe.teacher)
    if recipe.targets == "same view" and recipe.pad != run.recipe.pad:
        problem = f"its pad is not that of {run.name}, which knows no other view"
        raise InputError(f"{recipe.stage}: {problem}")
    return run.soft_targets if run.recipe.stem else answered(run, work)


def answered(run: Run, work: Work) -> Tensor:
    """A student's logits for every view, float16 (views, 60000, 10), kept in the cache.

    The cache is of the weights: a network that is trained again answers anew.
    """
    folder = data.PROJECT / "cache" / f"answers-{sha256(run.weights)[:16]}"
    rows = torch.cat(work.data.split).sort().values
    task = run.recipe.task(work.data)
    with store.lock(run.recipe):  # one process computes what others wait for
        answers = distillation.build_cache(run.network(), task, work.device, rows, folder)
    return torch.from_numpy(answers)


def train_teacher(recipe: Recipe, work: Work, file: Path | None) -> None:
    """The ResNet-50, or the course's in `file`, and its soft targets for every view."""
    if recipe.weights:
        network = networks.load_course_teacher(file)
        history = History()
    else:
        network, history = fit(prepare(recipe, work)[0], recipe, work)
    networks.save(network, cache(recipe) / "model.safetensors")
    task = recipe.task(work.data)
    rows = torch.cat((task.train, task.validation)).sort().values
    targets = distillation.build_cache(network, task, work.device, rows, unfinished(recipe))
    with leaving(recipe, work, network.cpu(), [history]) as folder:
        path = folder / "soft_targets.npy"
        write_array(path, targets)
        described = {"teacher": recipe.digest, "views": len(targets), "sha256": sha256(path)}
        write_json(folder / "soft_targets.json", described)


def train_student(recipe: Recipe, work: Work) -> None:
    """A ResNet-14 from random weights or from its parent's."""
    network, history = fit(prepare(recipe, work)[0], recipe, work)
    keep(recipe, work, network, [history])


def train_compressed(recipe: Recipe, work: Work) -> None:
    """The parent's network made sparse, pruned, recalibrated and fine-tuned."""
    histories = []
    parent = Store(work.profile).made_by(recipe.parent).network()
    work.phases["distilled"] = correct(parent, recipe, work)
    work.norms["before"] = pruning.group_norms(parent)
    if recipe.sparse.epochs:
        prune(parent, recipe, work, "_without_sparse_learning")
    network, phase = prepare(recipe, work)
    if phase == SPARSE:
        network, history = fit(network, recipe, work, SPARSE)
        histories.append(history)
        work.phases["sparse"] = correct(network, recipe, work)
        work.norms["after"] = pruning.group_norms(network)
        network = prune(network, recipe, work)
    network, history = fit(network, recipe, work, FINE)
    histories.append(history)
    work.phases["fine_tuned"] = correct(network, recipe, work)
    keep(recipe, work, network, histories)


def keep(recipe: Recipe, work: Work, network: nn.Module, histories: list[History]) -> None:
    """The run's folder, with what the row keeps of the network."""
    images = recipe.task(work.data).held_out[0]
    kept = catalogue.EXPERIMENTS[recipe.stage].keep
    with leaving(recipe, work, network, histories) as folder:
        inside = folder if "weights" in kept else cache(recipe)
        networks.save(network, inside / "model.safetensors")
        if "classes" in kept:
            classes = training.predict(network, images).numpy().astype(np.uint8)
            write_array(folder / "validation_classes.npy", classes)
        if work.norms and "group_norms" in kept:
            write_json(folder / "group_norms.json", work.norms)


@contextmanager
def leaving(
    recipe: Recipe, work: Work, network: nn.Module, histories: list[History]
) -> Iterator[Path]:
    """The new run's folder with the files that every run has."""
    rows = [row for history in histories for row in history.epochs]
    wall = time.monotonic() - work.started + sum(history.earlier for history in histories)
    processor = time.process_time() - work.processor
    processor += sum(history.earlier_processor for history in histories)
    metrics = {
        "val_correct": correct(network, recipe, work),
        "val_total": len(recipe.task(work.data).validation),
        "test_correct": None,
        "test_total": None,
        "parameters": networks.count_parameters(network),
        "wall_s": round(wall, 1),
        "processor_s": round(processor, 1),
    }
    if work.phases:
        metrics["phases"] = work.phases
    with store.new_folder(recipe, work.profile, work.own) as folder:
        numbered = [row | {"epoch": number} for number, row in enumerate(rows, start=1)]
        write_csv(folder / "history.csv", HISTORY, numbered)
        write_csv(folder / "steps.csv", STEPS, histories[0].steps)
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "environment.json", machines(histories, work.device))
        yield folder


def machines(histories: list[History], device: torch.device) -> dict:
    """The environment of the first step, with those that trained on or finish the run now."""
    told = History()
    done = 0
    for history in histories:
        for machine in history.machines:
            told.goes_on(done + machine["epochs_done"], machine["environment"])
        done += len(history.epochs)
    told.goes_on(done, environment.environment(device))
    first, *later = told.machines
    return first["environment"] | ({"resumed": later} if later else {})
