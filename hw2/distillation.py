"""Vanilla knowledge distillation (Hinton, Vinyals & Dean 2015) and the cache of soft targets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from hw2 import views
from hw2.errors import InputError
from hw2.recipes import check_alpha, check_temperature
from hw2.training import Objective, logits_of


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities (n, 10): the softmax of the logits divided by the temperature."""
    return functional.softmax(logits / temperature, dim=1)


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - alpha) * CE(student, labels) + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)), a scalar.

    Logits are (n, 10), labels (n,). The divergence is summed over the classes and averaged over the batch
    (`batchmean`); T^2 keeps its gradient's size as the temperature grows (Hinton et al. 2015, section 2.1).
    """
    hard = functional.cross_entropy(student, labels, label_smoothing=label_smoothing)
    soft = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def cached_objective(cache: Tensor, temperature: float, alpha: float, label_smoothing: float = 0.0) -> Objective:
    """The loss that looks a batch's teacher logits up in `cache`, (views, 60000, 10), by view and row."""
    check_temperature(temperature)
    check_alpha(alpha)

    def objective(logits: Tensor, labels: Tensor, rows: Tensor, view: int) -> Tensor:
        teacher = cache[view][rows].to(logits.dtype)
        return kd_loss(logits, teacher, labels, temperature, alpha, label_smoothing)

    return objective


def build_cache(
    teacher: nn.Module, images: Tensor, rows: Tensor, view_count: int, pad: int, view_seed: int, folder: Path
) -> np.ndarray:
    """Logits of `teacher` for every view, float16 (views, n, 10), in the images' own order.

    Images that are not in `rows` get NaN, which no training survives unnoticed. Each view is kept in `folder` as
    soon as it is done, so an interrupted build goes on where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(view_count), desc="soft targets", unit="view", leave=False):
        path = folder / f"view-{index}.npy"
        if path.is_file():
            continue
        targets = np.full((len(images), 10), np.nan, np.float16)
        logits = logits_of(teacher, views.cut(images, index, pad, view_seed)[rows], batch=256)
        targets[rows.cpu().numpy()] = logits.cpu().numpy()
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            np.save(file, targets)
        aside.replace(path)
    return np.stack([np.load(folder / f"view-{index}.npy") for index in range(view_count)])


def read_cache(path: Path) -> Tensor:
    """The soft targets of a teacher run: float16 (views, 60000, 10)."""
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no readable soft targets ({error}); train the teacher again") from None
    if array.dtype != np.float16 or array.ndim != 3 or array.shape[2] != 10:
        raise InputError(f"{path}: {array.dtype} {array.shape}, expected float16 (views, images, 10)")
    return torch.from_numpy(array)
