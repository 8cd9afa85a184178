"""Reading and writing of files: whole or not there, and one line where one cannot be read."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from hw2.errors import InputError

adapter = cache(TypeAdapter)  # of a type: what pydantic takes for it


def check_fields(record: object) -> None:
    """`InputError` for a value that its annotation does not allow; an int may stand for a float."""
    for name, kind in get_type_hints(type(record), include_extras=True).items():
        value = getattr(record, name)
        try:
            object.__setattr__(record, name, adapter(kind).validate_python(value, strict=True))
        except ValidationError as error:
            expected = first_error(error).removeprefix("Input should be ")
            raise InputError(f"{name} {value!r}: expected {expected}") from None


def first_error(error: ValidationError) -> str:
    """What pydantic says of the first value that it refuses, and where that value is."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()


def program_output(*command: str, folder: Path) -> str:
    """What a program prints, started in `folder`; `OSError` in one line where it fails.

    Variables such as GIT_DIR, which may name another repository, are withheld from it.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = {"capture_output": True, "text": True, "timeout": 300, "check": True}
    try:
        return subprocess.run(command, cwd=folder, env=own, **options).stdout.rstrip()
    except subprocess.SubprocessError as error:
        complaint = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        raise OSError(textwrap.shorten(complaint or str(error), 500)) from None


def broken(path: Path | str, reason: str, remedy: str | None = None) -> InputError:
    """What is wrong with a file and what to do about it."""
    remedy = remedy or "restore it with `git checkout`, or make it again"
    return InputError(f"{path}: {reason}; {remedy}")


@contextmanager
def errors_naming(
    path: Path | str, content: str, remedy: str | None = None, errors=(OSError, ValueError)
) -> Iterator[None]:
    """Errors of the block become an `InputError`: the file is no readable `content`, and why."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        reason = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        if isinstance(error, ValidationError):
            reason = first_error(error)
        reason = textwrap.shorten(getattr(error, "strerror", None) or reason, 300)
        raise broken(path, f"no readable {content} ({reason})", remedy) from None


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write aside, then rename: a reader sees the old content or the new, also after a crash.

    A link is followed, a device or pipe written into. A file that was there passes on its
    permissions, not its owner.
    """
    target = Path(os.path.realpath(path))
    # a loop of links, like a folder, is an `OSError`
    if target.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            if target.exists():
                shutil.copymode(target, aside)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """As .npy. NumPy itself, writing into a file, tells of a full disk in numbers of items."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getbuffer())


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Floats are written by repr, so that reading them gives the same number."""
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_json(path: Path, schema: type = dict, remedy: str | None = None) -> dict:
    """A JSON object, or what `schema`, a TypedDict, describes; else `InputError`."""
    with errors_naming(path, "JSON of its kind", remedy):
        return adapter(schema).validate_json(path.read_bytes(), strict=True)


def read_csv(path: Path, columns: tuple[str, ...], words: tuple[str, ...] = ()) -> pd.DataFrame:
    """Rows of exactly these columns without gaps; all but `words` hold numbers, read exactly.

    `InputError` for anything else.
    """
    with errors_naming(path, "CSV"), warnings.catch_warnings():
        # by itself pandas takes a field too many for the name of its row
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # pandas 4 knows no other
        warnings.filterwarnings("ignore", "The 'float_precision' argument")
        try:
            rows = pd.read_csv(path, index_col=False, float_precision="round_trip")
        except pd.errors.ParserWarning:
            raise ValueError("rows have more fields than the header") from None
        if tuple(rows.columns) != columns:
            found = ",".join(map(str, rows.columns))
            raise ValueError(f"columns {found}, expected {','.join(columns)}")
        if rows.isna().any(axis=None):
            raise ValueError("a row lacks a value")
        numbers = rows.drop(columns=list(words))
        if len(rows) and not all(dtype.kind in "iuf" for dtype in numbers.dtypes):
            raise ValueError("a column of numbers holds something else")
        return rows


def read_array(
    path: Path, dtype: type, shape: tuple[int | None, ...], remedy: str | None = None
) -> np.ndarray:
    """An array of this type and shape (None: any length), mapped into memory; writes stay there."""
    # NumPy parses the header as Python and raises whatever that met
    with errors_naming(path, "array", remedy, Exception):
        array = np.lib.format.open_memmap(path, mode="c")
        sides = zip(shape, array.shape, strict=False)
        expected = tuple(length if side is None else side for side, length in sides)
        if array.dtype != dtype or array.ndim != len(shape) or array.shape != expected:
            told = f"{np.dtype(dtype)} {shape}, None: any"
            raise ValueError(f"{array.dtype} {array.shape}, expected {told}")
        return array


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
