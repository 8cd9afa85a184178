"""Results computed again by other code: the delivered network by torch's functions alone, Dunnett's
intervals by quadrature, a Welch interval by its formula.
"""

import gzip
import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import special, stats
from torch.nn import functional

from hw2.data import PROJECT, fashion_mnist
from hw2.experiments import catalogue
from hw2.experiments.store import Store
from hw2.files import program_output
from hw2.report import comparisons


def idx(folder, name, header):
    path = folder / name
    if path.is_file():
        raw = path.read_bytes()
    else:
        raw = gzip.decompress((folder / f"{name}.gz").read_bytes())
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=header).copy())


def forward(state, x):
    """He et al. (2016): stem, three stages of two basic blocks, mean over the pixels, linear."""

    def norm(name, x):
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = norm("bn1", conv("conv1", x)).relu()
    for stage in (1, 2, 3):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            stride = 2 if (stage, block) in ((2, 0), (3, 0)) else 1
            out = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride)).relu()
            out = norm(f"{name}.bn2", conv(f"{name}.conv2", out))
            if f"{name}.shortcut.0.weight" in state:
                x = norm(f"{name}.shortcut.1", conv(f"{name}.shortcut.0", x, stride))
            x = (out + x).relu()
    return functional.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def test_plain_torch_counts_as_many_test_images_right_as_the_run_and_the_report():
    name = json.loads((PROJECT / "runs/delivered.json").read_text())["run"]
    run = PROJECT / "runs" / name
    folder = fashion_mnist().folder  # nothing else is asked of the package
    images = (idx(folder, "t10k-images-idx3-ubyte", 16).view(-1, 1, 28, 28) / 255 - 0.2860) / 0.3530
    images = images.expand(-1, 3, -1, -1)
    labels = idx(folder, "t10k-labels-idx1-ubyte", 8).long()
    state = load_file(run / "model.safetensors")
    trained = [tensor for name, tensor in state.items() if not re.search("running|num", name)]
    assert sum(tensor.numel() for tensor in trained) == 85956
    double = {name: tensor.double() for name, tensor in state.items()}
    with torch.no_grad():
        logits = torch.cat([forward(state, part) for part in images.split(500)])
        first, second = logits.topk(2).values.unbind(1)
        near = first - second < 1e-3  # rounding must not decide
        exact = forward(double, images[near].double())
    classes = logits.argmax(1)
    classes[near] = exact.argmax(1)
    correct = int((classes == labels).sum())
    assert correct == json.loads((run / "metrics.json").read_text())["test_correct"]
    report = (PROJECT / "report.md").read_text("utf-8")
    assert re.search(rf"{correct:,} of\s+10,000 test images", report)


def percentages(row):
    """Validation accuracies of all seeds, from the committed counts."""
    paths = sorted(PROJECT.glob(f"runs/{row}/full-s*/metrics.json"))
    counts = [json.loads(path.read_text()) for path in paths]
    return [100 * one["val_correct"] / one["val_total"] for one in counts]


def all_below(limit, freedom, shares):
    """The probability that no |t| of Dunnett's test exceeds `limit`, if all true means are equal.

    `shares`: of each group and the first one together, the group's share of the values. Given the
    first group's mean and the pooled deviation, the groups are independent (Dunnett 1955). Gauss's
    quadrature takes the mean over both.
    """
    first, first_weights = special.roots_hermitenorm(64)
    halves, weights = special.roots_genlaguerre(64, freedom / 2 - 1)  # of chi squared
    bound = limit * np.sqrt(2 * halves / freedom)[:, None]
    inside = 1.0
    for share in shares:
        shift, scale = np.sqrt(share) * first, np.sqrt(1 - share)
        inside *= special.ndtr((shift + bound) / scale) - special.ndtr((shift - bound) / scale)
    return weights @ inside @ first_weights / (weights.sum() * first_weights.sum())


@pytest.mark.parametrize("group", ["arms", "ablation"])
def test_quadrature_gives_the_studies_dunnett_intervals_and_p(group):
    first, *others = map(percentages, catalogue.names("full", group))
    found = [*comparisons.study(Store("full").group(group)).values()]
    freedom = len(first) - 1 + sum(len(other) - 1 for other in others)
    squares = sum(len(each) * np.var(each) for each in (first, *others))
    shares = [len(other) / (len(other) + len(first)) for other in others]
    for other, each in zip(others, found, strict=True):
        assert each.mean == pytest.approx(np.mean(other) - np.mean(first))
        error = (squares / freedom * (1 / len(other) + 1 / len(first))) ** 0.5
        limit = (each.high - each.low) / 2 / error
        assert all_below(limit, freedom, shares) == pytest.approx(0.95, abs=5e-4)
        p = 1 - all_below(abs(each.mean) / error, freedom, shares)
        assert each.p == pytest.approx(p, abs=5e-4)


def test_welchs_formula_gives_the_chains_interval():
    """Welch (1947), with Student's density integrated over the interval."""
    one, other = map(percentages, ("compressed", "scratch"))
    variances = [np.var(values, ddof=1) / 3 for values in (one, other)]
    freedom = sum(variances) ** 2 / sum(variance**2 / 2 for variance in variances)
    found = comparisons.compare(Store("full"), "compressed", "scratch")
    assert found.mean == pytest.approx(np.mean(one) - np.mean(other))
    assert found.high - found.mean == pytest.approx(found.mean - found.low)
    quantile = (found.high - found.mean) / sum(variances) ** 0.5
    steps = np.linspace(-quantile, quantile, 200_001)
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / (freedom * math.pi) ** 0.5
    density = scale * (1 + steps**2 / freedom) ** (-(freedom + 1) / 2)
    assert np.trapezoid(density, steps) == pytest.approx(0.95, abs=1e-6)


#: controls of the profile `cpu` that docs/training.md tells of, and what they are held against
DROPPED = {"smoothed": "vanilla", "standardised": "vanilla", "decoupled": "vanilla"}
DROPPED |= {"scratch_labels": "pruned", "scratch_distilled": "pruned"}


@pytest.mark.parametrize("name", DROPPED)
def test_the_history_holds_the_runs_of_dropped_controls_and_gives_their_intervals(name):
    def accuracies(row):
        for seed in (3, 4, 5):
            path = f"6b1dabd~1:runs/{row}/cpu-s{seed}/metrics.json"
            try:
                counts = json.loads(program_output("git", "show", path, folder=PROJECT))
            except OSError:
                pytest.skip("this clone has no history")
            yield 100 * counts["val_correct"] / counts["val_total"]

    pairs = zip(accuracies(name), accuracies(DROPPED[name]), strict=True)
    gaps = [one - other for one, other in pairs]
    low, high = stats.t.interval(0.95, 2, np.mean(gaps), stats.sem(gaps))
    told = f"| {np.mean(gaps):+.2f} | {low:+.2f} to {high:+.2f} |"
    page = (PROJECT / "docs/training.md").read_text("utf-8").splitlines()
    (row,) = [line for line in page if line.startswith(f"| `{name}` |")]
    assert row.endswith(told)
