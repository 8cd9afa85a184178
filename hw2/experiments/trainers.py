"""From a recipe to a finished run's folder: the training of a teacher, of a student, and the compression of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hw2 import distillation, networks, pruning, training
from hw2.data import fashion_mnist
from hw2.experiments import recipes
from hw2.experiments import store as runs
from hw2.experiments.recipes import Recipe
from hw2.experiments.store import Run
from hw2.files import write_array

#: What a student's run holds of its network: `weights`; `logits` or `classes` that it gives the validation images.
#: Weights that are not among it stay in the cache of where it was trained.
Keep = tuple[str, ...]


def _held_out(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """The recipe's validation images and their labels."""
    data = fashion_mnist()
    rows = training.parts(data, recipe.images, recipe.validation)[1]
    return data.train_images[rows], data.train_labels[rows]


def _correct(network: nn.Module, recipe: Recipe) -> int:
    return training.validate(network, *_held_out(recipe))[1]


class Clock:
    """Seconds of the clock and of the processor since it was made."""

    def __init__(self):
        self.started, self.processor = time.monotonic(), time.process_time()

    def metrics(self, histories: list[training.History]) -> dict:
        """With what interrupted runs had spent before."""
        wall = time.monotonic() - self.started + sum(one.earlier for one in histories)
        processor = time.process_time() - self.processor + sum(one.earlier_processor for one in histories)
        return {"wall_s": round(wall, 1), "processor_s": round(processor, 1)}


def _metrics(network: nn.Module, recipe: Recipe, clock: Clock, device: torch.device, *histories) -> dict:
    return {
        "val_correct": _correct(network, recipe),
        "val_total": len(_held_out(recipe)[1]),
        "test_correct": None,
        "test_total": None,
        "parameters": networks.count_parameters(network),
        **clock.metrics(histories),
        "peak_memory_bytes": runs.peak_memory(device),
    }


@dataclass(frozen=True)
class Start:
    """What a recipe's first training begins with: `training.fit` gets it in the run and in its replay alike."""

    network: nn.Module
    numbers: recipes.Fit
    label: str
    more: dict


def prepare(
    recipe: Recipe,
    where: torch.device,
    origin: Run | None = None,
    parent: Run | None = None,
    judge: Callable[[str, nn.Module], None] = lambda phase, network: None,
) -> Start:
    """`origin` is the run of the recipe's teacher, `parent` that of the network to be pruned.

    `judge` is told the phases of a compression that come before its first training.
    """
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, recipes.TeacherRecipe):
        network, layout = networks.teacher(recipe.stem), {"channels_last": recipe.stem == "stride1"}
        return Start(network, recipe.fit, "teacher", layout)
    more = {"objective": objective(recipe, origin, where), "view_count": recipe.views}
    if not isinstance(recipe, recipes.CompressedRecipe):
        return Start(networks.ResNet14(recipe.widths or networks.WIDTHS), recipe.fit, recipe.stage, more)
    network = parent.network()
    if recipe.sparse.epochs:
        return Start(network, recipe.sparse, "sparse", more | sparse_learning(network, recipe))
    network = pruning.prune(network, recipe.ratio)
    judge("pruned", network)
    pruning.recalibrate(network, calibration(recipe))
    judge("recalibrated", network)
    return Start(network, recipe.fit, "fine-tuning", more)


def fit(start: Start, recipe: Recipe, device: torch.device, **more) -> tuple[nn.Module, training.History]:
    """`training.fit` with what every stage passes alike; checkpoints go into the recipe's cache unless `more` says."""
    data = fashion_mnist()
    train, validation = training.parts(data, recipe.images, recipe.validation)
    common = {"checkpoint": runs.cache(recipe) / f"{start.label}.pt", "environment": runs.environment(device)}
    return training.fit(
        start.network,
        data,
        train,
        validation,
        start.numbers,
        seed=recipe.seed,
        pad=recipe.pad,
        view_seed=recipe.view_seed,
        device=device,
        label=start.label,
        **common | start.more | more,
    )


def objective(recipe: recipes.StudentRecipe, origin: Run | None, where: torch.device) -> training.Objective | None:
    """The recipe's loss; None is the cross-entropy alone. `origin` is the run of the recipe's teacher.

    The ResNet-50's soft targets are cached; any other teacher is asked about every batch.
    """
    if recipe.teacher is None:
        return None
    if origin.recipe["stage"] == "teacher":
        cache = origin.soft_targets.to(where)
        return distillation.cached_objective(cache, recipe.temperature, recipe.alpha, recipe.loss, recipe.targets)
    network, images = origin.network().to(where).eval(), fashion_mnist().train_images.to(where)
    return distillation.live_objective(network, images, recipe.temperature, recipe.alpha, recipe.pad, recipe.view_seed)


def teacher(recipe: recipes.TeacherRecipe, name: str, where: torch.device, weights: Path | None = None) -> None:
    """The ResNet-50, and its soft targets for every view; `weights` is the course's file, in place of training."""
    clock, data = Clock(), fashion_mnist()
    if recipe.weights:
        network, history = networks.load_course_teacher(weights), training.History()
    else:
        network, history = fit(prepare(recipe, where), recipe, where)
    cached = runs.cache(recipe)
    cached.mkdir(parents=True, exist_ok=True)
    networks.save(network, cached / "model.safetensors")
    network.to(where)
    rows = torch.cat(list(training.parts(data, recipe.images, recipe.validation))).sort().values
    targets = distillation.build_cache(
        network, data.train_images.to(where), rows, recipe.views, recipe.pad, recipe.view_seed, cached
    )
    with runs.new_folder(recipe, name) as folder:
        runs.write_training(folder, history, _metrics(network.cpu(), recipe, clock, where, history), where)
        write_array(folder / "soft_targets.npy", targets)
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


def student(
    recipe: recipes.StudentRecipe, name: str, where: torch.device, origin: Run | None, keep: Keep = ("weights",)
) -> None:
    """A ResNet-14 of the recipe's widths; `origin` is its teacher's run, `keep` as in `_finish`."""
    clock = Clock()
    network, history = fit(prepare(recipe, where, origin), recipe, where)
    _finish(recipe, name, network, history, _metrics(network, recipe, clock, where, history), where, keep)


def sparse_learning(network: networks.ResNet14, recipe: recipes.CompressedRecipe) -> dict:
    """What `fit` must be given to train with the recipe's regulariser."""
    return pruning.sparse_learning(network, recipe.ratio, recipe.reg)


def calibration(recipe: recipes.CompressedRecipe) -> torch.Tensor:
    """The training images on which BatchNorm's statistics are measured again."""
    data = fashion_mnist()
    return data.train_images[training.parts(data, recipe.images, recipe.validation)[0][: recipe.recalibration]]


def compressed(
    recipe: recipes.CompressedRecipe,
    name: str,
    where: torch.device,
    origin: Run | None,
    parent: Run,
    keep: Keep = ("weights",),
) -> None:
    """`parent`'s network made sparse, pruned, recalibrated, fine-tuned; metrics.json counts correct after each phase.

    Where sparse learning has no epochs it is left out.
    """
    clock, images, phases, histories = Clock(), calibration(recipe), {}, []

    def judge(phase: str, network: nn.Module) -> None:
        phases[phase] = _correct(network, recipe)

    def train(start: Start) -> nn.Module:
        network, history = fit(start, recipe, where)
        histories.append(history)
        return network

    def prune(network: networks.ResNet14, suffix: str = "") -> networks.ResNet14:
        pruned = pruning.prune(network, recipe.ratio)
        judge(f"pruned{suffix}", pruned)
        pruning.recalibrate(pruned, images)
        judge(f"recalibrated{suffix}", pruned)
        return pruned

    network = parent.network()
    judge("distilled", network)
    norms = {"before": pruning.group_norms(network)}
    if recipe.sparse.epochs:
        prune(network, "_without_sparse_learning")
    start = prepare(recipe, where, origin, parent, judge)
    if recipe.sparse.epochs:
        network = train(start)
        judge("sparse", network)
        norms["after"] = pruning.group_norms(network)
        network = prune(network)
        taught = {name: start.more[name] for name in ("objective", "view_count")}
        start = Start(network, recipe.fit, "fine-tuning", taught)
    network = train(start)
    judge("fine_tuned", network)

    first = histories[0]
    history = training.History(steps=first.steps, environment=first.environment)
    for row in (row for one in histories for row in one.epochs):
        history.epochs.append(row | {"epoch": len(history.epochs) + 1})
    metrics = _metrics(network, recipe, clock, where, *histories) | {"phases": phases}
    _finish(recipe, name, network, history, metrics, where, keep, norms)


def _finish(
    recipe: recipes.StudentRecipe,
    name: str,
    network: nn.Module,
    history: training.History,
    metrics: dict,
    where: torch.device,
    keep: Keep,
    norms: dict | None = None,
) -> None:
    """The run's folder."""
    images, _ = _held_out(recipe)
    with runs.new_folder(recipe, name) as folder:
        networks.save(network, (folder if "weights" in keep else runs.cache(recipe)) / "model.safetensors")
        if "logits" in keep:
            logits = training.logits_of(network, images)
            # Less the largest of each image, or float16 would make equals of near ties.
            logits = (logits - logits.amax(1, keepdim=True)).half()
            write_array(folder / "validation_logits.npy", logits.numpy())
        if "classes" in keep:
            classes = training.predict(network, images).numpy().astype(np.uint8)
            write_array(folder / "validation_classes.npy", classes)
        if norms:
            runs.write_json(folder / "group_norms.json", norms)
        runs.write_training(folder, history, metrics, where)
