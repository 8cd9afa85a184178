"""Notebook 03: the accuracy on the way of a compression, what matters, what each ratio costs."""

from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from matplotlib.figure import Figure
from safetensors.torch import save

from hw2 import networks, pruning
from hw2.assignment import LIMIT
from hw2.experiments.store import Store
from hw2.files import read_json
from hw2.report import comparisons
from hw2.report.comparisons import at_phase
from hw2.report.style import BLUE, GREY, panels, percent, plot, table

#: phases of compression in words; their counts in metrics.json, and those without sparse learning
PHASES = (
    ("distilled", "distilled", "distilled"),
    ("after sparse learning", "sparse", None),
    ("right after pruning", "pruned", "pruned_without_sparse_learning"),
    ("BatchNorm recalibrated", "recalibrated", "recalibrated_without_sparse_learning"),
    ("fine-tuned", "fine_tuned", None),
)


@table("phases")
def phase_rows(store: Store) -> list[dict]:
    """Validation accuracies over the seeds after each phase, with sparse learning and without."""
    runs = store.runs("compressed")
    return [
        {
            "phase": words,
            "with sparse learning": at_phase(runs, name),
            "without": at_phase(runs, control),
        }
        for words, name, control in PHASES
    ]


@plot(f"Validation accuracy of each arm minus the whole recipe's. {comparisons.INTERVALS}")
def ablation(store: Store) -> Figure:
    return comparisons.draw_study(store, "ablation")


@table("ablation", **comparisons.DIFFERENCE, **comparisons.LOSS)
def ablation_rows(store: Store) -> list[dict]:
    phases = {"right after pruning": "pruned", "recalibrated": "recalibrated"}
    return comparisons.study_rows(store.group("ablation"), **phases)


def frontier_note(store: Store) -> str:
    """What was spent on each run of the frontier."""
    first = next(iter(store.group("frontier").values()))[0].recipe
    return f"{first.sparse.epochs} + {first.fit.epochs} epochs of {first.images:,} images"


def cost(widths: tuple[int, ...]) -> dict[str, int]:
    """Parameters of a ResNet-14, and Torch-Pruning's count of multiply-adds for one image."""
    macs, parameters = tp.utils.count_ops_and_params(
        networks.ResNet14(widths).eval(), torch.zeros(1, 3, 28, 28)
    )
    return {"parameters": parameters, "MACs": int(macs)}


@table(
    "frontier",
    **{"MACs": lambda macs: f"{macs / 1e6:.1f} M", "on disk": lambda size: f"{size / 1e3:.0f} kB"},
)
def frontier_rows(store: Store) -> list[dict]:
    """Ratio, size, cost and validation accuracies; the distilled network is the first row."""
    rows = []
    for runs in (store.runs("distilled"), *store.group("frontier").values()):
        ratio = runs[0].recipe.ratio
        widths = pruning.narrowed(networks.WIDTHS, ratio or 0.0)
        row = {
            "ratio": "before pruning" if ratio is None else ratio,
            "widths": "/".join(map(str, widths)),
        }
        row |= cost(widths) | {"on disk": len(save(networks.ResNet14(widths).state_dict()))}
        row |= {
            "right after pruning": at_phase(runs, "pruned"),
            "in the end": [run.val_accuracy for run in runs],
        }
        rows.append(row | {"seeds": len(runs)})
    return rows


def public() -> list[dict]:
    """What others published; `chosen`: whether the test set chose it (yes, no or unknown)."""
    return read_json(Path(__file__).with_name("public.json"))["results"]


@table("others", **{"test accuracy": "{:.2%}".format})
def other_rows(store: Store) -> list[dict]:
    return [
        {
            "result": result["name"],
            "parameters": result["parameters"],
            "test accuracy": result["accuracy"],
            "chosen by the test set": result["chosen"],
            "source": result["source"],
        }
        for result in public()
    ]


@plot("Validation accuracy of each ratio against parameters; short dashes are seeds.")
def frontier(store: Store) -> Figure:
    figure, ax = panels((7, 2.8))
    for row in frontier_rows(store)[1:]:
        size, accuracies = row["parameters"], row["in the end"]
        ax.plot(size, np.mean(accuracies), "o", color=BLUE)
        ax.plot([size] * len(accuracies), accuracies, "_", color=BLUE)
        side, place = ("left", size * 1.03) if size > LIMIT else ("right", size * 0.97)
        words = {"color": BLUE, "fontsize": 8, "ha": side, "va": "center"}
        ax.text(place, np.mean(accuracies), f"ratio {row['ratio']:g}", **words)
    ax.axvline(LIMIT, color=GREY, ls="--", lw=1)
    ax.text(LIMIT * 1.02, ax.get_ylim()[0], f"limit {LIMIT:,}", color=GREY, fontsize=8, va="bottom")
    ax.set(xscale="log", xlabel="parameters", ylabel="validation accuracy")
    ax.margins(x=0.15)
    ticks = (10_000, 30_000, 100_000)
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    percent(ax.yaxis, 1)
    ax.set_title(frontier_note(store), fontsize=9, color=GREY)
    return figure
