"""The loss is Hinton's, by numbers worked out elsewhere; the cache of soft targets is exact,
resumable and checked.
"""

import math

import numpy as np
import pytest
import torch
from helpers import tiny_network
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from hw2 import distillation, training, views
from hw2.distillation import build_cache, cached_objective, kd_loss, read_cache
from hw2.errors import InputError

#: what PyTorch says where a softmax is not told its dimension
pytestmark = pytest.mark.filterwarnings("error:Implicit dimension choice")

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
TEACHER = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 1])
MANY = torch.arange(64) % 10


def random_logits(seed):
    """Logits (64, 10) of a student and a teacher, for the labels `MANY`."""
    return torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize(
    ("temperature", "alpha", "golden"),
    [
        (1.0, 0.5, 0.271563728),
        (2.0, 0.3, 0.2962700381),
        (4.0, 0.9, 0.2397281061),
        (8.0, 1.0, 0.2270052537),
    ],
)
def test_the_loss_equals_the_numbers_worked_out_by_hand(temperature, alpha, golden):
    assert kd_loss(STUDENT, TEACHER, LABELS, temperature, alpha).item() == pytest.approx(
        golden, rel=1e-5
    )


@pytest.mark.filterwarnings("ignore:reduction")  # of PyTorch, against the very bug
def test_the_controls_loss_is_ten_times_too_small():
    student, teacher = random_logits(4)
    bug = 16 * functional.kl_div(
        torch.log_softmax(student / 4, 1), torch.softmax(teacher / 4, 1), reduction="mean"
    )
    torch.testing.assert_close(distillation.kl_mean(student, teacher, 4.0), bug, rtol=1e-5, atol=0)
    torch.testing.assert_close(distillation.kl(student, teacher, 4.0), 10 * bug, rtol=1e-5, atol=0)


def test_every_loss_is_known_by_its_name_and_weighed_by_alpha():
    student, teacher = random_logits(8)
    hard = functional.cross_entropy(student, MANY)
    for name, soft in distillation.SOFT_LOSSES.items():
        expected = 0.7 * hard + 0.3 * soft(student, teacher, 4.0)
        torch.testing.assert_close(kd_loss(student, teacher, MANY, 4.0, 0.3, name), expected)


def test_alpha_0_is_the_cross_entropy_and_a_perfect_student_has_no_soft_loss():
    student, teacher = random_logits(2)
    assert kd_loss(student, teacher, MANY, 4.0, 0.0).equal(functional.cross_entropy(student, MANY))
    # A constant added to all logits changes no probability.
    assert kd_loss(teacher + 5, teacher, MANY, 4.0, 1.0).item() == pytest.approx(0, abs=1e-4)
    assert distillation.soft_targets(torch.tensor([[math.log(4.0), 0.0]]), 2.0)[
        0, 0
    ].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_soft_part_and_its_gradient_are_those_of_torchs_divergence(temperature):
    student, teacher = random_logits(3)
    student.requires_grad_()
    loss = kd_loss(student, teacher, MANY, temperature, 1.0)
    divergence = kl_divergence(
        Categorical(logits=teacher / temperature), Categorical(logits=student / temperature)
    )
    torch.testing.assert_close(loss, temperature**2 * divergence.mean(), rtol=1e-4, atol=1e-6)
    loss.backward()
    difference = torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)
    torch.testing.assert_close(
        student.grad, temperature * difference.detach() / 64, rtol=1e-4, atol=1e-7
    )


CACHE = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0)).half()
BATCH = (
    torch.randn(2, 10, generator=torch.Generator().manual_seed(1)),
    torch.tensor([1, 2]),
    torch.tensor([4, 19]),
)


MEAN = CACHE.double().mean(0).float()


@pytest.mark.parametrize("loss", ["kl", "kl_mean"])
@pytest.mark.parametrize(
    ("targets", "view", "known"),
    [
        ("same view", 2, CACHE[2].float()),
        ("identity", 2, CACHE[0].float()),
        ("mean", 0, MEAN),
        ("mean", 2, MEAN),
    ],
)
def test_the_objective_looks_up_view_and_row(loss, targets, view, known):
    logits, labels, rows = BATCH
    found = cached_objective(CACHE, 4.0, 0.9, loss, targets)(*BATCH, view)
    torch.testing.assert_close(
        found, kd_loss(logits, known[rows], labels, 4.0, 0.9, loss), rtol=1e-5, atol=0
    )


ROWS = torch.tensor([5, 0, 17, 40, 99])


def test_the_cache_holds_the_live_logits_of_each_view_and_nan_for_other_images(few, tmp_path):
    teacher, images = tiny_network(), few.train_images[:100]
    cache = build_cache(teacher, images, ROWS, 3, 4, 7, tmp_path / "new/folder")
    assert (cache.shape, cache.dtype) == ((3, 100, 10), np.float16)
    for view in range(3):
        live = training.logits_of(teacher, views.cut(images, view, 4, 7))
        # float16 has 11 significant bits
        np.testing.assert_allclose(
            cache[view, ROWS], live[ROWS].numpy(), rtol=2**-11 + 1e-5, atol=1e-6
        )
    others = np.setdiff1d(np.arange(100), ROWS)
    assert np.isnan(cache[:, others]).all()
    assert not np.isnan(cache[:, ROWS]).any()
    # No training survives such an image unnoticed.
    loss = cached_objective(torch.from_numpy(cache), 4.0, 0.9)(
        torch.zeros(2, 10), ROWS[:2], torch.tensor([5, 6]), 0
    )
    assert loss.isnan()


def test_an_interrupted_cache_goes_on_with_the_views_that_are_missing(few, tmp_path, monkeypatch):
    calls, images = [], few.train_images[:100]

    def counted(*args, **more):
        calls.append(args)
        return training.logits_of(*args, **more)

    monkeypatch.setattr(distillation, "logits_of", counted)
    whole = build_cache(tiny_network(), images, ROWS, 3, 2, 0, tmp_path)
    assert len(calls) == 3
    (tmp_path / "view-1.npy").unlink()
    again = build_cache(tiny_network(), images, ROWS, 3, 2, 0, tmp_path)
    assert len(calls) == 4
    np.testing.assert_array_equal(again, whole)
    assert len(list(tmp_path.iterdir())) == 3
    np.save(tmp_path / "view-2.npy", whole[2, 1:])
    with pytest.raises(
        InputError, match=r"view-2\.npy: no readable array .*; delete it to compute it again"
    ):
        build_cache(tiny_network(), images, ROWS, 3, 2, 0, tmp_path)
    np.save(tmp_path / "soft_targets.npy", whole)
    assert read_cache(tmp_path / "soft_targets.npy").numpy().tobytes() == whole.tobytes()


RIGHT = np.zeros((2, 30, 10), np.float16)
#: how a right file is spoilt: an array that is kept in its place, or a change of its bytes
UNUSABLE = {
    "pickled": RIGHT.astype(object),
    "float32": RIGHT.astype(np.float32),
    "two dimensions": RIGHT[0],
    "nine classes": RIGHT[..., :9],
    "empty": lambda whole: b"",
    "garbage": lambda whole: b"version https://git-lfs.github.com/spec/v1",
    "cut off": lambda whole: whole[:-1],
    "a header that does not end": lambda whole: whole.replace(b"(2, 30, 10)", b"(2, 30, 10 "),
    "a header that claims a terabyte": lambda whole: whole.replace(
        b"(2, 30, 10), }" + b" " * 10, b"(2, 99999999999, 10), } "
    ),
    "a broken archive": lambda whole: b"PK\x03\x04" + bytes(50),
}


@pytest.mark.parametrize("spoilt", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_of_soft_targets_is_named(tmp_path, spoilt):
    path = tmp_path / "soft_targets.npy"
    np.save(path, RIGHT)
    assert read_cache(path).shape == RIGHT.shape
    np.save(path, spoilt) if isinstance(spoilt, np.ndarray) else path.write_bytes(
        spoilt(path.read_bytes())
    )
    with pytest.raises(InputError) as error:
        read_cache(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
