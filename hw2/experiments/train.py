"""From a recipe to a finished run's folder: preparation (replay's too), training, and `obtain`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hw2 import data, distillation, networks, pruning, training
from hw2.data import FashionMNIST
from hw2.errors import Bar, InputError
from hw2.experiments import catalogue, environment, plan, search, store
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.recipes import CompressedRecipe, Recipe, StudentRecipe, TeacherRecipe
from hw2.experiments.run import HISTORY, STEPS, Run, cache
from hw2.experiments.store import Store
from hw2.files import sha256, write_array, write_csv, write_json
from hw2.training import History, Options

SPARSE, FINE = "sparse learning", "fine-tuning"  # phases in which a compression trains


@dataclass
class Work:
    """What a training needs besides its recipe. `started` and `processor` are read when it is made."""

    profile: str
    device: torch.device
    data: FashionMNIST
    own: bool = False  # whether the recipe is not the catalogue's
    phases: dict[str, int] = field(default_factory=dict)  # of a compression: validation images right after each
    norms: dict[str, list] = field(default_factory=dict)  # before and after sparse learning
    started: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)


def layout(recipe: Recipe) -> torch.memory_format:
    return torch.contiguous_format if getattr(recipe, "stem", "") == "imagenet" else torch.channels_last


def prune(network: nn.Module, recipe: CompressedRecipe, work: Work, suffix: str = "") -> nn.Module:
    """Pruned, then recalibrated on the recipe's training images; both are phases."""
    pruned = pruning.prune(network, recipe.ratio)
    work.phases[f"pruned{suffix}"] = correct(pruned, recipe, work)
    pruning.recalibrate(pruned, work.data.train_images[recipe.task(work.data).train[: recipe.recalibration]])
    work.phases[f"recalibrated{suffix}"] = correct(pruned, recipe, work)
    return pruned


def prepare(recipe: Recipe, work: Work) -> tuple[nn.Module, str]:
    """The first network and, of a compression, the phase that begins with it; without sparse learning it is pruned."""
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, TeacherRecipe):
        return networks.teacher(recipe.stem), ""
    if not isinstance(recipe, CompressedRecipe):
        return networks.ResNet14(recipe.widths or networks.WIDTHS), ""
    network = Store(work.profile).made_by(recipe.parent).network()
    return (network, SPARSE) if recipe.sparse.epochs else (prune(network, recipe, work), FINE)


def fit(network: nn.Module, recipe: Recipe, work: Work, phase: str = "", **fields) -> tuple[nn.Module, History]:
    """`training.fit` by the recipe, in the run and in its replay alike; `fields` are options.

    Checkpoints go into the recipe's cache, replay's nowhere.
    """
    numbers, objective = recipe.fit, training.cross_entropy
    if phase == SPARSE:
        numbers, fields = recipe.sparse, fields | pruning.sparse_learning(network, recipe.ratio, recipe.reg)
    if getattr(recipe, "teacher", None):
        settings = recipe.temperature, recipe.alpha, recipe.loss, recipe.targets
        objective = distillation.cached_objective(soft_targets(recipe, work).to(work.device), *settings)
    label = f"{recipe.stage}, seed {recipe.seed}" + (f", {phase}" if phase else "")
    fields |= {"channels_last": layout(recipe) == torch.channels_last}
    options = Options(label, environment=environment.environment(work.device), **fields)
    checkpoint = None if options.first_steps else cache(recipe) / f"{(phase or recipe.stage).replace(' ', '-')}.pt"
    arguments = {"seed": recipe.seed, "objective": objective, "options": options, "device": work.device}
    return training.fit(network, numbers, recipe.task(work.data), checkpoint=checkpoint, **arguments)


def soft_targets(recipe: StudentRecipe, work: Work) -> torch.Tensor:
    """The logits that a student learns from, float16 (views, 60000, 10): of the teacher's views.

    A ResNet-50's are in its run. Those of a student that teaches are computed from its weights, and kept in the cache.
    """
    run = Store(work.profile).made_by(recipe.teacher)
    other = [name for name in ("pad", "views", "view_seed") if getattr(recipe, name) != getattr(run.recipe, name)]
    if recipe.targets == "same view" and other:
        raise InputError(f"{recipe.stage}: its {other[0]} is not that of {run.name}, which knows no other view")
    return run.soft_targets if isinstance(run.recipe, TeacherRecipe) else answered(run, work)


def answered(run: Run, work: Work) -> torch.Tensor:
    """A student's logits for every view of its own, in the file's order, float16 (views, 60000, 10)."""
    recipe = run.recipe
    if recipe.views == 0:
        raise InputError(f"{run.name} took a new view every epoch: it has no views of its own to teach from")
    rows = torch.cat(work.data.split).sort().values
    views = recipe.views, recipe.pad, recipe.view_seed
    folder = data.PROJECT / "cache" / f"answers-{sha256(run.weights)[:16]}"
    with store.lock(recipe):  # one process computes what others wait for
        network, images = run.network().to(work.device), work.data.train_images.to(work.device)
        return torch.from_numpy(distillation.build_cache(network, images, rows, *views, folder))


@contextmanager
def leaving(recipe: Recipe, work: Work, network: nn.Module, histories: list[History]) -> Iterator[Path]:
    """The new run's folder with the files that every run has.

    Its seconds include those of interrupted processes. The environment is that of the first step, with those of other
    processes that trained it on or finish it now.
    """
    rows, first = [row for history in histories for row in history.epochs], histories[0]
    machines = History(environment=first.environment or environment.environment(work.device))
    done = 0
    for history in histories:
        machines.went_on(done, history.environment or machines.environment)
        for later in history.resumed:
            machines.went_on(done + later["epochs_done"], later["environment"])
        done += len(history.epochs)
    machines.went_on(done, environment.environment(work.device))
    wall = time.monotonic() - work.started + sum(history.earlier for history in histories)
    processor = time.process_time() - work.processor + sum(history.earlier_processor for history in histories)
    metrics = {
        "val_correct": correct(network, recipe, work),
        "val_total": len(recipe.task(work.data).validation),
        "test_correct": None,
        "test_total": None,
        "parameters": networks.count_parameters(network),
        "wall_s": round(wall, 1),
        "processor_s": round(processor, 1),
        "peak_memory_bytes": environment.peak_memory(work.device),
    }
    with store.new_folder(recipe, work.profile, work.own) as folder:
        write_csv(folder / "history.csv", HISTORY, [row | {"epoch": number} for number, row in enumerate(rows, 1)])
        write_csv(folder / "steps.csv", STEPS, first.steps)
        write_json(folder / "metrics.json", metrics | ({"phases": work.phases} if work.phases else {}))
        later = {"resumed": machines.resumed} if machines.resumed else {}
        write_json(folder / "environment.json", machines.environment | later)
        yield folder


def correct(network: nn.Module, recipe: Recipe, work: Work) -> int:
    """How many of the recipe's validation images."""
    return training.validate(network, *recipe.task(work.data).held_out)[1]


def train_teacher(recipe: TeacherRecipe, work: Work, file: Path | None) -> None:
    """The ResNet-50, or the course's in `file`, and its soft targets for every view."""
    if recipe.weights:
        network, history = networks.load_course_teacher(file), History()
    else:
        network, history = fit(prepare(recipe, work)[0], recipe, work)
    networks.save(network, cache(recipe) / "model.safetensors")
    task = recipe.task(work.data)
    images, rows = work.data.train_images.to(work.device), torch.cat([task.train, task.validation]).sort().values
    views = recipe.views, recipe.pad, recipe.view_seed
    targets = distillation.build_cache(network.to(work.device), images, rows, *views, cache(recipe))
    with leaving(recipe, work, network.cpu(), [history]) as folder:
        write_array(folder / "soft_targets.npy", targets)
        described = {"teacher": recipe.digest, "pad": recipe.pad, "view_seed": recipe.view_seed, "views": recipe.views}
        write_json(folder / "soft_targets.json", described | {"sha256": sha256(folder / "soft_targets.npy")})


def train_student(recipe: StudentRecipe, work: Work) -> None:
    """A ResNet-14, or a compressed one: the parent's made sparse, pruned, recalibrated and fine-tuned."""
    if not isinstance(recipe, CompressedRecipe):
        network, history = fit(prepare(recipe, work)[0], recipe, work)
        keep(recipe, work, network, [history])
        return
    network, histories = Store(work.profile).made_by(recipe.parent).network(), []
    work.phases["distilled"] = correct(network, recipe, work)
    work.norms["before"] = pruning.group_norms(network)
    if recipe.sparse.epochs:
        prune(network, recipe, work, "_without_sparse_learning")
    network, phase = prepare(recipe, work)
    if phase == SPARSE:
        network, history = fit(network, recipe, work, phase)
        histories.append(history)
        work.phases["sparse"] = correct(network, recipe, work)
        work.norms["after"] = pruning.group_norms(network)
        network = prune(network, recipe, work)
    network, history = fit(network, recipe, work, FINE)
    work.phases["fine_tuned"] = correct(network, recipe, work)
    keep(recipe, work, network, [*histories, history])


def keep(recipe: StudentRecipe, work: Work, network: nn.Module, histories: list[History]) -> None:
    """The run's folder, with what the row keeps of the network."""
    (images, _), kept = recipe.task(work.data).held_out, EXPERIMENTS[recipe.stage].keep
    with leaving(recipe, work, network, histories) as folder:
        inside = folder if "weights" in kept else cache(recipe)
        networks.save(network, inside / "model.safetensors")
        if "logits" in kept:
            logits = training.logits_of(network, images)
            # Less the largest of each image, or float16 would make equals of near ties.
            write_array(folder / "validation_logits.npy", (logits - logits.amax(1, keepdim=True)).half().numpy())
        if "classes" in kept:
            write_array(folder / "validation_classes.npy", training.predict(network, images).numpy().astype(np.uint8))
        if work.norms and "group_norms" in kept:
            write_json(folder / "group_norms.json", work.norms)


def _check_checkpoints(recipe: Recipe, replace: bool) -> None:
    """`InputError` where another state of the code left checkpoints of this recipe; with `replace` they go."""
    for path in sorted(cache(recipe).glob("*.pt")):
        try:
            recorded = torch.load(path, map_location="cpu", weights_only=True)["history"]["environment"]
            reason = f"is from commit {recorded['commit']}, whose hw2/ differs"
            if recorded["code"] == environment.code():
                continue
        except Exception:  # torch raises whatever its unpickler met
            reason = "is damaged, or older than this code"
        if not replace:
            todo = "check out that commit to go on, or begin again by --replace"
            raise InputError(f"{path}: this checkpoint {reason}; {todo}")
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

    Where that takes more than minutes, a line on standard error says so before. `name` is a row of
    `catalogue.EXPERIMENTS`. `replace` allows to train in the place of another recipe's run; without it such a folder is
    an `InputError` that names the field. `weights` is the course's resnet-50.pth, for the teacher. `change` gives
    fields of the recipe other values, such as `temperature=3.0` or `**{"fit.epochs": 2}`. That run goes to own/, which
    git ignores.
    """
    known, torch_device = Store(profile), environment.pick_device(device)
    # Wrong values and a bad file are told before anything is trained.
    sketch = catalogue.changed(catalogue.Recipes(known.profile).recipe(name, seed), change)
    if weights and not Path(weights).is_file():
        raise InputError(f"{weights}: no such file; expected the course's resnet-50.pth")
    if weights:
        networks.load_course_teacher(weights)
    todo = [task for task in plan.before(name, seed, known) if not plan.finished(*task, known)]
    if todo:
        plan.announce([*todo, (name, seed)], known.profile, sketch)
    with Bar(total=len(todo) + 1, desc=f"runs for {name}, seed {seed}", unit="run", disable=not todo) as bar:
        for task in todo:
            if task == plan.SEARCH:
                search.obtain_trials(known.profile, device)
            else:
                _obtain(*task, Store(known.profile), torch_device)
            bar.update()
        known = Store(known.profile, sha256(Path(weights)) if weights else None)
        return _obtain(name, seed, known, torch_device, replace, weights, change, alone=not todo)


def _obtain(
    name: str, seed: int, known: Store, device: torch.device, replace=False, weights=None, change=None, alone=False
) -> Run:
    """`obtain` of a run whose needs are finished; where it is trained `alone`, the time that this takes is told."""
    usual = known.recipe(name, seed)
    recipe = catalogue.changed(usual, change or {})
    own = recipe != usual
    with store.lock(recipe):  # of two processes that want it, one trains
        if not (run := known.find(recipe, own)):
            store.check_replaced(known.place(recipe, own), recipe, replace)
            environment.check_code(known.profile)
            _check_checkpoints(recipe, replace or known.profile == "smoke")
            if recipe.fit.precision == "bfloat16" and environment.lacks_bfloat16(device):
                print("hw2: this processor has no bfloat16: training takes about 15 times as long", file=sys.stderr)
            if alone:
                plan.announce([(name, seed)], known.profile, recipe)
            work = Work(known.profile, device, data.fashion_mnist(), own)
            train_teacher(recipe, work, weights) if isinstance(recipe, TeacherRecipe) else train_student(recipe, work)
            _clear(recipe)
            run = known.find(recipe, own)
    return run
