"""Mistakes made on purpose, one at a time, in what grades, teaches and keeps: does a test see each?

    python tests/torture/mutants.py

mutmut changes a line and runs the tests that come through it. The survivors of each function are counted against
survivors.csv, which says why no test sees them; exit status 1 where there are more.
"""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from hw2.data import PROJECT

NOISE = r"^hw2\.(experiments\.)?|x_|xǁ\w+ǁ|__mutmut_\d+$"  # around the function in a mutant's name
SURVIVED = (0, 5, 33)  # mutmut's exit codes: tests passed, none was collected, none comes through the line


def main() -> int:
    single = os.environ | {"OMP_NUM_THREADS": "1"}  # a forked process has no threads of a pool
    subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=PROJECT, env=single, check=True)
    with Path(__file__).with_name("survivors.csv").open(encoding="utf-8", newline="") as file:
        known = {row["function"]: int(row["survivors"]) for row in csv.DictReader(file)}
    failed = False
    for path in tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]:
        codes = json.loads((PROJECT / f"mutants/{path}.meta").read_text())["exit_code_by_key"]
        lived = [re.sub(NOISE, "", name) for name, code in codes.items() if code in SURVIVED]
        unknown = {name: count for name, count in Counter(lived).items() if count > known.get(name, 0)}
        told, failed = f"{len(codes) - len(lived)} seen", failed or bool(unknown)
        print(f"{path}: {len(codes)} mutants, {told}; more survivors than explained: {unknown or 'none'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
