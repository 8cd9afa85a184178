"""What results are summed up by: intervals, paired differences, calibration; and how these are
written.
"""

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

Interval = tuple[float, float | None, float | None]  # mean, low, high; a single pair has no bounds
BINS = 15  # of confidence
DIGITS = 4  # of a confidence in a bin's mean


def rounded(values) -> list:
    """Six digits: more would differ between machines."""
    return np.round(np.asarray(values, np.float64), 6).tolist()


def spread(values: list[float]) -> str:
    """Mean of fractions, and standard deviation where there is more than one, in percent."""
    if not values:
        return "not read"
    mean = f"{100 * np.mean(values):.2f}"
    return f"{mean}%" if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}%"


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    return tuple(stats.binomtest(correct, total).proportion_ci(method="wilson"))


def paired(values: list[float], references: list[float]) -> Interval:
    """Mean of `values - references`, pair by pair, and its 95 % interval by Student's t; no
    interval for a single pair.

    In the values' own unit. Pairs share seed and images: the interval tells of other seeds, not of
    other images.
    """
    differences = np.subtract(values, references)
    mean = float(differences.mean())
    if len(differences) == 1:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return mean, mean - half, mean + half


def points(difference: Interval) -> str:
    """The mean of `paired`, which was given percentages."""
    return f"{difference[0]:+.2f}"


def bounds(difference: Interval) -> str:
    """The interval of `paired`; nothing for a single pair."""
    return "" if difference[1] is None else f"{difference[1]:+.2f} to {difference[2]:+.2f}"


def verdict(difference: Interval) -> str:
    """`better` or `worse` where the interval leaves out zero."""
    _, low, high = difference
    return "" if low is None else "better" if low > 0 else "worse" if high < 0 else "not told apart"


def mcnemar(first: Tensor, second: Tensor) -> tuple[int, int, float]:
    """Images that only `first` and that only `second` gets right, and McNemar's exact two-sided p
    (1947).

    Both are truth values (n,), for the same images. The p tells of other images, not of other
    seeds.
    """
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return (
        wins,
        losses,
        float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
    )


def calibration(confidences: Tensor, right: Tensor, bins: int = BINS) -> dict:
    """Reliability over equal bins of confidence and the expected calibration error (Guo et al.
    2017, section 2).

    `confidences` (n,): probabilities of the predicted classes; `right` (n,): whether these are the
    true ones. Confidences are rounded to `DIGITS` after they were sorted into bins: all machines
    then have the same sums.
    """
    place = (confidences * bins).long().clamp(max=bins - 1).numpy()
    confidences = confidences.double().round(decimals=DIGITS)
    answers = pd.DataFrame({"confidence": confidences.numpy(), "accuracy": right.double().numpy()})
    means, count = answers.groupby(place).mean(), answers.groupby(place).size()
    error = (count * (means.accuracy - means.confidence).abs()).sum() / len(right)
    columns = {name: rounded(means[name]) for name in means}
    return columns | {"count": count.tolist(), "error": rounded(error)}
