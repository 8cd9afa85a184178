"""The loss is Hinton's, by PyTorch's divergence; the cache of soft targets is exact, resumable and
checked.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny_network
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from hw2 import distillation, training, views
from hw2.distillation import build_cache, cached_objective, kd_loss, read_cache
from hw2.errors import InputError
from hw2.views import Task

#: what PyTorch says where a softmax is not told its dimension
pytestmark = pytest.mark.filterwarnings("error:Implicit dimension choice")

LABELS = torch.arange(64) % 10


def random_logits(seed):
    """Logits (64, 10) of a student and a teacher, for the labels `LABELS`."""
    return torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.filterwarnings("ignore:reduction")  # of PyTorch, against the very bug
def test_the_controls_loss_is_ten_times_too_small():
    student, teacher = random_logits(4)
    soft = torch.log_softmax(student / 4, 1), torch.softmax(teacher / 4, 1)
    bug = 16 * functional.kl_div(*soft, reduction="mean")
    torch.testing.assert_close(distillation.kl_mean(student, teacher, 4.0), bug, rtol=1e-5, atol=0)
    torch.testing.assert_close(distillation.kl(student, teacher, 4.0), 10 * bug, rtol=1e-5, atol=0)


def test_every_loss_is_known_by_its_name_and_weighed_by_alpha():
    student, teacher = random_logits(8)
    hard = functional.cross_entropy(student, LABELS)
    for name, soft in distillation.SOFT_LOSSES.items():
        expected = 0.7 * hard + 0.3 * soft(student, teacher, 4.0)
        torch.testing.assert_close(kd_loss(student, teacher, LABELS, 4.0, 0.3, name), expected)
        assert kd_loss(student, teacher, LABELS, 4.0, 0.0, name).equal(hard)


@pytest.mark.parametrize("temperature", [0.5, 4.0, 20.0])
def test_the_soft_part_and_its_gradient_are_those_of_torchs_divergence(temperature):
    student, teacher = random_logits(3)
    student.requires_grad_()
    loss = kd_loss(student, teacher, LABELS, temperature, 1.0)
    soft = [Categorical(logits=logits / temperature) for logits in (teacher, student)]
    expected = temperature**2 * kl_divergence(*soft).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    loss.backward()
    found = distillation.soft_targets(student.detach(), temperature)
    wanted = distillation.soft_targets(teacher, temperature)
    gradient = temperature * (found - wanted) / 64
    torch.testing.assert_close(student.grad, gradient, rtol=1e-4, atol=1e-7)


CACHE = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0)).half()


@pytest.mark.parametrize("loss", ["kl", "kl_mean"])
@pytest.mark.parametrize("targets", ["same view", "identity", "mean"])
def test_the_objective_looks_up_the_answer_and_row(loss, targets):
    logits = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    labels, rows, answers = torch.tensor([[1, 2], [4, 19], [0, 1]])
    known = {
        "same view": CACHE[answers, rows].float(),
        "identity": CACHE[0, rows].float(),
        "mean": CACHE.double().mean(0).float()[rows],
    }[targets]
    found = cached_objective(CACHE, 4.0, 0.9, loss, targets)(logits, labels, rows, answers)
    expected = kd_loss(logits, known, labels, 4.0, 0.9, loss)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


ROWS = torch.tensor([5, 0, 17, 40, 99])


@pytest.fixture
def task(few):
    """Images 0 to 99 in all 18 views of pad 1."""
    fewer = replace(few, train_images=few.train_images[:100])
    return Task(fewer, torch.arange(50), torch.arange(50, 100), pad=1, seed=7)


def built(task, folder, rows=ROWS):
    return build_cache(tiny_network(), task, torch.device("cpu"), rows, folder)


def test_the_cache_answers_every_view_that_a_student_sees_and_has_nan_for_other_images(
    task, tmp_path
):
    cache = built(task, tmp_path / "new/folder")
    assert (cache.shape, cache.dtype) == ((18, 100, 10), np.float16)
    seen = set()
    for epoch in range(40):
        shown = views.cut(task.data.train_images, task.view(epoch), task.pad)[ROWS]
        live = training.logits_of(tiny_network(), shown).numpy()
        answers = task.answer(epoch)[ROWS]
        # float16 has 11 significant bits
        np.testing.assert_allclose(cache[answers, ROWS], live, rtol=2**-11 + 1e-5, atol=1e-6)
        seen |= set(answers.tolist())
    assert seen == set(range(18))
    others = np.setdiff1d(np.arange(100), ROWS)
    assert np.isnan(cache[:, others]).all()
    # No training survives such an image unnoticed.
    loss = cached_objective(torch.from_numpy(cache), 4.0, 0.9)(
        torch.zeros(2, 10), ROWS[:2], torch.tensor([5, 6]), torch.tensor([0, 0])
    )
    assert loss.isnan()


def test_an_interrupted_cache_goes_on_with_the_views_that_are_missing(task, tmp_path, monkeypatch):
    calls = []

    def counted(*args, **more):
        calls.append(args)
        return training.logits_of(*args, **more)

    monkeypatch.setattr(distillation, "logits_of", counted)
    whole = built(task, tmp_path)
    assert len(calls) == 18
    (tmp_path / "view-1.npy").unlink()
    again = built(task, tmp_path)
    assert len(calls) == 19
    np.testing.assert_array_equal(again, whole)
    assert len(list(tmp_path.iterdir())) == 18
    np.save(tmp_path / "view-2.npy", whole[2, 1:])
    told = r"view-2\.npy: no readable array .*; delete it to compute it again"
    with pytest.raises(InputError, match=told):
        built(task, tmp_path)
    np.save(tmp_path / "soft_targets.npy", whole)
    assert read_cache(tmp_path / "soft_targets.npy").numpy().tobytes() == whole.tobytes()


RIGHT = np.zeros((2, 30, 10), np.float16)
#: how a right file is spoilt: an array that is kept in its place, or a change of its bytes
UNUSABLE = {
    "pickled": RIGHT.astype(object),
    "float32": RIGHT.astype(np.float32),
    "two dimensions": RIGHT[0],
    "garbage": lambda whole: b"version https://git-lfs.github.com/spec/v1",
    "cut off": lambda whole: whole[:-1],
    "a header that does not end": lambda whole: whole.replace(b"(2, 30, 10)", b"(2, 30, 10 "),
}


@pytest.mark.parametrize("spoilt", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_of_soft_targets_is_named(tmp_path, spoilt):
    path = tmp_path / "soft_targets.npy"
    np.save(path, RIGHT)
    assert read_cache(path).shape == RIGHT.shape
    if isinstance(spoilt, np.ndarray):
        np.save(path, spoilt)
    else:
        path.write_bytes(spoilt(path.read_bytes()))
    with pytest.raises(InputError, match=rf"^{path}: .*$"):
        read_cache(path)
