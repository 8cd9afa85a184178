"""What sums results up is computed right, and written as what it is."""

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
    # full confidence: the last bin
    assert statistics.calibration(torch.ones(10), torch.ones(10) > 0)["count"] == [10]
    # which rounding would put into one bin
    edge = torch.tensor([0.66666, 0.66668], dtype=torch.float64)
    assert statistics.calibration(edge, edge > 0, bins=15)["count"] == [1, 1]


def test_wilson_is_the_published_formula():
    share, z, count = 81 / 263, 1.959964, 263  # 0.2553 to 0.3662 in Newcombe (1998), table I
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    expected = [(share + z**2 / (2 * count) + sign * half) / (1 + z**2 / count) for sign in (-1, 1)]
    assert statistics.wilson(81, 263) == pytest.approx(expected, rel=1e-6)
    assert statistics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1), (1, 0, 1), (5, 5, 1), (3, 0, 2 / 8), (1, 4, 12 / 32)]
)
def test_mcnemars_p_is_that_of_a_fair_coin(first, second, p):
    place = torch.arange(first + second + 5)
    one, other = place < first, (place >= first) & (place < first + second)
    assert statistics.mcnemar(one, other) == (first, second, pytest.approx(p))


def test_a_paired_interval_is_scipys():
    values, others = [0.91, 0.93, 0.92, 0.95], [0.90, 0.94, 0.90, 0.91]
    interval = stats.ttest_rel(values, others).confidence_interval(0.95)
    assert statistics.paired(values, others) == pytest.approx(
        (0.015, interval.low, interval.high), rel=1e-9
    )
    assert statistics.paired([0.5, 0.75], [0.25, 0.5]) == (0.25, 0.25, 0.25)
    assert statistics.paired([0.5], [0.25]) == (0.25, None, None)  # one pair has none


def test_a_verdict_is_what_the_interval_allows_and_one_value_has_no_deviation():
    verdicts = {
        (0.1, 0.3): "better",
        (-0.3, -0.1): "worse",
        (-0.1, 0.3): "not told apart",
        (None, None): "",
    }
    assert {limits: statistics.verdict((0.0, *limits)) for limits in verdicts} == verdicts
    assert [statistics.spread(values) for values in ([], [0.5], [0.5, 0.6])] == [
        "not read",
        "50.00%",
        "55.00 ± 7.07%",
    ]
