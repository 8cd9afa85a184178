"""Augmentation as data: a view says where each image is cropped and whether it is flipped.

View v is a pure function of (seed, v), so its soft targets can be computed once (consistent
teaching: Beyer et al., CVPR 2022; the cache: FKD, Shen & Xing 2022).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hw2.data import FashionMNIST, random_bits

MEAN = 0.2860  # of the training pixels, as fractions of 255
STD = 0.3530


@dataclass(frozen=True)
class Task:
    """Rows of the training file to train and validate on.

    Epochs cycle through `views`; 0: a new view every epoch.
    """

    data: FashionMNIST
    train: Tensor
    validation: Tensor
    pad: int = 2
    views: int = 0
    view_seed: int = 0

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Validation images, uint8 (n, 28, 28), and their labels (n,)."""
        return self.data.train_images[self.validation], self.data.train_labels[self.validation]

    def view(self, epoch: int) -> int:
        """The number of the view that an epoch shows; epochs from 0."""
        return epoch % self.views if self.views else epoch


def view(
    index: int, count: int = 60000, pad: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Row offset, column offset (int64, 0 to 2 * pad) and flip (bool) of `count` images.

    Images are padded by `pad` black pixels on each side before the crop, so offset `pad` leaves an
    image where it is. View 0 is the identity.
    """
    if index == 0:
        centre = torch.full((count,), pad)
        return centre, centre, torch.zeros(count, dtype=torch.bool)
    bits = random_bits(count, "view", seed, index)
    rows = torch.from_numpy((bits >> 8).astype("int64")) % (2 * pad + 1)
    columns = torch.from_numpy((bits >> 32).astype("int64")) % (2 * pad + 1)
    return rows, columns, torch.from_numpy(bits & 1 == 1)


def cut(images: Tensor, index: int, pad: int = 2, seed: int = 0) -> Tensor:
    """View `index` of the whole set: uint8 (n, 28, 28) in and out, on the same device.

    View 0 is the input itself.
    """
    if index == 0:
        return images
    side = images.shape[-1]
    offsets = view(index, len(images), pad, seed)
    rows, columns, flip = (part.to(images.device) for part in offsets)
    # Every crop of every padded image as a window without copying; one gather picks an image's own.
    windows = functional.pad(images, (pad,) * 4).unfold(1, side, 1).unfold(2, side, 1)
    crops = windows[torch.arange(len(images), device=images.device), rows, columns]
    crops[flip] = crops[flip].flip(-1)
    return crops


def normalise(images: Tensor) -> Tensor:
    """uint8 (n, 28, 28) to float32 (n, 3, 28, 28), channels_last.

    Three equal channels, mean 0, deviation 1 over the training pixels.
    """
    grey = images.to(torch.float32).div_(255).sub_(MEAN).div_(STD)
    return grey.unsqueeze(-1).expand(-1, -1, -1, 3).contiguous().permute(0, 3, 1, 2)
