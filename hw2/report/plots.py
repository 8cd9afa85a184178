"""Each figure of the report: its data, read from runs and the data set, how it is drawn, and what it shows in words.

Notebooks show single figures by `show`; `hw2.report` writes them all.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hw2 import distillation, grading, pictures, training
from hw2.data import CLASSES, FashionMNIST, fashion_mnist
from hw2.experiments import stages
from hw2.experiments import store as runs
from hw2.experiments.store import Run
from hw2.report import ablation, comparisons, figures
from hw2.report import statistics as measures
from hw2.report.comparisons import teacher_validation
from hw2.report.outcomes import NETWORKS, PHASES, at_phase, delivered_classes, seeds
from hw2.report.statistics import rounded


@dataclass(frozen=True)
class Plot:
    """A figure: its data, how it is drawn, what a reader who cannot see it should know, and the stages behind it."""

    data: Callable[[], dict]
    draw: Callable[[dict], object]
    alt: str
    stages: tuple[str, ...]


def _samples() -> dict:
    data = fashion_mnist()
    rows = data.split[0]
    chosen = [rows[data.train_labels[rows] == label][:4] for label in range(len(CLASSES))]
    return {"images": [data.train_images[rows].tolist() for rows in chosen]}


def _curve(run: Run, name: str, *more: str) -> dict:
    columns = ("epoch", "val_loss", "val_accuracy", *more)
    return {"name": name} | {column: run.history[column].tolist() for column in columns}


def _teacher_curves() -> dict:
    return {"arms": [_curve(stages.teacher(), "teacher", "train_loss")]}


def _teacher_confusion() -> dict:
    logits, labels, _ = teacher_validation(stages.teacher())
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    matrix.index_put_((labels, logits.argmax(1)), torch.tensor(1), accumulate=True)
    return {"matrix": matrix.tolist()}


def _soft_targets() -> dict:
    """The validation images on which the teacher is right and, of four classes, least sure."""
    logits, labels, rows = teacher_validation(stages.teacher())
    gaps = logits.topk(2).values.diff(dim=1).neg().flatten()
    gaps[logits.argmax(1) != labels] = torch.inf
    order = gaps.argsort(stable=True)
    chosen, seen = [], set()
    for place in order.tolist():
        if int(labels[place]) not in seen:
            seen.add(int(labels[place]))
            chosen.append(place)
        if len(chosen) == 4:
            break
    temperatures = [1.0, 4.0, 8.0]
    data = fashion_mnist()
    return {
        "images": data.train_images[rows[chosen]].tolist(),
        "titles": [CLASSES[int(labels[place])] for place in chosen],
        "temperatures": temperatures,
        "probabilities": [
            [rounded(distillation.soft_targets(logits[place][None], value)[0]) for value in temperatures]
            for place in chosen
        ],
    }


def _teacher_reliability() -> dict:
    logits, labels, _ = teacher_validation(stages.teacher())
    return {"arms": [{"name": "teacher"} | measures.calibration(logits.softmax(1), labels)]}


def _reliability() -> dict:
    teacher, chain = stages.teacher(), (stages.distilled(), stages.compressed())
    logits, labels, rows = teacher_validation(teacher)
    shown = [{"name": NETWORKS["teacher"]} | measures.calibration(logits.softmax(1), labels)]
    for run in chain:
        values = training.logits_of(run.network(), fashion_mnist().train_images[rows])
        name = NETWORKS[run.recipe["stage"]]
        shown.append({"name": name} | measures.calibration(values.double().softmax(1), labels))
    return {"arms": shown}


def _student_curves() -> dict:
    return {"arms": [_curve(stages.distilled(), "distilled"), _curve(stages.plain(), "alone")]}


def _compressed_curves() -> dict:
    run = stages.compressed()
    return {
        "arms": [_curve(run, "sparse learning, then fine-tuning")],
        "marks": [[run.recipe["sparse"]["epochs"] + 0.5, "pruned"]],
    }


def _phases() -> dict:
    run = stages.compressed()
    return {
        "names": [textwrap.fill(words, 12) for words, _, _ in PHASES],
        "sparse": [at_phase(run, name) for _, name, _ in PHASES],
        "direct": [at_phase(run, other) if other else None for _, _, other in PHASES],
    }


def _arms() -> dict:
    found = {stage: seeds(stage) for stage in NETWORKS}
    return {
        "names": list(NETWORKS.values()),
        "parameters": [group[0].metrics["parameters"] for group in found.values()],
        "validation": [[run.val_accuracy for run in group] for group in found.values()],
        "test": [[run.test_accuracy for run in group if run.test_accuracy is not None] for group in found.values()],
        "baseline": grading.BASELINE,
    }


def _shown(rows: list[int], data: FashionMNIST) -> dict:
    values = pictures.probabilities(stages.delivered().network(), data.test_images[rows])
    return {
        "images": data.test_images[rows].tolist(),
        "true": data.test_labels[rows].tolist(),
        "probabilities": [rounded(row) for row in values],
    }


def _demo() -> dict:
    data = fashion_mnist()
    return _shown([int((data.test_labels == label).nonzero()[0]) for label in range(len(CLASSES))], data)


def _mistakes() -> dict:
    """The ten mistakes with the lowest probability for the true class."""
    data = fashion_mnist()
    network = stages.delivered().network()
    wrong = (delivered_classes() != data.test_labels).nonzero().flatten()

    def worst(rows: Tensor, values: Tensor, count: int) -> Tensor:
        true = values[torch.arange(len(rows)), data.test_labels[rows]]
        return rows[true.argsort(stable=True)[:count]]

    # Exact probabilities are slow: they settle the order of the few that come into question.
    few = worst(wrong, training.logits_of(network, data.test_images[wrong]).softmax(1), 40)
    return _shown(worst(few, pictures.probabilities(network, data.test_images[few]), 10).tolist(), data)


def _speed() -> dict:
    rows = {row["name"]: row for row in runs.bench()["rows"]}
    panels = []
    for title, unit, names in (
        (
            "Training",
            "images a second",
            (
                "classmates' loop",
                "ResNet-14, plain training",
                "ResNet-14, distilled from the cache",
                "ResNet-14, distilled from a live teacher",
                "ResNet-14, sparse learning",
                "compressed, plain training",
                "compressed, distilled from the cache",
            ),
        ),
        (
            "Evaluation",
            "images a second",
            (
                "ResNet-50, evaluation",
                "ResNet-14, evaluation",
                "compressed, evaluation",
                "ResNet-50, ONNX Runtime",
                "compressed, ONNX Runtime",
                "compressed, ONNX Runtime, int8",
            ),
        ),
        (
            "A single image",
            "milliseconds",
            (
                "ResNet-50, one image",
                "ResNet-14, one image",
                "compressed, one image",
                "compressed, one image, ONNX Runtime",
            ),
        ),
    ):
        values = rounded([rows[name]["median"] for name in names])
        panels.append({"title": title, "unit": unit, "names": list(names), "values": values})
    return {"panels": panels}


FIGURES = {
    "samples": Plot(_samples, figures.samples, "Four training images of each of the ten classes.", ("data",)),
    "teacher_curves": Plot(
        _teacher_curves, figures.curves, "Loss and validation accuracy of the teacher by epoch.", ("teacher",)
    ),
    "teacher_confusion": Plot(
        _teacher_confusion,
        figures.confusion,
        "Counts of true against predicted class of the teacher on validation.",
        ("teacher",),
    ),
    "soft_targets": Plot(
        _soft_targets,
        figures.soft_targets,
        "The teacher's probabilities for four images at temperatures 1, 4 and 8.",
        ("teacher",),
    ),
    "teacher_reliability": Plot(
        _teacher_reliability,
        figures.reliability,
        "The teacher's accuracy against its confidence on validation.",
        ("teacher",),
    ),
    "tuning": Plot(
        comparisons.tuning_map,
        figures.tuning,
        "Validation accuracy for each temperature and alpha, with its spread.",
        ("tuning",),
    ),
    "finalists": Plot(
        comparisons.finalists,
        figures.finalists,
        "Validation accuracy of the two finalists: short trials, and trained longer.",
        ("finalists",),
    ),
    "arm_differences": Plot(
        comparisons.arm_differences,
        figures.differences,
        "Validation accuracy of each arm minus that of vanilla KD, with intervals.",
        ("arms",),
    ),
    "arm_curves": Plot(
        comparisons.arm_curves, figures.curves, "Validation loss and accuracy of all arms by epoch.", ("arms",)
    ),
    "agreement": Plot(
        comparisons.agreement,
        figures.agreement,
        "Agreement of student and teacher by class, with and without KD.",
        ("arms",),
    ),
    "student_reliability": Plot(
        comparisons.student_reliability,
        figures.reliability,
        "Students' accuracy against their confidence: labels alone, vanilla KD, label smoothing.",
        ("arms",),
    ),
    "student_curves": Plot(
        _student_curves,
        figures.curves,
        "Validation loss and accuracy by epoch, with and without distillation.",
        ("distilled", "plain"),
    ),
    "phases": Plot(
        _phases,
        figures.phases,
        "Validation accuracy before pruning, right after, recalibrated and fine-tuned.",
        ("compressed",),
    ),
    "compressed_curves": Plot(
        _compressed_curves,
        figures.curves,
        "Loss and validation accuracy through sparse learning and fine-tuning.",
        ("compressed",),
    ),
    "norms": Plot(
        ablation.norms,
        figures.norms,
        "Norms of all channels by group, in order of size, before and after sparse learning.",
        ("ablation",),
    ),
    "ablation": Plot(
        ablation.differences,
        figures.differences,
        "Validation accuracy of each arm of the ablation minus that of the whole recipe, with intervals.",
        ("ablation",),
    ),
    "frontier": Plot(
        ablation.frontier,
        figures.frontier,
        "Accuracy against parameters for several pruning ratios, with the delivered network and results of others.",
        ("frontier", "compressed"),
    ),
    "arms": Plot(_arms, figures.arms, "Validation and test accuracy of the networks with their parameters.", ("all",)),
    "reliability": Plot(
        _reliability,
        figures.reliability,
        "Accuracy against confidence of teacher, distilled and delivered network on validation.",
        ("teacher", "distilled", "compressed"),
    ),
    "speed": Plot(
        _speed,
        figures.speed,
        "Measured speed of training, of evaluation and on a single image, side by side.",
        ("bench",),
    ),
    "demo": Plot(
        _demo, figures.predictions, "A test image of each class with the three likeliest classes.", ("compressed",)
    ),
    "mistakes": Plot(
        _mistakes,
        figures.predictions,
        "The ten worst mistakes on the test set with three guesses each.",
        ("compressed",),
    ),
}


@cache
def drawn(name: str) -> dict[str, bytes]:
    """The three files of a figure, by their endings, as the code draws them now."""
    data = json.loads(figures.dump(FIGURES[name].data()))
    figure = FIGURES[name].draw(data)
    kinds = {kind: figures.render(figure, kind) for kind in ("png", "svg")}
    return kinds | {"json": figures.dump(data).encode()}


def show(name: str):
    """The figure as a notebook shows it: byte for byte the PNG in figures/."""
    from IPython.display import Image as Display

    return Display(drawn(name)["png"], alt=FIGURES[name].alt)
