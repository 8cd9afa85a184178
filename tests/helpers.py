"""A network that trains in no time, what tests ask of two networks, and what they ask of the project's files."""

import re
import shutil
import tomllib
from dataclasses import asdict

import pytest
import torch
from PIL import Image, ImageDraw

from hw2.data import PROJECT
from hw2.experiments import recipes
from hw2.experiments import store as runs
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


def unlike_sums():
    """A line for each file under runs/ that is not what SHA256SUMS says."""
    recorded = (runs.root() / "SHA256SUMS").read_text().splitlines()
    names = {line[66:] for line in set(recorded) ^ set(runs.sums("cpu").splitlines())}
    return [f"runs/{name}: changed, missing or new" for name in sorted(names)]


def land_another_chain(folder):
    """A project of the committed runs, in `folder`, with `full`'s teacher, search and students beside them."""
    shutil.copytree(PROJECT / "runs", folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "PROJECT", folder)
        teacher = recipes.teacher("full")
        grid = recipes.tuning("full", teacher.digest)
        students = [recipes.plain("full", 0), recipes.distilled("full", 0, teacher.digest, 2.0, 0.9)]
        for recipe in (teacher, *students):
            with runs.new_folder(recipe, "full") as made:
                for path in (runs.root() / recipe.stage / "cpu-s0").iterdir():
                    if path.name != "recipe.json":
                        shutil.copy(path, made)
        shutil.copytree(runs.root() / "tuning/cpu", runs.root() / "tuning/full", dirs_exist_ok=True)
        runs.write_json(runs.root() / "tuning/full/recipe.json", {"digest": grid.digest, **asdict(grid)})
        with runs.changing("full"):
            pass
    return folder


def pytest_words():
    """Flags and folders of `make test`'s call of pytest; the flags that pyproject.toml adds to every call."""
    makefile, options = (PROJECT / "Makefile").read_text(), (PROJECT / "pyproject.toml").read_text()
    (recipe,) = re.findall(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    (called,) = re.findall(r"-m pytest (.*)", recipe)
    return called.split(), tomllib.loads(options)["tool"]["pytest"]["ini_options"]["addopts"].split()


def keep_torture(row):
    """Put what a campaign of `make torture` told into runs/torture.json, in the place of what it told before."""
    path = runs.root() / "torture.json"
    with runs.changing("cpu"):
        known = runs.read_json(path)["rows"] if path.is_file() else []
        found = {(row["kind"], row["of"]): row for row in [*known, row | {"code": runs.CODE}]}
        runs.write_json(path, {"rows": [found[key] for key in sorted(found)]})


def blacken(path):
    """A picture with a block of another colour."""
    picture = Image.open(path).convert("RGB")
    ImageDraw.Draw(picture).rectangle((200, 100, 211, 111), fill=(255, 0, 0))
    picture.save(path)
