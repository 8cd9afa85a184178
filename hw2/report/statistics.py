"""What results are summed up by: intervals, differences, their tests; and how these are written."""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats
from torch import Tensor

LEVEL = 0.05  # of a test, and what the intervals leave out
POWER = 0.8


def spread(values: list[float]) -> str:
    """Mean of fractions, and standard deviation where there is more than one, in percent."""
    if not values:
        return "not read"
    mean = f"{100 * np.mean(values):.2f}"
    return f"{mean}%" if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}%"


def spread_of_losses(values: list[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.3f}"


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927)."""
    return tuple(stats.binomtest(correct, total).proportion_ci(method="wilson"))


class Difference(NamedTuple):
    """A mean minus another one, in the values' own unit.

    Only the mean is known where no row has a second seed, or where all seeds are equal.
    """

    mean: float
    low: float | None = None  # the 95% interval
    high: float | None = None
    p: float | None = None  # two-sided, corrected for the number of comparisons
    detectable: float | None = None  # the true difference that the test detects in 80% of cases

    @property
    def detected(self) -> bool:
        """Whether there is a test and its p is below 5%."""
        return self.p is not None and self.p < LEVEL


def _detectable(error: float, freedom: float, limit: float) -> float:
    """The difference for which |t| > `limit` has a probability of 80%, from the noncentral t
    distribution (Cohen 1988, *Statistical power analysis*, chapter 2).

    The other tail is left out: it is below 0.001 there. Welch's degrees of freedom are taken as
    known, although they vary: with three or four seeds a row its power is a few percent lower.
    """

    def missing(shift: float) -> float:
        return stats.nct.sf(limit, freedom, shift) - POWER

    return error * optimize.brentq(missing, 0, 2 * limit + 2)


def welch(samples: list[tuple[list[float], list[float]]]) -> list[Difference]:
    """Each pair's first mean minus its second, by Welch's t test (1947), with p corrected for the
    number of pairs by Holm's method (1979).

    The intervals are not corrected. A difference is detectable at the level that Holm's method asks
    of the smallest p.
    """
    found = [Difference(float(np.mean(one) - np.mean(other))) for one, other in samples]
    tests = {
        place: stats.ttest_ind(one, other, equal_var=False)
        for place, (one, other) in enumerate(samples)
        if min(len(one), len(other)) > 1 and np.ptp(one) + np.ptp(other) > 0
    }
    corrected = 0.0
    for rank, place in enumerate(sorted(tests, key=lambda place: tests[place].pvalue)):
        test = tests[place]
        corrected = max(corrected, min(1.0, float(test.pvalue) * (len(tests) - rank)))
        low, high = map(float, test.confidence_interval(1 - LEVEL))
        error = (high - low) / 2 / stats.t.isf(LEVEL / 2, test.df)
        limit = stats.t.isf(LEVEL / len(tests) / 2, test.df)
        detectable = _detectable(error, test.df, limit)
        found[place] = Difference(found[place].mean, low, high, corrected, detectable)
    return found


def dunnett(first: list[float], others: list[list[float]]) -> list[Difference]:
    """Each other group's mean minus the first group's, by Dunnett's test (1955).

    The variance is pooled over all groups. The intervals hold together with 95%, and p is
    corrected for the number of groups. SciPy's probabilities are exact to about three digits.
    """
    groups = [first, *others]
    means = [float(np.mean(group) - np.mean(first)) for group in others]
    freedom = sum(map(len, groups)) - len(groups)
    squares = sum(len(group) * np.var(group) for group in groups)
    if not squares:
        return [Difference(mean) for mean in means]
    test = stats.dunnett(*others, control=first, rng=0)
    interval = test.confidence_interval(1 - LEVEL)
    found = []
    for place, group in enumerate(others):
        low = float(interval.low[place])
        high = float(interval.high[place])
        error = float(np.sqrt(squares / freedom * (1 / len(group) + 1 / len(first))))
        detectable = _detectable(error, freedom, (high - low) / 2 / error)
        found.append(Difference(means[place], low, high, float(test.pvalue[place]), detectable))
    return found


def points(difference: Difference) -> str:
    return f"{difference.mean:+.2f}"


def bounds(difference: Difference, digits: int = 2) -> str:
    """The interval; like p and what is detectable, nothing where there is no test."""
    if difference.low is None:
        return ""
    return f"{difference.low:+.{digits}f} to {difference.high:+.{digits}f}"


def points_and_bounds(difference: Difference) -> str:
    return points(difference) + (f" ({bounds(difference)})" if difference.p is not None else "")


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def p_of(difference: Difference) -> str:
    return "" if difference.p is None else p_value(difference.p)


def detectable(difference: Difference) -> str:
    return "" if difference.detectable is None else f"{difference.detectable:.2f}"


def verdict(difference: Difference) -> str:
    """`better`, `worse` or `not detected`; nothing where there is no test."""
    if not difference.detected:
        return "" if difference.p is None else "not detected"
    return "better" if difference.mean > 0 else "worse"


def told(difference: Difference, digits: int = 2) -> str:
    """A difference, its interval and p; where none was detected, the size that would have been."""
    if difference.p is None:
        return f"{difference.mean:+.{digits}f} (one seed)"
    words = f"{bounds(difference, digits)}, p = {p_of(difference)}".replace("= <", "<")
    if not difference.detected:
        words += f": not detected; detectable: {difference.detectable:.{digits}f}"
    return f"{difference.mean:+.{digits}f} ({words})"


def mcnemar(first: Tensor, second: Tensor) -> tuple[int, int, float]:
    """Images that a larger share of the `first` networks gets right, images that a larger share of
    the `second` does, and a two-sided p.

    Both are truth values (networks, images), for the same images. It is McNemar's test (1947) where
    both are one network. With more, an image's answers are a cluster (Durkalski et al. 2003,
    Statistics in Medicine 22, 2417). The p tells of other images, not of other seeds.
    """
    gaps = first.double().mean(0) - second.double().mean(0)
    size = float(gaps.square().sum().sqrt())
    p = 2 * stats.norm.sf(abs(float(gaps.sum())) / size) if size else 1.0
    return int((gaps > 0).sum()), int((gaps < 0).sum()), float(p)
