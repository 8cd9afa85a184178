"""Views are a pure function of (seed, view), and cutting and normalising do what they say."""

import pytest
import torch

from hw2 import views


def cut_plainly(images, index, pad, seed):
    """Crop and flip, pixel by pixel from their definition."""
    rows, columns, flips = views.view(index, len(images), pad, seed)
    out = torch.zeros_like(images)
    for number, image in enumerate(images):
        padded = torch.zeros(28 + 2 * pad, 28 + 2 * pad, dtype=torch.uint8)
        padded[pad : pad + 28, pad : pad + 28] = image
        for y in range(28):
            line = padded[int(rows[number]) + y, int(columns[number]) : int(columns[number]) + 28]
            out[number, y] = line.flip(0) if flips[number] else line
    return out


@pytest.mark.parametrize(("index", "pad", "seed"), [(0, 2, 0), (1, 2, 0), (5, 2, 7), (3, 4, 0)])
def test_cutting_agrees_with_plain_loops_and_leaves_the_images_as_they_are(data, index, pad, seed):
    images = data.train_images[:100].clone()
    found = views.cut(images, index, pad, seed)
    assert found.equal(cut_plainly(images, index, pad, seed))
    assert images.equal(data.train_images[:100]) and found.equal(images) == (index == 0)


def test_views_never_change_and_are_uniform_and_hang_on_seed_and_number_alone():
    rows, columns, flips = views.view(1, 6)
    assert rows.tolist() == [0, 2, 2, 2, 0, 1]
    assert columns.tolist() == [4, 0, 1, 2, 3, 0]
    assert flips.long().tolist() == [1, 1, 0, 1, 0, 1]
    assert not any(views.view(*other)[0].equal(rows) for other in ((2, 6), (1, 6, 2, 1)))
    assert views.view(1)[0][:6].equal(rows)  # later images change no view of earlier ones
    rows, columns, flips = views.view(1)
    share = (rows * 10 + columns * 2 + flips).bincount(minlength=50) / 60000
    # 50 equally likely outcomes, each with a standard error of 0.0006
    assert share.tolist() == pytest.approx([0.02] * 50, abs=0.003)


def test_normalised_training_images_have_mean_0_and_deviation_1_in_three_equal_channels(data):
    counts = data.train_images.flatten().bincount(minlength=256).double()
    batch = views.normalise(torch.arange(256, dtype=torch.uint8).view(1, 16, 16))
    assert batch.shape == (1, 3, 16, 16) and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[:, 0].equal(batch[:, 1]) and batch[:, 0].equal(batch[:, 2])
    values, share = batch[0, 0].flatten().double(), counts / counts.sum()
    assert values[[0, 255]].tolist() == pytest.approx([-0.2860 / 0.3530, 0.7140 / 0.3530])
    mean = (share * values).sum()
    assert mean == pytest.approx(0, abs=2e-4)
    assert (share * (values - mean).square()).sum().sqrt() == pytest.approx(1, abs=2e-4)
