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

from hw2 import training
from hw2.data import fashion_mnist
from hw2.errors import InputError
from hw2.experiments import recipes, stages, trainers
from hw2.experiments import store as runs
from hw2.experiments.store import Run

#: Relative difference of a loss that may be rounding: at the first step, the factor at each further one, and the most.
#: Measured against losses recorded with two threads on another machine, trained again with one thread: students 2e-6 at
#: the first step and 1e-3 at the twentieth; the ResNet-50 nothing at the first, 1e-3 at the seventh, 2.5e-2 at most.
FIRST, GROWTH, MOST = 5e-5, {"student": 1.3, "teacher": 2.0}, 0.05
#: Relative difference of the last epoch's validation loss that may be rounding, by the device that recorded it.
#: Measured for a CPU: 1e-7 where weights are evaluated again, 2e-5 where logits were kept in float16. GPUs round more.
LAST = {"cpu": 1e-4, "cuda": 1e-3}


def tolerance(step: int, kind: str) -> float:
    """Training multiplies rounding; `step` from 0, `kind` student or teacher."""
    return min(FIRST * GROWTH[kind] ** step, MOST)


def every() -> list[Run]:
    """All finished runs of the default profile's store."""
    found = runs.root(stages.default_profile()).glob("*/*-s*/recipe.json")
    return [Run(path.parent) for path in sorted(found) if not path.parent.name.startswith(".")]


def chain() -> list[Run]:
    """The delivered network's: teacher, distilled, compressed."""
    last = stages.delivered()
    parent = _made_by(last.recipe.get("parent"))
    return [_made_by(parent.recipe.get("teacher")), parent, last]


def _made_by(digest: str | None) -> Run:
    for run in every():
        if run.digest == digest:
            return run
    raise InputError(f"no run with the recipe {digest} is there; restore runs/ with `git checkout`")


def first_losses(run: Run, device: torch.device) -> list[float]:
    """The losses of the first steps, trained again with as many threads as recorded."""
    try:
        recipe = recipes.read(run.recipe)
    except InputError as error:
        raise InputError(f"{run.name}: {error}") from None
    with training.threads(run.environment["threads"]):
        return [row["loss"] for row in _train(recipe, device).steps]


def _train(recipe: recipes.Recipe, device: torch.device) -> training.History:
    origin = _made_by(recipe.teacher) if getattr(recipe, "teacher", None) else None
    parent = _made_by(recipe.parent) if isinstance(recipe, recipes.CompressedRecipe) else None
    start = trainers.prepare(recipe, device, origin, parent)
    return trainers.fit(start, recipe, device, checkpoint=None, first_steps=training.STEPS_KEPT)[1]


def unchecked(run: Run, device: torch.device) -> str:
    """What replay leaves out on this machine, in words, or nothing: that is neither as recorded nor not."""
    if run.recipe["fit"]["precision"] == "bfloat16" and runs.lacks_bfloat16(device):
        return "first steps not checked: bfloat16 needs hardware that this processor lacks"
    return ""


def replay(run: Run, device: torch.device) -> list[str]:
    """A line for each thing that is not as recorded: recipe, first losses (or see `unchecked`), correct images."""
    problems, kind = [], "teacher" if run.recipe["stage"] == "teacher" else "student"
    recorded = runs.read_csv(run.folder / "steps.csv", ("step", "loss")).loss.tolist()
    losses = recorded if unchecked(run, device) else first_losses(run, device)
    if len(recorded) != len(losses):
        problems.append(f"steps.csv has {len(recorded)} steps, {len(losses)} were trained")
    for step, (then, now) in enumerate(zip(recorded, losses, strict=False)):
        if not abs(then - now) <= tolerance(step, kind) * max(abs(now), 1e-3):
            problems.append(f"the loss of step {step} is recorded as {then:.6f}, trained again it is {now:.6f}")
            break
    rates = _rates(recipes.read(run.recipe))
    recorded = run.history.lr.tolist()
    if len(recorded) != len(rates) or not all(map(math.isclose, recorded, rates)):
        problems.append("the epochs and learning rates of history.csv are not those of recipe.json")
    return problems + _evaluate(run)


def _rates(recipe: recipes.Recipe) -> list[float]:
    """The learning rate at the end of each epoch."""
    fits = [recipe.fit]
    if isinstance(recipe, recipes.CompressedRecipe):
        fits = [recipe.sparse, *fits]
    images = len(training.parts(fashion_mnist(), recipe.images, recipe.validation)[0])
    rates = []
    for fit in fits:
        each = math.ceil(images / fit.batch)
        ends = range(each, fit.epochs * each + 1, each)
        rates += [training.learning_rate(fit, end - 1, fit.epochs * each) for end in ends]
    return rates


def _evaluate(run: Run) -> list[str]:
    data, metrics, problems = fashion_mnist(), run.metrics, []
    rows = training.parts(data, run.recipe["images"], run.recipe["validation"])[1]
    labels = data.train_labels[rows]
    found = []  # by each thing that was kept: images right, how many of them rounding may have moved, loss
    if (run.folder / "validation_logits.npy").is_file():
        logits = run.validation_logits.double()
        first, second = logits.topk(2).values.unbind(1)
        near = int((first - second < training.NEAR).sum())  # these were settled in float64
        found.append((_right(logits.argmax(1), labels), near, _loss(logits, labels)))
    if (run.folder / "validation_classes.npy").is_file():
        found.append((_right(run.validation_classes, labels), 0, None))
    if (run.folder / "model.safetensors").is_file():
        network, images = run.network(), data.train_images[rows]
        right = _right(training.predict(network, images), labels)
        found.append((right, 0, training.evaluate(network, images, labels)[0]))
        if run.test_accuracy is not None:
            correct = _right(runs.read_test_set(run, network, data), data.test_labels)
            if correct != metrics["test_correct"]:
                problems.append(f"{correct} test images are right, metrics.json says {metrics['test_correct']}")
    if not found:
        logits = run.soft_targets[0][rows].double()
        first, second = logits.topk(2).values.unbind(1)
        ties = int((first == second).sum())  # float16 makes equals of near ones and changes no other order
        found.append((_right(logits.argmax(1), labels), ties, _loss(logits, labels)))
    last = None if run.history.empty else run.history.iloc[-1]  # the course's teacher was not trained here
    rounding = LAST[run.environment["device"]]
    for right, slack, loss in found:
        if abs(right - metrics["val_correct"]) > slack:
            problems.append(f"{right} validation images are right, metrics.json says {metrics['val_correct']}")
        if last is None or loss is None:
            continue
        if not math.isclose(last.val_loss, loss, rel_tol=rounding, abs_tol=1e-5):
            problems.append(
                f"the last epoch of history.csv has a loss of {last.val_loss:.6f}, evaluated it is {loss:.6f}"
            )
    if last is not None and abs(last.val_accuracy - metrics["val_correct"] / metrics["val_total"]) > 2 / len(rows):
        problems.append("the last epoch of history.csv is not the accuracy of metrics.json")
    return problems


def _right(classes: Tensor, labels: Tensor) -> int:
    return int((classes == labels).sum())


def _loss(logits: Tensor, labels: Tensor) -> float:
    return functional.cross_entropy(logits, labels).item()
