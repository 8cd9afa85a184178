"""The rubric of the assignment, computed from weights and data, and the submission for its
competition.
"""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import torchsummary
from torch import Tensor, nn

from hw2 import data, networks, pictures, training
from hw2.assignment import AUTHOR, BASELINE, LIMIT, REFERENCES, STUDENT_ID, WORDS
from hw2.data import CLASSES, FashionMNIST
from hw2.errors import InputError
from hw2.experiments import ledger
from hw2.experiments.run import output
from hw2.experiments.store import Store
from hw2.files import parse_csv, reading

VERDICTS = {True: "pass", False: "fail", None: "not checkable"}


class Line(NamedTuple):
    """One check of the rubric. No `share`: it is of the part above.

    `ok` None: it cannot be checked here.
    """

    part: str
    share: str
    checked: str
    ok: bool | None
    evidence: str


def summary_table(network: nn.Module) -> str:
    """torchsummary's table and the assignment's line; `InputError` where the layers it sees are not
    all parameters.
    """
    text = io.StringIO()
    with redirect_stdout(text), torch.random.fork_rng(devices=[]):  # it draws an image
        torchsummary.summary(network, (3, 28, 28), device="cpu")
    table = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
    count = networks.count_parameters(network)
    if f"Total params: {count:,}" not in table:
        raise InputError(
            f"torchsummary's total is not the network's {count:,} parameters; check for "
            f"unseen layers"
        )
    return f"{table}\nNumber of remaining parameters: {count}"


def submission_text(classes: Tensor) -> str:
    """`id,pred`, one row for each test image in order, ids from 0. `classes` (n,)."""
    rows = pd.DataFrame({"id": range(len(classes)), "pred": classes.tolist()})
    return rows.to_csv(index=False, lineterminator="\n")


def check_submission(path: Path, classes: Tensor) -> tuple[bool, str]:
    """Whether the file holds exactly `classes` (n,), and what was found.

    `InputError` for what is no submission.
    """
    with reading(path, "submission", "`hw2 submit` writes one"):
        table = parse_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != ["id", "pred"]:
            raise ValueError(f"header {','.join(map(str, table.columns))[:80]!r}, expected id,pred")
    if len(table) != len(classes):
        return False, f"{len(table):,} rows, expected {len(classes):,}"
    expected = pd.DataFrame({"id": range(len(classes)), "pred": classes.tolist()}).astype(str)
    wrong = table.index[(table != expected).any(axis=1)]
    if len(wrong):
        return (
            False,
            f"{len(wrong):,} rows are not what the weights predict (first: row {wrong[0]})",
        )
    return True, f"{len(table):,} rows, each what the weights predict"


def methods_section(report: str) -> str:
    """The explanation of methods in report.md: the text under the heading `Methods`."""
    section = re.search(r"^#+ Methods\s*\n(.*?)(?=^#|\Z)", report, re.MULTILINE | re.DOTALL)
    return section.group(1).strip() if section else ""


def grade(weights: Path, submission: Path, report: Path, fashion: FashionMNIST) -> list[Line]:
    """The rubric.

    `InputError` where a file cannot be read, or the ledger has another count for these weights.
    """
    with reading(report, "report", "`hw2 report` writes one"):
        text = report.read_text("utf-8")
    network, runs = networks.load(weights), ledger.of_weights(weights)
    classes = training.predict(network, fashion.test_images)
    for run in runs:
        ledger.checked(run, classes, fashion)
    count, total = networks.count_parameters(network), len(classes)
    correct = int((classes == fashion.test_labels).sum())
    samples = torch.stack(
        [(fashion.test_labels == label).nonzero()[0, 0] for label in range(len(CLASSES))]
    )
    predicted = pictures.probabilities(network, fashion.test_images[samples]).argmax(1)
    right = int((predicted == fashion.test_labels[samples]).sum())
    printed, named = summary_table(network) in text, STUDENT_ID in text and AUTHOR in text
    methods, sources = methods_section(text), all(name in text for name in REFERENCES)
    words, both = (
        len(methods.split()),
        all(method in methods.lower() for method in ("distillation", "pruning")),
    )
    evidence = (
        "the report holds what torchsummary prints" if printed else "not what torchsummary prints"
    )
    coverage = f"{words} words; distillation and pruning {'named' if both else 'not both named'}"
    reached, competition = (
        f"{correct / total:.2%} ({correct:,} of {total:,})",
        "competition: both constraints",
    )
    return [
        Line(competition, "45%", f"at most {LIMIT:,} parameters", count <= LIMIT, f"{count:,}"),
        Line(
            competition,
            "",
            f"test accuracy at least {BASELINE:.1%}",
            correct >= BASELINE * total,
            reached,
        ),
        Line(competition, "", "submission.csv", *check_submission(submission, classes)),
        Line("competition: leaderboard", "30%", "place", None, "the leaderboard is private"),
        Line(
            "report: torchsummary",
            "5%",
            "table and number of remaining parameters",
            printed,
            evidence,
        ),
        Line(
            "report: explanation",
            "15%",
            "name and student ID",
            named,
            "given" if named else "missing",
        ),
        Line(
            "report: explanation",
            "",
            f"methods, at most {WORDS} words",
            both and words <= WORDS,
            coverage,
        ),
        Line("report: explanation", "", "references", sources, "given" if sources else "missing"),
        Line(
            "demo",
            "5%",
            "a picture of each class, at least 8 right",
            right >= 8,
            f"{right} of 10 right",
        ),
    ]


def grade_project(
    weights: Path | str | None = None,
    submission: Path | str | None = None,
    profile: str | None = None,
) -> list[Line]:
    """`grade` of the files that lie in the project, or of those given in their place.

    Writes nothing.
    """
    store = Store(profile)
    folder = output(store.profile)
    weights = Path(weights or store.delivered.weights)
    submission = Path(submission or folder / "submission.csv")
    return grade(weights, submission, folder / "report.md", data.fashion_mnist())


def table(lines: list[Line]) -> pd.DataFrame:
    """The lines as a table for notebooks, by part."""
    rows = [
        (line.part, line.share, line.checked, VERDICTS[line.ok], line.evidence) for line in lines
    ]
    return pd.DataFrame(
        rows, columns=["part", "share", "checked", "verdict", "evidence"]
    ).set_index("part")


def text(lines: list[Line]) -> str:
    """The lines for a terminal, under the parts of the rubric, with a closing count; 100 columns
    hold them.
    """
    rows, verdicts = [], [VERDICTS[line.ok] for line in lines]
    for line, verdict in zip(lines, verdicts, strict=True):
        rows += [f"{line.part}, {line.share}"] if line.share else []
        rows.append(f"{verdict:>13}  {line.checked}: {line.evidence}")
    return "\n".join(
        [
            *rows,
            "",
            ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS.values()),
        ]
    )


def failed(lines: list[Line]) -> bool:
    """Whether a line fails; one that cannot be checked does not."""
    return any(line.ok is False for line in lines)
