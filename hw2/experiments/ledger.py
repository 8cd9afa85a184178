"""The test set's readings: one for each recipe, recorded when it is made."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from hw2 import data
from hw2.errors import InputError
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store
from hw2.files import (
    broken,
    read_array,
    read_csv,
    read_json,
    sha256,
    write_array,
    write_csv,
    write_json,
)
from hw2.training import predict

ANSWERS = "test_classes.npy"  # in the run's folder, uint8 (10000,)
COLUMNS = ("when", "run", "recipe", "correct", "total")


def ledger(profile: str) -> pd.DataFrame:
    """Every reading, in the order in which they were made."""
    path = root(profile) / "test_ledger.csv"
    return (
        read_csv(path, COLUMNS, words=("when", "run", "recipe"))
        if path.is_file()
        else pd.DataFrame(columns=COLUMNS)
    )


def reading(run: Run) -> tuple[int, int] | None:
    """The ledger's count of correct test images for the run's recipe, and of all; None where there
    is no reading.
    """
    rows = ledger(run.profile)
    readings = rows[rows.recipe == run.recipe.digest]
    return (int(readings.correct.iloc[0]), int(readings.total.iloc[0])) if len(readings) else None


def checked(run: Run, classes: Tensor, fashion: data.FashionMNIST) -> int:
    """How many of these classes (n,) of the test images are right.

    `InputError` where the ledger says another count.
    """
    correct = int((classes == fashion.test_labels).sum())
    if (recorded := reading(run)) not in (None, (correct, len(classes))):
        path = root(run.profile) / "test_ledger.csv"
        raise broken(
            path,
            f"{run.name}: {correct} test images correct, the ledger's reading says {recorded[0]}",
        )
    return correct


def answers(run: Run, fashion: data.FashionMNIST) -> Tensor:
    """Classes (n,) that the run's network predicted for the test images when they were read for it.

    `InputError` where that was not done yet, or where the ledger says another count.
    """
    if reading(run) is None:
        raise InputError(
            f"{run.name}: its test set was not read; `hw2 deliver` reads it, once for each recipe"
        )
    recorded = read_array(run.folder / ANSWERS, np.uint8, (len(fashion.test_labels),))
    classes = torch.from_numpy(recorded.astype(np.int64))
    checked(run, classes, fashion)
    return classes


def read_test_set(run: Run, fashion: data.FashionMNIST) -> None:
    """The one place that reads the test set for the ledger.

    Where the recipe has a reading, it must give the same.
    """
    if run.test_accuracy is not None:
        if (
            reading(run) is None
        ):  # it would be a second one: what is there is put back, not made anew
            path = root(run.profile) / "test_ledger.csv"
            raise broken(path, f"it has no reading of {run.name}, whose metrics.json has one")
        return
    classes = predict(run.network(), fashion.test_images)
    correct, total = checked(run, classes, fashion), len(classes)
    held = data.PROJECT / "cache/ledger.lock"
    held.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(held):
        if reading(run) is None:  # another process, or an earlier run of the recipe, may have one
            when = datetime.now(UTC).isoformat(timespec="seconds")
            row = {"when": when, "run": run.name, "recipe": run.digest}
            row |= {"correct": correct, "total": total}
            rows = [*ledger(run.profile).to_dict("records"), row]
            write_csv(root(run.profile) / "test_ledger.csv", COLUMNS, rows)
    write_array(run.folder / ANSWERS, classes.numpy().astype(np.uint8))
    metrics = read_json(run.folder / "metrics.json")  # fields that the schema does not know stay
    metrics |= {"test_correct": correct, "test_total": total}
    write_json(run.folder / "metrics.json", metrics)
    vars(run).pop("metrics", None)  # what was read before


def of_weights(path: Path) -> list[Run]:
    """The runs that left these weights, in their folder or in the cache; others may be damaged."""
    size = path.stat().st_size
    digest = sha256(path)

    def same(other: Path) -> bool:
        return other.is_file() and other.stat().st_size == size and sha256(other) == digest

    cached = [
        other for other in (data.PROJECT / "cache").glob("*/model.safetensors") if same(other)
    ]

    def left(run: Run) -> bool:
        inside = run.folder / "model.safetensors"
        return same(inside) if inside.is_file() else bool(cached) and run.weights in cached

    runs = [run for profile in ("full", "smoke") for run in Store(profile).every()]
    return [run for run in runs if left(run)]
