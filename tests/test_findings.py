"""What the report claims: each sentence says what its numbers allow, and no more."""

import pytest

from hw2.report import findings
from hw2.report.statistics import Difference, told

BETTER = Difference(1.2, 0.2, 2.2, 0.01, 1.0)
WORSE = Difference(-1.2, -2.2, -0.2, 0.01, 1.0)
OPEN = Difference(0.2, -0.8, 1.2, 0.6, 1.0)
LONGER = Difference(0.78)


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        (findings.taught(0.942, [0.944]), "has 94.20% on validation. A ResNet-14 that learns"),
        (findings.taught(0.942, [0.93]), "from labels alone has 93.00%."),
        (findings.cut(0.51, [0.94], [0.24], [0.8]), "51.0% of its parameters and falls to 24.00%"),
        (findings.cut(0.51, [0.94], [0.24], [0.8]), "statistics are the main cause"),
        (findings.cut(0.51, [0.94], [0.24], [0.5]), "statistics are a part of the cause"),
        (
            findings.restored(72, [0.94], [0.938]),
            "ends at 93.80%. Before pruning the student has 94",
        ),
        (findings.lengthened(24, 98, LONGER, [OPEN, OPEN]), "Length seems to matter: 98 epochs"),
        (findings.lengthened(24, 98, LONGER, [OPEN, OPEN]), "that is more than either method."),
        (findings.lengthened(24, 98, LONGER, [OPEN, WORSE]), "that is no more than either"),
        (findings.lengthened(24, 98, BETTER, [OPEN, OPEN]), "Length matters: 98 epochs"),
        (findings.lengthened(24, 98, OPEN, [OPEN, OPEN]), "that is no more than either"),
    ],
)
def test_numbers_are_held_against_one_another_by_their_size(sentence, told):
    assert told in sentence


@pytest.mark.parametrize(
    ("early", "end", "faster", "lead"),
    [
        ([[0.92, 0.93], [0.90, 0.91]], OPEN, "faster", "+2.00"),
        ([[0.90, 0.93], [0.90, 0.91]], BETTER, "no faster", "+1.00"),
        ([[0.905], [0.90]], BETTER, "no faster", "+0.50"),
        ([[0.91], [0.90]], WORSE, "faster", "+1.00"),
    ],
)
def test_learning_is_faster_where_every_seed_leads_by_more_than_in_the_end(
    early, end, faster, lead
):
    sentence = findings.learned(12, 24, early, end, BETTER)
    assert f"learning {faster}: at epoch 12 of 24 its lead over labels alone is {lead}" in sentence
    assert f"In the end the lead is {told(end)}." in sentence
    assert sentence.endswith(f"The validation loss changes by {told(BETTER, 3)}.")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (OPEN, "No difference from the pruned widths from scratch was detected."),
        (LONGER, "One seed does not decide between pruning and the pruned widths from scratch."),
        (BETTER, "Pruning beats training the pruned widths from scratch."),
        (WORSE, "Training the pruned widths from scratch beats pruning."),
    ],
)
def test_scratch_is_held_against_pruning_with_what_else_sets_them_apart(found, words):
    sentence = findings.from_scratch(found, OPEN, ["hardware", "learning rate"])
    assert sentence.startswith(
        f"{words} Both have the same number of epochs. Pruned minus scratch is"
    )
    assert f"{told(found)} on validation." in sentence
    assert f"It is {told(OPEN)} on the test set." in sentence
    assert sentence.endswith("Besides, the two differ in hardware and learning rate.")
    assert "test set" not in findings.from_scratch(found, None, [])


def test_what_a_study_detected_is_told_with_its_rows(monkeypatch):
    found = {"labels": WORSE, "kl_mean": OPEN}
    monkeypatch.setattr(findings, "study", lambda runs: found)
    runs = dict.fromkeys(("vanilla", "labels", "kl_mean"))
    words = f"from KD with averaged targets: the labels alone, {told(WORSE)}."
    assert findings.differing(runs) == f"Detected differences {words}"
    found["labels"] = OPEN
    assert findings.differing(runs).endswith("averaged targets: none.")
    found |= dict.fromkeys(found, LONGER)
    assert findings.differing(runs).startswith("With one seed an arm no difference from KD")


def test_of_others_the_best_is_told_and_those_that_the_test_set_did_not_choose():
    assert [one["chosen"] for one in findings.rivals()] == ["no", "yes"]
