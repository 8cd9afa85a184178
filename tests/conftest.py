"""Fixtures: the data set, a few of its images, and a project folder of the test's own."""

import pytest
import torch

from hw2 import data as source
from hw2 import runs


@pytest.fixture(scope="session")
def data():
    return source.fashion_mnist()


@pytest.fixture(scope="session")
def few(data):
    """The first 576 training images, of which 128 are for validation, and 100 test images."""
    part = source.FashionMNIST(
        data.folder, data.train_images[:576], data.train_labels[:576], data.test_images[:100], data.test_labels[:100]
    )
    vars(part)["split"] = torch.arange(448), torch.arange(448, 576)
    return part


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder in which runs and cache are written in place of the real one."""
    monkeypatch.setattr(source, "PROJECT", tmp_path)
    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    monkeypatch.delenv("HW2_PROFILE", raising=False)
    return tmp_path
