"""The chain's networks against each other: differences over seeds, images that one gets right and another does not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from hw2.data import CLASSES, fashion_mnist
from hw2.experiments import recipes, stages
from hw2.experiments import store as runs
from hw2.experiments.store import Run
from hw2.report import statistics as measures

NETWORKS = {
    "teacher": "ResNet-50, the teacher",
    "plain": "ResNet-14 alone",
    "distilled": "ResNet-14, distilled",
    "compressed": "pruned and fine-tuned",
    "scratch": "the same widths from scratch",
    "unpruned": "ResNet-14, trained as long",
}
#: profile -> network, where its mean over seeds is judged, and the accuracy that we aimed at before training; of two
#: for one network the lower is the floor
AIMS = {
    "smoke": (),
    "cpu": (("distilled", "validation", 0.945), ("compressed", "test", 0.945)),
    "full": (("compressed", "test", 0.95), ("compressed", "test", 0.945)),  # 2026-11-26, before any student was trained
}
#: phases of compression in words; their counts in metrics.json, and those without sparse learning
PHASES = (
    ("distilled", "distilled", "distilled"),
    ("after sparse learning", "sparse", None),
    ("right after pruning", "pruned", "pruned_without_sparse_learning"),
    ("BatchNorm recalibrated", "recalibrated", "recalibrated_without_sparse_learning"),
    ("fine-tuned", "fine_tuned", None),
)
PAIRS = (
    ("distilled", "plain"),
    ("compressed", "distilled"),
    ("compressed", "plain"),
    ("compressed", "scratch"),
    ("compressed", "unpruned"),
)


def seeds(stage: str) -> list[Run]:
    """The finished runs of a stage, of the same recipe as its seed 0, in the order of their seeds.

    A pruned network counts if it was made from the distilled one that is there: after a change of recipe older seeds
    wait to be trained again.
    """
    first = getattr(stages, stage)()
    found = [Run(folder) for folder in first.folder.parent.glob(f"{first.profile}-s*")]
    found = [run for run in found if _shared(run) == _shared(first)]
    if "parent" in first.recipe:
        parents = {run.digest for run in seeds("distilled")}
        found = [run for run in found if run.recipe["parent"] in parents]
    return sorted(found, key=lambda run: run.recipe["seed"])


def _shared(run: Run) -> dict:
    """The part of the recipe that all seeds share."""
    recipe = recipes.asdict(recipes.parse(run.recipe))  # seed 0's may be older than some fields
    return {name: value for name, value in recipe.items() if name not in ("seed", "parent")}


@cache
def answers(folder: Path) -> Tensor:
    """Classes (10000,) that a run's network predicts for the test images; checked against the ledger."""
    run = Run(folder)
    return runs.read_test_set(run, run.network(), fashion_mnist())


def delivered_classes() -> Tensor:
    """`answers` of the delivered network."""
    return answers(stages.delivered().folder)


def _interval(pairs: list[tuple[float, float]]) -> str:
    """Mean difference in percentage points and its 95 % interval, in words."""
    if not pairs:
        return "not read"
    mean, low, high = measures.paired(*zip(*[(100 * value, 100 * other) for value, other in pairs], strict=True))
    words = measures.bounds(low, high)
    return f"{mean:+.2f}" + (f" ({words})" if words else "")


def pair_table() -> pd.DataFrame:
    """Differences in percentage points, paired by seed; McNemar's test of the first pair on the test images.

    A run whose test set was not read stays unread: only its validation counts.
    """
    labels, rows = fashion_mnist().test_labels, []
    for one, other in PAIRS:
        shared = {run.recipe["seed"]: run for run in seeds(other)}
        pairs = [(run, shared[run.recipe["seed"]]) for run in seeds(one) if run.recipe["seed"] in shared]
        read = [pair for pair in pairs if all(run.test_accuracy is not None for run in pair)]
        row = {
            "difference": f"{NETWORKS[one]}, minus {NETWORKS[other]}",
            "seeds": len(pairs),
            "validation": _interval([(a.val_accuracy, b.val_accuracy) for a, b in pairs]),
            "test": _interval([(a.test_accuracy, b.test_accuracy) for a, b in read]),
            "only one right": "",
            "p": "",
        }
        if read:
            first, second, p = measures.mcnemar(*(answers(run.folder) == labels for run in read[0]))
            row |= {"only one right": f"{first} : {second}", "p": f"{p:.3f}" if p >= 0.001 else "< 0.001"}
        rows.append(row)
    return pd.DataFrame(rows)


def aim_table() -> pd.DataFrame:
    """What was aimed at and what came of it, for the means over the seeds."""
    rows = []
    for stage, split, aim in AIMS[stages.compressed().profile]:
        values = [run.val_accuracy if split == "validation" else run.test_accuracy for run in seeds(stage)]
        values = [value for value in values if value is not None]
        rows.append(
            {
                "network": NETWORKS[stage],
                "split": split,
                "aim": f"{aim:.1%}",
                "mean": measures.spread(values),
                "verdict": "" if not values else "met" if sum(values) / len(values) >= aim else "missed",
            }
        )
    return pd.DataFrame(rows)


def at_phase(run: Run, phase: str) -> float:
    """Validation accuracy of a pruned network after a phase of its compression."""
    metrics = run.metrics
    return metrics["phases"][phase] / metrics["val_total"]


def phase_table() -> pd.DataFrame:
    """Validation accuracy after each phase of compression, with sparse learning and without, over all seeds."""
    found = seeds("compressed")

    def over_seeds(phase: str) -> str:
        return measures.spread([at_phase(run, phase) for run in found])

    return pd.DataFrame(
        [
            {
                "phase": words,
                "with sparse learning": over_seeds(name),
                "without": over_seeds(other) if other else "",
            }
            for words, name, other in PHASES
        ]
    )


def class_table() -> pd.DataFrame:
    """The delivered network on the test images by class: how many are right, what the others are taken for."""
    labels, predicted = fashion_mnist().test_labels, delivered_classes()
    rows = []
    for label, name in enumerate(CLASSES):
        counts = torch.bincount(predicted[labels == label], minlength=len(CLASSES))
        right, total = int(counts[label]), int(counts.sum())
        counts[label] = 0
        most = int(counts.argmax())
        low, high = measures.wilson(right, total)
        rows.append(
            {
                "class": name,
                "right": f"{right:,} of {total:,}",
                "95 % interval": f"{low:.1%} to {high:.1%}",
                "most often taken for": f"{CLASSES[most]} ({int(counts[most])})" if counts[most] else "",
            }
        )
    return pd.DataFrame(rows)
