"""Augmentation as data: views are numbered, and each epoch shows one of every image.

A view moves an image by up to `pad` pixels in both directions and mirrors it or not. There are
`count(pad)` of them, so a teacher can answer all of them once (consistent teaching: Beyer et al.,
CVPR 2022; the cache: FKD, Shen & Xing 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hw2.data import FashionMNIST, random_bits

MEAN = 0.2860  # of the training pixels, as fractions of 255
STD = 0.3530


def count(pad: int) -> int:
    """How many views an image has: two for each of its (2 * pad + 1)^2 places."""
    return 2 * (2 * pad + 1) ** 2


def drawn(images: int, pad: int, seed: int, epoch: int) -> Tensor:
    """The number of each image's view in an epoch, int64 (images,): uniform, by (seed, epoch)."""
    bits = random_bits(images, "view", seed, epoch)
    return torch.from_numpy((bits % count(pad)).astype("int64"))


@dataclass(frozen=True)
class Task:
    """Rows of the training file to train and validate on, and the views that epochs show."""

    data: FashionMNIST
    train: Tensor
    validation: Tensor
    pad: int = 1
    seed: int = 0

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Validation images, uint8 (n, 28, 28), and their labels (n,)."""
        return self.data.train_images[self.validation], self.data.train_labels[self.validation]

    def view(self, epoch: int) -> Tensor:
        """The number of the view that an epoch shows of each image, int64 (60000,)."""
        return drawn(len(self.data.train_images), self.pad, self.seed, epoch)

    def answer(self, epoch: int) -> Tensor:
        """Which of the teacher's answers is to that view, int64 (60000,)."""
        return self.view(epoch)

    def answered(self) -> Sequence[int | Tensor]:
        """The views that a teacher answers: all that there are."""
        return range(count(self.pad))


def cut(images: Tensor, numbers: Tensor | int, pad: int = 1) -> Tensor:
    """Each image in the view of its number: uint8 (n, 28, 28) in and out, on the same device.

    `numbers` are (n,), or one for all images. View 0 is the image itself, view 1 its mirror image;
    the other places follow row by row.
    """
    side = 2 * pad + 1
    numbers = torch.as_tensor(numbers, device=images.device).expand(len(images))
    centre = side * pad + pad
    places = (numbers // 2 + centre) % side**2
    # Every crop of every padded image as a window without copying; one gather picks an image's own.
    padded = functional.pad(images, (pad,) * 4)
    windows = padded.unfold(1, images.shape[-1], 1).unfold(2, images.shape[-1], 1)
    rows = torch.arange(len(images), device=images.device)
    crops = windows[rows, places // side, places % side]
    mirrored = numbers % 2 == 1
    crops[mirrored] = crops[mirrored].flip(-1)
    return crops


def normalise(images: Tensor) -> Tensor:
    """uint8 (n, 28, 28) to float32 (n, 3, 28, 28), channels_last, of mean 0 and deviation 1."""
    grey = images.to(torch.float32).div_(255).sub_(MEAN).div_(STD)
    return grey.unsqueeze(-1).expand(-1, -1, -1, 3).contiguous().permute(0, 3, 1, 2)
