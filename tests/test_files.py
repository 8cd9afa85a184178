"""Writing files: whole or not at all, and a full disk is told in words."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from helpers import contents, tiny_network

from hw2 import files, networks, training
from hw2.errors import InputError

resource = pytest.importorskip("resource")


@contextmanager
# no fixture: pytest tells a test's result before its fixtures end, and may write a longer file
def full_disk():
    """No file can grow beyond 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_link_is_followed_and_a_pipe_written_into(tmp_path):
    target, link, pipe = (tmp_path / name for name in ("folder/target", "link", "pipe"))
    link.symlink_to(target)
    for content in (b"one", b"two"):  # where there is no target yet, and where there is
        files.write_bytes(link, content)
        assert link.is_symlink() and target.read_bytes() == content
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        found = pool.submit(pipe.read_bytes)
        files.write_bytes(pipe, b"three")
    assert found.result() == b"three" and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]


def test_permissions_are_the_umasks_or_those_of_the_file_that_was_there(tmp_path):
    path, before = tmp_path / "a", os.umask(0o027)
    try:
        files.write_bytes(path, b"one")
        assert path.stat().st_mode & 0o777 == 0o640
        for mode in (0o600, 0o444, 0o775):
            path.chmod(mode)
            files.write_bytes(path, b"two")
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_programs_complaint_is_told_whole(tmp_path):
    # As git does: the reason comes first, then what to do.
    script = "echo 'fatal: dubious ownership' >&2; echo >&2; echo ' trust it' >&2; exit 128"
    with pytest.raises(OSError, match=r"^fatal: dubious ownership trust it$"):
        files.program_output("sh", "-c", script, folder=tmp_path)


def checkpoint(path, few):
    task = training.Task(few, few.split[0][:64], few.split[1][:10])
    training.fit(tiny_network(), training.Fit(1, 0.1, batch=64), task, seed=0, checkpoint=path)


WRITERS = {  # NumPy, safetensors and torch would each raise something else
    "array": lambda path, few: files.write_array(path, np.zeros(2000)),
    "weights": lambda path, few: networks.save(tiny_network(), path),
    "checkpoint": checkpoint,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_in_words_and_leaves_the_old_file(tmp_path, few, name):
    path = tmp_path / "file"
    if name != "checkpoint":  # which training would go on from
        path.write_bytes(b"old")
    before = contents(tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), full_disk():
        WRITERS[name](path, few)
    assert contents(tmp_path) == before


def test_floats_and_words_of_a_table_come_back_exactly(tmp_path):
    values = [0.1 + 0.2, 5e-324, *np.random.default_rng(0).normal(size=200).tolist()]
    rows = [{"name": "a,b", "x": value, "n": 1} for value in values]
    columns = ("name", "x", "n")
    files.write_csv(tmp_path / "a.csv", columns, rows)
    found = files.read_csv(tmp_path / "a.csv", columns, words=("name",))
    assert found.to_dict("records") == rows


TABLES = [b"x,z\n1,2\n", b"x,y\n1,2,3\n", b"x,y\n1,\n", b"x,y\n1,two\n", b"x,y\n1,True\n"]
UNUSABLE = [("a.csv", content) for content in (None, b"", *TABLES)]
UNUSABLE += [("a.json", content) for content in (None, b"{", b"[1]", b"\xff")]


@pytest.mark.parametrize(("name", "content"), UNUSABLE)
def test_an_unusable_table_or_json_object_is_named(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: .*$"):
        files.read_csv(path, ("x", "y")) if name == "a.csv" else files.read_json(path)
