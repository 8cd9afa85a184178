"""What the report claims: each sentence says what its numbers allow, and no more."""

import pytest

from hw2.report import findings
from hw2.report.statistics import Difference, told

BETTER = Difference(1.2, 0.2, 2.2, 0.01, 1.0)
WORSE = Difference(-1.2, -2.2, -0.2, 0.01, 1.0)
OPEN = Difference(0.2, -0.8, 1.2, 0.6, 1.0)


@pytest.mark.parametrize(
    ("alone", "text"), [(0.944, "about as much"), (0.95, "more"), (0.93, "less")]
)
def test_a_student_alone_is_held_against_its_teacher(alone, text):
    assert f"which reaches {text} without it ({alone:.2%})." in findings.taught(0.942, [alone])


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
    ("measured", "share"), [(0.8, "the main cause"), (0.5, "a part of the cause")]
)
def test_stale_statistics_explain_most_of_a_fall_or_a_part(measured, share):
    told = findings.cut(0.51, [0.94], [0.24], [measured])
    assert "loses 51.0% of its parameters and falls to 24.00%." in told
    assert f"statistics are {share}: measured again" in told
    assert told.endswith(f"they give {measured:.2%}.")


@pytest.mark.parametrize(
    ("end", "text"), [(0.938, "brings accuracy back"), (0.95, "more"), (0.93, "less")]
)
def test_what_the_whole_recipe_brings_back(end, text):
    assert f"{text}: {end:.2%}, and 94.00% before" in findings.restored(72, [0.94], [end])


@pytest.mark.parametrize(
    ("found", "well"), [(OPEN, "about as well"), (BETTER, "worse"), (WORSE, "better")]
)
def test_scratch_is_held_against_pruning_with_what_else_sets_them_apart(found, well):
    sentence = findings.from_scratch(found, OPEN, ["hardware", "learning rate"])
    assert f"for as many epochs, do {well}. Pruned minus scratch is {told(found)}" in sentence
    assert f"It is {told(OPEN)} on the test set." in sentence
    assert sentence.endswith("Besides, the two differ in hardware and learning rate.")
    assert "test set" not in findings.from_scratch(found, None, [])


@pytest.mark.parametrize(("method", "text"), [(OPEN, "more than either"), (WORSE, "no more than")])
def test_length_is_held_against_the_methods_by_size(method, text):
    sentence = findings.lengthened(24, 98, Difference(0.78), [OPEN, method])
    assert f"Length seems to matter {text}" in sentence and sentence.endswith(
        "ResNet-14 +0.78 (one seed)."
    )


def test_others_are_told_below_or_above_and_how_they_were_chosen():
    others = [
        {"name": "one", "accuracy": 0.95, "chosen": "yes"},
        {"name": "two", "accuracy": 0.93, "chosen": "no"},
    ]
    told = findings.above([0.94, 0.942], others)
    assert "below it: the course's teacher (92.40%); two (93.00%)." in told
    assert told.endswith("above it: one (95.00%, chosen on the test set).")
    assert [one["chosen"] for one in findings.rivals()] == ["no", "yes"]
