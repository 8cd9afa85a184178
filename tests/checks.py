"""What the files of committed runs say of one another: no training, no pass through a network."""

import math
from collections.abc import Iterator
from datetime import datetime
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from hw2 import networks, pruning, training
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import catalogue, ledger
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.files import sha256

#: Relative difference of the last epoch's validation loss that may be rounding, by the device that
#: recorded it. Measured for a CPU: 1e-7 where weights are evaluated again, 2e-5 for the teacher's
#: logits, which are kept in float16. GPUs round more.
LAST = {"cpu": 1e-4, "cuda": 1e-3}
# relative difference of a group's norm that may be rounding; measured between processors: 1e-6
NORMS = 1e-4
#: what rows keep of their networks' answers, by the word in `keep`
KEPT = {"weights": "model.safetensors", "classes": "validation_classes.npy"}


def missing(known: Store) -> list[str]:
    """Runs of the profile's catalogue that are not there."""
    lines = []
    for name in catalogue.names(known.profile):
        for seed in catalogue.seeds(name, known.profile):
            try:
                known.require(name, seed)
            except InputError as error:
                lines.append(str(error))
    return list(dict.fromkeys(lines))


def of_run(run: Run, fashion: FashionMNIST) -> list[str]:
    """What the run's files say of one another, of its parent and of the ledger."""
    recipe = run.recipe
    lines = []
    if run.name != f"{recipe.stage}/{run.profile}-s{recipe.seed}":
        lines.append(f"its recipe is of {recipe.stage}, seed {recipe.seed}")
    if not recipe.stem:  # whose weights are too large to commit
        files = [KEPT[word] for word in catalogue.EXPERIMENTS[recipe.stage].keep if word in KEPT]
        lines += [f"{name} is missing" for name in files if not (run.folder / name).is_file()]
    counted = parameters(run)
    if counted != run.parameters:
        lines.append(f"{counted:,} parameters, metrics.json says {run.parameters:,}")
    total = run.metrics["val_total"]
    if total != len(recipe.task(fashion).validation):
        lines.append(f"metrics.json is of {total} validation images")
    lines += [*_history(run), *_answers(run, fashion), *_phases(run), *_test(run)]
    return lines


def parameters(run: Run) -> int:
    """Of the weights where they are committed, else of the network that the recipe makes."""
    if (run.folder / KEPT["weights"]).is_file():
        return networks.count_parameters(run.network())
    with torch.device("meta"):  # shapes without numbers
        if run.recipe.stem:
            return networks.count_parameters(networks.teacher(run.recipe.stem))
        return networks.count_parameters(networks.ResNet14(run.widths))


def _history(run: Run) -> Iterator[str]:
    """Epochs, steps and learning rates against the recipe; accuracies against the count."""
    history = run.history
    correct = run.metrics["val_correct"]
    total = run.metrics["val_total"]
    fits = [fit for fit in run.recipe.fits if fit.epochs]
    epochs = sum(fit.epochs for fit in fits)
    trained = fits[0].epochs * math.ceil(run.recipe.images / fits[0].batch) if fits else 0
    steps = min(training.STEPS_KEPT, trained)
    if run.steps.step.tolist() != list(range(steps)):
        yield f"steps.csv has not the {steps} steps of its recipe"
    if history.epoch.tolist() != list(range(1, epochs + 1)):
        yield f"history.csv has not the {epochs} epochs of its recipe"
        return
    if not all(map(math.isclose, history.lr, _rates(run.recipe))):
        yield "the learning rates of history.csv are not those of its recipe"
    if not all(round(share * total) / total == share for share in history.val_accuracy):
        yield f"an accuracy of history.csv is no count of {total} images"
    if epochs and history.val_accuracy.iloc[-1] != correct / total:
        yield f"the last epoch of history.csv is not {correct} of {total}"


def _rates(recipe: Recipe) -> Iterator[float]:
    """The learning rate at the end of each epoch."""
    for fit in recipe.fits:
        per_epoch = math.ceil(recipe.images / fit.batch)
        steps = per_epoch * fit.epochs
        for step in range(per_epoch - 1, steps, per_epoch):
            yield training.learning_rate(fit, step, steps)


def _answers(run: Run, fashion: FashionMNIST) -> Iterator[str]:
    """What the run kept of its network's answers against its counts."""
    task = run.recipe.task(fashion)
    labels = fashion.train_labels[task.validation]
    if (run.folder / KEPT["classes"]).is_file():
        yield from against(run, int((run.validation_classes == labels).sum()), 0, None)
    if run.recipe.stem:
        logits = run.soft_targets[0][task.validation].double()
        equal = training.margins(logits) == 0  # float16 makes equals of near ones
        right = int((logits.argmax(1) == labels).sum())
        loss = functional.cross_entropy(logits, labels).item()
        yield from against(run, right, int(equal.sum()), loss)


def against(run: Run, right: int, slack: int, loss: float | None) -> Iterator[str]:
    """Right validation images, `slack` of them by rounding, and the loss against metrics.json and
    history.csv.
    """
    counted = run.metrics["val_correct"]
    if abs(right - counted) > slack:
        yield f"{right} validation images are right, metrics.json says {counted}"
    if loss is not None and len(run.history):  # the course's teacher was not trained here
        recorded, rounding = run.history.val_loss.iloc[-1], LAST[run.environment["device"]]
        if not math.isclose(recorded, loss, rel_tol=rounding, abs_tol=1e-5):
            yield f"the last loss of history.csv is {recorded:.6f}, evaluated it is {loss:.6f}"


def _phases(run: Run) -> Iterator[str]:
    """What the parent, history.csv and metrics.json know of a compression's phases."""
    if run.recipe.ratio is None:
        return
    phases = run.metrics["phases"]
    parent = Store(run.profile).made_by(run.recipe.parent)
    counts = {"distilled": parent.metrics["val_correct"], "fine_tuned": run.metrics["val_correct"]}
    if run.sparse and len(run.history) >= run.recipe.sparse.epochs:
        share = run.history.val_accuracy.iloc[run.recipe.sparse.epochs - 1]
        counts["sparse"] = round(share * run.metrics["val_total"])
    for phase, count in counts.items():
        if phases[phase] != count:
            yield f"phase {phase} of metrics.json is {phases[phase]}, elsewhere it is {count}"
    if (run.folder / "group_norms.json").is_file() and parent.weights.is_file():
        groups = zip(run.group_norms["before"], _norms(parent.weights), strict=True)
        if not all(np.allclose(*pair, rtol=NORMS, atol=1e-6) for pair in groups):
            yield f"group_norms.json is not of the weights of {parent.name}"


@cache
def _norms(weights) -> list[list[float]]:
    return pruning.group_norms(networks.load(weights))


def _test(run: Run) -> Iterator[str]:
    """The ledger has the reading that the run claims, and no other."""
    if (run.folder / ledger.ANSWERS).is_file():
        ledger.answers(run)
    claimed = run.metrics["test_correct"], run.metrics["test_total"]
    reading = ledger.reading(run) or (None, None)
    if claimed != (None, None) and claimed != reading:
        yield (
            f"metrics.json says that {claimed[0]} of {claimed[1]} test images are right, "
            f"the ledger has {reading[0]} of {reading[1]}"
        )


def copies(runs: list[Run]) -> Iterator[str]:
    """A run that is another seed's: no two trainings share a loss in float64, nor their weights."""
    seen: dict[object, Run] = {}
    for run in runs:
        weights = run.folder / KEPT["weights"]
        marks = {*run.history.train_loss, *([sha256(weights)] if weights.is_file() else [])}
        for mark in marks:
            first = seen.setdefault(mark, run)
            same_row = first.recipe.stage == run.recipe.stage and first != run
            if same_row or first.recipe.seed != run.recipe.seed:
                yield f"{run.name} holds numbers or weights of {first.name}"
                break


def of_ledger(profile: str, runs: dict[str, Run]) -> Iterator[str]:
    """Each recipe has one reading, of a date, under the name of its run."""
    rows = ledger.ledger(profile)
    if rows.recipe.duplicated().any():
        yield "a recipe has two readings"
    for row in rows.itertuples():
        try:
            datetime.fromisoformat(row.when)
        except (TypeError, ValueError):
            yield f"{row.when!r} is no date"
        if row.recipe in runs and runs[row.recipe].name != row.run:
            yield f"the reading of {row.run} is of the recipe of {runs[row.recipe].name}"
