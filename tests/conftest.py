"""Fixtures: the data set, a few of its images, and a project folder of the test's own."""

import shutil
import threading

import pytest
import torch
from helpers import tiny_network
from tqdm import tqdm

from hw2 import data as source
from hw2 import networks
from hw2.experiments import recipes, replay, stages, trainers
from hw2.experiments import store as runs
from hw2.experiments.recipes import Fit

# Its own lock is shared by forked processes: one that is killed while it holds it would stop all others.
tqdm.set_lock(threading.RLock())

FIT = Fit(epochs=1, lr=0.05, batch=64)
SHRUNKEN = {
    "common": {"images": 64, "validation": 32, "views": 2},
    "teacher": {"fit": FIT},
    "student": {"fit": FIT},
    "tuning": {"fit": FIT, "images": 32, "temperatures": (2.0, 4.0), "alphas": (0.9,), "seeds": (0, 1)},
    "finalist": {"fit": FIT},
    "compressed": {"sparse": FIT, "reg": 1e-2, "fit": Fit(epochs=2, lr=0.05, batch=64), "recalibration": 32},
    "short": {"images": 32, "sparse": FIT, "reg": 1e-2, "fit": FIT, "recalibration": 32},
    "frontier": {"ratios": (recipes.RATIO, 0.5), "seeds": (0,)},
    "seeds": 1,
}


@pytest.fixture(scope="session")
def data():
    return source.fashion_mnist()


def first(data):
    """The first 576 training images, of which 128 are for validation, and 100 test images."""
    part = source.FashionMNIST(
        data.folder, data.train_images[:576], data.train_labels[:576], data.test_images[:100], data.test_labels[:100]
    )
    vars(part)["split"] = torch.arange(448), torch.arange(448, 576)
    return part


@pytest.fixture(scope="session")
def few(data):
    return first(data)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder in which runs and cache are written in place of the real one."""
    monkeypatch.setattr(source, "PROJECT", tmp_path)
    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    monkeypatch.delenv("HW2_PROFILE", raising=False)
    return tmp_path


def patched(patch, folder, few):
    """A smoke profile that takes seconds, in `folder`, with a small network for the teacher."""
    patch.setattr(runs, "PROJECT", folder)
    patch.setitem(recipes.NUMBERS, "smoke", SHRUNKEN)
    for module in (stages, trainers, replay):
        patch.setattr(module, "fashion_mnist", lambda: few)
    patch.setattr(networks, "teacher", lambda stem="imagenet": tiny_network())
    patch.setenv("HW2_PROFILE", "smoke")
    return folder


@pytest.fixture(scope="session")
def walked(few, tmp_path_factory):
    """A project in which the whole walk was done."""
    with pytest.MonkeyPatch.context() as patch:
        folder = patched(patch, tmp_path_factory.mktemp("walked"), few)
        stages.walk()
        return folder


@pytest.fixture
def store(walked, few, tmp_path, monkeypatch):
    """A copy of it, to change."""
    return patched(monkeypatch, shutil.copytree(walked, tmp_path / "project"), few)
