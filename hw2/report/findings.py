"""What the runs say, in sentences: a finding, its number, and what that allows to claim.

A sentence is a function of numbers: accuracies are fractions, differences percentage points.
`story` and `others` take the numbers from the runs.
"""

import numpy as np

from hw2.assignment import LIMIT
from hw2.experiments import catalogue
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.report import nb03_pruning
from hw2.report.comparisons import compare, study, unlike
from hw2.report.statistics import Difference, spread, told, verdict

CAVEAT = (
    "Differences in accuracy are in percentage points, intervals are Welch's of 95%. "
    "A ± is the standard deviation over seeds. "
    "Holm's method corrects p for the number of declared comparisons. "
    "So an interval may exclude 0 although no difference was detected. "
    "A test finds a difference of the detectable size in 80% of cases."
)
STUDIES = "Arms and ablation have Dunnett's intervals: with 95% all of a study's hold at once."


def taught(teacher: float, alone: list[float]) -> str:
    """What does ResNet-14 reach without its teacher?"""
    return (
        f"The teacher, a ResNet-50, has {teacher:.2%} on validation. "
        f"A ResNet-14 that learns from labels alone has {spread(alone)}."
    )


def learned(
    epoch: int, epochs: int, early: list[list[float]], end: Difference, loss: Difference
) -> str:
    """What does distillation bring? `early`: accuracies with and without a teacher at `epoch`."""
    lead = 100 * (np.mean(early[0]) - np.mean(early[1]))
    faster = min(early[0]) > max(early[1]) and lead > end.mean
    return (
        f"Distillation makes learning {'faster' if faster else 'no faster'}: "
        f"at epoch {epoch} of {epochs} its lead over labels alone is {lead:+.2f} points. "
        f"In the end the lead is {told(end)}. The validation loss changes by {told(loss, 3)}."
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
    return (
        f"The whole recipe, with sparse learning and {epochs} epochs of fine-tuning, ends at "
        f"{spread(end)}. Before pruning the student has {spread(before)}."
    )


def from_scratch(validation: Difference, test: Difference | None, apart: list[str]) -> str:
    """Is pruning better than the same widths from scratch? `apart`: what else sets them apart."""
    words = {
        "better": "Pruning beats training the pruned widths from scratch.",
        "worse": "Training the pruned widths from scratch beats pruning.",
        "not detected": "No difference from the pruned widths from scratch was detected.",
        "": "One seed does not decide between pruning and the pruned widths from scratch.",
    }
    text = f"{words[verdict(validation)]} Both have the same number of epochs. "
    text += f"Pruned minus scratch is {told(validation)} on validation."
    if test:
        text += f" It is {told(test)} on the test set."
    if apart:
        text += f" Besides, the two differ in {' and '.join(apart)}."
    return text


def lengthened(short: int, long: int, longer: Difference, methods: list[Difference]) -> str:
    """Does length matter more than distillation and pruning?"""
    more = longer.mean > max(abs(found.mean) for found in methods)
    matters = "matters" if verdict(longer) == "better" else "seems to matter"
    return (
        f"Length {matters}: {long} epochs in place of {short} bring the distilled ResNet-14 "
        f"{told(longer)}. By the means that is {'more' if more else 'no more'} than either method."
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
    loss = compare(store, "distilled", "plain", "val_loss")
    against = compare(store, "compressed", "scratch")
    on_test = compare(store, "compressed", "scratch", "test_accuracy")
    apart = unlike(store, "compressed", "scratch")
    return [
        taught(store.require("teacher").val_accuracy, [run.val_accuracy for run in plain]),
        learned(half, epochs, early, helped, loss),
        f"{cut(removed, before, directly, measured)} "
        f"{restored(fine_tuning, before, after['fine-tuned']['with sparse learning'])}",
        from_scratch(against, on_test, apart),
        lengthened(*lengths, compare(store, long, short), [helped, against]),
    ]


def differing(runs: dict[str, list[Run]]) -> str:
    """Which rows of a study differ from its first."""
    words = {name: EXPERIMENTS[name].words for name in runs}
    first = words[next(iter(runs))]
    differences = study(runs)
    if all(difference.p is None for difference in differences.values()):
        return f"With one seed an arm no difference from {first} was tested."
    found = [
        f"{words[name]}, {told(difference)}"
        for name, difference in differences.items()
        if difference.detected
    ]
    return f"Detected differences from {first}: {'; '.join(found) or 'none'}."


def rivals() -> list[dict]:
    """Of what others published within the limit: what the test set did not choose, and the best."""
    small = [one for one in nb03_pruning.public() if one["parameters"] <= LIMIT]
    best = max(small, key=lambda one: one["accuracy"])
    return [one for one in small if one["chosen"] == "no" or one is best]


def others(store: Store) -> list[str]:
    """What the runs say besides."""
    sparse = told(compare(store, "pruned_directly", "pruned"))
    channels = told(compare(store, "compressed", "unpruned"))
    return [
        f"Leaving out sparse learning changes the ablation's accuracy by {sparse}.",
        f"Pruned minus the ResNet-14 that was distilled longer is {channels} on validation.",
    ]
