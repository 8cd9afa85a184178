"""The rubric of the assignment, and the submission for its competition.

Nothing is taken on trust: parameters, accuracy and submission are recomputed from the weights and the data.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hw2 import networks, pictures
from hw2.data import CLASSES, FashionMNIST
from hw2.errors import InputError
from hw2.experiments import store as runs

LIMIT = 100_000  # parameters
BASELINE = 0.924  # test accuracy of the course's teacher
WORDS = 200  # of the explanation of methods
PASS, FAIL, OPEN = "pass", "fail", "not checkable"


@dataclass(frozen=True)
class Line:
    """One check: the rubric's part and its share, what was checked, the evidence, and pass, fail or not checkable."""

    part: str
    share: str
    checked: str
    evidence: str
    verdict: str


def summary_table(network: nn.Module) -> str:
    """What torchsummary prints for an input of (3, 28, 28), then the line that the assignment asks for.

    torchsummary counts the weights and biases of the layers it sees; `InputError` where that is not all of them.
    """
    import torchsummary

    text = io.StringIO()
    with redirect_stdout(text):
        torchsummary.summary(network, (3, 28, 28), device="cpu")
    table = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
    count = networks.count_parameters(network)
    if f"Total params: {count:,}" not in table:
        raise InputError(f"torchsummary's total is not the network's {count:,} parameters; check for unseen layers")
    return f"{table}\nNumber of remaining parameters: {count}"


def write_submission(path: Path, classes: Tensor) -> None:
    """`id,pred`, one row for each test image in order, ids from 0."""
    runs.write_csv(path, ("id", "pred"), [{"id": row, "pred": int(label)} for row, label in enumerate(classes)])


def check_submission(path: Path, classes: Tensor) -> tuple[bool, str]:
    """Whether the file holds exactly the predictions `classes` (10000,), and what was found.

    Raises `InputError` for a file that is no submission at all: not CSV, or another header.
    """
    remedy = "expected a CSV with the header id,pred; `hw2 submit` writes one"
    try:
        table = runs.parse_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no submission ({str(error).splitlines()[0]}); {remedy}") from None
    if list(table.columns) != ["id", "pred"]:
        raise InputError(f"{path}: no submission (header {','.join(map(str, table.columns))[:80]!r}); {remedy}")
    if len(table) != len(classes):
        return False, f"{len(table):,} rows, expected {len(classes):,}"
    for row, (number, label) in enumerate(zip(table.id, table.pred, strict=True)):
        if number != str(row):
            return False, f"row {row}: id {number!r}, expected {row}"
        if not re.fullmatch("[0-9]", label):
            return False, f"row {row}: label {label!r}, expected 0 to {len(CLASSES) - 1}"
    different = torch.tensor([int(label) for label in table.pred]) != classes
    if different.any():
        first = int(different.nonzero()[0])
        return False, f"{int(different.sum()):,} rows are not what the weights predict (first: row {first})"
    return True, f"{len(table):,} rows, each what the weights predict"


def methods_section(report: str) -> str:
    """The explanation of methods in report.md: the text under the heading `Methods`."""
    found = re.search(r"^#+ Methods\s*\n(.*?)(?=^#|\Z)", report, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""


def grade(
    weights: Path, submission: Path, report: Path, data: FashionMNIST, profile: str | None = None
) -> tuple[list[Line], Tensor]:
    """Every line of the rubric for these weights, this submission and this report; and the predicted classes."""
    network = networks.load(weights)
    classes = runs.read_test_set(runs.of_weights(weights, profile), network, data)
    try:
        text = report.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{report}: no readable report ({error}); `hw2 report` writes one") from None

    def line(part: str, share: str, checked: str, evidence: str, ok: bool) -> Line:
        return Line(part, share, checked, evidence, PASS if ok else FAIL)

    count = networks.count_parameters(network)
    correct, total = int((classes == data.test_labels).sum()), len(classes)
    competition = "competition: both constraints"
    table = summary_table(network)
    explanation = methods_section(text)
    words = len(explanation.split())
    named = re.search(r"311581010", text) is not None and "陳彥儒" in text
    methods = all(word in explanation.lower() for word in ("distillation", "pruning"))
    sources = all(name in text for name in ("DefangChen/SimKD", "VainF/Torch-Pruning"))
    samples = torch.tensor([int((data.test_labels == label).nonzero()[0]) for label in range(len(CLASSES))])
    shown = pictures.probabilities(network, data.test_images[samples]).argmax(1)
    right = int((shown == data.test_labels[samples]).sum())
    return [
        line(competition, "45%", f"at most {LIMIT:,} parameters", f"{count:,}", count <= LIMIT),
        line(
            competition,
            "",
            f"test accuracy at least {BASELINE:.1%}",
            f"{correct / total:.2%} ({correct:,} of {total:,})",
            correct >= BASELINE * total,
        ),
        line(competition, "", "submission.csv", *reversed(check_submission(submission, classes))),
        Line("competition: leaderboard", "30%", "place", "the leaderboard is private", OPEN),
        line(
            "report: torchsummary",
            "5%",
            "table and `Number of remaining parameters`",
            "the report holds what torchsummary prints" if table in text else "not what torchsummary prints",
            table in text,
        ),
        line("report: explanation", "15%", "name and student ID", "given" if named else "missing", named),
        line(
            "report: explanation",
            "",
            f"methods, at most {WORDS} words",
            f"{words} words; distillation and pruning {'named' if methods else 'not both named'}",
            methods and words <= WORDS,
        ),
        line("report: explanation", "", "references", "given" if sources else "missing", sources),
        line("demo", "5%", "the model classifies a picture of each class", f"{right} of 10 right", right >= 8),
    ], classes


def table(lines: list[Line]) -> str:
    """The lines as an aligned text table with a closing count."""
    rows = [("part", "share", "checked", "evidence", "verdict")]
    rows += [(line.part, line.share, line.checked, line.evidence, line.verdict) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text.insert(1, "  ".join("-" * width for width in widths))
    verdicts = [line.verdict for line in lines]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (PASS, FAIL, OPEN))
    return "\n".join([*text, "", counts])


def failed(lines: list[Line]) -> bool:
    return any(line.verdict == FAIL for line in lines)
