"""Find, check, fetch and split Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

import gzip
import hashlib
import operator
import os
import shutil
import sys
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from functools import cache, cached_property, partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hw2.errors import InputError
from hw2.files import errors_naming, program_output

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: name -> SHA-256 of the uncompressed file
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 47_040_016  # bytes of the first
VALIDATION = 5000
TIMEOUT = 30  # seconds without a byte from a mirror
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
PROJECT = Path(__file__).resolve().parent.parent


def random_bits(count: int, *key: str | int) -> np.ndarray:
    """`count` uint64 values that are a pure function of `key`, by Philox (Salmon et al. 2011).

    NumPy promises never to change its raw stream. Equal integers of any type give the same stream.
    Raises `TypeError` for a key of another type.
    """
    parts = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")
    return np.random.Philox(key=seed).random_raw(count)


def permutation(count: int, *key: str | int) -> np.ndarray:
    """A permutation of range(count), int64, that is a pure function of `key`."""
    return np.argsort(random_bits(count, *key), kind="stable")


def read_idx(path: Path) -> np.ndarray:
    """One of the idx files, raw or gzip, as uint8; `InputError` where it is not the data set's."""
    errors = (OSError, EOFError, zlib.error, ValueError)
    with errors_naming(path, "part of Fashion-MNIST", "delete it and run `hw2 data`", errors):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(LARGEST + 1)  # no more of a longer file
        if hashlib.sha256(content).hexdigest() != FILES[path.name.removesuffix(".gz")]:
            raise ValueError(f"{len(content):,} bytes of another SHA-256")
    offset = 4 + 4 * content[3]  # after a magic number, whose last byte counts the dimensions
    shape = np.frombuffer(content[4:offset], ">u4")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)


@dataclass(frozen=True)
class FashionMNIST:
    """The data set in memory, in the files' order: uint8 images (n, 28, 28), int64 labels (n,)."""

    folder: Path
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @cached_property
    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Shuffled rows of the 60,000: 55,000 for training, 500 of each class for validation."""
        order = permutation(len(self.train_labels), "split", 0)
        labels = pd.Series(self.train_labels.numpy()[order])
        held_out = labels.groupby(labels).cumcount().to_numpy() < VALIDATION // len(CLASSES)
        return torch.from_numpy(order[~held_out]), torch.from_numpy(order[held_out])

    @property
    def examples(self) -> torch.Tensor:
        """The first test image of each class: its place, (10,)."""
        places = [(self.test_labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]
        return torch.stack(places)


def _read(folder: Path) -> FashionMNIST | None:
    """From `folder` or torchvision's layout in it, raw or gzip; None where a file is missing."""
    for place in (folder, folder / "FashionMNIST/raw"):
        raw = [place / name for name in FILES]
        paths = [path if path.is_file() else path.with_name(f"{path.name}.gz") for path in raw]
        if all(path.is_file() for path in paths):
            arrays = [torch.from_numpy(read_idx(path).copy()) for path in paths]
            return FashionMNIST(place, arrays[0], arrays[1].long(), arrays[2], arrays[3].long())
    return None


def _download(mirror: str, folder: Path) -> None:
    for name in FILES:
        with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT) as response:
            (folder / f"{name}.gz").write_bytes(response.read())


def _unpack_debian(folder: Path) -> None:
    """Debian's package, unpacked without root. The system may have no lists of packages."""
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    apt = ["apt-get", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}"]
    program_output(*apt, "update", folder=folder)
    program_output(*apt, "download", DEBIAN_PACKAGE, folder=folder)
    package = next(folder.glob("*.deb"))
    program_output("dpkg-deb", "-x", str(package), str(folder / "unpacked"), folder=folder)
    for path in (folder / "unpacked" / DEBIAN_FOLDER).iterdir():
        shutil.move(path, folder / path.name)


def load(root: Path | str | None = None) -> FashionMNIST:
    """The data set in `root`, or else in the folder that the environment variable HW2_DATA names.

    A named folder must exist, and no other is read. Without a name data/ is read, then Debian's
    installed package. Where files are missing, they are fetched into the named folder or data/.
    Raises `InputError` for a named folder that is not there, for a damaged file, and where
    nothing works.
    """
    named = root or os.environ.get("HW2_DATA")
    home = Path(os.path.expanduser(named)).resolve() if named else PROJECT / "data"
    if named and not home.is_dir():
        problem = "no such folder, named by --root or HW2_DATA"
        raise InputError(f"{home}: {problem}; make it, and Fashion-MNIST is fetched into it")
    places = [home] if named else [home, Path("/") / DEBIAN_FOLDER]
    for place in places:
        if found := _read(place):
            return found
    print(f"hw2: {home} lacks Fashion-MNIST, which is fetched into it", file=sys.stderr)
    return _fetch(home, [f"{place} (not all four files)" for place in places])


def _fetch(home: Path, tried: list[str]) -> FashionMNIST:
    """Fill `home` from the first source that works; `tried` names the places looked at before."""
    from torchvision.datasets import FashionMNIST as Torchvision

    sources = {mirror: partial(_download, mirror) for mirror in Torchvision.mirrors}
    sources[f"Debian's package {DEBIAN_PACKAGE}"] = _unpack_debian
    for source, fetch in sources.items():
        # Fetched aside and renamed file by file: other processes see whole files or none.
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home) as aside:
                fetch(Path(aside))
                if _read(Path(aside)) is None:
                    raise OSError("not all four files came")
                for path in Path(aside).glob("*-ubyte*"):
                    path.replace(home / path.name)
                return _read(home)
        except (OSError, InputError, HTTPException, UnicodeError) as error:  # odd proxies: the last
            tried.append(f"{source} ({' '.join(str(error).split()) or type(error).__name__})")
    problem = f"Fashion-MNIST was not found and could not be fetched. Tried: {'; '.join(tried)}"
    remedy = f"Put the four files {', '.join(FILES)} (raw or .gz) into {home}"
    raise InputError(f"{problem}. {remedy}, or name their folder by --root or HW2_DATA")


fashion_mnist = cache(load)  # read once in a process
