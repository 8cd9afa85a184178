"""Writing files: whole or not at all, and a full disk is told in words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from hw2 import files, networks, training
from hw2.experiments.recipes import Fit

resource = pytest.importorskip("resource")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond 1,000 bytes."""
    # Not a fixture: pytest tells a test's result before the fixtures end, and its own output may be a longer file.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_is_there_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new/file.txt"
    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and list(path.parent.iterdir()) == [path]
    files.write_array(path.with_suffix(".npy"), np.arange(6, dtype=np.float16).reshape(2, 3))
    found = np.load(path.with_suffix(".npy"))
    assert found.dtype == np.float16 and found.tolist() == [[0, 1, 2], [3, 4, 5]]


WRITERS = {
    "bytes": lambda path: files.write_bytes(path, bytes(2000)),
    "array": lambda path: files.write_array(path, np.zeros(2000)),
    "weights": lambda path: networks.save(networks.ResNet14((4, 4, 4, 4)), path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_told_in_words_and_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), full_disk():
        write(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_on_a_full_disk_too(tmp_path, few):
    train, validation = few.split
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), full_disk():
        training.fit(networks.ResNet14((4, 4, 4, 4)), few, train[:64], validation[:10], Fit(epochs=1, lr=0.1, batch=64),
                     seed=0, checkpoint=tmp_path / "checkpoint.pt")  # fmt: skip
    assert list(tmp_path.iterdir()) == []
