"""Find, check and fetch Fashion-MNIST, and split it. Knows nothing about training.

The data set is by Xiao, Rasul and Vollgraf (2017, arXiv:1708.07747), MIT licence. Whatever the source, the SHA-256 of
the uncompressed bytes decides whether a file is the right one.
"""

from __future__ import annotations

import gzip
import hashlib
import operator
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

from hw2.errors import InputError

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
#: name -> (SHA-256 of the uncompressed file, shape)
FILES = {
    "train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        (60000, 28, 28),
    ),
    "train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", (60000,)),
    "t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        (10000, 28, 28),
    ),
    "t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", (10000,)),
}
VALIDATION = 5000
TIMEOUT = 30  # seconds without a byte from a mirror
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
TORCHVISION_FOLDER = Path("FashionMNIST/raw")  # where torchvision puts the files under its root
PROJECT = Path(__file__).resolve().parent.parent


def random_bits(count: int, *key: str | int) -> np.ndarray:
    """`count` uint64 values that are a pure function of `key`: the Philox counter-based generator (Salmon et al. 2011).

    Its raw stream, unlike NumPy's distributions or torch's generators, is promised never to change between versions.
    Equal integers of any type, NumPy's too, give the same stream. Raises `TypeError` for a key of another type.
    """
    parts = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")
    return np.random.Philox(key=seed).random_raw(count)


def permutation(count: int, *key: str | int) -> np.ndarray:
    """A permutation of range(count), int64, that is a pure function of `key`."""
    return np.argsort(random_bits(count, *key), kind="stable")


def read_idx(path: Path) -> np.ndarray:
    """Read one of the four idx files, raw or gzip, into a uint8 array.

    Raises `InputError` where the file cannot be read, is truncated, or is not byte for byte the data set's.
    """
    name = path.name.removesuffix(".gz")
    digest, shape = FILES[name]
    size = 4 + 4 * len(shape) + int(np.prod(shape))
    remedy = "delete it and run `hw2 data` to fetch it again"
    try:
        # One byte more than expected tells a longer file apart without ever unpacking all of a gzip bomb.
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); {remedy}") from None
    if len(content) != size:
        found = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path}: {found} bytes after unpacking, expected {size:,}; {remedy}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: the content is not Fashion-MNIST's (SHA-256 differs); {remedy}")
    return np.frombuffer(content, np.uint8, offset=size - int(np.prod(shape))).reshape(shape)


@dataclass(frozen=True)
class FashionMNIST:
    """The data set in memory: uint8 images (n, 28, 28), int64 labels (n,), in the files' own order."""

    folder: Path
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @cached_property
    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the 60,000 for training (55,000, shuffled) and validation (5,000, 500 of each class, shuffled)."""
        order = permutation(len(self.train_labels), "split", 0)
        labels = self.train_labels.numpy()[order]
        rank = np.empty(len(order), np.int64)  # how many of the same class came before
        for label in range(len(CLASSES)):
            rank[labels == label] = np.arange((labels == label).sum())
        held_out = rank < VALIDATION // len(CLASSES)
        return torch.from_numpy(order[~held_out]), torch.from_numpy(order[held_out])


def _paths(folder: Path) -> dict[str, Path] | None:
    """The four files in `folder` or in torchvision's layout under it, raw before gzip; None where one is missing."""
    for place in (folder, folder / TORCHVISION_FOLDER):
        found = {name: [p for p in (place / name, place / f"{name}.gz") if p.is_file()] for name in FILES}
        if all(found.values()):
            return {name: paths[0] for name, paths in found.items()}
    return None


def _read(folder: Path) -> FashionMNIST | None:
    paths = _paths(folder)
    if paths is None:
        return None
    arrays = [torch.from_numpy(read_idx(path).copy()) for path in paths.values()]
    where = next(iter(paths.values())).parent
    return FashionMNIST(where, arrays[0], arrays[1].long(), arrays[2], arrays[3].long())


def _fetch_torchvision(folder: Path) -> None:
    """From the first of torchvision's mirrors that serves the right files."""
    from torchvision.datasets import FashionMNIST as Torchvision

    problems = []
    for mirror in Torchvision.mirrors:
        try:
            for name in FILES:
                path = folder / f"{name}.gz"
                with urllib.request.urlopen(mirror + path.name, timeout=TIMEOUT) as answer, path.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            _read(folder)  # raises where a file is another one
            return
        except (OSError, HTTPException, InputError) as error:
            problems.append(str(error) or type(error).__name__)
    raise OSError("; ".join(problems))


def _fetch_debian(folder: Path) -> None:
    """Debian's package, unpacked without root; with private package lists where the system has none."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise OSError(f"there is no {tool} here")

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1])

    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    private = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}"]
    try:
        run("apt-get", "download", DEBIAN_PACKAGE)
    except OSError:
        run("apt-get", *private, "update")
        run("apt-get", *private, "download", DEBIAN_PACKAGE)
    run("dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder / "unpacked"))
    for path in (folder / "unpacked" / DEBIAN_FOLDER).iterdir():
        shutil.move(path, folder / path.name)


def load(root: Path | str | None = None) -> FashionMNIST:
    """The data set in `root`, or in the folder that the environment variable HW2_DATA names; fetched where it lacks.

    A named folder is the only one that is read. Without a name the data set is read from data/, then from Debian's
    installed package, or else fetched into data/. A fetch asks torchvision's mirrors, then Debian's archive. Raises
    `InputError` for a damaged file, and where nothing works with one text that says what was tried.
    """
    root = root or os.environ.get("HW2_DATA")
    home = Path(root).expanduser().resolve() if root else PROJECT / "data"
    places = [home] if root else [home, Path("/") / DEBIAN_FOLDER]
    for place in places:
        if data := _read(place):
            return data
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{home}: cannot be created ({error}); give another folder by --root or HW2_DATA") from None
    print(f"hw2: {home} lacks Fashion-MNIST, which is fetched into it", file=sys.stderr)
    return _fetch(home, [f"{place} (not all four files)" for place in places])


def _fetch(home: Path, tried: list[str]) -> FashionMNIST:
    """Fill `home` from the first source that works. `tried` are words on the places without the data set."""
    sources = {"torchvision's mirrors": _fetch_torchvision, f"Debian's package {DEBIAN_PACKAGE}": _fetch_debian}
    for source, fetch in sources.items():
        # Fetched aside and renamed file by file: a reader, or a second process, sees whole files or none.
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home) as aside:
                fetch(Path(aside))
                if _read(Path(aside)) is None:
                    raise OSError("not all four files came")
                for path in _paths(Path(aside)).values():
                    path.replace(home / path.name)
                return _read(home)
        except (OSError, InputError, subprocess.SubprocessError) as error:
            tried.append(f"{source} ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    raise InputError(
        "Fashion-MNIST was not found and could not be fetched. Tried: " + "; ".join(tried) + ". Put the four files "
        f"{', '.join(FILES)} (raw or .gz) into {home}, or name their folder by --root or HW2_DATA"
    )


@lru_cache(maxsize=1)
def fashion_mnist() -> FashionMNIST:
    """`load()`, read once in a process."""
    return load()
