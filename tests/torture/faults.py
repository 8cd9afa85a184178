"""A real walk whose processes are killed at random moments ends with the bits of an undisturbed
one.

    python -m pytest tests/torture/faults.py

Commands of a copy of hw2/ train the profile smoke: once by one process, once by two that are killed
and started again.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import contents

from hw2 import data

KILLS = 5
DIFFERENT = ("metrics.json", "environment.json", "trials.csv")  # seconds, threads


def start(folder: Path, jobs: int) -> subprocess.Popen:
    """`hw2 train all` in a project of its own, with all its processes in one group."""
    if not folder.exists():
        own = shutil.ignore_patterns("__pycache__")
        shutil.copytree(data.PROJECT / "hw2", folder / "hw2", ignore=own)
    words = [sys.executable, "-m", "hw2", "train", "all", "--jobs", str(jobs)]
    places = {"HW2_PROFILE": "smoke", "HW2_DATA": str(data.fashion_mnist().folder)}
    told = os.environ | places | {"TQDM_DISABLE": "1"}
    return subprocess.Popen(words, cwd=folder, env=told, start_new_session=True)


def essence(folder: Path) -> dict[Path, bytes]:
    """The files of runs/ under their final names, less those that tell of seconds and machines."""
    return {
        path: content
        for path, content in contents(folder / "build/smoke/runs").items()
        if path.name not in DIFFERENT and "/." not in f"/{path.as_posix()}"
    }


def test_a_walk_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    draw = random.Random(0)
    started = time.monotonic()
    assert start(whole, jobs=1).wait() == 0
    seconds = time.monotonic() - started
    expected = essence(whole)
    for _ in range(KILLS):
        process = start(killed, jobs=2)
        time.sleep(draw.uniform(0, seconds / 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = essence(killed)
        assert found.items() <= expected.items()  # nothing is half
        finished = {path.parent for path in found if path.name == "recipe.json"}
        assert {path for path in expected if path.parent in finished} <= found.keys()
    assert start(killed, jobs=2).wait() == 0
    assert essence(killed) == expected
