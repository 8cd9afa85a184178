"""Mutated files against every reader: nothing but InputError comes out, and memory stays bounded.

    python tests/torture/fuzz.py [--inputs 100000] [--keep] [READER...]

What reads JSON gets well-formed JSON too, with fields dropped, of another type or out of range. Exit status 1 where a
reader lets something else out; `--keep` writes what was tried into torture.json.
"""

import argparse
import copy
import csv
import dataclasses
import gzip
import hashlib
import io
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import keep_torture, tiny_network
from PIL import Image
from test_networks import deflated

from hw2 import data, distillation, grading, networks, pictures
from hw2.errors import InputError
from hw2.experiments import catalogue, check, environment, recipes, run, schemas, store
from hw2.files import read_csv, read_json, write_json


class Reader(NamedTuple):
    """`read` takes a path of the name `file`; mutations start at `seeds`, and may put in one of `tokens`.

    Without tokens the seeds are JSON, and so are their mutations.
    """

    file: str
    read: Callable[[Path], object]
    seeds: list[bytes]
    tokens: list[bytes] | None = [b""]  # noqa: RUF012
    bound: int = 256 * 2**20  # bytes that it may take for a small file


LABELS, CLASSES = bytes.fromhex("0000080100000014") + bytes(range(10)) * 2, torch.arange(20) % 10
STATE = {name: value.contiguous() for name, value in tiny_network().state_dict().items()}
NUMBERS = [b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"0x1", b"True", b'"', b"\0", b"\xff", b"\r", b"\n", b","]
KINDS = (torch.int8, torch.bool, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64)
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "DDS", "SGI", "ICNS", "EPS", "AVIF"]
VALUES = [None, True, -1, 0, 1, 2.5, -0.5, 1e308, 10**30, "", "x", "3", "../x", "0" * 64, [], {}, [1], [[]], {"x": 1}]
DIGEST = "0" * 64  # of every recipe here: its numbers are changed, and the digest with them
packed = partial(gzip.compress, mtime=0)
KNOWN: dict[str, Reader] = {}  # what forked processes see


def saved(kind: torch.dtype = torch.float32) -> bytes:
    return safetensors.torch.save(STATE | {"fc.bias": torch.zeros(10).to(kind)}, {"widths": "4,4,4,4"})


def written(write: Callable, *words, **more) -> bytes:
    """What `write` puts into a file."""
    write(target := io.BytesIO(), *words, **more)
    return target.getvalue()


def course(state: object, **more) -> bytes:
    return written(lambda target: torch.save({"model_state_dict": state}, target, **more))


def picture(kind: str, mode: str = "RGB", **more) -> bytes:
    gradient = np.arange(20 * 17 * 4, dtype=np.uint8).reshape(20, 17, 4)
    return written(Image.fromarray(gradient, "RGBA").convert(mode).save, kind, **more)


def table(*rows: tuple) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def check_submission(path: Path) -> None:
    if grading.check_submission(path, CLASSES)[0]:  # then another reader of CSV sees the same
        rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if row]
        assert rows == [["id", "pred"], *([str(row), str(label)] for row, label in enumerate(CLASSES.tolist()))]


def use_run(folder: Path) -> None:
    """What report and checks ask of a run's files, of whichever kind."""
    one = run.Run(folder)
    str(one), one.widths, one.val_accuracy, one.test_accuracy, environment.lowering(one.environment)
    check.of_history(one, one.metrics["val_correct"], one.metrics["val_total"])
    if isinstance(one.recipe, recipes.CompressedRecipe):
        assert len(one.group_norms["before"]) and one.at_phase("distilled") is not None


def json_readers(folder: Path) -> dict[str, Reader]:
    """Every reader of JSON, by the files of a compressed run, of a search of two trials, and of what stands beside."""
    top, made = data.PROJECT / "runs", folder / "runs/pruned/cpu-s3"
    shutil.copytree(top / "pruned/cpu-s3", made)
    found, environments = {}, [environment.environment(torch.device("cpu"))]
    trials = {"environments": environments, "of_trials": [0, 0], "wall_s": [1.5, 2], "processor_s": [1, 2]}
    grid = catalogue.tuning("smoke", catalogue.Unknown())
    grid = dataclasses.replace(grid, temperatures=(2.0, 4.0), alphas=(0.5,), seeds=(0,))
    search_ = folder / "runs/tuning/smoke"
    write_json(search_ / "recipe.json", recipes.written(grid))
    write_json(search_ / "environment.json", trials)
    for name, columns in (("history", run.HISTORY), ("steps", run.STEPS)):
        (search_ / f"{name}.csv").write_bytes(table(("trial", *columns)))
    write_json(made / "recipe.json", read_json(made / "recipe.json") | {"digest": DIGEST})
    for name in ("metrics", "environment", "recipe", "group_norms"):
        found[name] = (made / f"{name}.json", lambda path: use_run(path.parent))
    for name in ("environment", "recipe"):
        found[f"search's {name}"] = (search_ / f"{name}.json", lambda path: run.trials(path.parent))
    for name, read in (
        ("delivered", lambda path: store.named("cpu")),
        ("bench", lambda path: read_json(path, schemas.Bench)),
    ):
        shutil.copy(top / f"{name}.json", folder / "runs")
        found[name] = (folder / f"runs/{name}.json", read)
    return {
        f"JSON, {name}": Reader(path.relative_to(folder).as_posix(), read, [path.read_bytes()], None)
        for name, (path, read) in found.items()
    }


def readers(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Reader]:
    """Every reader of files that people hand us; `patch` makes the data set and the teacher small."""
    name = "t10k-labels-idx1-ubyte"
    patch.setitem(data.FILES, name, (hashlib.sha256(LABELS).hexdigest(), (20,)))
    patch.setattr(networks, "teacher", lambda stem="imagenet": tiny_network())
    patch.setattr(recipes.Recipe, "digest", DIGEST)
    others = json_readers(folder)
    patch.setattr(data, "PROJECT", folder)
    (folder / "run").mkdir()
    plain = recipes.written(catalogue.recipe("plain", "smoke", 0, catalogue.Unknown()))
    counts = {"val_correct": 1, "val_total": 3, "test_correct": None, "test_total": None}
    write_json(folder / "kept/recipe.json", plain)
    write_json(folder / "kept/metrics.json", counts | {"parameters": 9, "wall_s": 1, "peak_memory_bytes": None})
    resnet = {f"resnet50.{key}": value for key, value in STATE.items()}
    made = [recipe.read_bytes() for recipe in (folder / "runs").glob("*/*/recipe.json")]
    keys = [json.dumps(key).encode() for key in ("digest", "fit", "sparse", "widths", "stem", "parent", "stage")]
    submission = table(("id", "pred"), *enumerate(CLASSES.tolist()))
    trials = [(n, 2.0**n, 0.5, 0.1, n % 2, 1, 64, 30 + n, "COMPLETE") for n in range(4)]
    history = table(run.HISTORY, (1, 0.1, 2.5, 2.25, 0.5), (2, 1e-5, 1.5, 1.25, 0.75))
    zeros = [written(np.save, np.zeros(shape, np.float16)) for shape in ((3, 10), (2, 3, 10))]
    turned = bytes(Image.Exif()) + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    return others | {
        "idx": Reader(name, data.read_idx, [LABELS, LABELS[:9], LABELS + b"\0"]),
        "gzip": Reader(
            f"{name}.gz", data.read_idx, [packed(LABELS), packed(LABELS, 0), packed(LABELS[:9]) + packed(LABELS[9:])],
            [b"\x1f\x8b\x08", b"\x1f\x8b\x08\x1c", b"\xff\xff"]),
        "weights": Reader(
            "model.safetensors", networks.load, [saved(), *map(saved, KINDS)],
            [b"F64", b"F16", b"BF16", b"I64", b"U8", b"BOOL", b"F8_E5M2", b"C64", b"1024", b"null", b"[]", b"4_,4"]),
        "course's weights": Reader(
            "resnet-50.pth", networks.load_course_teacher,
            [course(resnet), course(resnet, _use_new_zipfile_serialization=False), course([1])],
            [b"ctorch\nFloatStorage\n", b"cbuiltins\nbytearray\n", b"\x8b\xff\xff\xff\x7f", b"PK\x01\x02", b"storage"]),
        "recipe": Reader(
            "run/recipe.json", lambda path: run.Run(path.parent).recipe, [*made, b"{}"],
            [*keys, *NUMBERS, b"[" * 900, b"{" * 900, b"NaN", b"null", b"[]", b"{}", b'"\\ud800"']),
        "history": Reader(
            "history.csv", lambda path: read_csv(path, run.HISTORY).astype(float) + 0.5,  # as the figures do
            [history, table(run.HISTORY)], NUMBERS),
        "trials": Reader(
            "trials.csv", lambda path: store.finalists(read_csv(path, store.TRIALS, words=("state",))),
            [table(store.TRIALS, *trials)], NUMBERS),
        "submission": Reader(
            "submission.csv", check_submission, [submission, submission.replace(b"\n", b"\r\n")], NUMBERS),
        "packed submission": Reader("submission.csv.gz", check_submission, [submission, packed(submission)]),
        "picture": Reader(
            "picture", pictures.read,
            [*map(picture, FORMATS), picture("PNG", "P", transparency=3), picture("PNG", "LA"), picture("TIFF", "CMYK"),
             picture("JPEG", exif=turned), picture("TIFF", compression="tiff_deflate")],
            [b"IHDR", b"IDAT", b"iCCP", b"zTXt", b"eXIf", b"\xff\xd8\xff\xe1", b"Exif\0\0", b"\x7f\xff\xff\xff"],
            1536 * 2**20),  # 14 bytes for each of the 89 million pixels that Pillow lets pass
        "logits": Reader(
            "kept/validation_logits.npy", lambda path: run.Run(path.parent).validation_logits, [zeros[0]],
            [b"'|O'", b"'<f8'", b"99999999", b"True", b"\x03\0", b"PK\x03\x04", b"\x80\x04"]),
        "soft targets": Reader("soft_targets.npy", distillation.read_cache, [zeros[1]], [b"|O", b"9999999"]),
    }  # fmt: skip


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that claim to be large: name -> reader and content."""
    headers = [{"descr": "<f2", "fortran_order": False, "shape": (*views, 10**11, 10)} for views in ((), (9,))]
    logits, targets = (written(np.lib.format.write_array_header_1_0, header) for header in headers)
    zeros, size = packed(bytes(2**24)), (17).to_bytes(4, "big") + (20).to_bytes(4, "big")
    return {
        "gzip of 1 GiB": ("gzip", zeros * 64),
        "submission of 1 GiB": ("packed submission", zeros * 64),
        "weights of widths 1024": ("weights", saved().replace(b"4,4,4,4", b"1024,1024,1024,1024")),
        "weights of a terabyte": ("weights", (2**40).to_bytes(8, "little") + b"{}"),
        "course's weights of 512 MiB, deflated": ("course's weights", deflated(course({"a": torch.zeros(2**27)}))),
        "a picture of 88 million pixels": ("picture", written(Image.new("L", (9400, 9400)).save, "PNG")),
        "a picture of 4 billion pixels": ("picture", picture("PNG").replace(size, b"\0\0\xff\xff" * 2)),
        "logits of a terabyte": ("logits", logits),
        "soft targets of a terabyte": ("soft targets", targets),
    }


def one(reader: Reader, path: Path, content: bytes) -> bool:
    """Whether the reader takes this content; anything but `InputError` comes through, with the content."""
    path.write_bytes(content)
    try:
        reader.read(path)
    except InputError as error:
        assert str(error).strip()
        return False
    except Exception as error:
        raise AssertionError(f"{reader.file}: {error!r} at {content!r}") from error
    return True


def reshaped(draw: random.Random, content: object) -> object:
    """JSON with one part, at any depth, dropped, doubled, wrapped, turned into text, or of another value."""
    if not content or not isinstance(content, dict | list) or draw.random() < 0.1:
        return copy.deepcopy(draw.choice([*VALUES, [content], str(content), draw.randint(-5, 20000), draw.random()]))
    key = draw.choice(list(content) if isinstance(content, dict) else range(len(content)))
    kind, part = draw.random(), content[key]
    if kind < 0.25:
        del content[key]
    elif kind < 0.35:
        content[f"{key}x" if isinstance(content, dict) else slice(key, key)] = (
            part if isinstance(content, dict) else [part]
        )
    else:
        content[key] = reshaped(draw, part)
    return content


def mutated(reader: Reader, draw: random.Random) -> bytes:
    """A seed with up to four places cut, repeated, flipped, or overwritten by bytes or a token."""
    if reader.tokens is None:
        content = json.loads(draw.choice(reader.seeds))
        for _ in range(draw.randint(1, 3)):
            content = reshaped(draw, content)
        return json.dumps(content).encode()
    content = bytearray(draw.choice(reader.seeds))
    for _ in range(draw.randint(1, 4)):
        place, length = draw.randint(0, len(content)), draw.choice([0, 1, 2, 4, 8, 64, len(content)])
        part = bytes(content[place : place + length])
        flipped = bytes([part[0] ^ 1 << draw.randrange(8)]) + part[1:] if part else b"\0"
        token = draw.choice([*reader.tokens, draw.randbytes(draw.randint(1, 8))])
        content[place : place + length] = draw.choice([b"", part * 2, flipped, token, token + part])
    return bytes(content)


def drawn(reader: Reader, path: Path, inputs: int, seed: int = 0) -> int:
    """Try so many mutated files; how many the reader took."""
    draw = random.Random(seed)
    taken = sum(one(reader, path, mutated(reader, draw)) for _ in range(inputs))
    path.write_bytes(reader.seeds[0])  # what lies beside a reader's next file is whole
    return taken


def apart(name: str, path: Path, tried: int | bytes) -> tuple[int, int]:
    """So many files, or this one: how many the reader took, and the bytes of memory that this needed."""
    before, try_them = environment.peak_memory(torch.device("cpu")), drawn if isinstance(tried, int) else one
    taken = try_them(KNOWN[name], path, tried)
    return taken, environment.peak_memory(torch.device("cpu")) - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--keep", action="store_true")
    asked, failed = parser.parse_args(), False
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="hw2-fuzz-") as folder:
        KNOWN.update(readers(patch, Path(folder)))
        tries = [("inputs", name, name, asked.inputs) for name in KNOWN]
        for kind, of, name, tried in tries + [("bombs", of, *bomb) for of, bomb in bombs().items()]:
            if asked.readers and name not in asked.readers:
                continue
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:  # a crash ends no more than it
                    taken, more = pool.submit(apart, name, Path(folder, KNOWN[name].file), tried).result()
                told, well = f"{taken:d} read, others refused, {more >> 20:,} MiB more", more <= KNOWN[name].bound
            except Exception as error:
                well, told = False, repr(error)
            count = tried if kind == "inputs" else 1
            print(f"{kind}, {of}: {'' if well else 'FAILED: '}{count:,} tried, {told}", flush=True)
            failed |= not well
            if asked.keep and well:
                keep_torture({"kind": kind, "of": of, "tried": count, "told": told})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
