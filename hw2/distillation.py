"""Knowledge distillation (Hinton, Vinyals & Dean 2015) and the cache of soft targets."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hw2 import views
from hw2.errors import Bar, end_if_asked
from hw2.files import read_array, write_array
from hw2.training import Objective, Task, logits_of


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (n, 10): the softmax of the logits divided by the temperature."""
    return functional.softmax(logits / temperature, dim=1)


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), a scalar, of logits (n, 10).

    Summed over classes, averaged over the batch. T^2 keeps the gradient's size as the temperature
    grows (Hinton et al. 2015, section 2.1).
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def kl_mean(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`kl` with PyTorch's default reduction, which divides by the classes as well: a common bug."""
    return kl(student, teacher, temperature) / student.shape[1]


#: name in a recipe -> (student, teacher, temperature) -> the soft part of the loss, a scalar
SOFT_LOSSES = {"kl": kl, "kl_mean": kl_mean}


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    loss: str = "kl",
) -> Tensor:
    """(1 - alpha) * CE + alpha * `SOFT_LOSSES[loss]`, a scalar; logits (n, 10), labels (n,)."""
    hard = functional.cross_entropy(student, labels)
    soft = SOFT_LOSSES[loss](student, teacher, temperature)
    return (1 - alpha) * hard + alpha * soft


def cached_objective(
    cache: Tensor, temperature: float, alpha: float, loss: str = "kl", targets: str = "same view"
) -> Objective:
    """The loss that looks up a batch's teacher logits in `cache`, (views, 60000, 10).

    `loss` is a key of `SOFT_LOSSES`. `targets` says which of the teacher's logits are learnt from:
    those for the view that the student sees; for the image as it is (`identity`, a control); or
    their `mean` over all views (test-time augmentation of the teacher).
    """
    if targets == "mean":
        cache = cache.float().mean(0, keepdim=True)

    def objective(logits: Tensor, labels: Tensor, rows: Tensor, answers: Tensor) -> Tensor:
        chosen = answers if targets == "same view" else torch.zeros_like(answers)
        teacher = cache[chosen, rows].to(logits.dtype)
        return kd_loss(logits, teacher, labels, temperature, alpha, loss=loss)

    return objective


def build_cache(
    teacher: nn.Module, task: Task, device: torch.device, rows: Tensor, folder: Path
) -> np.ndarray:
    """Logits of `teacher` for every view, float16 (views, 60000, 10), in the images' own order.

    Images that are not in `rows` get NaN, which no training survives unnoticed. An interrupted
    build goes on with the views that `folder` lacks.
    """
    teacher.to(device)
    images = task.data.train_images.to(device)
    shown = task.answered()
    paths = [folder / f"view-{index}.npy" for index in range(len(shown))]
    with Bar(paths, desc="soft targets of the teacher", unit="view") as bar:
        for path, numbers in zip(bar, shown, strict=True):
            if path.is_file():
                continue
            end_if_asked("soft targets")
            logits = logits_of(teacher, views.cut(images, numbers, task.pad)[rows], batch=256)
            targets = np.full((len(images), 10), np.nan, np.float16)
            targets[rows.numpy()] = logits.cpu().numpy()
            write_array(path, targets)
    shape = (len(images), 10)
    remedy = "delete it to compute it again"
    return np.stack([read_array(path, np.float16, shape, remedy) for path in paths])


def read_cache(path: Path) -> Tensor:
    """The soft targets of a teacher run, float16 (views, 60000, 10), mapped into memory."""
    remedy = "train the teacher again"
    return torch.from_numpy(read_array(path, np.float16, (None, None, 10), remedy))
