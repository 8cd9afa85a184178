"""figures/, report.md, the model card, README's result and submission.csv from runs/, and which of
them are stale.
"""

import platform
import re
from functools import cache, partial
from pathlib import Path

import jinja2
import pandas as pd

from hw2 import assignment, data, files, grading, report
from hw2.errors import choose
from hw2.experiments import catalogue, ledger, schemas
from hw2.experiments.run import output
from hw2.report import comparisons, nb02_distillation, nb03_pruning, nb04_summary, statistics, style
from hw2.report.source import Source

#: device of a run -> how its hours are headed
DEVICES = {"cpu": "hours on the CPU", "cuda": "hours on the accelerator"}
WRITTEN = ("report.md", "model_card.md", "docs/ledger.md", "docs/speed.md")  # a template each


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
    """Runs and hours by device: of the search, each row of the chain, the other groups; their sums.

    All hours of a run are booked to the device of its first step.
    """
    spent = [
        ("search", trial.device, trial.processor_s / 3600) for trial in source.trials.itertuples()
    ]
    for name, row in catalogue.rows(source.profile).items():
        group = name if row.group == "chain" else row.group
        for run in source.runs(name):
            spent.append((group, run.environment["device"], run.core_hours))
    frame = pd.DataFrame(spent, columns=["trained", "device", "hours"])
    sums = frame.pivot_table(
        "hours", "trained", "device", "sum", 0.0, sort=False, margins=True, margins_name="in all"
    )
    runs = dict(frame.trained.value_counts()) | {"in all": len(frame)}
    rows = []
    for name, hours in sums.iterrows():
        row = {"trained": name, "runs": int(runs[name])}
        rows.append(row | {words: hours.get(device) or None for device, words in DEVICES.items()})
    return rows


def _machines(source: Source) -> list[str]:
    """The hardware of all runs and trials; a run counts for each machine that trained it."""
    form = "{hardware} (torch {packages[torch]}, threads a run: {threads}"
    searched = files.read_json(source.search_folder / "environment.json", schemas.Environment)
    words = [form.format_map(searched | {"hardware": name}) for name in source.trials.hardware]
    for name in catalogue.names(source.profile):
        for run in source.runs(name):
            words += dict.fromkeys(form.format_map(host) for host in run.environments)
    counts = pd.Series(words).value_counts()
    return [f"{machine}, runs: {count})" for machine, count in counts.items()]


TIME = style.Table(_time, dict.fromkeys(DEVICES.values(), "{:.1f}".format))


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
        "sha256": files.sha256,
        "summary": grading.summary_table(delivered.network()),
        "interval": statistics.wilson(
            delivered.metrics["test_correct"], delivered.metrics["test_total"]
        ),
        "seeds": len(chain["compressed"]),
        "mean": statistics.spread(comparisons.tested(chain["compressed"])),
        "readings": [row | {"current": row["recipe"] in current} for row in readings],
        "aims": nb04_summary.aim_rows(source),
        "machines": _machines(source),
        "time": markdown(TIME, source),
        "others": nb03_pruning.public(),
        "comparisons": comparisons,
        "nb02": nb02_distillation,
        "nb03": nb03_pruning,
        "nb04": nb04_summary,
        "compare": partial(comparisons.compare, source),
        "unlike": partial(comparisons.unlike, source),
        "statistics": statistics,
        "table": lambda name, *code: markdown(report.TABLES[name], source, *code),
        "alt": lambda name: report.FIGURES[name].alt,
    }


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": lambda value, digits=2: f"{value:.{digits}%}",
        "count": "{:,}".format,
    }
    return environment


def conclusions(profile: str) -> str:
    """What the report concludes, in Markdown: each answer with its number.

    Computed from the runs.
    """
    return _templates().get_template("conclusions.md.j2").render(context(Source(profile)))


def texts(source: Source) -> dict[str, str]:
    """Path relative to the output folder -> content, of all that is written but the figures."""
    values, environment = context(source), _templates()
    contents = {
        name: environment.get_template(f"{Path(name).name}.j2").render(values) for name in WRITTEN
    }
    contents["README.md"] = _readme(environment.get_template("result.md.j2").render(values))
    contents["submission.csv"] = grading.submission_text(source.answers(source.delivered))
    return contents


def _readme(result: str) -> str:
    """README.md with this result between its marks; `InputError` where these are missing."""
    path = data.PROJECT / "README.md"
    with files.errors_naming(path, "text with the marks of the result"):
        text = path.read_text("utf-8")
        parts = re.split(r"(?<=<!-- result -->\n).*?(?=<!-- /result -->)", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise ValueError("expected a line <!-- result --> and, below, <!-- /result -->, once")
    return result.join(parts)


def made(source: Source) -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    drawn = {name: style.files(plot, source) for name, plot in report.FIGURES.items()}
    content = {
        f"figures/{name}.{ending}": part
        for name, parts in drawn.items()
        for ending, part in parts.items()
    }
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
    plot = choose("figure", report.FIGURES, name)
    content = style.files(plot, Source(profile))
    for ending in content:
        files.write_bytes(folder / f"{name}.{ending}", content[ending])
    return [folder / f"{name}.{ending}" for ending in content]


def stale(profile: str, folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now. Changes nothing.

    Text and data are compared exactly, pictures on Linux x86-64 alone, where the pins hold.
    """
    folder = folder or output(profile)
    content = made(Source(profile))
    exact = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    problems = []
    for name, new in content.items():
        path = folder / name
        old = path.read_bytes() if path.is_file() else None
        if old == new or (old and not exact and path.suffix in (".png", ".svg")):
            continue
        problem = "not what runs and code give"
        if old is None:
            problem = "missing"
        elif old.replace(b"\r\n", b"\n") == new:
            problem = "only its line ends differ; save it with LF"
        problems.append(f"{name}: {problem}")
    for path in sorted((folder / "figures").glob("[!.]*")):
        if f"figures/{path.name}" not in content:
            problems.append(f"figures/{path.name}: no code draws this")
    return problems
