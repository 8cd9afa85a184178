"""figures/, report.md, the model card, README's result and submission.csv from runs/, and which of them are stale."""

import io
import json
import platform
import re
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from hw2 import assignment, data, files, grading, report
from hw2.experiments import check, ledger
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.run import output, trials
from hw2.experiments.store import Store
from hw2.report import nb02_distillation, nb03_pruning, nb04_summary, statistics, style
from hw2.report.source import Source

#: device of a run -> how its hours are headed
DEVICES = {"cpu": "hours on the CPU", "cuda": "hours on the accelerator"}
WRITTEN = ("report.md", "model_card.md", "docs/figures.md", "docs/ledger.md", "docs/speed.md")  # a template each
LOOK = 2.0  # root mean square difference, of 255, from which on two pictures do not look the same
#: what figures need that is no row or group of the catalogue: under runs/, and what makes it
SOURCES = {
    "data": ((), "hw2 data"), "search": (("tuning",), "hw2 tune"), "bench": (("bench.json",), "make bench KEEP=1"),
}  # fmt: skip


def _provenance(source: Source) -> list[dict]:
    """For each figure the cell that shows it, the runs that it is drawn from, and the commands that make these."""
    shown, rows = {}, []
    for path in sorted((data.PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        with files.reading(path, "notebook", errors=(OSError, ValueError, KeyError, TypeError)):
            cells = json.loads(path.read_text("utf-8"))["cells"]
            sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for number, code in enumerate(sources, start=1):  # as Jupyter counts them
            names = re.findall(r'report\.show\("(\w+)"\)', code)
            shown |= dict.fromkeys(names, f"{path.stem}, cell [{number}]")
    for name, plot in report.FIGURES.items():
        origins = [SOURCES.get(need) or (source.members(need), f"hw2 train {need}") for need in plot.needs]
        runs = ", ".join(f"`{folder}`" for folders, _ in origins for folder in folders)
        commands = ", ".join(f"`{command}`" for _, command in origins)
        rows.append({"figure": name, "cell": shown.get(name, "none"), "runs": runs, "made by": commands})
    return rows


def markdown(table: style.Table, source: Source, *code: str) -> str:
    """The table in Markdown; columns of `code` are set as code. No rows: no table."""
    frame = table.in_words(source)
    for name in code:
        frame[name] = "`" + frame[name] + "`"
    first = [next(filter(None, frame[name]), "") for name in frame]  # numbers stand at the right
    rule = ["---:" if re.match(r"[-+<\d]", value) else "---" for value in first]
    lines = [list(frame), rule, *frame.to_numpy().tolist()] if len(frame) else []
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _time(source: Source) -> list[dict]:
    """Runs and hours of the search, of each row of the chain, and of the other groups, by device; and their sums.

    All hours of a run are booked to the device of its first step.
    """
    trained = [("search", trial) for trial in trials(source.root / "tuning" / source.profile)]
    for name, row in EXPERIMENTS.items():
        group = name if row.group == "chain" else row.group
        trained += [(group, run) for run in source.runs(name)]
    spent = [(group, run.environment["device"], run.core_hours) for group, run in trained]
    frame = pd.DataFrame(spent, columns=["trained", "device", "hours"])
    sums = frame.pivot_table("hours", "trained", "device", "sum", 0.0, sort=False, margins=True, margins_name="in all")
    runs = dict(frame.trained.value_counts()) | {"in all": len(frame)}
    return [
        {"trained": name, "runs": int(runs[name])} | {words: row.get(key) or None for key, words in DEVICES.items()}
        for name, row in sums.iterrows()
    ]


def _machines(source: Source) -> list[str]:
    """The hardware of all runs and trials, in words; a run counts for each machine that trained it."""
    trained = [run for name in EXPERIMENTS for run in source.runs(name)]
    form, words = "{hardware} (torch {packages[torch]}, threads a run: {threads}", []
    for run in (*trained, *trials(source.root / "tuning" / source.profile)):
        words += dict.fromkeys(form.format_map(host) for host in run.environments)
    return [f"{machine}, runs: {count})" for machine, count in pd.Series(words).value_counts().items()]


PROVENANCE, TIME = style.Table(_provenance, {}), style.Table(_time, dict.fromkeys(DEVICES.values(), "{:.1f}".format))


def context(source: Source) -> dict:
    """What the templates may name: the source, and what is computed from it."""
    delivered, chain = source.delivered, source.group("chain")
    source.answers(delivered)  # an `InputError` where its test set was not read
    current = {run.recipe.digest for runs in chain.values() for run in runs}
    readings = ledger.ledger(delivered.profile).to_dict("records")
    return {
        "source": source,
        "delivered": delivered,
        "metrics": delivered.metrics | {"parameters": delivered.parameters},
        "assignment": assignment,
        "summary": grading.summary_table(delivered.network()),
        "interval": statistics.wilson(delivered.metrics["test_correct"], delivered.metrics["test_total"]),
        "seeds": len(chain["compressed"]),
        "mean": statistics.spread(nb02_distillation.tested(chain["compressed"])),
        "readings": [row | {"current": row["recipe"] in current} for row in readings],
        "aims": nb04_summary.aim_rows(source),
        "machines": _machines(source),
        "time": markdown(TIME, source),
        "others": nb03_pruning.public(),
        "nb02": nb02_distillation,
        "nb03": nb03_pruning,
        "nb04": nb04_summary,
        "difference": lambda *names: nb02_distillation.difference(*map(source.runs, names)),
        "on_test": lambda *names: nb02_distillation.on_test(*map(source.runs, names)),
        "lost": lambda *names: nb02_distillation.lost(*map(source.runs, names)),
        "p": lambda *names: nb04_summary.p_value(nb04_summary.mcnemar(source, *map(source.run, names))[2]),
        "statistics": statistics,
        "table": lambda name, *code: markdown(report.TABLES[name], source, *code),
        "provenance": markdown(PROVENANCE, source),
        "alt": lambda name: report.FIGURES[name].alt,
    }


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2.report"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"percent": lambda value, digits=2: f"{value:.{digits}%}", "count": "{:,}".format}
    return environment


def conclusions(profile: str) -> str:
    """What the report concludes, in Markdown: each answer with its number, computed from the runs."""
    return _templates().get_template("conclusions.md.j2").render(context(Source(profile)))


def texts(source: Source) -> dict[str, str]:
    """Path relative to the output folder -> content, of all that is written but the figures."""
    values, environment = context(source), _templates()
    contents = {name: environment.get_template(f"{Path(name).name}.j2").render(values) for name in WRITTEN}
    contents["README.md"] = _readme(environment.get_template("result.md.j2").render(values))
    contents["submission.csv"] = grading.submission_text(source.answers(source.delivered))
    return contents


def _readme(result: str) -> str:
    """README.md with this result between its marks; `InputError` where these are missing."""
    path = data.PROJECT / "README.md"
    with files.reading(path, "text with the marks of the result"):
        text = path.read_text("utf-8")
        parts = re.split(r"(?<=<!-- result -->\n).*?(?=<!-- /result -->)", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise ValueError("expected a line <!-- result --> and, below, <!-- /result -->, once")
    return result.join(parts)


def made(source: Source) -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    drawn = {name: style.files(plot, source) for name, plot in report.FIGURES.items()}
    content = {f"figures/{name}.{ending}": part for name, parts in drawn.items() for ending, part in parts.items()}
    return content | {name: text.encode() for name, text in texts(source).items()}


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
    folder = folder or output(profile) / "figures"
    content = style.files(report.FIGURES[name], Source(profile))
    for ending in content:
        files.write_bytes(folder / f"{name}.{ending}", content[ending])
    return [folder / f"{name}.{ending}" for ending in content]


def stale(profile: str, folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now, or for each run that contradicts another file.

    Changes nothing. Text and data are compared exactly. Pictures are compared byte for byte on Linux x86-64, where the
    pins hold, elsewhere by look.
    """
    if problems := check.of_store(Store(profile)):
        return problems
    folder, content = folder or output(profile), made(Source(profile))
    exact = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    for name, new in content.items():
        path = folder / name
        old = path.read_bytes() if path.is_file() else None
        if not (old == new or (old and not exact and (path.suffix == ".svg" or looks_alike(old, new)))):
            ends = old and old.replace(b"\r\n", b"\n") == new
            problem = "only its line ends differ; save it with LF" if ends else "not what runs and code give"
            problems.append(f"{name}: {'missing' if old is None else problem}")
    strangers = [f"figures/{path.name}" for path in sorted((folder / "figures").glob("[!.]*"))]
    return problems + [f"{name}: no code draws this" for name in strangers if name not in content]


def looks_alike(old: bytes, new: bytes) -> bool:
    """Whether both are pictures of one size that hardly differ."""
    try:
        first, second = (np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float) for content in (old, new))
        return bool(np.sqrt(np.mean((first - second) ** 2)) <= LOOK)
    except Exception:  # of another size, none at all: Pillow's readers raise whatever they met
        return False
