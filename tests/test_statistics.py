"""What sums results up is computed right, and written as what it is."""

import numpy as np
import pytest
import torch
from scipy import stats

from hw2.report import statistics


def test_wilson_is_the_published_formula():
    # Newcombe (1998), table I
    assert statistics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mcnemars_test_over_seeds_is_that_of_gaps_whose_signs_are_a_coins():
    """Against its closed form for one network each, and against flipped signs for three each."""
    place = torch.arange(100)
    wins, losses, p = statistics.mcnemar(place[None] < 30, (place[None] >= 30) & (place < 45))
    assert (wins, losses) == (30, 15)
    assert p == pytest.approx(stats.chi2.sf((30 - 15) ** 2 / (30 + 15), 1))
    draw = torch.Generator().manual_seed(0)
    shared = torch.rand(2000, generator=draw)
    bars = torch.tensor([0.960, 0.955]).view(2, 1, 1)
    first, second = shared + 0.2 * torch.rand(2, 3, 2000, generator=draw) < bars
    gaps = (first.double().mean(0) - second.double().mean(0)).numpy()
    signs = np.random.default_rng(0).choice([-1, 1], (10_000, len(gaps)))
    flipped = np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9
    p = statistics.mcnemar(first, second)[2]
    assert 0.02 < p < 0.5 and p == pytest.approx(flipped.mean(), abs=0.02)
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


def test_welchs_p_is_corrected_by_holms_method_and_one_seed_has_none():
    """p of 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06, as in Holm's procedure by hand."""
    samples = [([shift, shift + 1, shift + 2], [0, 1, 2]) for shift in (5, 2, 3)]
    plain = [stats.ttest_ind(*pair, equal_var=False).pvalue for pair in samples]
    found = statistics.welch([*samples, ([1.0], [0.0, 1.0]), ([1.0, 1.0], [0.0, 0.0])])
    assert plain[0] < plain[2] < plain[1]
    middle = max(3 * plain[0], 2 * plain[2])
    expected = [3 * plain[0], max(middle, plain[1]), middle]
    assert [each.p for each in found[:3]] == pytest.approx(expected)
    assert found[3:] == [statistics.Difference(0.5), statistics.Difference(1.0)]


def test_what_is_detectable_is_detected_in_four_of_five_simulated_studies():
    draw = np.random.default_rng(0)
    even = np.tile([-1, 1], 6) * np.sqrt(11 / 12)  # its deviation is 1
    one, first, other = (draw.normal(size=(12, 40_000)) for _ in range(3))
    true = statistics.welch([(even, even)])[0].detectable
    test = stats.ttest_ind(one + true, first, equal_var=False)
    assert np.mean(test.pvalue < 0.05) == pytest.approx(0.8, abs=0.02)
    found = statistics.dunnett(even, [even, even])[0]
    deviation = np.sqrt(np.mean([group.var(0, ddof=1) for group in (one, first, other)], axis=0))
    gaps = found.detectable + one.mean(0) - first.mean(0)
    detected = np.abs(gaps) > (found.high - found.mean) * deviation
    assert np.mean(detected) == pytest.approx(0.8, abs=0.01)


def test_a_difference_is_told_with_what_its_test_allows():
    told = {
        (
            0.2,
            -0.1,
            0.5,
            0.17,
            0.48,
        ): "+0.20 (-0.10 to +0.50, p = 0.170: not detected; detectable: 0.48)",
        (-0.77, -1.31, -0.23, 0.0066, 0.71): "-0.77 (-1.31 to -0.23, p = 0.007)",
        (0.9, 0.8, 1.0, 0.0001, 0.2): "+0.90 (+0.80 to +1.00, p < 0.001)",
        (0.67,): "+0.67 (one seed)",
    }
    found = [statistics.Difference(*numbers) for numbers in told]
    assert [statistics.told(each) for each in found] == [*told.values()]
    assert [statistics.verdict(each) for each in found] == ["not detected", "worse", "better", ""]


def test_one_value_has_no_deviation():
    values = ([], [0.5], [0.5, 0.6])
    told = [statistics.spread(each) for each in values]
    assert told == ["not read", "50.00%", "55.00 ± 7.07%"]
    told = [statistics.spread_of_losses(each) for each in values[1:]]
    assert told == ["0.500", "0.550 ± 0.071"]
