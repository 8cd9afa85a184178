"""The assignment's rubric, computed from weights and data, and the competition's submission."""

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
from hw2.data import FashionMNIST
from hw2.errors import InputError
from hw2.experiments import ledger
from hw2.experiments.run import output
from hw2.experiments.store import Store
from hw2.files import errors_naming

COMPETITION = "competition: both constraints"
VERDICTS = {True: "pass", False: "fail", None: "not checkable"}


class Line(NamedTuple):
    """One check of the rubric."""

    part: str
    share: str  # of the points; empty: it belongs to the part above
    checked: str  # what is looked at
    ok: bool | None  # None: it cannot be checked here
    evidence: str  # what was found


def summary_table(network: nn.Module) -> str:
    """torchsummary's table and the assignment's line; `InputError` where it misses parameters."""
    text = io.StringIO()
    with redirect_stdout(text), torch.random.fork_rng(devices=[]):  # it draws an image
        torchsummary.summary(network, (3, 28, 28), device="cpu")
    table = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
    count = networks.count_parameters(network)
    if f"Total params: {count:,}" not in table:
        problem = f"torchsummary's total is not the network's {count:,} parameters"
        raise InputError(f"{problem}; check for unseen layers")
    return f"{table}\nNumber of remaining parameters: {count}"


def submission_text(classes: Tensor) -> str:
    """`id,pred`, one row for each test image in order, ids from 0. `classes` (n,)."""
    rows = pd.DataFrame({"id": range(len(classes)), "pred": classes.tolist()})
    return rows.to_csv(index=False, lineterminator="\n")


def check_submission(path: Path, classes: Tensor) -> tuple[bool, str]:
    """Whether the file holds exactly `classes` (n,), and what was found. Raises `InputError`."""
    with errors_naming(path, "submission", "`hw2 submit` writes one"):
        header, *rows = path.read_text("utf-8").splitlines() or [""]
        if header != "id,pred":
            raise ValueError(f"header {header[:80]!r}, expected id,pred")
    _, *expected = submission_text(classes).splitlines()
    if len(rows) != len(expected):
        return False, f"{len(rows):,} rows, expected {len(expected):,}"
    wrong = [place for place, row in enumerate(rows) if row != expected[place]]
    if wrong:
        first = f"first: row {wrong[0]}"
        return False, f"{len(wrong):,} rows are not what the weights predict ({first})"
    return True, f"{len(rows):,} rows, each what the weights predict"


def methods_section(report: str) -> str:
    """The explanation of methods in report.md: the text under the heading `Methods`."""
    section = re.search(r"^#+ Methods\s*\n(.*?)(?=^#|\Z)", report, re.MULTILINE | re.DOTALL)
    return section.group(1).strip() if section else ""


def grade(
    weights: Path | str | None = None,
    submission: Path | str | None = None,
    profile: str | None = None,
) -> list[Line]:
    """The rubric, of the files that lie in the project or of those given. Writes nothing.

    `InputError` for an unreadable file, and where the ledger has another count for its weights.
    """
    store = Store(profile)
    folder = output(store.profile)
    report = folder / "report.md"
    with errors_naming(report, "report", "`hw2 report` writes one"):
        text = report.read_text("utf-8")
    fashion = data.fashion_mnist()
    network = networks.load(weights) if weights else store.delivered.network()
    classes = training.predict(network, fashion.test_images)
    if not weights:
        ledger.count_correct(store.delivered, classes, fashion)
    submitted = check_submission(Path(submission or folder / "submission.csv"), classes)
    return [
        *_constraints(network, classes, fashion),
        Line(COMPETITION, "", "submission.csv", *submitted),
        Line("competition: leaderboard", "30%", "place", None, "the leaderboard is private"),
        _summary(network, text),
        *_explanation(text),
        _demo(network, fashion),
    ]


def _constraints(network: nn.Module, classes: Tensor, fashion: FashionMNIST) -> list[Line]:
    """The competition's limits: size, and accuracy of the predicted `classes` (n,)."""
    count = networks.count_parameters(network)
    total = len(classes)
    correct = int((classes == fashion.test_labels).sum())
    small = count <= LIMIT
    good = correct >= BASELINE * total
    reached = f"{correct / total:.2%} ({correct:,} of {total:,})"
    return [
        Line(COMPETITION, "45%", f"at most {LIMIT:,} parameters", small, f"{count:,}"),
        Line(COMPETITION, "", f"test accuracy at least {BASELINE:.1%}", good, reached),
    ]


def _summary(network: nn.Module, report: str) -> Line:
    """The table that the assignment asks for."""
    held = summary_table(network) in report
    evidence = f"the report {'holds' if held else 'lacks'} what torchsummary prints"
    wanted = "table and number of remaining parameters"
    return Line("report: torchsummary", "5%", wanted, held, evidence)


def _explanation(report: str) -> list[Line]:
    """Who wrote the report, its explanation of methods, its references."""
    part = "report: explanation"
    named = STUDENT_ID in report and AUTHOR in report
    methods = methods_section(report)
    words = len(methods.split())
    both = all(method in methods.lower() for method in ("distillation", "pruning"))
    coverage = f"{words} words; distillation and pruning {'named' if both else 'not both named'}"
    short = f"methods, at most {WORDS} words"
    referred = all(name in report for name in REFERENCES)
    return [
        Line(part, "15%", "name and student ID", named, "given" if named else "missing"),
        Line(part, "", short, both and words <= WORDS, coverage),
        Line(part, "", "references", referred, "given" if referred else "missing"),
    ]


def _demo(network: nn.Module, fashion: FashionMNIST) -> Line:
    """The first test image of each class, by the demo's own function."""
    samples = fashion.examples
    predicted = pictures.probabilities(network, fashion.test_images[samples]).argmax(1)
    right = int((predicted == fashion.test_labels[samples]).sum())
    wanted = "a picture of each class, at least 8 right"
    return Line("demo", "5%", wanted, right >= 8, f"{right} of 10 right")


def table(lines: list[Line]) -> pd.DataFrame:
    """The lines as a table for notebooks, by part."""
    columns = ["part", "share", "checked", "verdict", "evidence"]
    frame = pd.DataFrame(lines).assign(verdict=[VERDICTS[line.ok] for line in lines])
    return frame[columns].set_index("part")


def text(lines: list[Line]) -> str:
    """The lines for a terminal, under the parts of the rubric, with a closing count."""
    rows = []
    verdicts = [VERDICTS[line.ok] for line in lines]
    for line, verdict in zip(lines, verdicts, strict=True):
        if line.share:
            rows.append(f"{line.part}, {line.share}")
        rows.append(f"{verdict:>13}  {line.checked}: {line.evidence}")
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS.values())
    return "\n".join([*rows, "", counts])
