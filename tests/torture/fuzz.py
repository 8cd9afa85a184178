"""Mutated files against every reader: nothing but InputError comes out, and memory stays bounded.

    HW2_INPUTS=100000 python -m pytest tests/torture/fuzz.py

What reads JSON gets well-formed JSON too, with fields dropped, of another type or out of range.
"""

import copy
import gzip
import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import checks
import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import tiny_network
from PIL import Image

from hw2 import data, distillation, grading, networks, pictures
from hw2.errors import InputError
from hw2.experiments import environment, recipes, run, schemas, store
from hw2.experiments.store import Store
from hw2.files import read_csv, read_json, write_json

INPUTS = int(os.environ.get("HW2_INPUTS", "300"))  # for each reader


class Reader(NamedTuple):
    """`read` takes a path of the name `file`; mutations start at `seeds`."""

    file: str
    read: Callable[[Path], object]
    seeds: list[bytes]
    json: bool = False  # so are the mutations, too
    bound: int = 256 * 2**20  # bytes that it may take for a small file


LABELS, CLASSES = bytes.fromhex("0000080100000014") + bytes(range(10)) * 2, torch.arange(20) % 10
STATE = {name: value.contiguous() for name, value in tiny_network().state_dict().items()}
#: what a mutation may put in: numbers, ends of lines and fields, and words of the formats
TOKENS = b"nan inf -1 1e999 True null , F64 BOOL PK\x01\x02 PK\x03\x04 |O 99999999".split()
TOKENS += b"IHDR IDAT zTXt Exif\0\0".split()
TOKENS += [
    b"9" * 400,
    b"[" * 900,
    b"\0",
    b"\r",
    b"\n",
    b"\x1f\x8b\x08",
    b"\xff\xd8\xff\xe1",
    b"cbuiltins\nbytearray\n",
]
KINDS = (torch.int8, torch.bfloat16, torch.float64, torch.complex64)
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO"]
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2.5,
    -0.5,
    1e308,
    10**30,
    "",
    "x",
    "3",
    "../x",
    "0" * 64,
    [],
    {},
    [1],
    [[]],
    {"x": 1},
]
DIGEST = "0" * 64  # of every recipe here: its numbers are changed, and the digest with them
packed = partial(gzip.compress, mtime=0)


def saved(kind: torch.dtype = torch.float32) -> bytes:
    return safetensors.torch.save(
        STATE | {"fc.bias": torch.zeros(10).to(kind)}, {"widths": "4,4,4,4"}
    )


def written(write: Callable, *words, **more) -> bytes:
    """What `write` puts into a file."""
    write(target := io.BytesIO(), *words, **more)
    return target.getvalue()


def course(state: object, **more) -> bytes:
    return written(lambda target: torch.save({"model_state_dict": state}, target, **more))


def picture(kind: str, mode: str = "RGB", **more) -> bytes:
    gradient = np.arange(20 * 17 * 4, dtype=np.uint8).reshape(20, 17, 4)
    return written(Image.fromarray(gradient, "RGBA").convert(mode).save, kind, **more)


def table(*rows: tuple) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def use_run(folder: Path) -> None:
    """What report and checks ask of a run's files, of whichever kind."""
    one = run.Run(folder)
    str(one), one.widths, one.val_accuracy, one.test_accuracy, environment.lowering(one.environment)
    checks.of_history(one, one.metrics["val_correct"], one.metrics["val_total"])
    if isinstance(one.recipe, recipes.CompressedRecipe):
        assert len(one.group_norms["before"]) and one.at_phase("distilled") is not None


def json_readers(folder: Path) -> dict[str, Reader]:
    """Every reader of JSON, by the files of a compressed run, of a search, and of what stands
    beside.
    """
    found = {
        "runs/delivered.json": lambda path: Store("full").delivered,
        "runs/bench.json": lambda path: read_json(path, schemas.Bench),
        "runs/distilled/full-s0/sensitivity.json": lambda path: run.Run(path.parent).sensitivity,
    }
    for name in ("metrics", "environment", "recipe", "group_norms"):
        found[f"runs/pruned/full-s3/{name}.json"] = lambda path: use_run(path.parent)
    found["runs/tuning/full/recipe.json"] = lambda path: Store("full").trials
    for name in {Path(name).parent for name in found}:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in (path for path in (data.PROJECT / name).iterdir() if path.is_file()):
            shutil.copy(path, folder / name)
    for path in folder.glob("runs/*/*/recipe.json"):
        write_json(path, read_json(path) | {"digest": DIGEST})
    return {
        name: Reader(name, read, [(folder / name).read_bytes()], True)
        for name, read in found.items()
    }


@pytest.fixture
def readers(monkeypatch, tmp_path) -> dict[str, Reader]:
    """Every reader of files that people hand us. The data set and the teacher are small."""
    name = "t10k-labels-idx1-ubyte"
    monkeypatch.setitem(data.FILES, name, (hashlib.sha256(LABELS).hexdigest(), (20,)))
    monkeypatch.setattr(networks, "teacher", lambda stem="imagenet": tiny_network())
    monkeypatch.setattr(recipes.Recipe, "digest", DIGEST)
    others = json_readers(tmp_path)
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    (tmp_path / "run").mkdir()
    made = (tmp_path / "runs/pruned/full-s3/recipe.json").read_bytes()
    submission = table(("id", "pred"), *enumerate(CLASSES.tolist()))
    trials = [(n, 2.0**n, 0.5, n % 2, 30 + n, 1.5, "cpu", "a processor") for n in range(4)]
    history = table(run.HISTORY, (1, 0.1, 2.5, 2.25, 0.5), (2, 1e-5, 1.5, 1.25, 0.75))
    zeros = written(np.save, np.zeros((2, 3, 10), np.float16))
    submitted = partial(grading.check_submission, classes=CLASSES)
    shown = [
        *map(picture, FORMATS),
        picture("PNG", "P", transparency=3),
        picture("PNG", "LA"),
        picture("TIFF", "CMYK"),
    ]
    pixels = 1536 * 2**20  # 14 bytes for each of the 89 million pixels that Pillow lets pass
    found = [
        Reader(name, data.read_idx, [LABELS, LABELS[:9], LABELS + b"\0"]),
        Reader(
            f"{name}.gz", data.read_idx, [packed(LABELS), packed(LABELS[:9]) + packed(LABELS[9:])]
        ),
        Reader("model.safetensors", networks.load, [saved(), *map(saved, KINDS)]),
        Reader(
            "resnet-50.pth",
            networks.load_course_teacher,
            [course(STATE), course(STATE, _use_new_zipfile_serialization=False), course([1])],
        ),
        Reader("run/recipe.json", lambda path: run.Run(path.parent).recipe, [made, b"{}"]),
        # as figures do
        Reader(
            "history.csv", lambda path: read_csv(path, run.HISTORY).astype(float) + 0.5, [history]
        ),
        Reader(
            "trials.csv",
            lambda path: store.finalists(
                read_csv(path, store.TRIALS, words=("device", "hardware"))
            ),
            [table(store.TRIALS, *trials)],
        ),
        Reader("submission.csv", submitted, [submission, submission.replace(b"\n", b"\r\n")]),
        Reader("submission.csv.gz", submitted, [submission, packed(submission)]),
        Reader("picture", pictures.read, shown, bound=pixels),
        Reader("soft_targets.npy", distillation.read_cache, [zeros]),
    ]
    return others | {reader.file: reader for reader in found}


HEADER = {"descr": "<f2", "fortran_order": False, "shape": (9, 10**11, 10)}
ZEROS, SIZE = packed(bytes(2**24)), (17).to_bytes(4, "big") + (20).to_bytes(4, "big")
#: what a small file claims -> the reader's file and the content
BOMBS = {
    "gzip of 1 GiB": ("t10k-labels-idx1-ubyte.gz", ZEROS * 64),
    "submission of 1 GiB": ("submission.csv.gz", ZEROS * 64),
    "weights of a terabyte": ("model.safetensors", (2**40).to_bytes(8, "little") + b"{}"),
    "a picture of 88 million pixels": (
        "picture",
        written(Image.new("L", (9400, 9400)).save, "PNG"),
    ),
    "a picture of 4 billion pixels": ("picture", picture("PNG").replace(SIZE, b"\0\0\xff\xff" * 2)),
    "soft targets of a terabyte": (
        "soft_targets.npy",
        written(np.lib.format.write_array_header_1_0, HEADER),
    ),
}


def one(reader: Reader, path: Path, content: bytes) -> bool:
    """Whether the reader takes this content; anything but `InputError` comes through, with the
    content.
    """
    path.write_bytes(content)
    try:
        reader.read(path)
    except InputError as error:
        assert str(error).strip()
        return False
    except Exception as error:
        raise AssertionError(f"{reader.file}: {error!r} at {content!r}") from error
    return True


def reshaped(draw: random.Random, content: object) -> object:
    """JSON with one part, at any depth, dropped, doubled, wrapped, turned into text, or of another
    value.
    """
    if not content or not isinstance(content, dict | list) or draw.random() < 0.1:
        return copy.deepcopy(
            draw.choice([*VALUES, [content], str(content), draw.randint(-5, 20000), draw.random()])
        )
    key = draw.choice(list(content) if isinstance(content, dict) else range(len(content)))
    kind, part = draw.random(), content[key]
    if kind < 0.25:
        del content[key]
    elif kind < 0.35:
        content[f"{key}x" if isinstance(content, dict) else slice(key, key)] = (
            part if isinstance(content, dict) else [part]
        )
    else:
        content[key] = reshaped(draw, part)
    return content


def mutated(reader: Reader, draw: random.Random) -> bytes:
    """A seed with up to four places cut, repeated, flipped, or overwritten by bytes or a token."""
    if reader.json:
        content = json.loads(draw.choice(reader.seeds))
        for _ in range(draw.randint(1, 3)):
            content = reshaped(draw, content)
        return json.dumps(content).encode()
    content = bytearray(draw.choice(reader.seeds))
    for _ in range(draw.randint(1, 4)):
        place, length = (
            draw.randint(0, len(content)),
            draw.choice([0, 1, 2, 4, 8, 64, len(content)]),
        )
        part = bytes(content[place : place + length])
        flipped = bytes([part[0] ^ 1 << draw.randrange(8)]) + part[1:] if part else b"\0"
        token = draw.choice([*TOKENS, draw.randbytes(draw.randint(1, 8))])
        content[place : place + length] = draw.choice([b"", part * 2, flipped, token, token + part])
    return bytes(content)


def test_nothing_but_an_input_error_comes_out_of_a_reader(readers, tmp_path):
    with pytest.raises(AssertionError, match="KeyError"):
        one(Reader("any", lambda path: {}["lost"], []), tmp_path / "any", b"")
    for name, reader in readers.items():
        path, draw = tmp_path / reader.file, random.Random(0)
        refused = [not one(reader, path, mutated(reader, draw)) for _ in range(INPUTS)]
        # which leaves a whole file for other readers
        assert any(refused) and one(reader, path, reader.seeds[0]), name


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_claims_to_be_large_takes_little_memory(readers, tmp_path, name):
    file, content = BOMBS[name]
    before = environment.peak_memory(torch.device("cpu"))
    one(readers[file], tmp_path / file, content)
    assert environment.peak_memory(torch.device("cpu")) - before <= readers[file].bound
