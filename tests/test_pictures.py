"""Pictures as people have them get the class of the plain one, and what shows nothing gets one
line.
"""

import io

import IPython.display
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

import hw2
from hw2 import pictures, views
from hw2.data import CLASSES
from hw2.errors import InputError
from hw2.report import nb04_summary

BOOT, TROUSER = 9, 1


@pytest.fixture(scope="module")
def grey(data):
    """The first test image of a class, 140 x 140."""

    def enlarged(label):
        image = Image.fromarray(
            data.test_images[int((data.test_labels == label).nonzero()[0])].numpy()
        )
        return np.asarray(image.resize((140, 140)))

    return enlarged


def layers(grey, page):
    """The garment in grey `page` or its own (None), on transparency."""
    shown = np.full_like(grey, page) if page is not None else 255 - grey
    return Image.fromarray(np.dstack([shown] * 3 + [np.where(grey > 20, 255, 0).astype(np.uint8)]))


def file(**how):
    def write(image, path):
        image.save(path, **how)
        return path

    return write


PNG, TIFF = file(format="PNG"), file(format="TIFF")
#: the same picture by other means: (grey (h, w), a path) -> what `read` takes
SAME = {
    "PIL": lambda grey, path: Image.fromarray(grey),
    "PNG": lambda grey, path: PNG(Image.fromarray(grey), path),
    "on white": lambda grey, path: PNG(Image.fromarray(255 - grey), path),
    "16 bits": lambda grey, path: PNG(Image.fromarray(grey.astype(np.uint16) * 257), path),
    "32 bits": lambda grey, path: TIFF(Image.fromarray(grey.astype(np.int32) * 2**22), path),
    "floats": lambda grey, path: TIFF(Image.fromarray(grey.astype(np.float32) / 255), path),
    "floats to 65,535": lambda grey, path: Image.fromarray(grey.astype(np.float32) * 257),
    "transparent": lambda grey, path: PNG(layers(grey, None), path),
    "integers": lambda grey, path: grey.astype(np.int64),
    "colour": lambda grey, path: np.dstack([grey] * 3) / 255,
    "float16": lambda grey, path: (grey / 255).astype(np.float16),
    "bfloat16": lambda grey, path: torch.tensor(grey / 255, dtype=torch.bfloat16),
    "normalised": lambda grey, path: views.normalise(torch.tensor(grey)[None]),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_a_picture_is_read_alike_whatever_its_samples_are(grey, tmp_path, make):
    plain = pictures.read(grey(BOOT)).int()
    assert (plain.shape, int(plain[0, 0]), int(plain.max()) > 200) == ((28, 28), 0, True)
    found = pictures.read(make(grey(BOOT), tmp_path / "picture"))
    assert found.dtype == torch.uint8 and (found - plain).abs().max() < 12


@pytest.mark.parametrize("label", [BOOT, TROUSER])
def test_a_cut_out_garment_is_seen_whatever_its_colour(grey, label):
    for colour in (0, 60, 200, 255):
        found = hw2.predict(layers(grey(label), colour))
        (likeliest, probability), *_ = found.items()
        assert likeliest == CLASSES[label] and probability > 0.5
        assert sorted(found) == sorted(CLASSES) and sum(found.values()) == pytest.approx(1)
        assert sorted(found.values(), reverse=True) == list(found.values())


#: the same photograph by other routes: a path -> what `read` takes
ROUTES = {
    "path": str,
    "open file": lambda path: path.open("rb"),
    "bytes": lambda path: io.BytesIO(path.read_bytes()),
    "PIL": Image.open,
    "converted": lambda path: Image.open(path).convert("LA"),
    "turned before": lambda path: ImageOps.exif_transpose(Image.open(path)),
}


@pytest.fixture
def photograph(grey, tmp_path):
    """Makes a photograph as a telephone does: on its side, with an orientation that says so."""

    def taken(label, kind, **more):
        exif, path = Image.Exif(), tmp_path / f"photograph.{kind}"
        exif[ExifTags.Base.Orientation] = 6
        Image.fromarray(grey(label)).rotate(90, expand=True).save(path, exif=exif, **more)
        return path

    return taken


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_photograph_is_turned_by_every_route(grey, photograph, kind, route):
    lossless = {"lossless": True} if kind == "webp" else {}
    path = photograph(BOOT, kind, **lossless)
    assert pictures.read(route(path)).equal(pictures.read(grey(BOOT)))


class Uploads:
    """The upload button of notebook 04, and what it displays."""

    def __init__(self, patch):
        self.shown = []
        patch.setattr(IPython.display, "display", lambda *shown: self.shown.append(shown))
        nb04_summary.upload()
        ((self.button, _),) = self.shown

    def give(self, *paths):
        """What is displayed once these files are uploaded in place of others."""
        self.shown.clear()
        files = [{"name": path.name, "content": memoryview(path.read_bytes())} for path in paths]
        about = {"type": "image/png", "size": 1, "last_modified": 1}
        self.button.set_state({"value": [file | about for file in files]})
        return self.shown


def test_an_uploaded_picture_is_shown_upright_with_its_classes(photograph, tmp_path, monkeypatch):
    uploads, path = Uploads(monkeypatch), photograph(TROUSER, "png")
    ((picture, classes),) = uploads.give(path)
    assert list(classes) == list(hw2.predict(path))[:3]
    assert next(iter(classes)) == CLASSES[TROUSER]
    assert np.array_equal(picture, ImageOps.exif_transpose(Image.open(path)))
    assert uploads.give() == []
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"^notes\.txt: no readable picture") as error:
        uploads.give(tmp_path / "notes.txt")  # which IPython shows in one line
    assert "\n" not in str(error.value)


def test_a_pngs_metadata_may_be_long(grey, tmp_path):
    metadata, path = PngImagePlugin.PngInfo(), tmp_path / "edited.png"
    metadata.add_itxt("XML:com.adobe.xmp", "<x>" * 2**20, zip=True)
    Image.fromarray(grey(BOOT)).save(path, pnginfo=metadata)
    assert pictures.read(path).equal(pictures.read(grey(BOOT)))


GRADIENT = np.linspace(0, 250, 57).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("nowhere.png", "nowhere.png: no readable picture"),
        (GRADIENT[None], "57 x 1 pixels are too narrow"),
        (np.resize(GRADIENT, (3000, 1)), "1 x 3000 pixels are too narrow"),
        (Image.new("RGB", (280, 280), "navy"), "all of one brightness"),
        (np.zeros((30, 30, 4), np.uint8), "all of one brightness"),
        (np.full((30, 30), np.nan), "not all of its samples are finite"),
        (np.zeros((5, 30, 30)), "this ndarray: no readable picture"),
        (np.zeros((0, 30)), "no readable picture"),
        (torch.zeros(30, 30, dtype=torch.complex64), "this Tensor: no readable picture"),
        (None, "no readable picture"),
    ],
)
def test_what_shows_no_garment_gets_one_line(picture, told):
    with pytest.raises(InputError, match=told) as error:
        pictures.read(picture)
    assert "\n" not in str(error.value)
