"""figures/, report.md and submission.csv from runs/: what each figure shows, and every number of the report.

Nothing is typed here that a run could say. Notebooks draw single figures by `show`; notebook 04 and `hw2 report` write.
"""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from hw2 import distillation, figures, grading, pictures, recipes, runs, stages, training, tuning
from hw2.data import CLASSES, PROJECT, FashionMNIST, fashion_mnist
from hw2.runs import Run

ARMS = {
    "teacher": "ResNet-50, the teacher",
    "plain": "ResNet-14 alone",
    "distilled": "ResNet-14, distilled",
    "compressed": "pruned and fine-tuned",
}


@dataclass(frozen=True)
class Plot:
    """A figure: where its data comes from, how it is drawn, and what a reader who cannot see it should know."""

    data: Callable[[], dict]
    draw: Callable[[dict], object]
    alt: str


def output(profile: str | None = None) -> Path:
    """Where report, figures and submission go: the project, unless HW2_OUT names another folder."""
    return Path(os.environ.get("HW2_OUT") or runs.home(profile or stages.default_profile()))


def seeds(stage: str) -> list[Run]:
    """The finished runs of a stage, of the same profile as its seed 0, in the order of their seeds."""
    first = {"teacher": stages.teacher, "plain": stages.plain, "distilled": stages.distilled}.get(
        stage, stages.compressed
    )()
    found = first.folder.parent.glob(f"{first.profile}-s*")
    return sorted((Run(folder) for folder in found), key=lambda run: run.recipe["seed"])


def teacher_validation(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The teacher's logits (n, 10) of the validation images as they are (view 0), their labels, their rows."""
    data = fashion_mnist()
    rows = training.parts(data, run.recipe["images"], run.recipe["validation"])[1]
    return run.soft_targets[0][rows].double(), data.train_labels[rows], rows


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> dict:
    """Reliability over equal bins of confidence and the expected calibration error (Guo et al. 2017, section 2)."""
    confidence, predicted = (values.numpy() for values in probabilities.max(1))
    right = predicted == labels.numpy()
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    kept = [number for number in range(bins) if (place == number).any()]
    counts = [int((place == number).sum()) for number in kept]
    accuracy = [float(right[place == number].mean()) for number in kept]
    mean = [float(confidence[place == number].mean()) for number in kept]
    gaps = [count * abs(a - c) for count, a, c in zip(counts, accuracy, mean, strict=True)]
    return {"confidence": _rounded(mean), "accuracy": accuracy, "count": counts, "error": sum(gaps) / len(right)}


def _rounded(values) -> list:
    """Six digits: more would differ between machines."""
    return np.round(np.asarray(values, np.float64), 6).tolist()


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
            [_rounded(distillation.soft_targets(logits[place][None], value)[0]) for value in temperatures]
            for place in chosen
        ],
    }


def _teacher_reliability() -> dict:
    logits, labels, _ = teacher_validation(stages.teacher())
    return calibration(logits.softmax(1), labels)


def _tuning() -> dict:
    trials = stages.tuned()
    total = stages.teacher().metrics["val_total"]
    grid = trials.pivot_table(index="T", columns="alpha", values="val_correct", aggfunc="mean") / total
    first = trials.iloc[0]
    count = trials.seed.nunique()
    return {
        "temperatures": grid.index.tolist(),
        "alphas": grid.columns.tolist(),
        "accuracy": grid.to_numpy().tolist(),
        "best": list(tuning.best(trials)),
        "note": f"{first.epochs} epochs of {first.images:,} images, {count} seed{'s' if count > 1 else ''} a setting",
    }


def _student_curves() -> dict:
    return {"arms": [_curve(stages.distilled(), "distilled"), _curve(stages.plain(), "alone")]}


def _compressed_curves() -> dict:
    run = stages.compressed()
    return {
        "arms": [_curve(run, "sparse learning, then fine-tuning")],
        "marks": [[run.recipe["sparse"]["epochs"] + 0.5, "pruned"]],
    }


def _phases() -> dict:
    metrics = stages.compressed().metrics
    share = {name: count / metrics["val_total"] for name, count in metrics["phases"].items()}
    return {
        "names": [
            "distilled",
            "after sparse\nlearning",
            "right after\npruning",
            "BatchNorm\nrecalibrated",
            "fine-tuned",
        ],
        "sparse": [share[name] for name in ("distilled", "sparse", "pruned", "recalibrated", "fine_tuned")],
        "direct": [
            share["distilled"],
            None,
            share["pruned_without_sparse_learning"],
            share["recalibrated_without_sparse_learning"],
            None,
        ],
    }


def _arms() -> dict:
    found = {stage: seeds(stage) for stage in ARMS}
    return {
        "names": list(ARMS.values()),
        "parameters": [group[0].metrics["parameters"] for group in found.values()],
        "validation": [[run.val_accuracy for run in group] for group in found.values()],
        "test": [[run.test_accuracy for run in group if run.test_accuracy is not None] for group in found.values()],
        "baseline": grading.BASELINE,
    }


@cache
def delivered_classes() -> Tensor:
    """Classes (10000,) that the delivered network predicts for the test images; checked against the ledger."""
    run = stages.delivered()
    return runs.read_test_set(run, run.network(), fashion_mnist())


def _shown(rows: list[int], data: FashionMNIST) -> dict:
    values = pictures.probabilities(stages.delivered().network(), data.test_images[rows])
    return {
        "images": data.test_images[rows].tolist(),
        "true": data.test_labels[rows].tolist(),
        "probabilities": [_rounded(row) for row in values],
    }


def _demo() -> dict:
    data = fashion_mnist()
    return _shown([int((data.test_labels == label).nonzero()[0]) for label in range(len(CLASSES))], data)


def _mistakes() -> dict:
    """The ten mistakes with the lowest probability for the true class."""
    data = fashion_mnist()
    wrong = (delivered_classes() != data.test_labels).nonzero().flatten()
    values = pictures.probabilities(stages.delivered().network(), data.test_images[wrong])
    true = values[torch.arange(len(wrong)), data.test_labels[wrong]]
    return _shown(wrong[true.argsort(stable=True)[:10]].tolist(), data)


FIGURES = {
    "samples": Plot(_samples, figures.samples, "Four training images of each of the ten classes."),
    "teacher_curves": Plot(_teacher_curves, figures.curves, "Loss and validation accuracy of the teacher by epoch."),
    "teacher_confusion": Plot(
        _teacher_confusion, figures.confusion, "Counts of true against predicted class of the teacher on validation."
    ),
    "soft_targets": Plot(
        _soft_targets, figures.soft_targets, "The teacher's probabilities for four images at temperatures 1, 4 and 8."
    ),
    "teacher_reliability": Plot(
        _teacher_reliability, figures.reliability, "The teacher's accuracy against its confidence on validation."
    ),
    "tuning": Plot(_tuning, figures.tuning, "Validation accuracy for each temperature and alpha of the search."),
    "student_curves": Plot(
        _student_curves, figures.curves, "Validation loss and accuracy by epoch, with and without distillation."
    ),
    "phases": Plot(
        _phases, figures.phases, "Validation accuracy before pruning, right after, recalibrated and fine-tuned."
    ),
    "compressed_curves": Plot(
        _compressed_curves, figures.curves, "Loss and validation accuracy through sparse learning and fine-tuning."
    ),
    "arms": Plot(_arms, figures.arms, "Validation and test accuracy of the four networks with their parameters."),
    "demo": Plot(_demo, figures.predictions, "A test image of each class with the three likeliest classes."),
    "mistakes": Plot(_mistakes, figures.predictions, "The ten worst mistakes on the test set with three guesses each."),
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


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there is more than one value, in percent."""
    if not values:
        return "not read"
    mean = f"{np.mean(values):.2%}"
    return mean if len(values) == 1 else f"{mean[:-1]} ± {np.std(values, ddof=1):.2%}"


def wilson(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    share = correct / total
    centre = share + z**2 / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return float((centre - half) / scale), float((centre + half) / scale)


def results() -> pd.DataFrame:
    """The arms side by side: parameters, seeds, accuracies, the command that makes each, and its minutes."""
    rows = []
    for stage, name in ARMS.items():
        group = seeds(stage)
        rows.append(
            {
                "network": name,
                "parameters": f"{group[0].metrics['parameters']:,}",
                "seeds": len(group),
                "validation": spread([run.val_accuracy for run in group]),
                "test": spread([run.test_accuracy for run in group if run.test_accuracy is not None]),
                "command": f"hw2 train {stage} --profile {group[0].profile}",
            }
        )
    return pd.DataFrame(rows)


def context() -> dict:
    """Everything that the report's template may name."""
    run = stages.delivered()
    parent, student, control = stages.teacher(), stages.distilled(), stages.plain()
    trials = stages.tuned()
    metrics = run.metrics
    used = {found.digest for stage in ARMS for found in seeds(stage)}
    return {
        "table": grading.summary_table(run.network()),
        "results": results().to_dict("records"),
        "figures": {name: plot.alt for name, plot in FIGURES.items()},
        "delivered": run,
        "metrics": metrics,
        "share": {name: count / metrics["val_total"] for name, count in metrics["phases"].items()},
        "interval": wilson(metrics["test_correct"], metrics["test_total"]),
        "removed": 1 - metrics["parameters"] / student.metrics["parameters"],
        "widths": run.network().widths,
        "teacher": parent,
        "student": student,
        "control": control,
        "trials": trials,
        "trial_spread": (trials.val_correct.max() - trials.val_correct.min()) / parent.metrics["val_total"],
        "ledger": [row | {"current": row["recipe"] in used} for row in runs.ledger(run.profile).to_dict("records")],
        "minutes": {
            name: found.metrics["wall_s"] / 60
            for name, found in (("teacher", parent), ("distilled", student), ("plain", control), ("compressed", run))
        },
        "memory": parent.metrics["peak_memory_bytes"],
        "environment": run.environment,
        "limit": grading.LIMIT,
        "baseline": grading.BASELINE,
        "ratio": recipes.RATIO,
    }


def text() -> str:
    """report.md."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda value, digits=2: f"{value:.{digits}%}"
    return environment.get_template("report.md.j2").render(**context())


def readme() -> str:
    """README.md with its result, the one place there where numbers of runs stand, made anew."""
    old = (PROJECT / "README.md").read_text("utf-8")
    start, end = "<!-- result -->\n", "<!-- /result -->"
    run, group = stages.delivered(), seeds("compressed")
    metrics, environment = run.metrics, run.environment
    low, high = wilson(metrics["test_correct"], metrics["test_total"])
    minutes = sum(found.metrics["wall_s"] for found in (stages.teacher(), stages.distilled(), run)) / 60
    result = (
        f"**Result:** {metrics['parameters']:,} parameters, "
        f"**{metrics['test_correct'] / metrics['test_total']:.2%} test accuracy** "
        f"(95 % interval {low:.2%} to {high:.2%}; "
        f"validation {run.val_accuracy:.2%}). Mean over {len(group)} seed{'s' if len(group) > 1 else ''}: "
        f"{spread([found.test_accuracy for found in group if found.test_accuracy is not None])}.\n"
        f"Trained in {minutes:.0f} minutes on {environment['hardware']}, {environment['threads']} threads "
        f"(`runs/{run.name}`), each recipe's test set read once.\n"
    )
    return old[: old.index(start) + len(start)] + result + old[old.index(end) :]


def files() -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    content = {f"figures/{name}.{kind}": part for name in FIGURES for kind, part in drawn(name).items()}
    submission = "id,pred\n" + "".join(f"{row},{int(label)}\n" for row, label in enumerate(delivered_classes()))
    content["README.md"] = readme().encode()
    return content | {"report.md": text().encode(), "submission.csv": submission.encode()}


def write(folder: Path | None = None) -> Path:
    """Write figures, report and submission; a file that is right already is left alone."""
    folder = folder or output()
    for name, content in files().items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            aside.write_bytes(content)
            aside.replace(path)
    return folder


def stale(folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now; changes nothing.

    Text and data are compared exactly. Pictures byte for byte on Linux x86-64, where the pins hold; elsewhere no block
    of 16 x 16 pixels of a PNG may differ by more than 24 of 255 on average.
    """
    folder = folder or output()
    exact = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    problems = []
    for name, content in files().items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif path.read_bytes() == content:
            continue
        elif name.endswith(".png") and not exact:
            problems += [f"{name}: {where}" for where in differing_blocks(path.read_bytes(), content)]
        elif name.endswith(".png"):
            problems.append(
                f"{name}: " + (differing_blocks(path.read_bytes(), content) or ["other bytes, equal look"])[0]
            )
        elif not name.endswith(".svg") or exact:
            problems.append(f"{name}: {_first_difference(path.read_bytes(), content)}")
    known = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "json")}
    strangers = sorted(
        path.relative_to(folder).as_posix() for path in (folder / "figures").glob("*") if not path.name.startswith(".")
    )
    return problems + [f"{name}: no code draws this" for name in strangers if name not in known]


def _first_difference(old: bytes, new: bytes) -> str:
    before, after = old.decode("utf-8", "replace").splitlines(), new.decode().splitlines()
    for number, (was, now) in enumerate(zip(before, after, strict=False), start=1):
        if was != now:
            place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
            start = max(place - 30, 0)
            return f"line {number}: has {was[start : place + 30]!r}, runs and code give {now[start : place + 30]!r}"
    return f"{len(before)} lines, runs and code give {len(after)}"


def differing_blocks(old: bytes, new: bytes, side: int = 16, limit: float = 24.0) -> list[str]:
    """The worst block of `side` x `side` pixels, in words, if its mean difference exceeds `limit` of 255."""
    try:
        before, after = (np.asarray(Image.open(io.BytesIO(part)).convert("RGB"), float) for part in (old, new))
    except (OSError, SyntaxError, ValueError) as error:
        return [f"no readable picture ({error})"]
    if before.shape != after.shape:
        return [f"{before.shape[1]} x {before.shape[0]} pixels, the code draws {after.shape[1]} x {after.shape[0]}"]
    difference = np.abs(before - after).mean(2)
    padded = np.pad(difference, [(0, -length % side) for length in difference.shape])
    means = padded.reshape(padded.shape[0] // side, side, -1, side).mean((1, 3))
    if means.max() <= limit:
        return []
    row, column = np.unravel_index(means.argmax(), means.shape)
    return [f"differs from what the code draws, most around pixel ({column * side}, {row * side})"]
