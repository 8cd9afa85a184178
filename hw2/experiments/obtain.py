"""`obtain`: the finished run of an experiment, loaded, or trained where there is none."""

import shutil
import sys
from pathlib import Path

import torch

from hw2 import data, networks
from hw2.errors import InputError
from hw2.experiments import catalogue, compose, environment, plan, search, store, train
from hw2.experiments.run import Run, cache
from hw2.experiments.store import Store
from hw2.files import sha256


def obtain(
    name: str,
    seed: int | None = None,
    *,
    profile: str | None = None,
    device: str = "auto",
    replace: bool = False,
    weights: Path | str | None = None,
    **change,
) -> Run:
    """The finished run of an experiment, trained where there is none, after what it needs.

    `name` is a row of `catalogue.EXPERIMENTS`, `seed` by default its first. `replace` allows to
    train in the place of another recipe's run; without it such a folder is an `InputError` that
    names the field. `weights` is the course's resnet-50.pth, for the teacher. `change` gives fields
    of the recipe other values, such as `temperature=3.0`. That run goes to own/, which git ignores.
    What is about to be trained is told on standard error before.
    """
    known = Store(profile)
    torch_device = environment.pick_device(device)
    task = name, catalogue.seeds(name, known.profile)[0] if seed is None else seed
    # Wrong values and a bad file are told before anything is trained.
    compose.changed(compose.recipe(*task, known.profile, compose.NOTHING), change)
    file = course_file(weights) if weights else None
    known = Store(profile, file)
    needed = [need for need in plan.before(task, known.profile) if not plan.done(need, known)]
    if not needed:
        usual = known.recipe(*task)
        recipe = compose.changed(usual, change)
        if run := known.find(recipe, own=recipe != usual):
            return run
    print(plan.announcement([*needed, task], known), file=sys.stderr)
    for need in needed:
        if need == plan.SEARCH:
            search.obtain_trials(known.profile, device)
        else:
            _train(need, Store(known.profile), torch_device)
    return _train(task, Store(known.profile, file), torch_device, replace, weights, change)


def course_file(path: Path | str) -> str:
    """The SHA-256 of the course's teacher; `InputError` where the file is none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected the course's resnet-50.pth")
    networks.load_course_teacher(path)
    return sha256(Path(path))


def _train(
    task: plan.Task,
    known: Store,
    device: torch.device,
    replace: bool = False,
    weights: Path | str | None = None,
    change: dict | None = None,
) -> Run:
    """Train a run whose needs are finished, unless another process did so meanwhile."""
    usual = known.recipe(*task)
    recipe = compose.changed(usual, change or {})
    own = recipe != usual
    with store.lock(recipe):
        if run := known.find(recipe, own):
            return run
        store.check_replaced(known.place(recipe, own), recipe, replace)
        environment.check_code(known.profile)
        if recipe.fit.precision == "bfloat16" and environment.lacks_bfloat16(device):
            slow = "this processor has no bfloat16: training takes 15 times as long"
            print(f"hw2: {slow}", file=sys.stderr)
        work = train.Work(known.profile, device, data.fashion_mnist(), own)
        if recipe.stem:
            train.train_teacher(recipe, work, weights)
        elif recipe.ratio is not None:
            train.train_compressed(recipe, work)
        else:
            train.train_student(recipe, work)
        for unfinished in cache(recipe).glob("*/"):
            shutil.rmtree(unfinished, ignore_errors=True)
        return Store(known.profile, known.file).find(recipe, own)  # as it is now
