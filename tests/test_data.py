"""The data set is found, checked, fetched and split; what is damaged is told, and nothing partial stays."""

import gzip
import hashlib
import os
import shutil
import socket
import threading
import tracemalloc
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


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_equal_integers_of_any_type_give_the_same_stream_and_floats_none(kind):
    assert source.random_bits(3, "golden", kind(1)).tolist() == source.random_bits(3, "golden", 1).tolist()
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
    assert hashlib.sha256(rows).hexdigest() == "0fcf478558ee5ec68bde7c00d70361c15f409330521b4b7b839c84274a43ee4d"


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


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place:][1:]


DAMAGE = {
    "truncated": (lambda whole: whole[:-1], "10,007 bytes"),
    "longer": (lambda whole: whole + b"\0", "more than 10,008 bytes"),
    "altered": (lambda whole: flipped(whole, 5000), "SHA-256"),
    "empty": (lambda whole: b"", "0 bytes"),
    "packed, truncated": (lambda whole: gzip.compress(whole[:-1]), "10,007 bytes"),
    "packed, altered": (lambda whole: gzip.compress(flipped(whole, 5000)), "SHA-256"),
    "packed, not gzip": (lambda whole: b"<html>not found</html>", "cannot be read"),
    "packed, cut off": (lambda whole: gzip.compress(whole)[:-20], "cannot be read"),
    "packed, wrong checksum": (lambda whole: gzip.compress(whole)[:-8] + bytes(8), "cannot be read"),
    "packed, broken inside": (lambda whole: gzip.compress(whole)[:40] + b"\xff" * 40, "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_with_what_is_wrong(labels, tmp_path, damage):
    change, reason = DAMAGE[damage]
    path = tmp_path / (f"{LABELS}.gz" if damage.startswith("packed") else LABELS)
    path.write_bytes(change(labels))
    with pytest.raises(InputError) as error:
        source.read_idx(path)
    assert str(error.value).startswith(f"{path}: ") and reason in str(error.value) and "\n" not in str(error.value)


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
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [(tmp_path / "none").as_uri() + "/"])
    return folder


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Makes folders of `tmp_path`, there or not, torchvision's mirrors."""
    return lambda *folders: monkeypatch.setattr(
        torchvision.datasets.FashionMNIST, "mirrors", [f"{(tmp_path / folder).as_uri()}/" for folder in folders]
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def copied(mirror, folder):
    """The data set in `folder`."""
    return shutil.copytree(mirror, folder, dirs_exist_ok=True)


def test_places_are_read_in_their_order(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(source, "DEBIAN_FOLDER", (tmp_path / "debian").relative_to("/"))
    given, environment, project, debian = places = [
        tmp_path / "given", tmp_path / "environment", source.PROJECT / "data", tmp_path / "debian"]  # fmt: skip
    for place in places:
        copied(mirror, place)
    monkeypatch.setenv("HW2_DATA", str(environment))
    assert source.load(given).folder == given
    assert source.load().folder == environment
    monkeypatch.delenv("HW2_DATA")
    assert source.load().folder == project
    shutil.rmtree(project)
    assert source.load().folder == debian
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("named", ["argument", "environment", None])
def test_a_named_folder_that_lacks_a_file_is_filled_and_told_so_whatever_else_is_there(
    mirror, tmp_path, monkeypatch, serve, capsys, named
):
    home = tmp_path / "home" if named else source.PROJECT / "data"
    if named:
        copied(mirror, source.PROJECT / "data")
        monkeypatch.setattr(source, "DEBIAN_FOLDER", copied(mirror, tmp_path / "debian").relative_to("/"))
    if named == "environment":
        monkeypatch.setenv("HW2_DATA", str(home))
    (copied(mirror, home) / f"{LABELS}.gz").unlink()
    serve("mirror")
    found = source.load(home if named == "argument" else None)
    assert (found.folder, len(found.train_images), len(found.test_labels)) == (home, 20, 10)
    assert names(home) == names(mirror)
    assert str(home) in capsys.readouterr().err


def test_torchvisions_own_layout_is_found_under_the_folder_that_torchvision_was_given(mirror, tmp_path):
    raw = copied(mirror, tmp_path / "home/FashionMNIST/raw")
    assert source.load(tmp_path / "home").folder == raw
    assert source.load(raw).folder == raw


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
    assert all(tried in text for tried in (str(home), "torchvision's mirrors", "there is no apt-get here"))
    assert str(source.PROJECT / "data") not in text  # which was not looked at
    assert all(name in text for name in source.FILES)
    assert "\n" not in text
    assert names(home) == []
    with pytest.raises(InputError) as error:
        source.load()
    assert all(str(place) in str(error.value) for place in (source.PROJECT / "data", "/no-such-folder/fashion-mnist"))


def test_a_fetch_that_breaks_off_or_brings_wrong_files_leaves_nothing(mirror, tmp_path, serve):
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (mirror / name).write_bytes(gzip.compress(b"other"))
    serve("mirror")
    with pytest.raises(InputError, match="bytes after unpacking"):
        source.load(tmp_path / "home")
    (mirror / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="No such file"):
        source.load(tmp_path / "home")
    assert names(tmp_path / "home") == []


def test_a_package_that_lacks_files_or_does_not_unpack_is_one_of_the_places_tried(mirror, tmp_path):
    debian(tmp_path, mirror, lists=True)
    (mirror / f"{LABELS}.gz").unlink()
    with pytest.raises(InputError, match="not all four files came"):
        source.load(tmp_path / "home")
    (tmp_path / "bin/dpkg-deb").write_text("#!/bin/sh\necho no such archive >&2\nexit 2\n")
    with pytest.raises(InputError, match="no such archive"):
        source.load(tmp_path / "home")
    assert names(tmp_path / "home") == []


@pytest.mark.parametrize("answer", [b"220 mail.example ready\r\n\r\n", b""], ids=["not HTTP", "silence"])
def test_a_mirror_that_does_not_speak_http_is_one_of_the_places_tried(mirror, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(source, "TIMEOUT", 0.5)
    done, before = threading.Event(), socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(answer)
                done.wait(30 if not answer else 0)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(InputError, match="torchvision's mirrors"):
            source.load(tmp_path / "home")
        done.set()
        thread.join()
    assert socket.getdefaulttimeout() == before


def test_a_folder_that_cannot_be_made_is_named(mirror, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/home: cannot be created"):
        source.load(tmp_path / "file" / "home")


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
