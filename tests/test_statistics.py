"""What sums results up is computed right, and written as what it is."""

import math
from fractions import Fraction

import pytest
import torch
from scipy import stats

from hw2.report import statistics


def test_the_calibration_error_is_the_mean_gap_weighed_by_the_images_of_a_bin():
    # Two bins of the ten: 0.65 sure and right once of two, 0.95 sure and right twice of two.
    sure = torch.tensor([0.65, 0.65, 0.95, 0.95], dtype=torch.float64)
    found = statistics.calibration(sure, torch.tensor([True, False, True, True]), bins=10)
    assert found["count"] == [2, 2]
    assert found["accuracy"] == [0.5, 1.0] and found["confidence"] == [0.65, 0.95]
    assert found["error"] == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


def test_full_confidence_belongs_to_the_last_bin():
    found = statistics.calibration(torch.ones(10), torch.ones(10) > 0)
    assert (found["count"], found["accuracy"], found["error"]) == ([10], [1.0], 0.0)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (1, 7), (81, 263), (9391, 10_000), (10_000, 10_000)])
def test_wilson_is_scipys(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert statistics.wilson(correct, total) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (130, 120), (187, 90)])
def test_mcnemars_p_is_scipys_and_that_of_a_sum_of_integers(first, second):
    one = torch.arange(first + second + 5) < first
    other = (torch.arange(first + second + 5) >= first) & (torch.arange(first + second + 5) < first + second)
    count, least = first + second, min(first, second)
    tail = Fraction(2 * sum(math.comb(count, number) for number in range(least + 1)), 2**count)
    p = statistics.mcnemar(one, other)[2]
    assert p == pytest.approx(float(min(tail, Fraction(1))), rel=1e-9)
    if count:
        assert p == pytest.approx(stats.binomtest(first, count).pvalue, rel=1e-9)


def test_a_paired_interval_is_scipys():
    values, others = [0.91, 0.93, 0.92, 0.95], [0.90, 0.94, 0.90, 0.91]
    interval = stats.ttest_rel(values, others).confidence_interval(0.95)
    mean = sum(a - b for a, b in zip(values, others, strict=True)) / 4
    assert statistics.paired(values, others) == pytest.approx((mean, interval.low, interval.high), rel=1e-9)


def test_one_pair_has_no_interval():
    assert statistics.paired([0.5], [0.25]) == (0.25, None, None)


@pytest.mark.parametrize(
    ("limits", "words"),
    [((0.1, 0.3), "better"), ((-0.3, -0.1), "worse"), ((-0.1, 0.3), "not told apart"), ((None, None), "")],
)
def test_a_verdict_is_what_the_interval_allows(limits, words):
    assert statistics.verdict((0.0, *limits)) == words


@pytest.mark.parametrize(("values", "text"), [([], "not read"), ([0.5], "50.00%"), ([0.5, 0.6], "55.00 ± 7.07%")])
def test_spread_says_no_deviation_of_one_value(values, text):
    assert statistics.spread(values) == text
