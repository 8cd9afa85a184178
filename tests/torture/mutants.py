"""Mistakes made on purpose, one at a time, in what grades, teaches and keeps: does a test see each?

    python tests/torture/mutants.py [--keep]

mutmut changes a line and runs the tests that come through it. The survivors of each function are counted against
survivors.csv, which says why no test sees them; exit status 1 where there are more, or where the score is too low.
`--keep` puts the score into runs/torture.json, from which README's table is made.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import keep_torture

from hw2.data import PROJECT

LEAST = 0.85
MODULES = ("distillation", "grading", "runs")
SURVIVED = (0, 5, 33)  # mutmut's exit codes: tests passed, none was collected, none comes through the line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="write the score into runs/torture.json")
    asked = parser.parse_args()
    single = os.environ | {"OMP_NUM_THREADS": "1"}  # a forked process has no threads of a pool
    status = subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=PROJECT, env=single, check=False).returncode
    if status:
        return status
    with (Path(__file__).with_name("survivors.csv")).open(encoding="utf-8", newline="") as file:
        known = {row["function"]: int(row["survivors"]) for row in csv.DictReader(file)}
    well = True
    for module in MODULES:
        codes = json.loads((PROJECT / f"mutants/hw2/{module}.py.meta").read_text())["exit_code_by_key"]
        survived = [name for name, code in codes.items() if code in SURVIVED]
        functions = Counter(re.sub(r"^hw2\.|x_|xǁ\w+ǁ|__mutmut_\d+$", "", name) for name in survived)
        score = 1 - len(survived) / len(codes)
        told = f"{len(codes) - len(survived)} seen ({score:.0%})"
        print(f"{module}: {len(codes)} mutants, {told}")
        unknown = {function: count for function, count in functions.items() if count > known.get(function, 0)}
        for function, count in unknown.items():
            print(f"  {function}: {count} survive, survivors.csv explains {known.get(function, 0)}")
        if unknown or score < LEAST:
            well = False
        elif asked.keep:
            keep_torture({"kind": "mutants", "of": module, "tried": len(codes), "told": told})
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
