"""From a recipe to a finished run's folder: the training of a teacher, of a student, and the compression of one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hw2 import distillation, networks, pruning, recipes, runs, training
from hw2.data import fashion_mnist
from hw2.files import write_array
from hw2.recipes import Recipe
from hw2.runs import Run

#: What a student's run holds of its network: `weights`; `logits` or `classes` that it gives the validation images.
#: Weights that are not among it stay in the cache of where it was trained.
Keep = tuple[str, ...]


def _held_out(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """The recipe's validation images and their labels."""
    data = fashion_mnist()
    rows = training.parts(data, recipe.images, recipe.validation)[1]
    return data.train_images[rows], data.train_labels[rows]


def _correct(network: nn.Module, recipe: Recipe) -> int:
    images, labels = _held_out(recipe)
    return int((training.predict(network, images) == labels).sum())


def _metrics(network: nn.Module, recipe: Recipe, started: float, device: torch.device, earlier: float) -> dict:
    return {
        "val_correct": _correct(network, recipe),
        "val_total": len(_held_out(recipe)[1]),
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
    started, data = time.monotonic(), fashion_mnist()
    if recipe.weights:
        network, history = networks.load_course_teacher(weights), training.History()
    else:
        torch.manual_seed(recipe.seed)
        network, history = fit(networks.teacher(recipe.stem), recipe, recipe.fit, where, "teacher",
                                channels_last=recipe.stem == "stride1")  # fmt: skip
    cached = runs.cache(recipe)
    cached.mkdir(parents=True, exist_ok=True)
    networks.save(network, cached / "model.safetensors")
    network.to(where)
    rows = torch.cat(list(training.parts(data, recipe.images, recipe.validation))).sort().values
    targets = distillation.build_cache(
        network, data.train_images.to(where), rows, recipe.views, recipe.pad, recipe.view_seed, cached
    )
    with runs.new_folder(recipe, name) as folder:
        runs.write_training(folder, history, _metrics(network.cpu(), recipe, started, where, history.earlier), where)
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
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    loss = objective(recipe, origin, where)
    network, history = fit(networks.ResNet14(recipe.widths or networks.WIDTHS), recipe, recipe.fit, where, recipe.stage,
                            objective=loss, view_count=recipe.views)  # fmt: skip
    _finish(recipe, name, network, history, _metrics(network, recipe, started, where, history.earlier), where, keep)


def sparse_learning(network: networks.ResNet14, recipe: recipes.CompressedRecipe) -> dict:
    """What `fit` must be given to train with the recipe's regulariser."""
    epochs = recipe.sparse.epochs if recipe.growing else None
    return pruning.sparse_learning(network, recipe.ratio, recipe.reg, epochs)


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

    Where sparse learning has no epochs it is left out. With several iterations sparse learning comes before each, and
    each removes an equal part of the ratio.
    """
    started = time.monotonic()
    loss = objective(recipe, origin, where)
    images = calibration(recipe)
    phases, histories = {}, []

    def judge(phase: str, network: nn.Module) -> None:
        phases[phase] = _correct(network, recipe)

    def sparse(network: networks.ResNet14) -> None:
        label = f"sparse-{len(histories)}" if histories else "sparse"
        more = sparse_learning(network, recipe)
        histories.append(
            fit(network, recipe, recipe.sparse, where, label, objective=loss, view_count=recipe.views, **more)[1]
        )

    def prune(network: networks.ResNet14, suffix: str = "", **more) -> networks.ResNet14:
        pruned = pruning.prune(network, recipe.ratio, **more)
        judge(f"pruned{suffix}", pruned)
        pruning.recalibrate(pruned, images)
        judge(f"recalibrated{suffix}", pruned)
        return pruned

    def between(narrower: networks.ResNet14) -> None:
        pruning.recalibrate(narrower, images)
        sparse(narrower)

    network = parent.network()
    judge("distilled", network)
    norms = {"before": pruning.group_norms(network)}
    if recipe.sparse.epochs:
        prune(network, "_without_sparse_learning")
        sparse(network)
        judge("sparse", network)
        norms["after"] = pruning.group_norms(network)
    pruned = prune(network, iterations=recipe.iterations, between=between)
    network, tuned = fit(pruned, recipe, recipe.fit, where, "fine-tuning", objective=loss, view_count=recipe.views)
    judge("fine_tuned", network)

    histories.append(tuned)
    history = training.History(steps=histories[0].steps, earlier=sum(one.earlier for one in histories))
    for row in (row for one in histories for row in one.epochs):
        history.epochs.append(row | {"epoch": len(history.epochs) + 1})
    metrics = _metrics(network, recipe, started, where, history.earlier) | {"phases": phases}
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
