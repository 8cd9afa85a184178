"""Students trained as one network come out as from training alone."""

import pytest
import torch
from helpers import same_bits, tiny_network

from hw2 import distillation, fused, training
from hw2.errors import InputError
from hw2.experiments.recipes import Fit
from hw2.networks import ResNet14

TRAIN, VALIDATION = torch.arange(72), torch.arange(500, 532)
# A small learning rate: a large one blows rounding up, in this tiny network a hundredfold an epoch.
RECIPES = {
    "plain": Fit(epochs=2, lr=0.002, batch=32),
    "averaged, erasing": Fit(epochs=2, lr=0.002, batch=32, ema=0.5, erasing=8),
}


def students(count=3):
    return [tiny_network(seed) for seed in range(count)]


def close(one, other):
    return all(
        torch.allclose(a.double(), b.double(), rtol=1e-4, atol=2e-5)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_outputs_are_the_students_own_image_by_image():
    apart = [student.eval() for student in students()]
    images = torch.randn(4 * 3, 3, 28, 28)
    with torch.no_grad():
        together = fused.Fused(apart).eval()(images)
        for number, student in enumerate(apart):
            torch.testing.assert_close(together[number::3], student(images[number::3]), rtol=1e-4, atol=1e-5)


def test_students_come_apart_as_they_went_in():
    for before, after in zip(students(), fused.Fused(students()).students(), strict=True):
        assert before.widths == after.widths and not after.training
        assert same_bits(before, after)


@pytest.mark.parametrize("name", RECIPES)
def test_training_together_is_training_alone_to_rounding(few, name):
    seeds, temperatures, alphas = (3, 5, 7), (1.0, 2.0, 6.0), (0.0, 0.4, 1.0)
    cache = torch.randn(2, 60000, 10, generator=torch.Generator().manual_seed(0))
    objective = fused.cached_objective(cache, temperatures, alphas)
    together, history = fused.fit(
        students(), few, TRAIN, VALIDATION, RECIPES[name], seeds=seeds, view_count=2, objective=objective
    )
    alone = [
        training.fit(
            student,
            few,
            TRAIN,
            VALIDATION,
            RECIPES[name],
            seed=seed,
            view_count=2,
            objective=distillation.cached_objective(cache, temperature, alpha),
        )
        for student, seed, temperature, alpha in zip(students(), seeds, temperatures, alphas, strict=True)
    ]
    assert all(close(one, other) for one, (other, _) in zip(together, alone, strict=True))
    moved = [(one.fc.weight - start.fc.weight).abs().max() for one, start in zip(together, students(), strict=True)]
    assert min(moved) > 20 * 2e-5  # far more than the tolerance
    for column in ("train_loss", "val_loss", "val_accuracy"):
        means = [sum(rows) / 3 for rows in zip(*([row[column] for row in h.epochs] for _, h in alone), strict=True)]
        assert [row[column] for row in history.epochs] == pytest.approx(means, rel=1e-3)


def test_the_labels_alone_need_no_other_objective(few):
    together, _ = fused.fit(students(2), few, TRAIN, VALIDATION, RECIPES["plain"], seeds=(0, 1))
    alone, _ = training.fit(students(2)[1], few, TRAIN, VALIDATION, RECIPES["plain"], seed=1)
    assert close(together[1], alone)


@pytest.mark.parametrize("group", [[], [ResNet14((4, 4, 8, 8)), ResNet14((4, 4, 8, 9))]])
def test_students_of_other_widths_are_refused(group):
    with pytest.raises(InputError, match="equal widths"):
        fused.Fused(group)


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(InputError, match="alpha"):
        fused.cached_objective(torch.zeros(1, 1, 10), [1.0], [1.5])
