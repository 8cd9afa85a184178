"""The campaigns of `make torture`, each for a moment, so that they stay alive."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parent / "torture"
sys.path.insert(0, str(TORTURE))

import fuzz  # noqa: E402

from hw2.experiments import store as runs  # noqa: E402


def test_killed_work_ends_with_the_same_bits():
    campaigns = (
        "kills, caching",
        "kills, data",
        "kills, report",
        "full disk, data",
        "read-only, report",
        "two processes, data",
    )
    done = subprocess.run(
        [sys.executable, TORTURE / "faults.py", "--times", "2", *campaigns],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(campaigns)
    assert re.search("^kills, caching: [2-5] tried", done.stdout)


SLOPPY = """
import sys, time
import faults

text = faults.committed()["report.md"]

def write(folder):
    folder.mkdir(exist_ok=True)
    with open(folder / "report.md", "wb") as file:
        for part in (text[:100], text[100:]):
            file.write(part)
            file.flush()
            time.sleep(0.2)

faults.report.write = write
sys.exit(faults.main())
"""


def test_half_a_file_under_its_final_name_is_caught():
    done = subprocess.run(
        [sys.executable, "-c", SLOPPY, "--times", "10", "kills, report"],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"PYTHONPATH": str(TORTURE)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: out/report.md is half" in done.stdout


def test_what_was_kept_is_every_campaign_at_full_length(readers):
    """README's table is made of these: none may be missing, too short, or of a campaign that is gone."""
    told = subprocess.run(
        [sys.executable, "-c", "import json, faults; print(json.dumps(list(faults.CAMPAIGNS)))"],
        capture_output=True, text=True, timeout=300, check=True, env=os.environ | {"PYTHONPATH": str(TORTURE)},
    )  # fmt: skip
    found = {(row["kind"], row["of"]): row["tried"] for row in runs.read_json(runs.root() / "torture.json")["rows"]}
    expected = {tuple(label.split(", ")): 10 for label in json.loads(told.stdout)}
    expected |= {(kind, name): 20 for kind, name in expected if kind == "kills"}
    expected |= {("inputs", name): 100_000 for name in readers} | {("bombs", label): 1 for label in fuzz.bombs()}
    expected |= {("mutants", name): 100 for name in ("distillation", "grading", "runs")}
    assert found.keys() == expected.keys()
    assert [key for key, least in expected.items() if found[key] < least] == []


@pytest.fixture
def readers(tmp_path, monkeypatch):
    return fuzz.readers(monkeypatch, tmp_path)


def test_mutated_files_bring_out_nothing_but_input_errors(readers, tmp_path):
    for reader in readers.values():
        path = tmp_path / reader.file
        assert fuzz.drawn(reader, path, 30) == 30
        for seed in reader.seeds:
            fuzz.one(reader, path, seed)


def test_a_reader_that_lets_another_error_out_is_caught(readers, tmp_path):
    def read(path):
        if path.read_bytes()[:1] != b"{":
            raise KeyError

    with pytest.raises(KeyError):
        fuzz.drawn(fuzz.Reader("recipe.json", read, readers["recipe"].seeds), tmp_path / "recipe.json", 500)
