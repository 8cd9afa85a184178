"""What of the compression matters, and what each share of the channels costs: the data of notebook 03."""

from __future__ import annotations

import pandas as pd
import torch
import torch_pruning as tp
from safetensors.torch import save

from hw2 import grading, networks, pruning
from hw2.experiments import recipes, stages
from hw2.experiments import store as runs
from hw2.report import comparisons
from hw2.report import statistics as measures
from hw2.report.outcomes import at_phase, seeds
from hw2.report.statistics import rounded, spread

TEST, LAST = "best epoch or run, by the test set", "last epoch"
#: What others report for the test set: name, parameters, accuracy, and how epoch and run were chosen. Sources: the
#: original report's 185 public logs (Mruuuu/Knowledge-Distillation; its headline, and the mean of last epochs), public
#: answers to the assignment, and for ResNet-20 zhunzhong07/Random-Erasing, issue 10.
PUBLIC = (
    ("original report, best of 185 runs", 85_956, 0.9398, TEST),
    ("original report, mean", 85_956, 0.9330, LAST),
    ("three convolutions, feature hints", 98_978, 0.9448, TEST),
    ("three convolutions, T = 5, flips averaged", 98_954, 0.9431, TEST),
    ("three convolutions, T = 40", 95_386, 0.9393, TEST),
    ("ResNet-20, no compression", 270_000, 0.9518, LAST),
)


def note() -> str:
    """What was spent on each run of the ablation."""
    group = stages.ablation()["scratch_labels"]  # these have no parent that took a part of it
    recipe = group[0].recipe
    return f"{recipe['fit']['epochs']} epochs of {recipe['images']:,} images in all, {len(group)} seeds an arm"


def table() -> pd.DataFrame:
    """Validation accuracy of the ablation's arms, after each step; differences from `pruned` in percentage points."""
    found, rows = stages.ablation(), []
    differences = comparisons.minus("pruned", found)
    for name, group in found.items():
        phases = {
            column: spread([at_phase(run, phase) for run in group]) if "phases" in group[0].metrics else ""
            for column, phase in (("right after pruning", "pruned"), ("recalibrated", "recalibrated"))
        }
        mean, low, high = differences[name][1] if name in differences else (None, None, None)
        rows.append(
            {"arm": name, "what it does": recipes.ABLATION[name]}
            | phases
            | {
                "in the end": spread([run.val_accuracy for run in group]),
                "minus pruned": "" if mean is None else f"{mean:+.2f}",
                "95 % interval": measures.bounds(low, high),
                "verdict": "" if low is None else "better" if low > 0 else "worse" if high < 0 else "not told apart",
            }
        )
    return pd.DataFrame(rows)


def scratch_verdict() -> str:
    """What the ablation says of pruning against the same widths trained from scratch with the same soft targets."""
    each, (mean, low, high) = comparisons.minus("pruned", stages.ablation())["scratch_distilled"]
    if low is not None and low > 0:
        words = "at this budget training the same widths from scratch did better than pruning"
    elif high is not None and high < 0:
        words = "at this budget pruning did better than training the same widths from scratch"
    else:
        words = "at this budget nothing shows that pruning does better than training the same widths from scratch"
    higher = sum(one > 0 for one in each)
    return f"{words}: from scratch {higher} of {len(each)} seeds end higher, {mean:+.2f} points on average"


def differences() -> dict:
    return comparisons.difference_plot("pruned", stages.ablation(), recipes.ABLATION) | {"note": note()}


def norms() -> dict:
    """Norms of every group's channels in order of size, before and after sparse learning; first seed of `pruned`."""
    run = stages.ablation()["pruned"][0]
    found = runs.read_json(run.folder / "group_norms.json")
    widths = tuple(len(group) for group in found["before"])
    left = pruning.narrowed(widths, run.recipe["ratio"])
    return {
        "names": pruning.group_names(),
        "before": [rounded(sorted(group)) for group in found["before"]],
        "after": [rounded(sorted(group)) for group in found["after"]],
        "removed": [width - kept for width, kept in zip(widths, left, strict=True)],
        "note": f"{run.name}: {run.recipe['sparse']['epochs']} epochs of {run.recipe['images']:,} images",
    }


def frontier_note() -> str:
    """What was spent on each run of the frontier."""
    first = next(iter(stages.frontier().values()))[0].recipe
    return f"{first['sparse']['epochs']} + {first['fit']['epochs']} epochs of {first['images']:,} images"


def frontier_table() -> pd.DataFrame:
    """Pruning ratio -> size, cost and validation accuracy; the distilled network, not pruned, is the first row."""
    speeds = {row["name"]: row["median"] for row in runs.bench()["rows"]}
    found = {0.0: seeds("distilled")} | stages.frontier()
    rows = []
    for ratio, group in found.items():
        network = networks.ResNet14(pruning.narrowed(networks.WIDTHS, ratio)).eval()
        macs, parameters = tp.utils.count_ops_and_params(network, torch.zeros(1, 3, 28, 28))
        latency = speeds.get("ResNet-14, one image" if ratio == 0 else f"pruned by {ratio:g}, one image")
        rows.append(
            {
                "ratio": f"{ratio:g}",
                "widths": "/".join(map(str, network.widths)),
                "parameters": f"{parameters:,}",
                "MACs": f"{macs / 1e6:.1f} M",
                "on disk": f"{len(save(network.state_dict())) / 1e3:.0f} kB",
                "one image": f"{latency:.2f} ms" if latency else "not measured",
                "right after pruning": "" if ratio == 0 else spread([at_phase(run, "pruned") for run in group]),
                "in the end": spread([run.val_accuracy for run in group]),
                "seeds": len(group),
            }
        )
    return pd.DataFrame(rows)


def frontier() -> dict:
    """Accuracy against parameters: the short runs, the delivered recipe's, and what others report."""
    found = stages.frontier()
    final = seeds("compressed")
    read = [run.test_accuracy for run in final if run.test_accuracy is not None]
    return {
        "parameters": [group[0].metrics["parameters"] for group in found.values()],
        "ratios": list(found),
        "validation": [[run.val_accuracy for run in group] for group in found.values()],
        "note": f"pruned distilled network, {frontier_note()}: validation",
        "delivered": {
            "parameters": final[0].metrics["parameters"],
            "validation": [run.val_accuracy for run in final],
            "test": read,
        },
        "limit": grading.LIMIT,
        "public": [dict(zip(("name", "parameters", "accuracy", "chosen"), one, strict=True)) for one in PUBLIC],
    }
