"""The data set is found, checked, fetched and split; what is damaged is told, and nothing partial stays."""

import errno
import gzip
import hashlib
import os
import socket
import threading
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from hw2 import data as source
from hw2.errors import InputError

LABELS = "t10k-labels-idx1-ubyte"


def test_random_bits_and_permutations_never_change():
    # Every split, view and order of training hangs on these: another value here makes all committed runs wrong.
    assert source.random_bits(3, "golden", 1).tolist() == [
        16371717870867395435,
        10096965466001964375,
        11708305019944051786,
    ]
    assert source.random_bits(2).tolist() == [11816121634870625535, 4092698624421720919]
    assert source.permutation(10, "golden", 1).tolist() == [3, 6, 9, 4, 8, 1, 2, 5, 7, 0]


def test_the_split_holds_out_500_of_each_class_and_is_the_recorded_one(data):
    train, validation = data.split
    assert (len(train), len(validation)) == (55000, 5000)
    assert torch.cat([train, validation]).sort().values.equal(torch.arange(60000))
    assert data.train_labels[validation].bincount().tolist() == [500] * 10
    rows = train.numpy().astype("<i8").tobytes() + validation.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(rows).hexdigest() == "0fcf478558ee5ec68bde7c00d70361c15f409330521b4b7b839c84274a43ee4d"


def test_the_data_set_has_its_shapes_types_and_first_labels(data):
    assert data.train_images.shape == (60000, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.test_images.shape == (10000, 28, 28)
    assert data.train_labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert data.test_labels[:5].tolist() == [9, 2, 1, 1, 6]


@pytest.fixture(scope="module")
def labels(data):
    """The bytes of the smallest file, unpacked."""
    path = source._paths(data.folder)[LABELS]
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_raw_and_gzip_files_both_read(labels, data, tmp_path):
    raw, packed = tmp_path / LABELS, tmp_path / f"{LABELS}.gz"
    raw.write_bytes(labels)
    packed.write_bytes(gzip.compress(labels))
    for path in (raw, packed):
        assert source.read_idx(path).tolist() == data.test_labels.tolist()


DAMAGE = {
    "truncated": (lambda whole: whole[:-1], "10,007 bytes after unpacking, expected 10,008"),
    "longer": (lambda whole: whole + b"\0", "more than 10,008 bytes after unpacking"),
    "altered": (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "is not Fashion-MNIST's"),
    "empty": (lambda whole: b"", "0 bytes after unpacking"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_with_what_is_wrong(labels, tmp_path, damage, suffix):
    change, told = DAMAGE[damage]
    path = tmp_path / (LABELS + suffix)
    path.write_bytes(gzip.compress(change(labels)) if suffix else change(labels))
    with pytest.raises(InputError) as error:
        source.read_idx(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "hw2 data" in str(error.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: b"<html>not found</html>",
        lambda packed: packed[:-20],
        lambda packed: packed[:-8] + b"\0" * 8,  # checksum and length
        lambda packed: packed[:40] + b"\xff" * 40 + packed[80:],
    ],
    ids=["not gzip", "cut off", "wrong checksum", "broken inside"],
)
def test_a_broken_gzip_file_is_named(labels, tmp_path, spoil):
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(spoil(gzip.compress(labels)))
    with pytest.raises(InputError) as error:
        source.read_idx(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(gzip.compress(bytes(2**22), 1) * 256)  # 256 members, 1 GiB in all
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than 10,008 bytes"):
            source.read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder with a data set of 20 + 10 images as gzip, which is what the code takes for Fashion-MNIST.

    No place of this machine is looked at and no source answers, until a test says so.
    """
    folder = tmp_path / "mirror"
    folder.mkdir()
    files = {}
    for name, (_, shape) in source.FILES.items():
        shape = (20 if name.startswith("train") else 10, *shape[1:])
        content = bytes(4 + 4 * len(shape)) + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
        files[name] = hashlib.sha256(content).hexdigest(), shape
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(source, "FILES", files)
    monkeypatch.setattr(source, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(source, "DEBIAN_FOLDER", Path("no-such-folder/fashion-mnist"))
    monkeypatch.delenv("HW2_DATA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "*")
    resources = [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [(tmp_path / "none").as_uri() + "/"])
    return folder


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Makes folders of `tmp_path`, there or not, torchvision's mirrors, by HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()

    def mirrors(*folders):
        addresses = [f"http://127.0.0.1:{server.server_port}/{folder}/" for folder in folders]
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", addresses)

    yield mirrors
    server.shutdown()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_given_comes_before_the_environment_and_that_before_the_project(mirror, tmp_path, monkeypatch):
    places = [tmp_path / "given", tmp_path / "environment", source.PROJECT / "data"]
    for place in places:
        place.mkdir(parents=True)
        for path in mirror.iterdir():
            (place / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("HW2_DATA", str(places[1]))
    assert source.load(places[0]).folder == places[0]
    assert source.load().folder == places[1]
    monkeypatch.delenv("HW2_DATA")
    assert source.load().folder == places[2]


def test_torchvisions_mirrors_are_asked_one_after_the_other(mirror, tmp_path, serve):
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for path in mirror.iterdir():
        (spoilt / path.name).write_bytes(b"<html>")
    serve("none", "spoilt", "mirror")
    found = source.load(tmp_path / "home")
    assert (found.folder, len(found.train_images), len(found.test_labels)) == (tmp_path / "home", 20, 10)
    assert names(tmp_path / "home") == names(mirror)


def debian(tmp_path, mirror, lists):
    """Stand-ins for apt-get, which knows the package from its own or only from updated private lists, and dpkg-deb."""
    tools = tmp_path / "bin"
    tools.mkdir()
    system = 'case "$1" in download) ;; *) exit 9;; esac' if lists else "[ -e updated ] || exit 9"
    scripts = {
        "apt-get": 'for last; do :; done\n[ "$last" = update ] && { touch updated; exit 0; }\n'
        f"{{ {system}; }} || exit 9\n: > dataset.deb\n",
        "dpkg-deb": f'mkdir -p "$3/{source.DEBIAN_FOLDER}" && cp {mirror}/* "$3/{source.DEBIAN_FOLDER}"\n',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\nPATH={os.defpath}:/usr/bin:/bin\n{script}")
        (tools / name).chmod(0o755)


@pytest.mark.parametrize("lists", [True, False], ids=["system lists", "private lists"])
def test_debians_package_is_taken_where_no_mirror_answers(mirror, tmp_path, lists):
    debian(tmp_path, mirror, lists)
    assert len(source.load(tmp_path / "home").train_images) == 20
    assert names(tmp_path / "home") == names(mirror)


def test_where_nothing_works_one_error_says_what_was_tried_and_where_to_put_the_files(mirror, tmp_path):
    home = tmp_path / "home"
    with pytest.raises(InputError) as error:
        source.load(home)
    text = str(error.value)
    debian_folder = Path("/") / source.DEBIAN_FOLDER
    for tried in (home, source.PROJECT / "data", debian_folder, "torchvision's mirrors", "there is no apt-get here"):
        assert text.count(str(tried)) >= 1
    assert f"into {home}, or name their folder by --root or HW2_DATA" in text
    assert all(name in text for name in source.FILES)
    assert "\n" not in text
    assert names(home) == []


def test_a_fetch_that_breaks_off_or_brings_wrong_files_leaves_nothing(mirror, tmp_path, monkeypatch, serve):
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (mirror / name).write_bytes(gzip.compress(b"other"))
    resources = [(path.name, None) for path in sorted(mirror.iterdir())]  # so that only SHA-256 can tell
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    serve("mirror")
    with pytest.raises(InputError, match="bytes after unpacking"):
        source.load(tmp_path / "home")
    (mirror / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="torchvision's mirrors"):
        source.load(tmp_path / "home")
    assert names(tmp_path / "home") == []


def test_an_interrupted_fetch_leaves_nothing(mirror, tmp_path, monkeypatch):
    def fetch(folder):
        (folder / f"{LABELS}.gz").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "_fetch_torchvision", fetch)
    with pytest.raises(KeyboardInterrupt):
        source.load(tmp_path / "home")
    assert names(tmp_path / "home") == []


def test_a_mirror_that_does_not_speak_http_is_one_of_the_places_tried(mirror, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(InputError, match="torchvision's mirrors"):
            source.load(tmp_path / "home")
        thread.join()


def test_a_folder_that_cannot_be_made_is_named(mirror, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/home: cannot be created"):
        source.load(tmp_path / "file" / "home")


def test_a_folder_that_takes_no_files_is_told(mirror, tmp_path, monkeypatch, serve):
    def refuse(**more):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), more["dir"])

    serve("mirror")
    monkeypatch.setattr(source.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        source.load(tmp_path / "home")


def test_two_fetches_at_the_same_time_do_not_collide(mirror, tmp_path, monkeypatch, serve):
    fetch, together, found = source._fetch_torchvision, threading.Barrier(2), []

    def fetch_together(folder):
        together.wait(30)
        fetch(folder)
        together.wait(30)

    serve("mirror")
    monkeypatch.setattr(source, "_fetch_torchvision", fetch_together)
    threads = [threading.Thread(target=lambda: found.append(source.load(tmp_path / "home"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(one.train_images) for one in found] == [20, 20]
    assert names(tmp_path / "home") == names(mirror)
