"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """A reader sees the old content or the new one, also after a crash. Raises `OSError`, and then leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    """As .npy. NumPy itself, writing into a file, tells of a full disk in numbers of items alone."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getbuffer())
