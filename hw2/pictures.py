"""Any picture in, class and probabilities out: the demo."""

import os
import warnings
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor, nn

from hw2.data import CLASSES
from hw2.errors import InputError
from hw2.files import errors_naming
from hw2.training import exact_logits

SIDE = 28  # pixels
FAINT = 8  # of 255: a smaller range of brightness shows nothing
Picture = str | os.PathLike | BinaryIO | Image.Image | np.ndarray | Tensor

# Photo editors put megabytes of metadata into a PNG: Pillow's bound for the whole file is enough.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def read(picture: Picture) -> Tensor:
    """A picture of any size, colour or grey, as the data set shows its own: uint8 (28, 28), bright
    on black.

    `picture`: a file's path, an open binary file, a PIL image, or an array (h, w), (h, w, channels)
    or (channels, h, w). It is turned as EXIF's orientation says, inverted where its border is
    bright, and fitted into 28 x 28 with its proportions kept. A PIL image keeps its EXIF when
    `rotate` turns it: use `ImageOps.exif_transpose`, or give it as an array. Raises `InputError`
    for what is no picture or shows nothing.
    """
    name = picture
    if not isinstance(picture, str | os.PathLike):
        name = getattr(picture, "name", None) or f"this {type(picture).__name__}"
    # Pillow's readers, one a format, raise whatever they met.
    with (
        errors_naming(name, "picture", "give a PNG, JPEG or the like", Exception),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        grey = _grey(_opened(picture))
    pixels = np.asarray(grey)
    if max(grey.size) > SIDE * min(grey.size):
        raise InputError(
            f"{name}: {grey.width} x {grey.height} pixels are too narrow to show a garment; crop it"
        )
    if np.ptp(pixels) < FAINT:
        raise InputError(
            f"{name}: all of one brightness; give a picture whose garment differs from its "
            f"background"
        )
    if np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean() > 127:
        grey = ImageOps.invert(grey)
    return torch.from_numpy(np.asarray(ImageOps.pad(grey, (SIDE, SIDE), color=0)).copy())


def _opened(picture: Picture) -> Image.Image:
    """An image of 8 bits a sample, in any of Pillow's modes."""
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu()
        # NumPy has no bfloat16
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
    if isinstance(picture, np.ndarray):
        array = picture[0] if picture.ndim > 2 and len(picture) == 1 else picture
        if array.ndim == 3 and array.shape[2] > 4 >= len(array):
            array = array.transpose(1, 2, 0)
        return Image.fromarray(_of_8_bits(array[..., 0] if array.shape[2:] == (1,) else array))
    if not isinstance(picture, Image.Image):
        try:
            with Image.open(picture) as file:
                return _opened(file)
        except UnidentifiedImageError:  # whose text repeats the file's name
            raise ValueError("of no format that Pillow knows") from None
    upright = ImageOps.exif_transpose(picture)
    return Image.fromarray(_of_8_bits(np.asarray(upright))) if upright.mode[0] in "IF" else upright


def _of_8_bits(samples: np.ndarray) -> np.ndarray:
    """uint8 as it is; others scaled from the usual range that holds them, or from their own."""
    if samples.dtype == np.uint8:
        return samples
    scaled = samples.astype(np.float32, casting="same_kind")
    low, high = float(scaled.min()), float(scaled.max())
    if not np.isfinite(high - low):
        raise ValueError("not all of its samples are finite numbers")
    if 0 <= low <= high <= 65535:
        usual = (255, 65535) if samples.dtype.kind in "iu" else (1, 255, 65535)
        low, high = 0, next(top for top in usual if high <= top)
    scaled -= low
    scaled *= 255 / (high - low or 1)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _grey(image: Image.Image) -> Image.Image:
    """What is transparent is background: black where most of the rest is bright, else white."""
    if not image.has_transparency_data:
        return image.convert("RGB").convert("L")
    layers = image.convert("RGBA")
    counts = layers.convert("L").histogram(
        layers.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    )
    background = "black" if sum(counts[128:]) > sum(counts[:128]) else "white"
    return Image.alpha_composite(Image.new("RGBA", layers.size, background), layers).convert("L")


def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Softmax (n, 10) of uint8 images (n, 28, 28), in float64: no shown digit hangs on rounding."""
    return torch.softmax(exact_logits(network, images), dim=1)


def predict(network: nn.Module, picture: Picture) -> dict[str, float]:
    """Class -> probability for what `read` takes, likeliest first."""
    values, labels = probabilities(network, read(picture)[None])[0].sort(descending=True)
    return {
        CLASSES[label]: value for label, value in zip(labels.tolist(), values.tolist(), strict=True)
    }
