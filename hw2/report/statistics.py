"""What results are summed up by: intervals, paired differences, agreement, calibration."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr, stdtrit
from torch import Tensor


def rounded(values) -> list:
    """Six digits: more would differ between machines."""
    return np.round(np.asarray(values, np.float64), 6).tolist()


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


def paired(values: list[float], others: list[float]) -> tuple[float, float | None, float | None]:
    """Mean of `values - others`, pair by pair, and its 95 % interval by Student's t; no interval for a single pair.

    Pairs share seed and validation images, so what these do to both alike drops out. The interval tells of other seeds,
    not of other images.
    """
    differences = np.subtract(values, others)
    mean, count = float(differences.mean()), len(differences)
    if count == 1:
        return mean, None, None
    half = float(stdtrit(count - 1, 0.975) * differences.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def bounds(low: float | None, high: float | None) -> str:
    """The interval of `paired` in words; none for a single pair."""
    return "" if low is None else f"{low:+.2f} to {high:+.2f}"


def mcnemar(one: Tensor, other: Tensor) -> tuple[int, int, float]:
    """Images that only `one` and that only `other` gets right, and McNemar's exact two-sided p (1947).

    Both are truth values (n,), for the same images. If the networks were equally good, each of these images would fall
    to one or the other like a coin. The p tells of other images, not of other seeds.
    """
    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    return first, second, min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def agreement(one: Tensor, other: Tensor, labels: Tensor) -> list[float]:
    """For each true class, the share of its images to which two networks give the same class. All are classes (n,).

    NaN for a class without images.
    """
    same = (one == other).double()
    return [float(same[labels == label].mean()) for label in range(10)]


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
    error = rounded(sum(gaps) / len(right))
    return {"confidence": rounded(mean), "accuracy": accuracy, "count": counts, "error": error}
