"""Is a run what its recipe makes? Its first steps are trained again, its committed weights evaluated again.

What replay proves: data, recipe and code give the recorded first losses and learning rates, and the weights give the
recorded counts and the last epoch's loss. What it does not: the steps after these, and the teacher's weights, which are
not committed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from hw2 import data as source
from hw2 import training
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import environment, ledger, store, train
from hw2.experiments.recipes import CompressedRecipe, Recipe, TeacherRecipe
from hw2.experiments.run import Run
from hw2.files import read_csv

#: Relative difference of a loss that may be rounding: at the first step, the factor at each further one, and the most.
#: Measured against losses recorded with two threads on another machine, trained again with one thread: students 2e-6 at
#: the first step and 1e-3 at the twentieth; the ResNet-50 nothing at the first, 1e-3 at the seventh, 2.5e-2 at most.
FIRST, GROWTH, MOST = 5e-5, {"student": 1.3, "teacher": 2.0}, 0.05
#: Relative difference of the last epoch's validation loss that may be rounding, by the device that recorded it.
#: Measured for a CPU: 1e-7 where weights are evaluated again, 2e-5 where logits were kept in float16. GPUs round more.
LAST = {"cpu": 1e-4, "cuda": 1e-3}


def tolerance(step: int, kind: str) -> float:
    """Relative tolerance of the loss at `step` (from 0): rounding grows in training. `kind`: student or teacher."""
    return min(FIRST * GROWTH[kind] ** step, MOST)


def named(names: list[str], profile: str) -> list[Run]:
    """The runs of these names, such as plain/full-s0."""
    known = {run.name: run for run in store.every(profile)}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"run {unknown[0]!r}: expected one under runs/, such as {next(iter(known), 'plain/full-s0')}")
    return [known[name] for name in names]


def chain(profile: str) -> list[Run]:
    """The delivered network's: teacher, distilled, compressed."""
    last = store.delivered(profile)
    parent = store.made_by(last.recipe.parent, profile)
    return [store.made_by(parent.recipe.teacher, profile), parent, last]


def unchecked(run: Run, device: torch.device) -> str:
    """Which checks this machine cannot make, in words, or nothing."""
    if run.recipe.fit.precision == "bfloat16" and environment.lacks_bfloat16(device):
        return "first steps not checked: bfloat16 needs hardware that this processor lacks"
    return ""


def first_losses(run: Run, device: torch.device, fashion: FashionMNIST, steps: int) -> list[float]:
    """The losses of the first steps, trained again with as many threads as recorded."""
    work = train.Work(run.profile, device, fashion)
    with environment.threads(run.environment["threads"]):
        start = train.prepare(run.recipe, work)
        history = train.fit(start, run.recipe, work, first_steps=steps)[1]
    return [row["loss"] for row in history.steps]


def replay(
    run: Run, device: torch.device, fashion: FashionMNIST | None = None, steps: int = training.STEPS_KEPT
) -> list[str]:
    """A line for each thing that is not as recorded: recipe, losses of the first `steps`, learning rates, counts.

    `unchecked` tells where the losses are left out.
    """
    fashion, problems = fashion or source.fashion_mnist(), []
    kind = "teacher" if isinstance(run.recipe, TeacherRecipe) else "student"
    recorded = read_csv(run.folder / "steps.csv", ("step", "loss")).loss.tolist()[:steps]
    losses = recorded if unchecked(run, device) else first_losses(run, device, fashion, steps)
    if len(recorded) != len(losses):
        problems.append(f"steps.csv has {len(recorded)} steps, {len(losses)} were trained")
    for step, (then, now) in enumerate(zip(recorded, losses, strict=False)):
        if not abs(then - now) <= tolerance(step, kind) * max(abs(now), 1e-3):
            problems.append(f"the loss of step {step} is recorded as {then:.6f}, trained again it is {now:.6f}")
            break
    rates, recorded = _rates(run.recipe, fashion), run.history.lr.tolist()
    if len(recorded) != len(rates) or not all(map(math.isclose, recorded, rates)):
        problems.append("the epochs and learning rates of history.csv are not those of recipe.json")
    return problems + _evaluate(run, fashion)


def _rates(recipe: Recipe, fashion: FashionMNIST) -> list[float]:
    """The learning rate at the end of each epoch."""
    fits = [recipe.sparse, recipe.fit] if isinstance(recipe, CompressedRecipe) else [recipe.fit]
    images, rates = len(recipe.task(fashion).train), []
    for fit in fits:
        each = math.ceil(images / fit.batch)
        ends = range(each, fit.epochs * each + 1, each)
        rates += [training.learning_rate(fit, end - 1, fit.epochs * each) for end in ends]
    return rates


def _evaluate(run: Run, fashion: FashionMNIST) -> list[str]:
    """What the run's weights and answers say against metrics.json and the last epoch of history.csv."""
    metrics, problems, labels = run.metrics, [], run.recipe.task(fashion).held_out[1]
    last = None if run.history.empty else run.history.iloc[-1]  # the course's teacher was not trained here
    rounding = LAST[run.environment["device"]]
    for right, slack, loss in _answers(run, fashion):
        if abs(right - metrics["val_correct"]) > slack:
            problems.append(f"{right} validation images are right, metrics.json says {metrics['val_correct']}")
        told = loss if last is None or loss is None else last.val_loss
        if loss is not None and not math.isclose(told, loss, rel_tol=rounding, abs_tol=1e-5):
            problems.append(f"the last loss of history.csv is {told:.6f}, evaluated it is {loss:.6f}")
    if last is not None and abs(last.val_accuracy - metrics["val_correct"] / metrics["val_total"]) > 2 / len(labels):
        problems.append("the last epoch of history.csv is not the accuracy of metrics.json")
    if run.test_accuracy is not None and (run.folder / "model.safetensors").is_file():
        classes = ledger.answers(run, fashion)
        if not classes.equal(training.predict(run.network(), fashion.test_images)):
            problems.append(f"{ledger.ANSWERS} is not what the weights predict")
        if (correct := _right(classes, fashion.test_labels)) != metrics["test_correct"]:
            problems.append(f"{correct} test images are right, metrics.json says {metrics['test_correct']}")
    return problems


def _answers(run: Run, fashion: FashionMNIST) -> list[tuple[int, int, float | None]]:
    """For each thing that was kept: validation images right, how many of them rounding may have moved, the loss."""
    task, found = run.recipe.task(fashion), []
    images, labels = task.held_out
    if (run.folder / "validation_logits.npy").is_file():
        logits = run.validation_logits.double()
        near = int((training.margins(logits) < training.NEAR).sum())  # these were settled in float64
        found.append((_right(logits.argmax(1), labels), near, _loss(logits, labels)))
    if (run.folder / "validation_classes.npy").is_file():
        found.append((_right(run.validation_classes, labels), 0, None))
    if (run.folder / "model.safetensors").is_file():
        loss, right = training.validate(run.network(), images, labels)
        found.append((right, 0, loss))
    if not found:
        logits = run.soft_targets[0][task.validation].double()
        ties = int((training.margins(logits) == 0).sum())  # float16 makes equals of near ones, changes no other order
        found.append((_right(logits.argmax(1), labels), ties, _loss(logits, labels)))
    return found


def _right(classes: Tensor, labels: Tensor) -> int:
    return int((classes == labels).sum())


def _loss(logits: Tensor, labels: Tensor) -> float:
    return functional.cross_entropy(logits, labels).item()
