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
        (findings.taught(0.942, [0.944]), "which reaches about as much without it (94.40%)."),
        (findings.taught(0.942, [0.95]), "which reaches more without it (95.00%)."),
        (findings.taught(0.942, [0.93]), "which reaches less without it (93.00%)."),
        (findings.cut(0.51, [0.94], [0.24], [0.8]), "51.0% of its parameters and falls to 24.00%"),
        (findings.cut(0.51, [0.94], [0.24], [0.8]), "statistics are the main cause"),
        (findings.cut(0.51, [0.94], [0.24], [0.5]), "statistics are a part of the cause"),
        (findings.restored(72, [0.94], [0.938]), "brings accuracy back: 93.80%, and 94.00%"),
        (findings.restored(72, [0.94], [0.95]), "brings back more: 95.00%, and 94.00%"),
        (findings.restored(72, [0.94], [0.93]), "brings back less: 93.00%, and 94.00%"),
        (findings.lengthened(24, 98, LONGER, [OPEN, OPEN]), "Length seems to matter more than"),
        (findings.lengthened(24, 98, LONGER, [OPEN, WORSE]), "Length seems to matter no more"),
    ],
)
def test_numbers_are_held_against_one_another_by_their_size(sentence, told):
    assert told in sentence


@pytest.mark.parametrize(
    ("early", "end", "faster", "lead", "better"),
    [
        ([[0.92, 0.93], [0.90, 0.91]], OPEN, "faster", "+2.00", "hardly better"),
        ([[0.90, 0.93], [0.90, 0.91]], BETTER, "no faster", "+1.00", "better"),
        ([[0.905], [0.90]], BETTER, "no faster", "+0.50", "better"),
        ([[0.91], [0.90]], WORSE, "faster", "+1.00", "worse"),
    ],
)
def test_learning_is_faster_where_every_seed_leads_by_more_than_in_the_end(
    early, end, faster, lead, better
):
    sentence = findings.learned(12, 24, early, end)
    assert f"learning {faster}: at epoch 12 of 24 the student is {lead} points" in sentence
    assert sentence.endswith(f"In the end it is {better}: {told(end)}.")


@pytest.mark.parametrize(
    ("found", "well"), [(OPEN, "about as well"), (BETTER, "worse"), (WORSE, "better")]
)
def test_scratch_is_held_against_pruning_with_what_else_sets_them_apart(found, well):
    sentence = findings.from_scratch(found, OPEN, ["hardware", "learning rate"])
    assert f"for as many epochs, do {well}. Pruned minus scratch is {told(found)}" in sentence
    assert f"It is {told(OPEN)} on the test set." in sentence
    assert sentence.endswith("Besides, the two differ in hardware and learning rate.")
    assert "test set" not in findings.from_scratch(found, None, [])


def test_of_others_the_best_is_told_and_those_that_the_test_set_did_not_choose():
    assert [one["chosen"] for one in findings.rivals()] == ["no", "yes"]
