"""figures/, report.md, the model card, README's result and submission.csv from runs/, and which of them are stale.

Nothing is typed here that a run could say. Only notebook 04 and `hw2 report` write, both through `write`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import tempfile
from pathlib import Path

import jinja2
from matplotlib.testing.compare import compare_images

from hw2 import assignment, data, files, grading, report
from hw2.experiments import catalogue, ledger, store
from hw2.experiments.run import home
from hw2.report import nb02_distillation, nb03_pruning, statistics, style
from hw2.report.source import Source

LOOK = 2.0  # root mean square difference, of 255, from which on two pictures do not look the same
#: what figures need that is no row or group of the catalogue: under runs/, and what makes it
SOURCES = {
    "data": ((), "hw2 data"), "search": (("tuning",), "hw2 tune"), "bench": (("bench.json",), "hw2 bench --keep"),
}  # fmt: skip


def output(profile: str) -> Path:
    """Where report, figures and submission go: the profile's home, unless HW2_OUT names another folder."""
    return Path(os.environ.get("HW2_OUT") or home(profile))


def cells() -> dict[str, str]:
    """Figure -> the notebook cell that shows it, as `NOTEBOOK, cell N`."""
    found = {}
    for path in sorted((data.PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], start=1):
            for name in re.findall(r'report\.show\("(\w+)"\)', "".join(cell["source"])):
                found[name] = f"{path.stem}, cell {number}"
    return found


def _provenance(source: Source) -> list[dict]:
    """For each figure the cell that shows it, the runs that it is drawn from, and the commands that make these."""
    shown, rows = cells(), []
    for name, plot in report.FIGURES.items():
        row = {"figure": name, "cell": shown.get(name, "none"), "runs": [], "made by": []}
        for need in plot.needs:
            folders, command = SOURCES.get(need) or (catalogue.members(need, source.profile), f"hw2 train {need}")
            row["runs"] += folders
            row["made by"].append(command)
        rows.append(row | {name: ", ".join(f"`{one}`" for one in row[name]) for name in ("runs", "made by")})
    return rows


PROVENANCE = style.Table(_provenance, dict.fromkeys(("figure", "cell", "runs", "made by"), str))


def markdown(table: style.Table, source: Source, *code: str) -> str:
    """The table in Markdown; columns of `code` are set as code. No rows: no table."""
    frame = table.in_words(source)
    for name in code:
        frame[name] = "`" + frame[name] + "`"
    first = [next(filter(None, frame[name]), "") for name in frame]  # numbers stand at the right
    rule = ["---:" if re.match(r"[-+<\d]", value) else "---" for value in first]
    lines = [list(frame), rule, *frame.to_numpy().tolist()] if len(frame) else []
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def context(source: Source) -> dict:
    """What the templates may name: the source, and what is computed from it."""
    run, chain = source.delivered, source.group("chain")
    current = {one.recipe.digest for runs in chain.values() for one in runs}
    readings = [one for one in ledger.ledger(run.profile).to_dict("records") if f"/{run.profile}-s" in one["run"]]
    compressed = chain["compressed"]
    return {
        "source": source,
        "delivered": run,
        "metrics": run.metrics,
        "environment": run.environment,
        "assignment": assignment,
        "summary": grading.summary_table(run.network()),
        "widths": run.network().widths,
        "sha256": files.sha256(run.weights),
        "interval": statistics.wilson(run.metrics["test_correct"], run.metrics["test_total"]),
        "seeds": len(compressed),
        "mean": statistics.spread([one.test_accuracy for one in compressed if one.test_accuracy is not None]),
        "calibration": statistics.calibration(*source.confidences("compressed")),
        "readings": [row | {"current": row["recipe"] in current} for row in readings],
        "store": hashlib.sha256(store.sums_of(run.profile).encode()).hexdigest(),
        "other_threads": sorted({one.environment["threads"] for runs in chain.values() for one in runs[1:]}),
        "nb02": nb02_distillation,
        "nb03": nb03_pruning,
        "table": lambda name, *code: markdown(report.TABLES[name], source, *code),
        "provenance": markdown(PROVENANCE, source),
        "figure": lambda name: f"![{report.FIGURES[name].alt}](figures/{name}.png)",
    }


def made(source: Source) -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2.report"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"percent": lambda value, digits=2: f"{value:.{digits}%}", "count": "{:,}".format}
    values = context(source)
    text = {name: environment.get_template(f"{name}.j2").render(values) for name in ("report.md", "model_card.md")}
    readme = (data.PROJECT / "README.md").read_text("utf-8")
    start, end = readme.index("<!-- result -->\n") + len("<!-- result -->\n"), readme.index("<!-- /result -->")
    text["README.md"] = readme[:start] + environment.get_template("result.md.j2").render(values) + readme[end:]
    text["submission.csv"] = grading.submission_text(source.answers(source.delivered))
    drawn = {name: style.files(plot, source) for name, plot in report.FIGURES.items()}
    content = {f"figures/{name}.{kind}": part for name, parts in drawn.items() for kind, part in parts.items()}
    return content | {name: part.encode() for name, part in text.items()}


def write(profile: str, folder: Path | None = None) -> Path:
    """Write figures, report and submission; a file that is right already is left alone."""
    folder = folder or output(profile)
    for name, content in made(Source(profile)).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            files.write_bytes(path, content)
    return folder


def write_figure(name: str, profile: str, folder: Path | None = None) -> list[Path]:
    """Write the files of one figure into `folder`, or into figures/."""
    paths = []
    for kind, content in style.files(report.figure(name), Source(profile)).items():
        paths.append((folder or output(profile) / "figures") / f"{name}.{kind}")
        files.write_bytes(paths[-1], content)
    return paths


def stale(profile: str, folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now; changes nothing.

    Text and data are compared exactly. Pictures byte for byte on Linux x86-64, where the pins hold, elsewhere by look.
    """
    folder = folder or output(profile)
    exact = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    content, problems = made(Source(profile)), []
    for name, new in content.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif (old := path.read_bytes()) == new or (path.suffix == ".svg" and not exact):
            continue
        elif path.suffix != ".png":
            problems.append(f"{name}: {_first_difference(old, new)}")
        elif (look := _look(old, new)) or exact:
            problems.append(f"{name}: {look or 'other bytes, equal look'}")
    strangers = [f"figures/{path.name}" for path in sorted((folder / "figures").glob("[!.]*"))]
    return problems + [f"{name}: no code draws this" for name in strangers if name not in content]


def _first_difference(old: bytes, new: bytes) -> str:
    before, after = old.decode("utf-8", "replace").splitlines(), new.decode().splitlines()
    for number, (was, now) in enumerate(zip(before, after, strict=False), start=1):
        if was != now:
            place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
            part = slice(max(place - 30, 0), place + 30)
            return f"line {number}: has {was[part]!r}, runs and code give {now[part]!r}"
    return f"{len(before)} lines, runs and code give {len(after)}"


def _look(old: bytes, new: bytes) -> str | None:
    """How the look of two PNGs differs, or None."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("old.png", "new.png")]
        for path, content in zip(paths, (old, new), strict=True):
            Path(path).write_bytes(content)
        try:
            found = compare_images(*paths, tol=LOOK, in_decorator=True)
        except Exception as error:  # of another size, none at all: Pillow's readers raise whatever they met
            return f"no such picture ({' '.join(str(error).split())})"
    return f"differs from what the code draws (root mean square {found['rms']:.1f} of 255)" if found else None
