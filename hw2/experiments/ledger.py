"""Delivery, and the test set's readings: one for each recipe, recorded when it is made."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor, nn

from hw2 import data, files
from hw2.errors import InputError
from hw2.experiments import catalogue
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store
from hw2.training import exact_logits, predict

ANSWERS = "test_classes.npy"  # in the run's folder, uint8 (10000,)
COLUMNS = ("when", "run", "recipe", "correct", "total")


def _file(profile: str) -> Path:
    return root(profile) / "test_ledger.csv"


def ledger(profile: str) -> pd.DataFrame:
    """Every reading, in the order in which they were made."""
    path = _file(profile)
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return files.read_csv(path, COLUMNS, words=("when", "run", "recipe"))


def reading(run: Run) -> tuple[int, int] | None:
    """Correct test images and all, as read for the run's recipe; None where there is no reading."""
    rows = ledger(run.profile)
    rows = rows[rows.recipe == run.recipe.digest]
    return (int(rows.correct.iloc[0]), int(rows.total.iloc[0])) if len(rows) else None


def count_correct(run: Run, classes: Tensor, fashion: data.FashionMNIST) -> int:
    """How many of the classes (n,) are right; `InputError` where the ledger has another count."""
    correct = int((classes == fashion.test_labels).sum())
    recorded = reading(run)
    if recorded not in (None, (correct, len(classes))):
        reason = f"{correct} test images correct, the ledger's reading says {recorded[0]}"
        raise files.broken(_file(run.profile), f"{run.name}: {reason}")
    return correct


def answers(run: Run) -> Tensor:
    """Classes (n,) that the run's network predicted for the test images when they were read for it.

    `InputError` where that was not done yet, or where the ledger says another count.
    """
    if reading(run) is None:
        remedy = "`hw2 deliver` reads it, once for each recipe"
        raise InputError(f"{run.name}: its test set was not read; {remedy}")
    fashion = data.fashion_mnist()
    recorded = files.read_array(run.folder / ANSWERS, np.uint8, (len(fashion.test_labels),))
    classes = torch.from_numpy(recorded.astype(np.int64))
    count_correct(run, classes, fashion)
    return classes


def deliver(profile: str) -> Run:
    """Name the delivered network, then read the test set once for each recipe of the chain.

    `InputError` while a network that the report cannot do without is missing.
    """
    known = Store(profile)
    chain = [
        known.require(name, seed)
        for name in catalogue.names(profile, "chain")
        for seed in catalogue.seeds(name, profile)
    ]
    run = known.require("compressed")
    path = known.root / "delivered.json"
    content = {"run": run.name, "sha256": files.sha256(run.weights)}
    if not path.is_file() or files.read_json(path) != content:
        files.write_json(path, content)
    for member in chain:
        read_test_set(member)
    return Store(profile).require("compressed")


def read_test_set(run: Run) -> None:
    """The one place that reads the test set for the ledger; a second reading must be the same."""
    if run.test_accuracy is not None:
        if reading(run) is None:  # it would be a second one: what was there is put back
            problem = f"it has no reading of {run.name}, whose metrics.json has one"
            raise files.broken(_file(run.profile), problem)
        return
    fashion = data.fashion_mnist()
    network = run.network()
    classes = predict(network, fashion.test_images)
    correct = count_correct(run, classes, fashion)
    total = len(classes)
    held = data.PROJECT / "cache/ledger.lock"
    held.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(held):
        if reading(run) is None:  # another process, or an earlier run of the recipe, may have one
            when = datetime.now(UTC).isoformat(timespec="seconds")
            row = dict(zip(COLUMNS, (when, run.name, run.digest, correct, total), strict=True))
            rows = [*ledger(run.profile).to_dict("records"), row]
            files.write_csv(_file(run.profile), COLUMNS, rows)
    files.write_array(run.folder / ANSWERS, classes.numpy().astype(np.uint8))
    # fields that the schema does not know stay
    metrics = files.read_json(run.folder / "metrics.json")
    metrics |= {"test_correct": correct, "test_total": total}
    if run.recipe.ratio is not None:
        metrics["mirrored"] = {
            "val_correct": mirrored(network, *run.recipe.task(fashion).held_out),
            "test_correct": mirrored(network, fashion.test_images, fashion.test_labels),
        }
    files.write_json(run.folder / "metrics.json", metrics)
    vars(run).pop("metrics", None)  # what was read before


def mirrored(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Images (n, 28, 28) that the mean logits of image and mirror image get right, in float64."""
    logits = exact_logits(network, images) + exact_logits(network, images.flip(-1))
    return int((logits.argmax(1) == labels).sum())
