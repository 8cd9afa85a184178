"""Views are numbered, each epoch's are a pure function of (seed, epoch), and cutting does what it
says.
"""

import pytest
import torch

from hw2 import views


def moved(image, number, pad):
    """View `number` of an image (28, 28), pixel by pixel from its definition."""
    places = [(y, x) for y in range(-pad, pad + 1) for x in range(-pad, pad + 1)]
    middle = places.index((0, 0))
    down, right = (places[middle:] + places[:middle])[number // 2]
    out = torch.zeros_like(image)
    for y in range(28):
        for x in range(28):
            if 0 <= y + down < 28 and 0 <= x + right < 28:
                out[y, 27 - x if number % 2 else x] = image[y + down, x + right]
    return out


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_cutting_agrees_with_plain_loops_and_leaves_the_images_as_they_are(data, pad):
    images = data.train_images[:20].clone()
    for number in range(views.count(pad)):
        numbers = [(number + place) % views.count(pad) for place in range(20)]
        parts = zip(images, numbers, strict=True)
        expected = torch.stack([moved(image, each, pad) for image, each in parts])
        assert views.cut(images, torch.tensor(numbers), pad).equal(expected)
        assert views.cut(images, number, pad)[0].equal(expected[0])
    assert images.equal(data.train_images[:20])


def test_an_epochs_views_never_change_and_are_uniform_and_hang_on_seed_and_epoch_alone(few):
    numbers = views.drawn(6, 1, 0, 1)
    assert numbers.tolist() == [9, 15, 6, 15, 6, 5]
    others = [views.drawn(6, 1, 0, 2), views.drawn(6, 1, 1, 1)]
    assert not any(other.equal(numbers) for other in others)
    assert views.drawn(60000, 1, 0, 1)[:6].equal(numbers)  # later images change none of earlier
    task = views.Task(few, torch.arange(4), torch.arange(4, 8), pad=1, seed=0)
    assert task.view(1)[:6].equal(numbers) and task.answer(1).equal(task.view(1))
    assert list(task.answered()) == list(range(18))
    share = views.drawn(60000, 1, 0, 1).bincount(minlength=18) / 60000
    # 18 equally likely numbers, each with a standard error of 0.0009
    assert share.tolist() == pytest.approx([1 / 18] * 18, abs=0.004)


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
