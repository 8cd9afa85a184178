"""The rubric of the assignment, and the submission for its competition.

Parameters, accuracy and submission are recomputed from the weights and the data. Nothing is recorded.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hw2 import networks, pictures, training
from hw2.assignment import AUTHOR, BASELINE, LIMIT, REFERENCES, STUDENT_ID, WORDS
from hw2.data import CLASSES, FashionMNIST
from hw2.errors import InputError
from hw2.experiments import ledger
from hw2.files import csv_text, parse_csv, write_text

PASS, FAIL, OPEN = "pass", "fail", "not checkable"


@dataclass(frozen=True)
class Line:
    """One check: the rubric's part and its share, what was checked, the evidence, and pass, fail or not checkable."""

    part: str
    share: str
    checked: str
    evidence: str
    verdict: str

    @classmethod
    def of(cls, part: str, share: str, checked: str, ok: bool, evidence: str) -> Line:
        return cls(part, share, checked, evidence, PASS if ok else FAIL)


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


def submission_text(classes: Tensor) -> str:
    """`id,pred`, one row for each test image in order, ids from 0. `classes` (n,)."""
    return csv_text(("id", "pred"), [{"id": row, "pred": label} for row, label in enumerate(classes.tolist())])


def write_submission(path: Path, classes: Tensor) -> None:
    write_text(path, submission_text(classes))


def check_submission(path: Path, classes: Tensor) -> tuple[bool, str]:
    """Whether the file holds exactly `classes` (n,), and what was found. `InputError` for what is no submission."""
    remedy = "expected a CSV with the header id,pred; `hw2 submit` writes one"
    try:
        table = parse_csv(path, dtype=str, keep_default_na=False)
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
    different = (torch.tensor([int(label) for label in table.pred]) != classes).nonzero().flatten()
    if len(different):
        return False, f"{len(different):,} rows are not what the weights predict (first: row {int(different[0])})"
    return True, f"{len(table):,} rows, each what the weights predict"


def methods_section(report: str) -> str:
    """The explanation of methods in report.md: the text under the heading `Methods`."""
    found = re.search(r"^#+ Methods\s*\n(.*?)(?=^#|\Z)", report, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""


def _of_report(text: str, network: nn.Module) -> list[Line]:
    shown, part = summary_table(network) in text, "report: explanation"
    evidence = "the report holds what torchsummary prints" if shown else "not what torchsummary prints"
    named, sources = STUDENT_ID in text and AUTHOR in text, all(name in text for name in REFERENCES)
    explanation = methods_section(text)
    words, methods = len(explanation.split()), all(one in explanation.lower() for one in ("distillation", "pruning"))
    told = f"{words} words; distillation and pruning {'named' if methods else 'not both named'}"
    return [
        Line.of("report: torchsummary", "5%", "table and `Number of remaining parameters`", shown, evidence),
        Line.of(part, "15%", "name and student ID", named, "given" if named else "missing"),
        Line.of(part, "", f"methods, at most {WORDS} words", methods and words <= WORDS, told),
        Line.of(part, "", "references", sources, "given" if sources else "missing"),
    ]


def _of_network(network: nn.Module, classes: Tensor, submission: Path, data: FashionMNIST) -> list[Line]:
    count, correct, total = networks.count_parameters(network), int((classes == data.test_labels).sum()), len(classes)
    part, evidence = "competition: both constraints", f"{correct / total:.2%} ({correct:,} of {total:,})"
    samples = torch.stack([(data.test_labels == label).nonzero()[0, 0] for label in range(len(CLASSES))])
    shown = pictures.probabilities(network, data.test_images[samples]).argmax(1)
    right = int((shown == data.test_labels[samples]).sum())
    return [
        Line.of(part, "45%", f"at most {LIMIT:,} parameters", count <= LIMIT, f"{count:,}"),
        Line.of(part, "", f"test accuracy at least {BASELINE:.1%}", correct >= BASELINE * total, evidence),
        Line.of(part, "", "submission.csv", *check_submission(submission, classes)),
        Line("competition: leaderboard", "30%", "place", "the leaderboard is private", OPEN),
        Line.of("demo", "5%", "the model classifies a picture of each class", right >= 8, f"{right} of 10 right"),
    ]


def grade(weights: Path, submission: Path, report: Path, data: FashionMNIST, profile: str) -> tuple[list[Line], Tensor]:
    """Every line of the rubric for these weights, this submission and this report; and the predicted classes (n,).

    `InputError` where a file cannot be read, or the ledger of `profile` has another count for these weights' run.
    """
    try:
        text = report.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{report}: no readable report ({error}); `hw2 report` writes one") from None
    network, run = networks.load(weights), ledger.of_weights(weights, profile)
    classes = training.predict(network, data.test_images)
    if run:
        ledger.checked(run, classes, data)
    *lines, demo = _of_network(network, classes, submission, data)
    return [*lines, *_of_report(text, network), demo], classes


def table(lines: list[Line]) -> str:
    """The lines as an aligned text table with a closing count."""
    rows = [("part", "share", "checked", "evidence", "verdict"), *map(astuple, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text.insert(1, "  ".join("-" * width for width in widths))
    verdicts = [line.verdict for line in lines]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (PASS, FAIL, OPEN))
    return "\n".join([*text, "", counts])


def failed(lines: list[Line]) -> bool:
    return FAIL in [line.verdict for line in lines]
