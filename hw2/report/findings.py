"""What the runs say, in sentences: a finding, its number, and what that allows to claim.

A sentence is a function of numbers: accuracies are fractions, differences percentage points.
`story` and `others` take the numbers from the runs.
"""

import numpy as np

from hw2.assignment import LIMIT
from hw2.experiments import catalogue
from hw2.experiments.store import Store
from hw2.report import nb03_pruning
from hw2.report.comparisons import compare, unlike
from hw2.report.statistics import Difference, bounds, p_of, spread, told

CLOSE = 0.5  # points: under this two networks are called about as good
CAVEAT = (
    "Differences are in percentage points, with 95% intervals. "
    "A ± is the standard deviation over seeds. "
    "The chain's intervals are Welch's, and p is corrected by Holm's method. "
    "Those of arms and ablation are Dunnett's: with 95% all of a study's hold at once. "
    "A test finds a difference of the detectable size in 80% of cases."
)


def by_size(gap: float, close: str, more: str, less: str) -> str:
    """The words for a difference of `gap` points."""
    if abs(gap) < CLOSE:
        return close
    return more if gap > 0 else less


def taught(teacher: float, alone: list[float]) -> str:
    """Does ResNet-14 need its teacher?"""
    reaches = by_size(100 * (np.mean(alone) - teacher), "about as much", "more", "less")
    return (
        f"A ResNet-50 with {teacher:.2%} on validation teaches a ResNet-14, "
        f"which reaches {reaches} without it ({spread(alone)})."
    )


def learned(epoch: int, epochs: int, early: list[list[float]], end: Difference) -> str:
    """What does distillation bring? `early`: accuracies with and without a teacher at `epoch`."""
    lead = 100 * (np.mean(early[0]) - np.mean(early[1]))
    faster = min(early[0]) > max(early[1]) and lead > end.mean
    better = by_size(end.mean, "hardly better", "better", "worse")
    return (
        f"Distillation makes learning {'faster' if faster else 'no faster'}: "
        f"at epoch {epoch} of {epochs} the student is {lead:+.2f} points ahead. "
        f"In the end it is {better}: {told(end)}."
    )


def cut(removed: float, before: list[float], directly: list[float], measured: list[float]) -> str:
    """What does pruning do? Accuracies before it, right after it, and recalibrated."""
    lost, regained = np.mean(before) - np.mean(directly), np.mean(measured) - np.mean(directly)
    share = "the main cause" if 2 * regained > lost else "a part of the cause"
    return (
        f"Pruned without sparse learning, the student loses {removed:.1%} of its parameters and "
        f"falls to {spread(directly)}. Stale BatchNorm statistics are {share}: measured again, "
        f"they give {spread(measured)}."
    )


def restored(epochs: int, before: list[float], end: list[float]) -> str:
    """Does the whole recipe bring the accuracy back?"""
    gap = 100 * (np.mean(end) - np.mean(before))
    reached = by_size(gap, "brings accuracy back", "brings back more", "brings back less")
    return (
        f"The whole recipe, with sparse learning and {epochs} epochs of fine-tuning, {reached}: "
        f"{spread(end)}, and {spread(before)} before it."
    )


def from_scratch(validation: Difference, test: Difference | None, apart: list[str]) -> str:
    """Is pruning better than the same widths from scratch? `apart`: what else sets them apart."""
    well = by_size(-validation.mean, "about as well", "better", "worse")
    text = (
        f"The pruned widths, trained from scratch for as many epochs, do {well}. "
        f"Pruned minus scratch is {told(validation)} on validation."
    )
    if test:
        text += f" It is {told(test)} on the test set."
    if apart:
        text += f" Besides, the two differ in {' and '.join(apart)}."
    return text


def lengthened(short: int, long: int, longer: Difference, methods: list[Difference]) -> str:
    """Does length matter more than distillation and pruning?"""
    more = longer.mean > max(abs(found.mean) for found in methods)
    matters = "matters" if longer.p is not None else "seems to matter"
    return (
        f"Length {matters} {'more than either method' if more else 'no more than the methods'}: "
        f"{long} epochs in place of {short} bring the distilled ResNet-14 {told(longer)}."
    )


def story(store: Store) -> list[str]:
    """The report in five findings."""
    plain, distilled, compressed = map(store.runs, ("plain", "distilled", "compressed"))
    epochs = distilled[0].recipe.fit.epochs
    half = max(1, epochs // 2)
    early = [[run.history.val_accuracy.iloc[half - 1] for run in row] for row in (distilled, plain)]
    removed = 1 - compressed[0].parameters / distilled[0].parameters
    after = {row["phase"]: row for row in nb03_pruning.phase_rows(store)}
    before = after["distilled"]["without"]
    directly = after["right after pruning"]["without"]
    measured = after["BatchNorm recalibrated"]["without"]
    fine_tuning = compressed[0].recipe.fit.epochs
    long, short = "unpruned", "distilled"
    if "distilled-24" in catalogue.names(store.profile):
        long, short = "distilled", "distilled-24"
    lengths = [store.require(name).recipe.fit.epochs for name in (short, long)]
    helped = compare(store, "distilled", "plain")
    against = compare(store, "compressed", "scratch")
    on_test = compare(store, "compressed", "scratch", "test_accuracy")
    apart = unlike(store, "compressed", "scratch")
    return [
        taught(store.require("teacher").val_accuracy, [run.val_accuracy for run in plain]),
        learned(half, epochs, early, helped),
        f"{cut(removed, before, directly, measured)} "
        f"{restored(fine_tuning, before, after['fine-tuned']['with sparse learning'])}",
        from_scratch(against, on_test, apart),
        lengthened(*lengths, compare(store, long, short), [helped, against]),
    ]


def rivals() -> list[dict]:
    """Of what others published within the limit: what the test set did not choose, and the best."""
    small = [one for one in nb03_pruning.public() if one["parameters"] <= LIMIT]
    best = max(small, key=lambda one: one["accuracy"])
    return [one for one in small if one["chosen"] == "no" or one is best]


def others(store: Store) -> list[str]:
    """What the runs say besides."""
    loss = compare(store, "distilled", "plain", "val_loss")
    interval = f"{bounds(loss, 3)}, p = {p_of(loss)}" if loss.p is not None else "one seed"
    sparse = told(compare(store, "pruned_directly", "pruned"))
    channels = told(compare(store, "compressed", "unpruned"))
    return [
        f"Distillation changes the validation loss by {loss.mean:+.3f} ({interval}).",
        f"Leaving out sparse learning changes the ablation's accuracy by {sparse}.",
        f"Pruned minus unpruned, trained for as many epochs, is {channels} on validation.",
    ]
