"""The data set is found, checked, fetched and split; what is damaged is told, and nothing partial
stays.
"""

import gzip
import hashlib
import os
import re
import shutil
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from helpers import contents

from hw2 import data as source
from hw2.errors import InputError

LABELS = "t10k-labels-idx1-ubyte"


def test_random_bits_and_permutations_never_change():
    # Every split, view and order of training hangs on these: another value here makes all committed
    # runs wrong.
    golden = [16371717870867395435, 10096965466001964375, 11708305019944051786]
    for kind in (int, np.int64, np.uint8, torch.tensor):
        assert source.random_bits(3, "golden", kind(1)).tolist() == golden
    assert source.random_bits(2).tolist() == [11816121634870625535, 4092698624421720919]
    assert source.permutation(10, "golden", 1).tolist() == [3, 6, 9, 4, 8, 1, 2, 5, 7, 0]
    with pytest.raises(TypeError):
        source.random_bits(3, "golden", 1.0)


def test_the_split_holds_out_500_of_each_class_and_is_the_recorded_one(data):
    train, validation = data.split
    assert (len(train), len(validation)) == (55000, 5000)
    assert torch.cat([train, validation]).sort().values.equal(torch.arange(60000))
    assert data.train_labels[validation].bincount().tolist() == [500] * 10
    rows = train.numpy().astype("<i8").tobytes() + validation.numpy().astype("<i8").tobytes()
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert (data.train_images.shape, data.test_images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert (
        hashlib.sha256(rows).hexdigest()
        == "0fcf478558ee5ec68bde7c00d70361c15f409330521b4b7b839c84274a43ee4d"
    )


@pytest.fixture(scope="module")
def labels(data):
    """The bytes of the smallest file, unpacked."""
    (path,) = data.folder.glob(f"{LABELS}*")
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place:][1:]


DAMAGE = {
    "longer": (lambda whole: whole + b"\0", "SHA-256"),
    "altered": (lambda whole: flipped(whole, 5000), "SHA-256"),
    "packed, altered": (lambda whole: gzip.compress(flipped(whole, 5000)), "SHA-256"),
    "packed, not gzip": (lambda whole: b"<html>", "no readable part"),
    "packed, cut off": (lambda whole: gzip.compress(whole)[:-20], "no readable part"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_raw_and_gzip_files_are_read_and_a_damaged_one_is_named(labels, data, tmp_path, damage):
    (change, reason), packed = DAMAGE[damage], damage.startswith("packed")
    path = tmp_path / (f"{LABELS}.gz" if packed else LABELS)
    path.write_bytes(gzip.compress(labels) if packed else labels)
    assert source.read_idx(path).tolist() == data.test_labels.tolist()
    path.write_bytes(change(labels))
    with pytest.raises(InputError, match=reason) as error:
        source.read_idx(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder with a data set of 20 + 10 images as gzip, which the code takes for Fashion-MNIST.

    No source answers. Beside it are the empty folders `home` and `other`.
    """
    folder = tmp_path / "mirror"
    for name in ("mirror", "home", "other"):
        (tmp_path / name).mkdir()
    files = {}
    for name, (_, shape) in source.FILES.items():
        shape = (20 if name.startswith("train") else 10, *shape[1:])
        content = (
            bytes(4 + 4 * len(shape)) + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
        )
        files[name] = hashlib.sha256(content).hexdigest(), shape
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(source, "FILES", files)
    monkeypatch.setattr(source, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(source, "DEBIAN_FOLDER", Path("no-such-folder/fashion-mnist"))
    monkeypatch.delenv("HW2_DATA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(
        torchvision.datasets.FashionMNIST, "mirrors", [(tmp_path / "none").as_uri() + "/"]
    )
    return folder


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Makes folders of `tmp_path`, there or not, torchvision's mirrors."""
    return lambda *folders: monkeypatch.setattr(
        torchvision.datasets.FashionMNIST,
        "mirrors",
        [f"{(tmp_path / folder).as_uri()}/" for folder in folders],
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_places_are_read_in_their_order(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(source, "DEBIAN_FOLDER", (tmp_path / "debian").relative_to("/"))
    given, environment, debian = (
        shutil.copytree(mirror, tmp_path / name) for name in ("given", "environment", "debian")
    )
    project = shutil.copytree(mirror, source.PROJECT / "data")
    monkeypatch.chdir(tmp_path)
    # a relative name is one of where the command is called
    monkeypatch.setenv("HW2_DATA", "environment")
    assert source.load(given).folder == given
    assert (
        source.load(
            shutil.copytree(mirror, tmp_path / "home/FashionMNIST/raw").parents[1]
        ).folder.name
        == "raw"
    )
    assert source.load().folder == environment
    monkeypatch.delenv("HW2_DATA")
    assert source.load().folder == project
    shutil.rmtree(project)
    assert source.load().folder == debian
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("named", ["argument", "environment", "a file", "~no-such-user/data"])
def test_a_named_folder_must_exist(mirror, tmp_path, monkeypatch, serve, named):
    shutil.copytree(mirror, source.PROJECT / "data")
    serve("mirror")
    path = tmp_path / "mistyped"
    if named == "a file":
        path.touch()
    if named[0] == "~":
        path = Path(named)
    if named == "environment":
        monkeypatch.setenv("HW2_DATA", str(path))
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{path}: no such folder, named by --root or HW2_DATA"):
        source.load(None if named == "environment" else path)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_told_in_one_line(mirror, serve):
    source.PROJECT.touch()  # so that data/ cannot be made, as in another user's checkout
    serve("mirror")
    with pytest.raises(InputError, match=r"could not be fetched.*mirror/ \(.*Not a directory"):
        source.load()


@pytest.mark.parametrize("host", ["", "x" * 70 + ".invalid"])
def test_a_proxy_that_cannot_be_used_is_told_in_one_line(mirror, tmp_path, monkeypatch, host):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"http://{host}.:1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers earlier proxies
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://mirror.invalid/"])
    with pytest.raises(InputError, match=r"http://mirror\.invalid/ \(.*apt-get") as error:
        source.load(tmp_path / "home")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("named", ["argument", "environment", None])
def test_a_named_folder_that_lacks_a_file_is_filled_and_told_so_whatever_else_is_there(
    mirror, tmp_path, monkeypatch, serve, capsys, named
):
    home = tmp_path / "home" if named else source.PROJECT / "data"
    if named:
        shutil.copytree(mirror, source.PROJECT / "data")
        monkeypatch.setattr(
            source, "DEBIAN_FOLDER", shutil.copytree(mirror, tmp_path / "debian").relative_to("/")
        )
    if named == "environment":
        monkeypatch.setenv("HW2_DATA", str(home))
    (shutil.copytree(mirror, home, dirs_exist_ok=True) / f"{LABELS}.gz").unlink()
    shutil.copytree(mirror, tmp_path / "spoilt")
    (tmp_path / f"spoilt/{LABELS}.gz").write_bytes(b"<html>")
    serve("none", "spoilt", "mirror")  # torchvision's mirrors are asked one after the other
    found = source.load(home if named == "argument" else None)
    assert (found.folder, len(found.train_images), len(found.test_labels)) == (home, 20, 10)
    assert names(home) == names(mirror)
    assert str(home) in capsys.readouterr().err


def test_debians_package_is_taken_where_no_mirror_answers(mirror, tmp_path):
    # apt-get knows the package once its lists are updated.
    tools = {
        "apt-get": 'case "$*" in *" update") : > updated;; '
        "*) [ -e updated ] && : > dataset.deb;; esac\n",
        "dpkg-deb": f'mkdir -p "$3/{source.DEBIAN_FOLDER}" '
        f'&& cp {mirror}/* "$3/{source.DEBIAN_FOLDER}"\n',
    }
    (tmp_path / "bin").mkdir()
    for name, script in tools.items():
        (tmp_path / "bin" / name).write_text(
            f"#!/bin/sh\nPATH={os.defpath}:/usr/bin:/bin\n{script}"
        )
        (tmp_path / "bin" / name).chmod(0o755)
    assert len(source.load(tmp_path / "home").train_images) == 20
    assert names(tmp_path / "home") == names(mirror)
    (mirror / f"{LABELS}.gz").unlink()
    with pytest.raises(InputError, match="not all four files came"):
        source.load(tmp_path / "other")
    (tmp_path / "bin/dpkg-deb").write_text("#!/bin/sh\necho no such archive >&2\nexit 2\n")
    with pytest.raises(InputError, match="no such archive"):
        source.load(tmp_path / "other")
    assert names(tmp_path / "other") == []


def test_where_nothing_works_one_error_says_what_was_tried_and_where_to_put_the_files(
    mirror, tmp_path
):
    home = tmp_path / "home"
    with pytest.raises(InputError) as error:
        source.load(home)
    text = str(error.value)
    assert all(tried in text for tried in (str(home), "none/ (", "apt-get", *source.FILES))
    assert str(source.PROJECT / "data") not in text  # which was not looked at
    assert "\n" not in text and names(home) == []
    with pytest.raises(InputError) as error:
        source.load()
    assert all(
        str(place) in str(error.value)
        for place in (source.PROJECT / "data", "/no-such-folder/fashion-mnist")
    )


def test_a_fetch_that_breaks_off_or_brings_wrong_files_leaves_nothing(mirror, tmp_path, serve):
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (mirror / name).write_bytes(gzip.compress(b"other"))
    serve("mirror")
    with pytest.raises(InputError, match="no readable part"):
        source.load(tmp_path / "home")
    (mirror / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="No such file"):
        source.load(tmp_path / "home")
    assert names(tmp_path / "home") == []


def test_a_mirror_that_does_not_speak_http_is_one_of_the_places_tried(mirror, monkeypatch):
    def serve():
        with server.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example ready\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        pool.submit(serve)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(InputError, match=re.escape(address)):
            source.load(mirror.parent / "home")
