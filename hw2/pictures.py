"""Any picture in, class and probabilities out: the demo."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from hw2.errors import InputError
from hw2.training import exact_logits


def read(path: Path | str) -> Tensor:
    """A picture of any size, colour or grey, as the data set shows its own: uint8 (28, 28), bright on black.

    It is fitted into 28 x 28 with its proportions kept, and inverted first where its border is bright. Raises
    `InputError` for what is no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                # Transparent parts are background: white, as a page would show them.
                layers = ImageOps.exif_transpose(picture).convert("RGBA")
        grey = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("L")
    except Exception as error:  # Pillow's readers, one a format, raise whatever they met
        raise InputError(f"{path}: no readable picture ({error}); give a PNG, JPEG or the like") from None
    pixels = np.asarray(grey)
    if np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean() > 127:
        grey = ImageOps.invert(grey)
    return torch.from_numpy(np.asarray(ImageOps.pad(grey, (28, 28), color=0)).copy())


def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Softmax (n, 10) of uint8 images (n, 28, 28), in float64: digits that are shown must not hang on rounding."""
    return torch.softmax(exact_logits(network, images), dim=1)
