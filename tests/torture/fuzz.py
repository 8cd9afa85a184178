"""Mutated files against every reader: nothing but `InputError` comes out.

    HW2_INPUTS=100000 python -m pytest tests/torture/fuzz.py

Each reader gets a good file with bytes cut, repeated, flipped, or overwritten by a token.
"""

import gzip
import hashlib
import io
import os
import random
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from helpers import tiny_network
from PIL import Image

from hw2 import data, distillation, grading, networks, pictures
from hw2.errors import InputError
from hw2.experiments import earlier, recipes, run, store
from hw2.experiments.run import Run
from hw2.files import read_csv, read_json, write_json

INPUTS = int(os.environ.get("HW2_INPUTS", "300"))  # for each reader
LABELS = bytes.fromhex("0000080100000014") + bytes(range(10)) * 2
CLASSES = torch.arange(20) % 10
DIGEST = "0" * 64  # of every recipe here: its numbers are changed, and the digest with them
#: what a mutation may put in: numbers, ends of lines and fields, and words of the formats
TOKENS = b"nan inf -1 1e999 3 True null [] {} , F64 BOOL PK\x01\x02 |O 99999999 IHDR zTXt".split()
TOKENS += [b"9" * 400, b"[" * 900, b"\0", b"\n", b"\x1f\x8b\x08", b"cbuiltins\nbytearray\n"]
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO")


def written(write, *words):
    """The bytes that `write` puts into a file."""
    target = io.BytesIO()
    write(target, *words)
    return target.getvalue()


def use_run(path):
    """What reports and checks ask of a pruned run's files."""
    one = Run(path.parent)
    assert str(one) and one.environments and one.core_hours >= 0
    assert len(one.group_norms["before"]) and one.at_phase("distilled") is not None
    return read_csv(path.with_name("history.csv"), run.HISTORY).astype(float) + 0.5  # as figures do


def use_trials(path):
    return store.finalists(read_csv(path, store.TRIALS, words=("device", "hardware")))


def use_submission(path):
    return grading.check_submission(path, CLASSES)


@pytest.fixture
def readers(monkeypatch, tmp_path):
    """File -> its reader and a good content. The data set and the teacher are small."""
    name = "t10k-labels-idx1-ubyte"
    monkeypatch.setitem(data.FILES, name, hashlib.sha256(LABELS).hexdigest())
    monkeypatch.setattr(networks, "teacher", lambda stem="imagenet": tiny_network())
    monkeypatch.setattr(recipes.Recipe, "digest", DIGEST)
    monkeypatch.setattr(earlier.Cycling, "digest", DIGEST)  # leaves with that module
    folder = shutil.copytree(data.PROJECT / "runs/pruned/full-s3", tmp_path / "pruned/full-s3")
    write_json(folder / "recipe.json", read_json(folder / "recipe.json") | {"digest": DIGEST})
    networks.save(tiny_network(), tmp_path / "weights")
    course = {"model_state_dict": tiny_network().state_dict()}
    values = "".join(f"{n},{2.0**n},0.5,{n % 2},{30 + n},1.5,cpu,any\n" for n in range(4))
    trials = ",".join(store.TRIALS) + "\n" + values
    image = Image.linear_gradient("L").resize((20, 17)).convert("RGB")
    targets = written(np.save, np.zeros((2, 3, 10), np.float16))
    found = {
        name: (data.read_idx, LABELS),
        f"{name}.gz": (data.read_idx, gzip.compress(LABELS)),
        "model.safetensors": (networks.load, (tmp_path / "weights").read_bytes()),
        "resnet-50.pth": (networks.load_course_teacher, written(partial(torch.save, course))),
        "trials.csv": (use_trials, trials.encode()),
        "submission.csv": (use_submission, grading.submission_text(CLASSES).encode()),
        "soft_targets.npy": (distillation.read_cache, targets),
    }
    for kind in FORMATS:
        found[f"picture.{kind}"] = (pictures.read, written(image.save, kind))
    files = ("metrics.json", "environment.json", "recipe.json", "group_norms.json", "history.csv")
    for file in files:
        found[f"pruned/full-s3/{file}"] = (use_run, (folder / file).read_bytes())
    return found


def taken(read, path, content):
    """Whether the reader takes this content; what is no `InputError` comes through, with it."""
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert str(error).strip()
        return False
    except Exception as error:
        raise AssertionError(f"{path.name}: {error!r} at {content!r}") from error
    return True


def mutated(content, draw):
    """The content with up to four places changed."""
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randint(0, len(content))
        length = draw.choice([0, 1, 2, 4, 8, 64, len(content)])
        part = bytes(content[place : place + length])
        flipped = bytes([part[0] ^ 1 << draw.randrange(8)]) + part[1:] if part else b"\0"
        token = draw.choice([*TOKENS, draw.randbytes(draw.randint(1, 8))])
        content[place : place + length] = draw.choice([b"", part * 2, flipped, token, token + part])
    return bytes(content)


def test_nothing_but_an_input_error_comes_out_of_a_reader(readers, tmp_path):
    with pytest.raises(AssertionError, match="KeyError"):
        taken(lambda path: {}["lost"], tmp_path / "any", b"")
    for name, (read, good) in readers.items():
        path = tmp_path / name
        draw = random.Random(0)
        refused = [not taken(read, path, mutated(good, draw)) for _ in range(INPUTS)]
        assert any(refused) and taken(read, path, good), name  # whole again, for other readers
