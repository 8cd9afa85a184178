"""report.md, the model card, README's result, figures/ and submission.csv from runs/, and which of them are stale.

Nothing is typed here that a run could say. Only notebook 04 and `hw2 report` write, both through `write`.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from hw2 import grading
from hw2.data import PROJECT
from hw2.experiments import recipes, replay, stages
from hw2.experiments import store as runs
from hw2.files import write_bytes
from hw2.report import ablation, comparisons, outcomes, provenance
from hw2.report.outcomes import NETWORKS, delivered_classes, seeds
from hw2.report.plots import FIGURES, drawn
from hw2.report.statistics import spread, wilson


def output(profile: str | None = None) -> Path:
    """Where report, figures and submission go: the project, unless HW2_OUT names another folder."""
    return Path(os.environ.get("HW2_OUT") or runs.home(profile or stages.default_profile()))


def results() -> pd.DataFrame:
    """The arms side by side: parameters, seeds, accuracies, the command that makes each, and its minutes."""
    rows = []
    for stage, name in NETWORKS.items():
        group = seeds(stage)
        rows.append(
            {
                "network": name,
                "parameters": f"{group[0].metrics['parameters']:,}",
                "seeds": len(group),
                "validation": spread([run.val_accuracy for run in group]),
                "test": spread([run.test_accuracy for run in group if run.test_accuracy is not None]),
                "command": f"hw2 train {stage} --profile {group[0].profile}",
            }
        )
    return pd.DataFrame(rows)


def context() -> dict:
    """Everything that the report's template may name."""
    run = stages.delivered()
    parent, student, control = stages.teacher(), stages.distilled(), stages.plain()
    trials = stages.tuned()
    metrics = run.metrics
    used = {found.digest for stage in NETWORKS for found in seeds(stage)}
    return {
        "table": grading.summary_table(run.network()),
        "results": results().to_dict("records"),
        "figures": {name: plot.alt for name, plot in FIGURES.items()},
        "delivered": run,
        "metrics": metrics,
        "phases": outcomes.phase_table().to_dict("records"),
        "aims": outcomes.aim_table().to_dict("records"),
        "pairs": outcomes.pair_table().to_dict("records"),
        "classes": outcomes.class_table().to_dict("records"),
        "interval": wilson(metrics["test_correct"], metrics["test_total"]),
        "removed": 1 - metrics["parameters"] / student.metrics["parameters"],
        "widths": run.network().widths,
        "teacher": parent,
        "student": student,
        "control": control,
        "trials": trials,
        "arms": comparisons.arm_table().to_dict("records"),
        "scratch_epochs": stages.scratch().recipe["fit"]["epochs"],
        "unpruned": stages.unpruned(),
        "finalists": comparisons.finalist_table().to_dict("records"),
        "ablation": ablation.table().to_dict("records"),
        "ablation_note": ablation.note(),
        "scratch_verdict": ablation.scratch_verdict(),
        "frontier": ablation.frontier_table().to_dict("records"),
        "frontier_note": ablation.frontier_note(),
        "sources": provenance.figure_table().to_dict("records"),
        "store": hashlib.sha256(runs.sums_of(run.profile).encode()).hexdigest(),
        "ledger": [
            row | {"current": row["recipe"] in used}
            for row in runs.ledger(run.profile).to_dict("records")
            if Path(row["run"]).name.rpartition("-s")[0] == run.profile
        ],
        "minutes": {
            name: found.metrics["wall_s"] / 60
            for name, found in (("teacher", parent), ("distilled", student), ("plain", control), ("compressed", run))
        },
        "other_threads": sorted({found.environment["threads"] for name in NETWORKS for found in seeds(name)[1:]}),
        "memory": parent.metrics["peak_memory_bytes"],
        "environment": run.environment,
        "limit": grading.LIMIT,
        "baseline": grading.BASELINE,
        "ratio": recipes.RATIO,
        "bench": runs.bench(),
        "sittings": runs.sittings(),
        "product": runs.PRODUCT,
    }


def text(template: str, values: dict) -> str:
    """A template filled in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value, digits=2: f"{value:.{digits}%}"
    return environment.get_template(template).render(**values)


def readme() -> str:
    """README.md with its result and its table of trust made anew: nowhere else in it do numbers of runs stand."""
    words = (PROJECT / "README.md").read_text("utf-8")
    trust = text("trust.md.j2", {"rows": provenance.trust_table().to_dict("records"), "replay": replay})
    for name, made in (("result", _result()), ("trust", trust)):
        start, end = words.index(f"<!-- {name} -->\n"), words.index(f"<!-- /{name} -->")
        words = words[:start] + f"<!-- {name} -->\n" + made + words[end:]
    return words


def _result() -> str:
    run, group = stages.delivered(), seeds("compressed")
    metrics, environment = run.metrics, run.environment
    low, high = wilson(metrics["test_correct"], metrics["test_total"])
    chain = (stages.teacher(), stages.distilled(), run)
    # The processor's seconds where they were recorded: runs train beside other work.
    minutes = sum(found.metrics.get("processor_s", found.metrics["wall_s"]) for found in chain) / 60
    return (
        f"**Result:** {metrics['parameters']:,} parameters, "
        f"**{metrics['test_correct'] / metrics['test_total']:.2%} test accuracy** "
        f"(95 % interval {low:.2%} to {high:.2%}; "
        f"validation {run.val_accuracy:.2%}). Mean over {len(group)} seed{'s' if len(group) > 1 else ''}: "
        f"{spread([found.test_accuracy for found in group if found.test_accuracy is not None])}.\n"
        f"Trained in {minutes:.0f} minutes on {environment['hardware']}, {environment['threads']} threads "
        f"(`runs/{run.name}`), each recipe's test set read once.\n"
    )


def files() -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    values = context()
    content = {f"figures/{name}.{kind}": part for name in FIGURES for kind, part in drawn(name).items()}
    submission = "id,pred\n" + "".join(f"{row},{int(label)}\n" for row, label in enumerate(delivered_classes()))
    content["README.md"] = readme().encode()
    content["model_card.md"] = text("model_card.md.j2", values | provenance.card()).encode()
    return content | {"report.md": text("report.md.j2", values).encode(), "submission.csv": submission.encode()}


def write(folder: Path | None = None) -> Path:
    """Write figures, report and submission; a file that is right already is left alone."""
    folder = folder or output()
    for name, content in files().items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    return folder


def stale(folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now; changes nothing.

    Text and data are compared exactly. Pictures byte for byte on Linux x86-64, where the pins hold; elsewhere no block
    of 16 x 16 pixels of a PNG may differ by more than 24 of 255 on average.
    """
    folder = folder or output()
    exact = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    problems = []
    for name, content in files().items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif path.read_bytes() == content:
            continue
        elif name.endswith(".png") and not exact:
            problems += [f"{name}: {where}" for where in differing_blocks(path.read_bytes(), content)]
        elif name.endswith(".png"):
            problems.append(
                f"{name}: " + (differing_blocks(path.read_bytes(), content) or ["other bytes, equal look"])[0]
            )
        elif not name.endswith(".svg") or exact:
            problems.append(f"{name}: {_first_difference(path.read_bytes(), content)}")
    known = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "json")}
    strangers = sorted(
        path.relative_to(folder).as_posix() for path in (folder / "figures").glob("*") if not path.name.startswith(".")
    )
    return problems + [f"{name}: no code draws this" for name in strangers if name not in known]


def _first_difference(old: bytes, new: bytes) -> str:
    before, after = old.decode("utf-8", "replace").splitlines(), new.decode().splitlines()
    for number, (was, now) in enumerate(zip(before, after, strict=False), start=1):
        if was != now:
            place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
            start = max(place - 30, 0)
            return f"line {number}: has {was[start : place + 30]!r}, runs and code give {now[start : place + 30]!r}"
    return f"{len(before)} lines, runs and code give {len(after)}"


def differing_blocks(old: bytes, new: bytes, side: int = 16, limit: float = 24.0) -> list[str]:
    """The worst block of `side` x `side` pixels, in words, if its mean difference exceeds `limit` of 255."""
    try:
        before, after = (np.asarray(Image.open(io.BytesIO(part)).convert("RGB"), float) for part in (old, new))
    except (OSError, SyntaxError, ValueError) as error:
        return [f"no readable picture ({error})"]
    if before.shape != after.shape:
        return [f"{before.shape[1]} x {before.shape[0]} pixels, the code draws {after.shape[1]} x {after.shape[0]}"]
    difference = np.abs(before - after).mean(2)
    padded = np.pad(difference, [(0, -length % side) for length in difference.shape])
    means = padded.reshape(padded.shape[0] // side, side, -1, side).mean((1, 3))
    if means.max() <= limit:
        return []
    row, column = np.unravel_index(means.argmax(), means.shape)
    return [f"differs from what the code draws, most around pixel ({column * side}, {row * side})"]
