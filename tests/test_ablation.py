"""What notebook 03 concludes from: pairing, signs, groups and sizes are right."""

from types import SimpleNamespace

import pytest

from hw2 import networks, pruning
from hw2.experiments import recipes, stages
from hw2.experiments import store as runs
from hw2.report import ablation


@pytest.fixture
def arms(monkeypatch):
    """Of 100 validation images `pruned` gets 80 and 84 right, scratch on labels 79 and 81, every other arm 85, 87."""

    def run(count, pruned):
        phases = {"phases": {"pruned": 10, "recalibrated": 50}} if pruned else {}
        return SimpleNamespace(
            val_accuracy=count / 100,
            metrics={"val_total": 100} | phases,
            recipe={"fit": {"epochs": 3}, "images": 1000},
        )

    counts = {name: (85, 87) for name in recipes.ABLATION} | {"pruned": (80, 84), "scratch_labels": (79, 81)}
    found = {name: [run(count, name.startswith("pruned")) for count in pair] for name, pair in counts.items()}
    monkeypatch.setattr(stages, "ablation", lambda: found)
    return found


def test_an_arm_that_is_worse_than_the_whole_recipe_has_a_negative_difference(arms):
    table = ablation.table().set_index("arm")
    # -1 and -3, by seed: mean -2, and 12.706 standard errors of 1 on either side.
    assert table["minus pruned"]["scratch_labels"] == "-2.00"
    assert table["95 % interval"]["scratch_labels"] == "-14.71 to +10.71"
    assert table["minus pruned"]["pruned"] == ""
    assert table["right after pruning"].tolist() == ["10.00 ± 0.00%"] * 3 + [""] * 2
    assert table["recalibrated"]["pruned"] == "50.00 ± 0.00%"
    assert table.verdict["scratch_labels"] == "not told apart"
    assert ablation.note() == "3 epochs of 1,000 images in all, 2 seeds an arm"
    data = ablation.differences()
    assert data["each"][data["names"].index(recipes.ABLATION["scratch_labels"])] == [-1, -3]


@pytest.mark.parametrize(
    ("from_scratch", "told"),
    [((81, 85.1), "from scratch did better"), ((79, 82.9), "pruning did better"), ((79, 86), "nothing shows")],
)
def test_what_is_said_of_training_from_scratch_is_what_the_interval_allows(arms, from_scratch, told):
    for run, count in zip(arms["scratch_distilled"], from_scratch, strict=True):
        run.val_accuracy = count / 100
    assert told in ablation.scratch_verdict()


def test_groups_are_named_in_the_order_of_their_norms():
    sizes = dict(zip(pruning.group_names(), map(len, pruning.group_norms(networks.ResNet14())), strict=True))
    assert len(sizes) == 9
    for name, size in sizes.items():
        assert size == {"layer1": 16, "layer2": 32, "layer3": 64}[name[:6]], name


def test_norms_are_sorted_and_as_many_are_marked_as_leave(store):
    data = ablation.norms()
    assert [len(group) - gone for group, gone in zip(data["after"], data["removed"], strict=True)] == [
        45, 22, 11, 11, 11, 22, 22, 45, 45
    ]  # fmt: skip
    assert all(group == sorted(group) for group in data["before"] + data["after"])
    assert data["before"] != data["after"]


def test_the_frontier_gives_each_ratios_network(store, monkeypatch):
    names = ["ResNet-14, one image", "pruned by 0.29, one image", "pruned by 0.5, one image"]
    rows = [{"name": name, "median": 1.0 + number} for number, name in enumerate(names)]
    monkeypatch.setattr(runs, "bench", lambda: {"rows": rows})
    table = ablation.frontier_table().set_index("ratio")
    assert table.parameters.to_dict() == {"0": "175,258", "0.29": "85,956", "0.5": "44,370"}
    assert table.MACs["0.29"] == "9.9 M"  # 59 MFLOP of a training step are three times two for each
    assert table["one image"].tolist() == ["1.00 ms", "2.00 ms", "3.00 ms"]
    assert table.seeds.tolist() == [1, 1, 1]
    data = ablation.frontier()
    assert data["parameters"] == [85_956, 44_370]
    assert data["delivered"]["test"] == [stages.compressed().test_accuracy]


def test_results_of_others_that_the_test_set_chose_are_told_from_the_rest():
    at_most = [one for one in ablation.PUBLIC if one[1] <= 100_000]
    assert max(accuracy for _, _, accuracy, _ in at_most) == 0.9448
    assert {chosen for *_, chosen in ablation.PUBLIC} == {ablation.TEST, ablation.LAST}
