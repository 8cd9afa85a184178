"""Where things come from: figure -> notebook cell -> runs -> command; what the model card says; what was tried."""

from __future__ import annotations

import json
import re

import pandas as pd

from hw2.data import PROJECT
from hw2.errors import InputError
from hw2.experiments import recipes, stages
from hw2.experiments import store as runs
from hw2.report.outcomes import NETWORKS
from hw2.report.plots import FIGURES, drawn

COMMANDS = {"data": "hw2 data", "tuning": "hw2 tune", "bench": "hw2 bench --keep"}
#: stages that are several runs' folders, or none
FOLDERS = {
    "data": (),
    "bench": ("bench.json",),
    "finalists": ("finalist-1", "finalist-2"),
    "arms": tuple(recipes.ARMS),
    "ablation": tuple(recipes.ABLATION),
    "frontier": ("frontier-*",),
    "all": tuple(NETWORKS),
}

#: kinds of campaigns of `make torture` and `make mutants`: what is tried, what a campaign fails without, its script
CAMPAIGNS = {
    "kills": (
        "SIGKILL at a random moment",
        "no half file is taken for a whole one; the work begun again ends with the bits of undisturbed work",
        "faults.py kills",
    ),
    "full disk": ("a full disk", "a clear error or the result; nothing half, nothing lost", "faults.py full"),
    "read-only": (
        "a folder that cannot be written",
        "a clear error or the result; nothing lost",
        "faults.py read-only",
    ),
    "two processes": ("two processes at one work, one killed or none", "the same bits", "faults.py two"),
    "clock": ("a clock that jumps by up to 400 days", "the same bits", "faults.py clock"),
    "inputs": ("mutated files, for each reader", "nothing but the project's own error; bounded memory", "fuzz.py"),
    "bombs": ("small files that claim to be huge", "refused, or read in bounded memory", "fuzz.py bombs"),
    "mutants": (
        "a mistake made on purpose in one line of the code",
        "a test sees 85 % of them or more; tests/torture/survivors.csv says why it does not see the others",
        "mutants.py",
    ),
}


def cells() -> dict[str, str]:
    """Figure -> the notebook cell that shows it, as `NOTEBOOK, cell N`."""
    found = {}
    for path in sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], start=1):
            for name in re.findall(r'plots\.show\("(\w+)"\)', "".join(cell["source"])):
                found[name] = f"{path.stem}, cell {number}"
    return found


def figure_table() -> pd.DataFrame:
    """For each figure the cell that shows it, the runs that it is drawn from, and the commands that make these."""
    shown, rows = cells(), []
    for name, plot in FIGURES.items():
        if name not in shown:
            raise InputError(f"figure {name}: no notebook cell shows it")
        folders = [folder for stage in plot.stages for folder in FOLDERS.get(stage, (stage,))]
        rows.append(
            {
                "figure": name,
                "cell": shown[name],
                "runs": ", ".join(f"`{folder}`" for folder in folders),
                "made by": ", ".join(f"`{COMMANDS.get(stage, f'hw2 train {stage}')}`" for stage in plot.stages),
            }
        )
    return pd.DataFrame(rows)


def card() -> dict:
    """What the model card's template names beside the report's own context."""
    run = stages.delivered()
    arms = json.loads(drawn("reliability")["json"])["arms"]
    return {"sha256": runs.sha256(run.weights), "calibration_error": arms[-1]["error"]}


def trust_table() -> pd.DataFrame:
    """What `make torture` and `make mutants` tried, by kind, from runs/torture.json."""
    rows, found = [], runs.read_json(runs.root() / "torture.json")["rows"]
    for kind, (words, outcome, script) in CAMPAIGNS.items():
        tried = [row for row in found if row["kind"] == kind]
        often = ", ".join(f"{row['of']} {row['tried']:,}" for row in tried)
        if kind == "bombs":
            often = f"{len(tried)} files"
        elif kind == "mutants":
            often = ", ".join(f"{row['of']} {row['tried']}: {row['told']}" for row in tried)
        again = f"python tests/torture/{script}"
        rows.append({"tried": words, "how often": often, "outcome": outcome, "again": again})
    return pd.DataFrame(rows)
