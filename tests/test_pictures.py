"""Pictures as people have them get the class of the plain one, and what shows nothing gets one
line.
"""

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
        image = data.test_images[int((data.test_labels == label).nonzero()[0])]
        return np.asarray(Image.fromarray(image.numpy()).resize((140, 140)))

    return enlarged


def layers(grey, page):
    """The garment in grey `page` or its own (None), on transparency."""
    shown = np.full_like(grey, page) if page is not None else 255 - grey
    return Image.fromarray(np.dstack([shown] * 3 + [np.where(grey > 20, 255, 0).astype(np.uint8)]))


def file(image, path):
    image.save(path)
    return path


#: the same picture by other means: (grey (h, w), a folder) -> what `read` takes
SAME = {
    "PNG": lambda grey, to: file(Image.fromarray(grey), to / "a.png"),
    "on white": lambda grey, to: file(Image.fromarray(255 - grey), to / "a.png"),
    "16 bits": lambda grey, to: file(Image.fromarray(grey.astype(np.uint16) * 257), to / "a.png"),
    "floats": lambda grey, to: file(Image.fromarray(np.float32(grey) / 255), to / "a.tiff"),
    "transparent": lambda grey, to: file(layers(grey, None), to / "a.png"),
    "integers": lambda grey, to: grey.astype(np.int64),
    "large integers": lambda grey, to: grey.astype(np.int64) * 2**22,
    "colour": lambda grey, to: np.dstack([grey] * 3) / 255,
    "bfloat16": lambda grey, to: torch.tensor(grey / 255, dtype=torch.bfloat16),
    "normalised": lambda grey, to: views.normalise(torch.tensor(grey)[None]),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_a_picture_is_read_alike_whatever_its_samples_are(grey, tmp_path, make):
    plain = pictures.read(grey(BOOT)).int()
    assert (plain.shape, int(plain[0, 0]), int(plain.max()) > 200) == ((28, 28), 0, True)
    found = pictures.read(make(grey(BOOT), tmp_path))
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
    "PIL": Image.open,
    "converted": lambda path: Image.open(path).convert("LA"),
    "turned before": lambda path: ImageOps.exif_transpose(Image.open(path)),
}


@pytest.fixture
def photograph(grey, tmp_path):
    """Makes a photograph as a telephone does: on its side, with an orientation that says so."""

    def taken(label, kind="png"):
        exif, path = Image.Exif(), tmp_path / f"photograph.{kind}"
        exif[ExifTags.Base.Orientation] = 6
        Image.fromarray(grey(label)).rotate(90, expand=True).save(path, exif=exif)
        return path

    return taken


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_photograph_is_turned_by_every_route(grey, photograph, kind, route):
    assert pictures.read(route(photograph(BOOT, kind))).equal(pictures.read(grey(BOOT)))


@pytest.fixture
def uploads(monkeypatch):
    """What notebook 04 displays once files are uploaded by its button, in place of others."""
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *values: shown.append(values))
    nb04_summary.upload()
    ((button, _),) = shown

    def given(*paths):
        shown.clear()
        about = {"type": "image/png", "size": 1, "last_modified": 1}
        files = [{"name": path.name, "content": memoryview(path.read_bytes())} for path in paths]
        button.set_state({"value": [file | about for file in files]})
        return shown

    return given


def test_an_uploaded_picture_is_shown_upright_with_its_classes(uploads, photograph, tmp_path):
    path = photograph(TROUSER)
    ((picture, classes),) = uploads(path)
    assert list(classes) == list(hw2.predict(path))[:3]
    assert next(iter(classes)) == CLASSES[TROUSER]
    assert np.array_equal(picture, ImageOps.exif_transpose(Image.open(path)))
    assert uploads() == []
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"^notes\.txt: no readable picture"):
        uploads(tmp_path / "notes.txt")  # which IPython shows in one line


def test_a_pngs_metadata_may_be_long(grey, tmp_path):
    metadata, path = PngImagePlugin.PngInfo(), tmp_path / "edited.png"
    metadata.add_itxt("XML:com.adobe.xmp", "<x>" * 2**20, zip=True)
    Image.fromarray(grey(BOOT)).save(path, pnginfo=metadata)
    assert pictures.read(path).equal(pictures.read(grey(BOOT)))


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("nowhere.png", "nowhere.png: no readable picture"),
        (np.zeros((1, 57)), "57 x 1 pixels are too narrow"),
        (Image.new("RGB", (280, 280), "navy"), "all of one brightness"),
        (np.full((30, 30), np.nan), "not all of its samples are finite"),
        (np.zeros((5, 30, 30)), "this ndarray: no readable picture"),
    ],
)
def test_what_shows_no_garment_gets_one_line(picture, told):
    with pytest.raises(InputError, match=f"^.*{told}.*$"):
        pictures.read(picture)
