"""Mutated files against every reader: nothing but InputError comes out, and memory stays bounded.

    python tests/torture/fuzz.py [--inputs 100000] [--seconds 3600] [--keep] [READER...]

Coverage-guided by atheris where it is installed (`pip install .[fuzz]`), else drawn by hypothesis. One line a
reader; what one did not survive is kept in build/torture, and the exit status is 1. `--keep` puts what
was told into runs/torture.json, from which README's table is made.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

try:
    import atheris
except ImportError:  # optional: hypothesis takes its place
    atheris = None

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1"}  # a forked process has no threads of a pool

INSTRUMENTED = ["hw2", "PIL"]  # NumPy and pandas take minutes to instrument
with atheris.instrument_imports(include=INSTRUMENTED) if atheris and __name__ == "__main__" else nullcontext():
    import hashlib

    import numpy as np
    import pytest
    import torch
    from helpers import keep_torture, tiny_network
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from PIL import Image

    from hw2 import data as source
    from hw2 import distillation, grading, networks, pictures
    from hw2.errors import InputError
    from hw2.experiments import recipes
    from hw2.experiments import search as tuning
    from hw2.experiments import store as runs

BOUND = 256 * 2**20  # bytes that a reader may take for a small file
LONGEST = 30  # seconds for one input
KEPT = source.PROJECT / "build/torture"


@dataclass(frozen=True)
class Reader:
    """`read` takes a path of the name `file`; mutations start at `seeds`, and may put in one of `tokens`."""

    file: str
    read: Callable[[Path], object]
    seeds: list[bytes]
    tokens: list[bytes] = field(default_factory=list)
    bound: int = BOUND


def saved(**more) -> bytes:
    """Weights of the small network with some tensors otherwise."""
    import safetensors.torch

    state = {name: value.contiguous() for name, value in tiny_network().state_dict().items()}
    return safetensors.torch.save(state | more, {"widths": "4,4,4,4"})


def course(state: object, **more) -> bytes:
    target = io.BytesIO()
    torch.save({"model_state_dict": state}, target, **more)
    return target.getvalue()


def picture(kind: str, mode: str = "RGB", **more) -> bytes:
    target = io.BytesIO()
    gradient = np.arange(20 * 17 * 4, dtype=np.uint8).reshape(20, 17, 4)
    Image.fromarray(gradient, "RGBA").convert(mode).save(target, kind, **more)
    return target.getvalue()


def packed(content: bytes, level: int = 9) -> bytes:
    """As gzip, without the time of day."""
    return gzip.compress(content, level, mtime=0)


def array(content: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, content, version)
    return target.getvalue()


def table(columns: tuple[str, ...], *rows: tuple) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in (columns, *rows)).encode()


def readers(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Reader]:
    """Every reader of files that people hand us; `patch` makes the data set and the teacher small."""
    name = "t10k-labels-idx1-ubyte"
    labels = bytes.fromhex("0000080100000014") + bytes(range(10)) * 2
    patch.setitem(source.FILES, name, (hashlib.sha256(labels).hexdigest(), (20,)))
    patch.setattr(networks, "teacher", tiny_network)
    classes = torch.arange(20) % 10
    submission = table(("id", "pred"), *enumerate(classes.tolist()))
    state = {f"resnet50.{key}": value for key, value in tiny_network().state_dict().items()}
    student = recipes.asdict(recipes.StudentRecipe(stage="plain", seed=0, fit=recipes.Fit(epochs=1, lr=0.1)))
    recipe = next((source.PROJECT / "runs/compressed").glob("*/recipe.json")).read_bytes()
    sample = runs.Run(folder / "run")
    sample.folder.mkdir()
    (sample.folder / "metrics.json").write_text('{"val_total": 3}')

    def read_history(path: Path) -> None:
        found = runs.read_csv(path, runs.HISTORY)
        [float(value) + 0.5 for column in runs.HISTORY for value in found[column].tolist()]  # as the plots do

    def check_submission(path: Path) -> None:
        if grading.check_submission(path, classes)[0]:  # then another reader of CSV sees the same
            rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if row]
            assert rows == [["id", "pred"], *([str(row), str(label)] for row, label in enumerate(classes.tolist()))]

    def read_array(path: Path) -> None:
        runs.Run(path.parent).validation_logits  # noqa: B018 (a property that reads)

    numbers = [b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"0x1", b"True", b'"', b"\0", b"\xff", b"\r", b"\n", b","]
    words = [json.dumps(key).encode() for key in ("digest", "fit", "sparse", "widths", "stem", "parent", "stage")]
    return {
        "idx": Reader(name, source.read_idx, [labels, labels[:9], labels + b"\0"]),
        "gzip": Reader(
            f"{name}.gz",
            source.read_idx,
            [packed(labels), packed(labels, 0), packed(labels[:9]) + packed(labels[9:])],
            [b"\x1f\x8b\x08", b"\x1f\x8b\x08\x1c", b"\xff\xff"],
        ),
        "weights": Reader(
            "model.safetensors",
            networks.load,
            [
                saved(),
                saved(**{"fc.bias": torch.zeros(10, dtype=torch.float64)}),
                *(saved(**{"fc.bias": torch.zeros(10).to(kind)}) for kind in (
                    torch.int8, torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64
                )),
            ],
            [b"F64", b"F16", b"BF16", b"I64", b"U8", b"BOOL", b"F8_E5M2", b"C64", b"1024", b"null", b"[]", b"4_,4"],
        ),
        "course's weights": Reader(
            "resnet-50.pth",
            networks.load_course_teacher,
            [
                course(state),
                course(state, _use_new_zipfile_serialization=False),
                course([1]),
                course({"resnet50.fc.bias": torch.zeros(10, dtype=torch.int8)}),
            ],
            [b"ctorch\nFloatStorage\n", b"cbuiltins\nbytearray\n", b"\x8b\xff\xff\xff\x7f", b"PK\x01\x02", b"storage"],
        ),
        "recipe": Reader(
            "recipe.json",
            lambda path: recipes.read(runs.read_json(path)),
            [recipe, json.dumps(student).encode(), b"{}"],
            [*words, *numbers, b"[" * 900, b"{" * 900, b"NaN", b"null", b"[]", b"{}", b'"\\ud800"'],
        ),
        "history": Reader(
            "history.csv",
            read_history,
            [table(runs.HISTORY, (1, 0.1, 2.5, 2.25, 0.5), (2, 1e-5, 1.5, 1.25, 0.75)), table(runs.HISTORY)],
            numbers,
        ),
        "trials": Reader(
            "trials.csv",
            lambda path: tuning.finalists(runs.read_csv(path, tuning.COLUMNS)),
            [table(tuning.COLUMNS, *((n, 2.0**n, 0.5, 0.1, n % 2, 1, 64, 30 + n, "COMPLETE") for n in range(4)))],
            numbers,
        ),
        "submission": Reader(
            "submission.csv", check_submission, [submission, submission.replace(b"\n", b"\r\n")], [*numbers, b"id,pred"]
        ),
        "packed submission": Reader("submission.csv.gz", check_submission, [submission, packed(submission)]),
        "picture": Reader(
            "picture",
            pictures.read,
            [
                *(picture(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX")),
                *(picture(kind) for kind in ("DDS", "SGI", "ICNS", "EPS", "JPEG2000", "AVIF")),
                picture("PNG", "P", transparency=3), picture("PNG", "LA"), picture("TIFF", "CMYK"),
                picture("JPEG", exif=bytes(Image.Exif()) + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
                picture("TIFF", compression="tiff_deflate"), picture("TIFF", compression="tiff_lzw"),
            ],
            [b"IHDR", b"IDAT", b"iCCP", b"zTXt", b"eXIf", b"\xff\xd8\xff\xe1", b"Exif\0\0", b"\x7f\xff\xff\xff"],
            1536 * 2**20,  # 14 bytes for each of the 89 million pixels that Pillow lets pass
        ),
        "logits": Reader(
            "run/validation_logits.npy",
            read_array,
            [array(np.zeros((3, 10), np.float16)), array(np.zeros((3, 10), np.float16), (2, 0))],
            [b"'|O'", b"'<f8'", b"99999999", b"True", b"\x03\0", b"PK\x03\x04", b"\x80\x04"],
        ),
        "soft targets": Reader(
            "soft_targets.npy", distillation.read_cache, [array(np.zeros((2, 3, 10), np.float16))], [b"|O", b"9999999"]
        ),
    }  # fmt: skip


def deflated(content: bytes) -> bytes:
    """A .pth whose record is packed, which torch's own never is."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    return target.getvalue()


def claiming(shape: str) -> bytes:
    """An array of 30 numbers whose header claims another shape."""
    return array(np.zeros((3, 10), np.float16)).replace(b"(3, 10), }" + b" " * 30, f"{shape}, }}".ljust(40).encode())


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that claim to be large: name -> reader and content."""
    zeros, target = packed(bytes(2**24)), io.BytesIO()
    Image.new("L", (9400, 9400)).save(target, "PNG")  # just within Pillow's own bound
    tall = picture("PNG").replace((17).to_bytes(4, "big") + (20).to_bytes(4, "big"), b"\0\0\xff\xff" * 2)
    return {
        "gzip of 1 GiB": ("gzip", zeros * 64),
        "submission of 1 GiB": ("packed submission", zeros * 64),
        "weights of widths 1024": ("weights", saved().replace(b"4,4,4,4", b"1024,1024,1024,1024")),
        "weights of a terabyte": ("weights", (2**40).to_bytes(8, "little") + b"{}"),
        "course's weights of 512 MiB, deflated": ("course's weights", deflated(course({"a": torch.zeros(2**27)}))),
        "a picture of 88 million pixels": ("picture", target.getvalue()),
        "a picture of 4 billion pixels": ("picture", tall),
        "logits of a terabyte": ("logits", claiming("(99999999999, 10)")),
        "soft targets of a terabyte": ("soft targets", claiming("(9, 9999999999, 10)")),
    }  # fmt: skip


def peak() -> int:
    """The most memory that this process had, in bytes."""
    return runs.peak_memory(torch.device("cpu"))


def one(reader: Reader, path: Path, content: bytes) -> bool:
    """Whether the reader takes this content; anything but `InputError` comes through."""
    path.write_bytes(content)
    try:
        reader.read(path)
    except InputError as error:
        assert str(error).strip()
        return False
    return True


@st.composite
def mutated(draw: Callable, reader: Reader) -> bytes:
    """A seed with up to four places cut, repeated, flipped, or overwritten by a token."""
    content = bytearray(draw(st.sampled_from(reader.seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([1, 2, 4, 8, 64, len(content)]))
        kinds = ["cut", "repeat", "flip", "bytes"] + ["insert", "overwrite"] * bool(reader.tokens)
        kind = draw(st.sampled_from(kinds))
        if kind == "cut":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length]
        elif kind == "flip" and place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "bytes":
            part = draw(st.binary(min_size=1, max_size=8))
            content[place : place + len(part)] = part
        elif kind in ("insert", "overwrite"):
            token = draw(st.sampled_from(reader.tokens))
            content[place : place + (len(token) if kind == "overwrite" else 0)] = token
    return bytes(content)


def drawn(reader: Reader, path: Path, inputs: int, seconds: float = LONGEST) -> int:
    """Up to so many inputs drawn by hypothesis; how many there were."""
    deadline, tried = time.monotonic() + seconds, 0

    @settings(max_examples=inputs, database=None, deadline=None, phases=[Phase.generate], derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(mutated(reader))
    def each(content: bytes) -> None:
        nonlocal tried
        if time.monotonic() < deadline:
            tried += 1
            one(reader, path, content)

    each()
    return tried


def guided(reader: Reader, path: Path, inputs: int, seconds: float) -> None:
    """The same by atheris, in this process, which it ends."""
    corpus = path.parent / f"{path.name}-corpus"
    corpus.mkdir()
    for number, seed in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(seed)
    options = {
        "runs": inputs,
        "max_total_time": int(seconds),
        "rss_limit_mb": (peak() + reader.bound) >> 20,
        "timeout": LONGEST,
        "max_len": max(map(len, reader.seeds)) + 2000,
        "seed": 1,
        "print_final_stats": 1,
        "artifact_prefix": f"{KEPT}/{path.name}-",
    }
    if reader.tokens:
        options["dict"] = path.parent / f"{path.name}-tokens"
        quoted = ["".join(rf"\x{byte:02x}" for byte in token) for token in reader.tokens]
        options["dict"].write_text("".join(f'"{token}"\n' for token in quoted))

    def tried(content: bytes) -> None:
        try:
            one(reader, path, content)
        except Exception:
            (KEPT / f"{path.name}-{hashlib.sha256(content).hexdigest()[:16]}").write_bytes(content)
            raise

    arguments = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup(["fuzz", *arguments, str(corpus)], tried)
    atheris.Fuzz()


@contextmanager
def told_to(path: Path) -> Iterator[None]:
    """Standard output and error of this process, of its C++ too, go to a file."""
    sys.stdout.flush()
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
        sys.stdout.flush()


def apart(work: Callable[[], object], log: Path) -> tuple[int, str]:
    """Status and output of a forked process that does `work`."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with told_to(log):
                try:
                    work()
                    status = 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text("utf-8", "replace")


def told_number(name: str, text: str) -> int:
    """The last number that the output gives under this name; 0 where it gives none."""
    return int((re.findall(rf"{name}:?\s+(\d+)", text) or [0])[-1])


def campaign(reader: Reader, path: Path, inputs: int, seconds: float) -> tuple[bool, int, str]:
    """Whether the reader survived all inputs, how many were tried, and what came of them."""

    def work() -> None:
        print("before", peak(), flush=True)
        if atheris:
            guided(reader, path, inputs, seconds)
        print("tried", drawn(reader, path, inputs, seconds))
        print("peak", peak())

    status, text = apart(work, path.with_suffix(".log"))
    before = told_number("before", text)
    if atheris:
        tried, most = told_number("number_of_executed_units", text), told_number("peak_rss_mb", text) << 20
        engine = f"atheris, {told_number('cov', text)} edges"
    else:
        tried, most, engine = told_number("tried", text), told_number("peak", text), "hypothesis"
    more = f"{(most - before) >> 20:,} MiB more"
    if status or most - before > reader.bound:
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return False, tried, f"FAILED ({engine}), {more}\n" + "\n".join(lines[-40:])
    if tried < inputs:
        return False, tried, f"FAILED ({engine}): no more in {seconds} s"
    return True, tried, f"only InputError came out ({engine}), at most {more}"


def explode(reader: Reader, path: Path, content: bytes) -> tuple[bool, str]:
    """A bomb: refused, or read within the bound."""

    def work() -> None:
        print("before", peak())
        print("taken", one(reader, path, content))
        print("peak", peak())

    status, text = apart(work, path.with_suffix(".log"))
    if status:
        return False, f"FAILED\n{text}"
    more = told_number("peak", text) - told_number("before", text)
    told = f"{len(content):,} bytes: {'read' if 'taken True' in text else 'refused'}, {more >> 20:,} MiB more"
    return more <= reader.bound, told if more <= reader.bound else f"FAILED: {told}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help="default: all, and the bombs")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each reader")
    parser.add_argument("--seconds", type=int, default=3600, help="at most, for each reader")
    parser.add_argument("--keep", action="store_true", help="write what was tried into runs/torture.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    shared = Path("/dev/shm")  # a file in memory where there is such a folder
    survived = True

    def tell(well: bool, kind: str, of: str, tried: int, told: str, words: str) -> None:
        nonlocal survived
        survived &= well
        print(words, flush=True)
        if asked.keep and well:
            keep_torture({"kind": kind, "of": of, "tried": tried, "told": told})

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(
        prefix="hw2-fuzz-", dir=shared if shared.is_dir() else None
    ) as folder:  # fmt: skip
        known = readers(patch, Path(folder))
        if strange := set(asked.readers) - known.keys() - {"bombs"}:
            parser.error(f"readers: {', '.join(sorted(strange))}; expected some of bombs, {', '.join(known)}")
        chosen = asked.readers or [*known, "bombs"]
        for name, reader in known.items():
            if name in chosen:
                started = time.monotonic()
                well, tried, told = campaign(reader, Path(folder) / reader.file, asked.inputs, asked.seconds)
                words = f"{name}: {tried:,} mutated inputs, {told} ({time.monotonic() - started:.0f} s)"
                tell(well, "inputs", name, tried, told, words)
        for label, (name, content) in bombs().items() if "bombs" in chosen else ():
            well, told = explode(known[name], Path(folder) / known[name].file, content)
            tell(well, "bombs", label, 1, told, f"bomb, {label}, {told}")
    return int(not survived)


if __name__ == "__main__":
    sys.exit(main())
