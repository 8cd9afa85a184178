"""The loss is Hinton's, by numbers worked out elsewhere; the cache of soft targets is exact, resumable and checked."""

import io
import math
import re

import numpy as np
import pytest
import torch
from helpers import tiny_network
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from hw2 import distillation, training, views
from hw2.distillation import build_cache, cached_objective, kd_loss, read_cache
from hw2.errors import InputError
from hw2.experiments.recipes import Recipe

#: what PyTorch says where a softmax is not told its dimension
pytestmark = pytest.mark.filterwarnings("error:Implicit dimension choice")

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
TEACHER = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 1])


def by_hand(temperature, alpha):
    """The formula of the docstring in plain Python."""

    def softmax(row):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    hard = soft = 0.0
    for student, teacher, label in zip(STUDENT.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True):
        hard -= math.log(math.exp(student[label]) / sum(map(math.exp, student))) / 2
        pairs = zip(softmax(teacher), softmax(student), strict=True)
        soft += sum(p * math.log(p / q) for p, q in pairs) / 2
    return (1 - alpha) * hard + alpha * temperature**2 * soft


@pytest.mark.parametrize(
    ("temperature", "alpha", "golden"),
    [(1.0, 0.5, 0.271563728), (2.0, 0.3, 0.2962700381), (4.0, 0.9, 0.2397281061), (8.0, 1.0, 0.2270052537)],
)
def test_the_loss_equals_the_numbers_worked_out_by_hand(temperature, alpha, golden):
    assert by_hand(temperature, alpha) == pytest.approx(golden, rel=1e-6)
    assert kd_loss(STUDENT, TEACHER, LABELS, temperature, alpha).item() == pytest.approx(golden, rel=1e-5)


@pytest.mark.filterwarnings("ignore:reduction")  # of PyTorch, against the very bug
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_controls_loss_is_ten_times_too_small(temperature):
    student, teacher = random_logits(4)
    labels = torch.arange(64) % 10
    bug = temperature**2 * functional.kl_div(
        torch.log_softmax(student / temperature, 1), torch.softmax(teacher / temperature, 1), reduction="mean"
    )
    torch.testing.assert_close(distillation.kl_mean(student, teacher, labels, temperature), bug, rtol=1e-5, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_parts_add_up_to_the_divergence(temperature):
    """Zhao et al. 2022, equation 6: KL = TCKD + (what the teacher leaves to other classes) * NCKD, image by image."""
    student, teacher = random_logits(5)
    labels = torch.arange(64) % 10
    for row in range(8):
        one = slice(row, row + 1)
        left = 1 - torch.softmax(teacher[one] / temperature, 1)[0, labels[row]].item()
        weighed = distillation.decoupled(student[one], teacher[one], labels[one], temperature, beta=left)
        whole = distillation.kl(student[one], teacher[one], labels[one], temperature)
        torch.testing.assert_close(weighed, whole, rtol=1e-4, atol=1e-6)


def test_decoupled_equals_torchs_divergences_of_target_and_others():
    student, teacher = random_logits(6)
    labels = torch.arange(64) % 10
    target = functional.one_hot(labels, 10).bool()
    p, q = (torch.softmax(logits / 4.0, 1) for logits in (teacher, student))
    binary = kl_divergence(*(Categorical(probs=torch.stack([x[target], 1 - x[target]], 1)) for x in (p, q)))
    others = kl_divergence(*(Categorical(probs=x[~target].view(64, 9)) for x in (p, q)))
    expected = 16 * (binary + 8 * others).mean()
    torch.testing.assert_close(distillation.decoupled(student, teacher, labels, 4.0), expected, rtol=1e-4, atol=1e-6)


def test_standardised_logits_need_not_match_in_range():
    student, teacher = random_logits(7)
    labels = torch.arange(64) % 10
    assert distillation.standardised(3 * teacher + 7, teacher, labels, 2.0).item() == pytest.approx(0, abs=1e-5)
    stretched = teacher * torch.linspace(0.5, 2, 64)[:, None]  # image by image
    assert distillation.standardised(stretched, teacher, labels, 2.0).item() == pytest.approx(0, abs=1e-5)
    assert distillation.standardised(student, teacher, labels, 2.0) > 0.1
    constant = torch.ones(64, 10)  # no spread to divide by
    assert distillation.standardised(constant, teacher, labels, 2.0).isfinite()


def test_every_loss_is_known_by_its_name_and_weighed_by_alpha():
    student, teacher = random_logits(8)
    labels = torch.arange(64) % 10
    hard = functional.cross_entropy(student, labels)
    for name, soft in distillation.SOFT_LOSSES.items():
        expected = 0.7 * hard + 0.3 * soft(student, teacher, labels, 4.0)
        torch.testing.assert_close(kd_loss(student, teacher, labels, 4.0, 0.3, name), expected)


def random_logits(seed):
    return torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_soft_part_is_torchs_kl_divergence_times_temperature_squared(temperature):
    student, teacher = random_logits(1)
    labels = torch.arange(64) % 10
    divergence = kl_divergence(Categorical(logits=teacher / temperature), Categorical(logits=student / temperature))
    loss = kd_loss(student, teacher, labels, temperature, 1.0)
    torch.testing.assert_close(loss, temperature**2 * divergence.mean(), rtol=1e-4, atol=1e-6)


def test_alpha_0_is_the_cross_entropy_and_a_perfect_student_has_no_soft_loss():
    student, teacher = random_logits(2)
    labels = torch.arange(64) % 10
    assert kd_loss(student, teacher, labels, 4.0, 0.0).equal(functional.cross_entropy(student, labels))
    # A constant added to all logits changes no probability.
    assert kd_loss(teacher + 5, teacher, labels, 4.0, 1.0).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_soft_gradient_is_temperature_times_the_difference_of_probabilities(temperature):
    student, teacher = random_logits(3)
    student.requires_grad_()
    kd_loss(student, teacher, torch.zeros(64, dtype=torch.long), temperature, 1.0).backward()
    difference = torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)
    torch.testing.assert_close(student.grad, temperature * difference.detach() / 64, rtol=1e-4, atol=1e-7)


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    sizes = []
    for temperature in (50.0, 100.0):
        student, teacher = random_logits(4)
        student.requires_grad_()
        kd_loss(student, teacher, torch.zeros(64, dtype=torch.long), temperature, 1.0).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)  # without T^2 it would be a quarter


def test_soft_targets_are_flatter_at_higher_temperature():
    assert distillation.soft_targets(torch.tensor([[math.log(4.0), 0.0]]), 1.0)[0].tolist() == pytest.approx([0.8, 0.2])
    assert distillation.soft_targets(torch.tensor([[math.log(4.0), 0.0]]), 2.0)[0].tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )


@pytest.mark.parametrize(("temperature", "alpha"), [(0.0, 0.5), (-2.0, 0.5), (4.0, -0.1), (4.0, 1.1)])
def test_an_objective_does_not_take_numbers_out_of_range(temperature, alpha):
    with pytest.raises(InputError, match=r"temperature|alpha"):
        cached_objective(torch.zeros(1, 2, 10), temperature, alpha)


def test_the_objective_looks_up_view_and_row():
    cache = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0)).half()
    rows, labels, logits = torch.tensor([4, 19]), torch.tensor([1, 2]), torch.zeros(2, 10)
    loss = cached_objective(cache, 4.0, 0.9)(logits, labels, rows, 2)
    asked = torch.stack([cache[2, 4], cache[2, 19]]).float()
    assert loss.equal(kd_loss(logits, asked, labels, 4.0, 0.9))
    decoupled = cached_objective(cache, 4.0, 0.9, "decoupled")(logits, labels, rows, 2)
    assert decoupled.equal(kd_loss(logits, asked, labels, 4.0, 0.9, "decoupled"))


def test_the_control_asks_the_teacher_about_the_image_as_it_is():
    cache = torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(0)).half()
    batch = torch.zeros(2, 10), torch.tensor([1, 2]), torch.tensor([4, 19])
    always = cached_objective(cache, 4.0, 0.9, targets="identity")(*batch, 2)
    assert always.equal(cached_objective(cache, 4.0, 0.9)(*batch, 0))
    assert not always.equal(cached_objective(cache, 4.0, 0.9)(*batch, 2))


def test_the_mean_of_the_teachers_logits_over_all_views_is_the_same_for_every_view():
    generator = torch.Generator().manual_seed(0)
    cache, logits = torch.randn(3, 20, 10, generator=generator).half(), torch.randn(2, 10, generator=generator)
    labels, rows, temperature = torch.tensor([1, 2]), torch.tensor([4, 19]), 4.0
    mean = (cache[0, rows].double() + cache[1, rows].double() + cache[2, rows].double()) / 3
    p, log_q = (mean / temperature).softmax(1), (logits.double() / temperature).log_softmax(1)
    divergence = (p * (p.log() - log_q)).sum() / 2
    expected = 0.1 * functional.cross_entropy(logits, labels) + 0.9 * temperature**2 * divergence
    for view in range(3):
        loss = cached_objective(cache, temperature, 0.9, targets="mean")(logits, labels, rows, view)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_unknown_targets_are_an_error():
    with pytest.raises(InputError, match="targets 'median': expected one of same view, identity, mean"):
        cached_objective(torch.zeros(1, 1, 10), 4.0, 0.9, targets="median")


ROWS = torch.tensor([5, 0, 17, 40, 99])


@pytest.fixture
def images(few):
    return few.train_images[:100]


def test_the_cache_holds_the_live_logits_of_each_view_and_nan_for_other_images(images, tmp_path):
    teacher = tiny_network()
    cache = build_cache(teacher, images, ROWS, 3, 4, 7, tmp_path / "new/folder")
    assert (cache.shape, cache.dtype) == ((3, 100, 10), np.float16)
    for view in range(3):
        live = training.logits_of(teacher, views.cut(images, view, 4, 7))
        # float16 has 11 significant bits
        np.testing.assert_allclose(cache[view, ROWS], live[ROWS].numpy(), rtol=2**-11 + 1e-5, atol=1e-6)
    others = np.setdiff1d(np.arange(100), ROWS)
    assert np.isnan(cache[:, others]).all()
    assert not np.isnan(cache[:, ROWS]).any()


@pytest.mark.parametrize("view", [0, 2])
def test_a_live_teacher_says_what_the_cache_holds_to_float16_rounding(images, tmp_path, view):
    teacher = tiny_network()
    cache = torch.from_numpy(build_cache(teacher, images, ROWS, 3, 2, 7, tmp_path))
    logits = torch.randn(len(ROWS), 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for objective in (
        cached_objective(cache, 4.0, 0.9),
        distillation.live_objective(teacher, images, 4.0, 0.9, pad=2, view_seed=7),
    ):
        loss = objective(logits, torch.arange(len(ROWS)), ROWS, view)
        found.append((loss, *torch.autograd.grad(loss, logits)))
    for cached, live in zip(*found, strict=True):
        torch.testing.assert_close(cached, live, rtol=2**-10, atol=1e-4)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_live_teacher_sees_a_recipes_views_unless_told_otherwise_and_cuts_each_once(images, monkeypatch):
    recipe, cut = Recipe(stage="plain", seed=0), []

    def counted(images, view, pad, seed):
        cut.append((view, pad, seed))
        return images

    monkeypatch.setattr(distillation.views, "cut", counted)
    objective = distillation.live_objective(tiny_network(), images, 4.0, 0.9)
    for view in (1, 1, 2, 1):
        objective(torch.zeros(5, 10), torch.arange(5), ROWS, view)
    each = (recipe.pad, recipe.view_seed)
    assert cut == [(1, *each), (2, *each), (1, *each)]  # one view is held, not all of them


def test_a_live_teacher_has_no_opinion_out_of_range(images):
    with pytest.raises(InputError, match="temperature"):
        distillation.live_objective(tiny_network(), images, 0.0, 0.5)
    with pytest.raises(InputError, match="alpha"):
        distillation.live_objective(tiny_network(), images, 1.0, -0.1)


def test_an_image_without_soft_targets_does_not_pass_unnoticed(images, tmp_path):
    cache = torch.from_numpy(build_cache(tiny_network(), images, ROWS, 1, 2, 0, tmp_path))
    loss = cached_objective(cache, 4.0, 0.9)(torch.zeros(2, 10), torch.tensor([1, 2]), torch.tensor([5, 6]), 0)
    assert loss.isnan()


def test_an_interrupted_cache_goes_on_with_the_views_that_are_missing(images, tmp_path, monkeypatch):
    calls = []

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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view-0.npy", "view-1.npy", "view-2.npy"]


def test_the_cache_reads_back_bit_for_bit(tmp_path):
    array = np.random.default_rng(0).normal(size=(2, 30, 10)).astype(np.float16)
    np.save(tmp_path / "soft_targets.npy", array)
    assert read_cache(tmp_path / "soft_targets.npy").numpy().tobytes() == array.tobytes()


def saved(change):
    def spoil(path):
        array = change(np.zeros((2, 30, 10), np.float16))
        with path.open("wb") as file:
            np.save(file, array)

    return spoil


def cut_off(path):
    saved(lambda array: array)(path)
    path.write_bytes(path.read_bytes()[:-1])


def zipped(path):
    with path.open("wb") as file:
        np.savez(file, np.zeros((2, 30, 10), np.float16))


def array_bytes():
    target = io.BytesIO()
    np.save(target, np.zeros((2, 30, 10), np.float16))
    return target.getvalue()


UNUSABLE = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
    "cut off": cut_off,
    "pickled": saved(lambda array: array.astype(object)),
    "float32": saved(lambda array: array.astype(np.float32)),
    "two dimensions": saved(lambda array: array[0]),
    "nine classes": saved(lambda array: array[..., :9]),
    "an archive of arrays": zipped,
    "a header that does not end": lambda path: path.write_bytes(array_bytes().replace(b"(2, 30, 10)", b"(2, 30, 10 ")),
    "a header that claims a terabyte": lambda path: path.write_bytes(
        array_bytes().replace(b"(2, 30, 10), }" + b" " * 10, b"(2, 99999999999, 10), } ")
    ),
    "a broken archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(50)),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_of_soft_targets_is_named(tmp_path, kind):
    path = tmp_path / "soft_targets.npy"
    UNUSABLE[kind](path)
    with pytest.raises(InputError) as error:
        read_cache(path)
    unreadable = r"no readable array \([^\n]+\); train the teacher again"
    another = r"\w+ \([\d, ]+\), expected float16 \(views, images, 10\)"
    assert re.fullmatch(f"{re.escape(str(path))}: ({unreadable}|{another})", str(error.value))
    if kind == "missing":
        assert "No such file or directory" in str(error.value)
