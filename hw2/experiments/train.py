"""From a recipe to a finished run's folder: preparation (replay's too), training, and `obtain`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hw2 import data as source
from hw2 import distillation, networks, pruning, training
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import catalogue, environment, search, store
from hw2.experiments.profiles import check_profile
from hw2.experiments.recipes import CompressedRecipe, Recipe, StudentRecipe, TeacherRecipe
from hw2.experiments.run import HISTORY, Run, cache
from hw2.files import sha256, write_array, write_csv, write_json
from hw2.training import Fit, History, Options


@dataclass
class Work:
    """What a training needs besides its recipe; seconds are counted from when it is made."""

    profile: str
    device: torch.device
    data: FashionMNIST
    keep: tuple[str, ...] = ("weights",)
    own: bool = False  # whether the recipe is not the catalogue's
    started: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)


@dataclass(frozen=True)
class Start:
    """What a recipe's first training begins with, in the run and in its replay alike."""

    network: nn.Module
    numbers: Fit
    options: dict  # of `training.Options`
    objective: training.Objective | None = None


def objective(recipe: StudentRecipe, work: Work) -> training.Objective | None:
    """The recipe's loss; None is the cross-entropy alone."""
    if recipe.teacher is None:
        return None
    targets = store.made_by(recipe.teacher, work.profile).soft_targets.to(work.device)
    return distillation.cached_objective(targets, recipe.temperature, recipe.alpha, recipe.loss, recipe.targets)


def prune(network: nn.Module, recipe: CompressedRecipe, work: Work, judge: Callable, suffix: str = "") -> nn.Module:
    """Pruned, then recalibrated on the recipe's training images; `judge(phase, network)` is called after each."""
    pruned = pruning.prune(network, recipe.ratio)
    judge(f"pruned{suffix}", pruned)
    pruning.recalibrate(pruned, work.data.train_images[recipe.task(work.data).train[: recipe.recalibration]])
    judge(f"recalibrated{suffix}", pruned)
    return pruned


def prepare(recipe: Recipe, work: Work, judge: Callable[[str, nn.Module], None] = lambda *_: None) -> Start:
    """`judge` is told the phases of a compression that come before its first training."""
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, TeacherRecipe):
        channels_last = recipe.stem == "stride1"
        return Start(networks.teacher(recipe.stem), recipe.fit, {"label": "teacher", "channels_last": channels_last})
    loss, label = objective(recipe, work), f"{recipe.stage}, seed {recipe.seed}"
    if not isinstance(recipe, CompressedRecipe):
        return Start(networks.ResNet14(recipe.widths or networks.WIDTHS), recipe.fit, {"label": label}, loss)
    network = store.made_by(recipe.parent, work.profile).network()
    if recipe.sparse.epochs:
        hooks = pruning.sparse_learning(network, recipe.ratio, recipe.reg)
        return Start(network, recipe.sparse, {"label": f"{label}, sparse learning"} | hooks, loss)
    return Start(prune(network, recipe, work, judge), recipe.fit, {"label": f"{label}, fine-tuning"}, loss)


def fit(start: Start, recipe: Recipe, work: Work, **more) -> tuple[nn.Module, History]:
    """`training.fit` from there; `more` are options. Checkpoints go into the recipe's cache, replay's nowhere."""
    options = Options(environment=environment.environment(work.device), **start.options | more)
    name = options.label.rpartition(", ")[2].replace(" ", "-") if isinstance(recipe, CompressedRecipe) else recipe.stage
    return training.fit(
        start.network,
        start.numbers,
        recipe.task(work.data),
        seed=recipe.seed,
        objective=start.objective,
        options=options,
        device=work.device,
        checkpoint=None if options.first_steps else cache(recipe) / f"{name}.pt",
    )


def train(recipe: Recipe, work: Work, file: Path | None = None) -> None:
    """Train the recipe and leave its run's folder; `file` is the course's teacher, in place of training."""
    if isinstance(recipe, TeacherRecipe):
        _teacher(recipe, work, file)
    elif isinstance(recipe, CompressedRecipe):
        _compressed(recipe, work)
    else:
        network, history = fit(prepare(recipe, work), recipe, work)
        _finish(recipe, work, network, history, _metrics(network, recipe, work, [history]))


def _correct(network: nn.Module, recipe: Recipe, work: Work) -> int:
    return training.validate(network, *recipe.task(work.data).held_out)[1]


def _metrics(network: nn.Module, recipe: Recipe, work: Work, histories: list[History]) -> dict:
    """metrics.json; its seconds include those that interrupted processes had spent."""
    wall = time.monotonic() - work.started + sum(one.earlier for one in histories)
    processor = time.process_time() - work.processor + sum(one.earlier_processor for one in histories)
    return {
        "val_correct": _correct(network, recipe, work),
        "val_total": len(recipe.task(work.data).validation),
        "test_correct": None,
        "test_total": None,
        "parameters": networks.count_parameters(network),
        "wall_s": round(wall, 1),
        "processor_s": round(processor, 1),
        "peak_memory_bytes": environment.peak_memory(work.device),
    }


def _write_training(folder: Path, history: History, metrics: dict, device: torch.device) -> None:
    """history.csv, steps.csv, metrics.json and environment.json, the last as it was at the first step."""
    write_csv(folder / "history.csv", HISTORY, history.epochs)
    write_csv(folder / "steps.csv", ("step", "loss"), history.steps)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "environment.json", history.environment or environment.environment(device))


def _teacher(recipe: TeacherRecipe, work: Work, file: Path | None) -> None:
    """The ResNet-50, and its soft targets for every view."""
    if recipe.weights:
        network, history = networks.load_course_teacher(file), History()
    else:
        network, history = fit(prepare(recipe, work), recipe, work)
    networks.save(network, cache(recipe) / "model.safetensors")
    network.to(work.device)
    task = recipe.task(work.data)
    targets = distillation.build_cache(
        network, work.data.train_images.to(work.device), torch.cat([task.train, task.validation]).sort().values,
        recipe.views, recipe.pad, recipe.view_seed, cache(recipe),
    )  # fmt: skip
    with store.new_folder(recipe, work.profile, work.own) as folder:
        _write_training(folder, history, _metrics(network.cpu(), recipe, work, [history]), work.device)
        write_array(folder / "soft_targets.npy", targets)
        described = {"teacher": recipe.digest, "pad": recipe.pad, "view_seed": recipe.view_seed, "views": recipe.views}
        write_json(folder / "soft_targets.json", described | {"sha256": sha256(folder / "soft_targets.npy")})


def _compressed(recipe: CompressedRecipe, work: Work) -> None:
    """Make the parent's network sparse, prune, recalibrate and fine-tune it; count correct images after each phase."""
    phases, histories = {}, []

    def judge(phase: str, network: nn.Module) -> None:
        phases[phase] = _correct(network, recipe, work)

    def trained(start: Start) -> nn.Module:
        network, history = fit(start, recipe, work)
        histories.append(history)
        return network

    network = store.made_by(recipe.parent, work.profile).network()
    judge("distilled", network)
    norms = {"before": pruning.group_norms(network)}
    if recipe.sparse.epochs:
        prune(network, recipe, work, judge, "_without_sparse_learning")
    start = prepare(recipe, work, judge)
    if recipe.sparse.epochs:
        network = trained(start)
        judge("sparse", network)
        norms["after"] = pruning.group_norms(network)
        label = start.options["label"].replace("sparse learning", "fine-tuning")
        start = Start(prune(network, recipe, work, judge), recipe.fit, {"label": label}, start.objective)
    network = trained(start)
    judge("fine_tuned", network)

    history = History(steps=histories[0].steps, environment=histories[0].environment)
    for row in (row for one in histories for row in one.epochs):
        history.epochs.append(row | {"epoch": len(history.epochs) + 1})
    metrics = _metrics(network, recipe, work, histories) | {"phases": phases}
    _finish(recipe, work, network, history, metrics, norms)


def _finish(recipe: StudentRecipe, work: Work, network, history: History, metrics: dict, norms: dict | None = None):
    """The run's folder, with what the row keeps of the network."""
    images, _ = recipe.task(work.data).held_out
    with store.new_folder(recipe, work.profile, work.own) as folder:
        inside = folder if "weights" in work.keep else cache(recipe)
        networks.save(network, inside / "model.safetensors")
        if "logits" in work.keep:
            logits = training.logits_of(network, images)
            # Less the largest of each image, or float16 would make equals of near ties.
            logits = (logits - logits.amax(1, keepdim=True)).half()
            write_array(folder / "validation_logits.npy", logits.numpy())
        if "classes" in work.keep:
            write_array(folder / "validation_classes.npy", training.predict(network, images).numpy().astype(np.uint8))
        if norms and "group_norms" in work.keep:
            write_json(folder / "group_norms.json", norms)
        _write_training(folder, history, metrics, work.device)


def _check_checkpoints(recipe: Recipe, replace: bool) -> None:
    """`InputError` where another state of the code left checkpoints of this recipe; with `replace` they go."""
    for path in sorted(cache(recipe).glob("*.pt")):
        try:
            made = torch.load(path, map_location="cpu", weights_only=True)["history"]["environment"]
            told = f"was made by another state of hw2/ (commit {made['commit']})"
            if made["code"] == environment.code():
                continue
        except Exception:  # torch raises whatever its unpickler met
            told = "is damaged, or older than this code"
        if not replace:
            raise InputError(f"{path}: this checkpoint {told}; check that out to go on, or start afresh by --replace")
        _clear(recipe)


def _clear(recipe: Recipe) -> None:
    """Remove what only unfinished training needs; the lock and the teacher's weights stay."""
    for path in (*cache(recipe).glob("*.pt"), *cache(recipe).glob("view-*.npy")):
        path.unlink(missing_ok=True)


def obtain(
    name: str,
    seed: int = 0,
    *,
    profile: str | None = None,
    device: str = "auto",
    replace: bool = False,
    weights: Path | str | None = None,
    **change,
) -> Run:
    """The finished run of an experiment, trained where there is none, after what it needs.

    `name` is a row of `catalogue.EXPERIMENTS`. `replace` allows to train in the place of another recipe's run; without
    it such a folder is an `InputError` that names the field. `weights` is the course's resnet-50.pth, for the teacher.
    `change` gives fields of the recipe other values, such as `temperature=3.0` or `**{"fit.epochs": 2}`. That run goes
    to own/, which git ignores.
    """
    profile, row = check_profile(profile or store.default_profile()), catalogue.row(name)
    where = environment.pick_device(device)
    if weights and not Path(weights).is_file():
        raise InputError(f"{weights}: no such file; expected the course's resnet-50.pth")
    settings = store.Settings(profile, sha256(Path(weights)) if weights else None)
    if change:  # wrong values are told before anything is trained
        catalogue.changed(catalogue.recipe(name, profile, seed, catalogue.Unknown()), change)
    if weights:
        networks.load_course_teacher(weights)  # a bad file is told before anything else happens
    for needed in filter(None, (row.teacher, row.parent)):
        obtain(needed, seed if needed == row.parent else 0, profile=profile, device=device)
    if row.setting:
        obtain_setting(row.setting, profile, device)
    usual = catalogue.recipe(name, profile, seed, settings)
    recipe = catalogue.changed(usual, change)
    own = recipe != usual
    with store.lock(recipe):  # of two processes that want it, one trains
        if not (run := store.find(recipe, profile, own)):
            store.check_replaced(store.place(recipe, profile, own), recipe, replace)
            environment.check_code(profile)
            _check_checkpoints(recipe, replace or profile == "smoke")
            if recipe.fit.precision == "bfloat16" and environment.lacks_bfloat16(where):
                print("hw2: this processor has no bfloat16: training takes about 15 times as long", file=sys.stderr)
            train(recipe, Work(profile, where, source.fashion_mnist(), row.keep, own), weights)
            _clear(recipe)
            run = store.find(recipe, profile, own)
    return run


def obtain_setting(which: str, profile: str, device: str) -> None:
    """Search, and train finalists, as far as a row's setting needs them."""
    search.obtain_trials(profile, device)
    if "chosen" in (which, which == "study" and catalogue.setting_of_studies(profile)):
        for name in catalogue.names(profile, "finalists"):
            for seed in catalogue.seeds(name, profile):
                obtain(name, seed, profile=profile, device=device)
