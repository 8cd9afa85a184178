"""Delivery: which network it is, and what is measured of the chain once it is finished."""

import torch

from hw2 import data, pruning, training
from hw2.experiments import catalogue, ledger
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.files import read_json, sha256, write_json

RATIOS = (0.125, 0.25, 0.5, 0.75, 0.875)  # by which one group is pruned alone


def deliver(profile: str) -> Run:
    """Name the delivered network, then read the test set once for each recipe of the chain.

    Then measure, on the validation split, how sensitive the parent's groups of channels are to
    pruning. `InputError` while a network that the report cannot do without is missing.
    """
    known = Store(profile)
    chain = [
        known.require(name, seed)
        for name in catalogue.names(profile, "chain")
        for seed in catalogue.seeds(name, profile)
    ]
    run = known.run("compressed")
    path = known.root / "delivered.json"
    content = {"run": run.name, "sha256": sha256(run.weights)}
    if not path.is_file() or read_json(path) != content:
        write_json(path, content)
    for member in chain:
        ledger.read_test_set(member, data.fashion_mnist())
    measure(known.run("distilled"))
    return Store(profile).run("compressed")


def measure(parent: Run) -> None:
    """Write sensitivity.json beside the parent's weights, unless it is there."""
    path = parent.folder / "sensitivity.json"
    if path.is_file():
        return
    counts = [
        [sensitivity(parent, group, ratio) for ratio in RATIOS]
        for group in range(len(pruning.group_names()))
    ]
    weights = sha256(parent.weights)
    write_json(path, {"weights": weights, "ratios": RATIOS, "correct": counts})


def sensitivity(run: Run, group: int, ratio: float) -> int:
    """Validation images that its network gets right with one group of channels pruned alone."""
    images, labels = run.recipe.task(data.fashion_mnist()).held_out
    pruned = pruning.prune_group(run.network(), group, ratio)
    return int(torch.eq(training.predict(pruned, images), labels).sum())
