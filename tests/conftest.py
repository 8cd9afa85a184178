"""Fixtures: the data set, a few of its images, and project folders of the tests' own."""

import shutil
import threading

import checks
import pytest
import torch
from filelock import FileLock
from helpers import tiny_network
from replaying import Replayed, summary
from tqdm import tqdm

from hw2 import data as source
from hw2 import networks
from hw2.errors import InputError
from hw2.experiments import ledger, profiles, walk
from hw2.experiments.store import Store, delivered_profile
from hw2.training import Fit

# Its own lock is shared by forked processes: one that is killed while it holds it would stop all
# others.
tqdm.set_lock(threading.RLock())


def pytest_sessionstart(session):
    """A tree that lacks a run is told at once, and not by every test that needs it."""
    if not hasattr(session.config, "workerinput"):
        try:
            lines = checks.missing(Store(delivered_profile()))
        except InputError as error:
            lines = [str(error)]
        if lines:
            pytest.exit("\n".join(lines), returncode=2)


def pytest_terminal_summary(terminalreporter):
    """What came of all replays, in a line."""
    results = [
        Replayed(*value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "replay" and report.when == "call"
    ]
    if results:
        terminalreporter.write_line(summary(results))


FIT = Fit(epochs=1, lr=0.05, batch=64)
PRUNING = {"sparse": FIT, "reg": 1e-2, "fit": FIT, "recalibration": 32}
STUDY = PRUNING | {"images": 32}
SEARCH = {"temperatures": (2.0, 4.0), "alphas": (0.0, 0.9), "seeds": (0, 1)}
FIRST = ("first", "chain", "frontier")
ALIKE = ("student", "short", "continued", "finalist")
SHRUNKEN = {numbers: {"fit": FIT} for numbers in ALIKE} | {
    "teacher": {"stem": "imagenet", "fit": FIT},
    "common": {"images": 64, "validation": 32, "pad": 0},
    "tuning": SEARCH | {"fit": FIT, "images": 32},
    "compressed": PRUNING | {"fit": Fit(epochs=2, lr=0.05, batch=64)},
    "study": {"fit": FIT, "images": 32},
    "ablation": STUDY,
    "unsparse": STUDY | {"sparse": Fit(epochs=0, lr=0.05), "fit": Fit(epochs=2, lr=0.05, batch=64)},
    "frontier": STUDY,
    "seeds": dict.fromkeys(FIRST, (0,)) | {"search": (0, 1), "studies": (2,)},
}


@pytest.fixture(scope="session", autouse=True)
def data():
    return source.fashion_mnist()  # before the first test, which may have a project of its own


def first(data):
    """The first 576 training images, of which 128 are for validation, and 100 test images."""
    train = data.train_images[:576], data.train_labels[:576]
    test = data.test_images[:100], data.test_labels[:100]
    part = source.FashionMNIST(data.folder, *train, *test)
    vars(part)["split"] = torch.arange(448), torch.arange(448, 576)
    return part


@pytest.fixture(scope="session")
def few(data):
    return first(data)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder in which runs and cache are written in place of the real one."""
    monkeypatch.setattr(source, "PROJECT", tmp_path)
    monkeypatch.delenv("HW2_PROFILE", raising=False)
    return tmp_path


def patched(patch, folder, few):
    """A smoke profile that takes seconds, in `folder`, with a small network for the teacher."""
    patch.setattr(source, "PROJECT", folder)
    patch.setattr(source, "fashion_mnist", lambda: few)
    patch.setitem(profiles.PROFILES, "smoke", SHRUNKEN)
    patch.setattr(networks, "teacher", lambda stem="imagenet": tiny_network())
    patch.setenv("HW2_PROFILE", "smoke")
    return folder


@pytest.fixture(scope="session")
def walked(few, tmp_path_factory, worker_id):
    """A project in which the whole walk was done, once for all processes of the tests."""
    top = tmp_path_factory.getbasetemp()
    folder = (top if worker_id == "master" else top.parent) / "walked"
    with FileLock(folder.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        patched(patch, folder, few)
        if not folder.is_dir():
            walk.train_all("smoke", jobs=1)
            ledger.deliver("smoke")
    return folder


@pytest.fixture
def walk_done(walked, few, tmp_path, monkeypatch):
    """A copy of it, to change."""
    return patched(monkeypatch, shutil.copytree(walked, tmp_path / "project"), few)


@pytest.fixture
def no_training(monkeypatch):
    """Whatever trains fails."""

    def fail(*arguments, **more):
        raise AssertionError("something was trained")

    monkeypatch.setattr("hw2.training.fit", fail)
    monkeypatch.setattr("hw2.distillation.build_cache", fail)
    monkeypatch.setattr("hw2.experiments.search.search", fail)
