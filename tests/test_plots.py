"""What figures show is computed right."""

import pytest
import torch

from hw2 import plots


def test_the_calibration_error_is_the_mean_gap_weighed_by_the_images_of_a_bin():
    # Two bins of the ten: 0.65 sure and right once of two, 0.95 sure and right twice of two.
    sure = torch.tensor([0.65, 0.65, 0.95, 0.95], dtype=torch.float64)
    probabilities = torch.zeros(4, 10, dtype=torch.float64)
    probabilities[:, 3], probabilities[:, 7] = sure, 1 - sure
    found = plots.calibration(probabilities, torch.tensor([3, 7, 3, 3]), bins=10)
    assert found["count"] == [2, 2]
    assert found["accuracy"] == [0.5, 1.0] and found["confidence"] == [0.65, 0.95]
    assert found["error"] == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


def test_full_confidence_belongs_to_the_last_bin():
    found = plots.calibration(torch.eye(10, dtype=torch.float64), torch.arange(10))
    assert (found["count"], found["accuracy"], found["error"]) == ([10], [1.0], 0.0)
