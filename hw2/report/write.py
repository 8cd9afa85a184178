"""Writes figures, pages and submission.csv from runs/, and says which of them are stale."""

import platform
import re
from pathlib import Path

import jinja2
import pandas as pd

from hw2 import assignment, data, files, grading, report
from hw2.errors import choose
from hw2.experiments import catalogue, ledger
from hw2.experiments.run import Environment, output
from hw2.experiments.store import Store
from hw2.report import comparisons, findings, nb03_pruning, nb04_summary, statistics, style

#: made of a template each
WRITTEN = ("report.md", "model_card.md", "docs/ledger.md", "docs/training.md")


def markdown(table: style.Table, store: Store, *code: str) -> str:
    """The table in Markdown, with columns of `code` as code; nothing where it has no rows."""
    frame = table.in_words(store)
    for name in code:
        frame[name] = "`" + frame[name] + "`"
    first = [next(filter(None, frame[name]), "") for name in frame]  # numbers stand at the right
    rule = ["---:" if re.match(r"[-+<\d]", value) else "---" for value in first]
    lines = [list(frame), rule, *frame.to_numpy().tolist()] if len(frame) else []
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _time(store: Store) -> list[dict]:
    """Runs and hours of the search, each row of the chain and the other groups, by the machines
    that trained them; then the machines' sums.
    """
    form = "{hardware}, torch {packages[torch]}, threads: {threads}"
    searched = files.read_json(store.search_folder / "environment.json", Environment)
    spent = []
    for trial in store.trials.itertuples():
        machine = form.format_map(searched | {"hardware": trial.hardware})
        spent.append(("search", machine, trial.processor_s / 3600))
    for name, row in catalogue.rows(store.profile).items():
        group = name if row.group == "chain" else row.group
        for run in store.runs(name):
            machines = dict.fromkeys(map(form.format_map, run.environments))
            spent.append((group, "; ".join(machines), run.core_hours))
    frame = pd.DataFrame(spent, columns=["trained", "machine", "hours"])
    frame = pd.concat([frame, frame.assign(trained="in all")])
    sums = frame.groupby(["trained", "machine"], sort=False).hours.agg(["size", "sum"])
    return [
        {"trained": name, "on": machine, "runs": count, "core hours": hours}
        for (name, machine), count, hours in sums.itertuples()
    ]


TIME = style.Table(_time, {"core hours": "{:.1f}".format})


def context(store: Store) -> dict:
    """What the templates may name: the store, and what is computed from it."""
    delivered, chain = store.delivered, store.group("chain")
    metrics = delivered.metrics
    labels = data.fashion_mnist().test_labels
    # an `InputError` where its test set was not read
    right = ledger.answers(delivered) == labels
    current = {run.recipe.digest for runs in chain.values() for run in runs}
    readings = ledger.ledger(delivered.profile).to_dict("records")
    return {
        "store": store,
        "delivered": delivered,
        "metrics": metrics | {"parameters": delivered.parameters},
        "assignment": assignment,
        "sha256": files.sha256,
        "summary": grading.summary_table(delivered.network()),
        "interval": statistics.wilson(metrics["test_correct"], metrics["test_total"]),
        "seeds": len(chain["compressed"]),
        "mean": statistics.spread(comparisons.tested(chain["compressed"])),
        "readings": [row | {"current": row["recipe"] in current} for row in readings],
        "aims": nb04_summary.aim_rows(store),
        "demo_right": int(right[data.fashion_mnist().examples].sum()),
        "by_class": {
            name: float(right[labels == label].double().mean())
            for label, name in enumerate(data.CLASSES)
        },
        "time": markdown(TIME, store),
        "rivals": findings.rivals(),
        "story": findings.story(store),
        "findings": findings.others(store),
        "caveat": findings.CAVEAT,
        "studies": findings.STUDIES,
        "differing": lambda group: findings.differing(store.group(group)),
        "comparisons": comparisons,
        "nb03": nb03_pruning,
        "statistics": statistics,
        "table": lambda name, *code: markdown(report.TABLES[name], store, *code),
        "alt": lambda name: report.FIGURES[name].alt,
    }


def texts(store: Store) -> dict[str, str]:
    """Path relative to the output folder -> content, of all that is written but the figures."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hw2.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["percent"] = lambda value, digits=2: f"{value:.{digits}%}"
    templates.filters["count"] = "{:,}".format
    values = context(store)
    contents = {
        name: templates.get_template(f"{Path(name).name}.j2").render(values) for name in WRITTEN
    }
    contents["README.md"] = _readme(templates.get_template("result.md.j2").render(values))
    contents["submission.csv"] = grading.submission_text(ledger.answers(store.delivered))
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


def made(store: Store) -> dict[str, bytes]:
    """Path relative to the output folder -> content, of everything that is written."""
    content = {name: text.encode() for name, text in texts(store).items()}
    for name, plot in report.FIGURES.items():
        for ending, part in style.files(plot, store).items():
            content[f"figures/{name}.{ending}"] = part
    return content


def write(profile: str, folder: Path | None = None) -> Path:
    """Write figures, report and submission; a file that is right already is left alone."""
    folder = folder or output(profile)
    for name, content in made(Store(profile)).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            files.write_bytes(path, content)
    return folder


def write_figure(name: str, profile: str, folder: Path | None = None) -> list[Path]:
    """Write the files of one figure into `folder`, or into figures/."""
    folder = folder or output(profile) / "figures"
    plot = choose("figure", report.FIGURES, name)
    paths = []
    for ending, part in style.files(plot, Store(profile)).items():
        paths.append(folder / f"{name}.{ending}")
        files.write_bytes(paths[-1], part)
    return paths


def stale(profile: str, folder: Path | None = None) -> list[str]:
    """A line for each file that is not what code and runs make now. Changes nothing.

    Text and data are compared exactly, pictures on Linux x86-64 alone, where the pins hold.
    """
    folder = folder or output(profile)
    content = made(Store(profile))
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
