"""A network that trains in no time, and what tests ask of networks and files."""

import re
import shlex
import tomllib

import torch
from PIL import Image, ImageDraw

from hw2.data import PROJECT
from hw2.experiments import environment
from hw2.files import read_json, write_json
from hw2.networks import ResNet14

TINY = (4, 4, 4, 4)  # widths


def tiny_network(seed=0):
    """A ResNet-14 with 4 channels everywhere, the same for every test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet14(TINY)


def same_bits(one, other):
    """Whether two networks hold the same parameters and buffers, bit for bit."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def contents(folder):
    """Path -> bytes of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pytest_words():
    """Flags and folders of `make test`'s call of pytest; the flags that pyproject.toml adds to every call."""
    makefile, options = (PROJECT / "Makefile").read_text(), (PROJECT / "pyproject.toml").read_text()
    (recipe,) = re.findall(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    (called,) = re.findall(r"-m pytest (.*)", recipe)
    return shlex.split(called), tomllib.loads(options)["tool"]["pytest"]["ini_options"]["addopts"].split()


def keep_torture(row):
    """Put what a campaign of torture told into torture.json, in the place of what it told before."""
    path = PROJECT / "tests/torture/torture.json"
    known = read_json(path)["rows"] if path.is_file() else []
    found = {(row["kind"], row["of"]): row for row in [*known, row | {"code": environment.code()}]}
    write_json(path, {"rows": [found[key] for key in sorted(found)]})


def blacken(path):
    """A picture with a block of another colour."""
    picture = Image.open(path).convert("RGB")
    ImageDraw.Draw(picture).rectangle((200, 100, 211, 111), fill=(255, 0, 0))
    picture.save(path)
