"""The campaigns of tests/torture, each for a moment: they stay alive, and they see what they are for."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hw2.files import read_json

TORTURE = Path(__file__).parent / "torture"

SLOPPY = """import faults
def write():
    (faults.source.PROJECT / "figures").mkdir(exist_ok=True)
    for name, content in faults.FIGURES.items():
        for part in (content[:100], content):
            (faults.source.PROJECT / name).write_bytes(part)
faults.WORKS["report"] = write, ()
faults.sys.exit(faults.main())
"""


def faults(*words):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TORTURE), *sys.path])}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=env)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.weekly
@pytest.mark.parametrize("kind", ["kills", "full disk", "read-only", "two processes"])
def test_disturbed_work_ends_with_the_same_bits(kind):
    status, told = faults(TORTURE / "faults.py", "--times", "2", kind)
    assert status == 0 and told.count("ended with the same bits") == 4, told


@pytest.mark.weekly
def test_half_a_file_under_its_final_name_is_caught():
    status, told = faults("-c", SLOPPY, "--times", "10", "kills, report")
    assert status == 1 and "is half" in told, told


@pytest.mark.weekly
def test_nothing_but_an_input_error_comes_out_of_readers_or_it_is_caught(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TORTURE)
    fuzz = importlib.import_module("fuzz")
    readers = fuzz.readers(monkeypatch, tmp_path)
    with pytest.raises(AssertionError, match="KeyError"):
        fuzz.drawn(readers["idx"]._replace(read=lambda path: {}["lost"]), tmp_path / "idx", 1)
    taken = {name: fuzz.drawn(reader, tmp_path / reader.file, 300) for name, reader in readers.items()}
    assert all(0 < count < 300 for name, count in taken.items() if "submission" not in name), taken


def test_the_readme_tells_what_was_kept():
    told, rows = (TORTURE / "README.md").read_text("utf-8"), read_json(TORTURE / "torture.json")["rows"]
    lines = {line[2:6]: line for line in told.splitlines()}
    assert all(f"{row['of']} {row['tried']:,}" in lines[row["kind"][:4]] for row in rows if row["kind"] != "bombs")
    assert f"| {sum(row['kind'] == 'bombs' for row in rows)} files |" in lines["bomb"]
