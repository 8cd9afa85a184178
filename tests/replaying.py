"""A run's first steps trained again, and its committed weights evaluated again.

What replay proves, what it does not, and how tolerances were measured is told in docs/trust.md.
"""

from collections.abc import Iterator
from typing import NamedTuple

import checks
import numpy as np
import torch

from hw2 import data, training, views
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import environment, ledger, train
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import Run
from hw2.experiments.store import Store

#: What a loss's relative difference may be where another processor rounds otherwise: at the first
#: step, the factor at each further one, and the most. By what is trained, and in which precision.
TOLERANCES = {
    "student, float32": (5e-5, 1.7, 0.05),
    "compressed, float32": (2e-4, 1.3, 0.01),
    "teacher, float32": (5e-5, 2.0, 0.05),
    "bfloat16": (1e-3, 1.3, 0.02),
}
#: images whose answers rounding may move where BatchNorm is measured again; measured: none
PHASE = 2
#: of every view of soft targets, evaluated again where the teacher's weights are in the cache
ROWS = 200


class Replayed(NamedTuple):
    """What came of a replay."""

    name: str
    problems: list[str]  # in words
    difference: float | None  # the largest relative one of a first loss; None: not trained
    alike: bool  # the recorded environment is this one: every bit should be


def kind(recipe: Recipe) -> str:
    """The key of `TOLERANCES`."""
    if recipe.fit.precision == "bfloat16":
        return "bfloat16"
    network = "teacher" if recipe.stem else "student" if recipe.ratio is None else "compressed"
    return f"{network}, float32"


def chain(known: Store) -> list[Run]:
    """The delivered network's runs, of every seed: teacher, distilled, compressed."""
    runs = []
    for run in known.runs("compressed"):
        parent = known.made_by(run.recipe.parent)
        runs += [known.made_by(parent.recipe.teacher), parent, run]
    return list(dict.fromkeys(runs))


def first_losses(run: Run, device: torch.device, fashion: FashionMNIST) -> list[float]:
    """The losses of the first steps, trained again with as many threads as recorded."""
    work = train.Work(run.profile, device, fashion)
    steps = training.STEPS_KEPT
    with environment.threads(run.environment["threads"]):
        network, phase = train.prepare(run.recipe, work)
        _, history = train.fit(network, run.recipe, work, phase, first_steps=steps)
    return [row["loss"] for row in history.steps]


def replay(run: Run, device: torch.device) -> Replayed:
    """What the run's files say, its first losses trained again, its weights evaluated."""
    fashion = data.fashion_mnist()
    problems = []
    difference = None
    current = environment.environment(device)
    same = ("instruction_set", "device", "packages")
    alike = all(run.environment[name] == current[name] for name in same)
    try:
        problems += checks.of_run(run, fashion)
        if run.recipe.fit.precision != "bfloat16" or not environment.lacks_bfloat16(device):
            losses = first_losses(run, device, fashion)
            lines, difference = compared(run.steps.loss.tolist(), losses, kind(run.recipe))
            problems += lines
        problems += evaluated(run, fashion)
    except InputError as error:
        problems.append(str(error))
    return Replayed(run.name, problems, difference, alike)


def summary(results: list[Replayed]) -> str:
    """How many runs are as recorded, and how near."""
    good = [result for result in results if not result.problems]
    tried = [result.difference for result in good if result.difference is not None]
    alike = [result.difference for result in good if result.alike]
    return (
        f"replay: {len(good)} of {len(results)} as recorded; first losses of {tried.count(0)} bit "
        f"for bit, {len(good) - len(tried)} not trained; of {len(alike)} recorded in this "
        f"environment {alike.count(0)} bit for bit"
    )


def compared(recorded: list[float], losses: list[float], kind: str) -> tuple[list[str], float]:
    """The first loss beyond its tolerance, in words, and the largest relative difference."""
    first, growth, most = TOLERANCES[kind]
    lines = []
    differences = [0.0]
    for step, (then, now) in enumerate(zip(recorded, losses, strict=False)):
        difference = abs(then - now) / max(abs(now), 1e-3)
        differences.append(difference)
        # Rounding grows in training; NaN is told, too.
        if not lines and not difference <= min(first * growth**step, most):
            words = f"recorded as {then:.6f}, trained again it is {now:.6f}"
            lines.append(f"the loss of step {step} is {words}")
    return lines, max(differences)


def evaluated(run: Run, fashion: FashionMNIST) -> Iterator[str]:
    """What passes of the validation and test images through the committed networks say."""
    images, labels = run.recipe.task(fashion).held_out
    committed = run.weights.parent == run.folder
    if run.weights.is_file() and (run.recipe.stem or committed):
        network = run.network().to(memory_format=torch.channels_last)  # as in training
        loss, right = training.validate(network, images, labels)
        yield from checks.against(run, right, 0, loss)
        if (run.folder / ledger.ANSWERS).is_file():
            answers = training.predict(network, fashion.test_images)
            if not answers.equal(ledger.answers(run)):
                yield f"{ledger.ANSWERS} is not what the weights predict"
        if counts := run.metrics.get("mirrored"):
            again = ledger.mirrored(network, images, labels)
            if again != counts["val_correct"]:
                yield f"with mirror images {again} are right, metrics.json says {counts}"
        if run.recipe.stem:
            yield from _soft_targets(run, network, fashion)
    if run.recipe.ratio is not None:
        yield from pruned_at_once(run, fashion)


def _soft_targets(run: Run, network: torch.nn.Module, fashion: FashionMNIST) -> Iterator[str]:
    """`ROWS` of every view.

    Measured between AVX-512 and AVX2: 99.9% of the float16 numbers equal, the others next.
    """
    task = run.recipe.task(fashion)
    all_rows = torch.cat([task.train, task.validation]).sort().values
    rows = all_rows[:: max(1, len(all_rows) // ROWS)]
    for view, (numbers, recorded) in enumerate(zip(task.answered(), run.soft_targets, strict=True)):
        images = views.cut(fashion.train_images, numbers, task.pad)
        logits = training.logits_of(network, images[rows], batch=256).half().float().numpy()
        targets = recorded[rows].numpy()
        apart = np.abs(logits - targets) / np.abs(np.spacing(targets)).astype(np.float32)
        if not (apart.max() <= 1 and (apart == 0).mean() > 0.99):
            yield f"soft targets of view {view} are not what the weights say"


def pruned_at_once(run: Run, fashion: FashionMNIST) -> Iterator[str]:
    """The parent pruned without sparse learning: images right before and after recalibration."""
    parent = Store(run.profile).made_by(run.recipe.parent)
    suffix = "_without_sparse_learning" if run.sparse else ""
    if not parent.weights.is_file():
        return
    work = train.Work(run.profile, torch.device("cpu"), fashion)
    with environment.threads(run.environment["threads"]):
        train.prune(parent.network(), run.recipe, work, suffix)
    for phase, count in work.phases.items():
        recorded = run.metrics["phases"][phase]
        if abs(count - recorded) > PHASE:
            yield f"phase {phase} of metrics.json is {recorded}, pruned again it is {count}"
