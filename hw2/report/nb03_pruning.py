"""Notebook 03: the accuracy on the way of a compression, what matters, what each ratio costs."""

from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from safetensors.torch import save

from hw2 import networks, pruning
from hw2.assignment import LIMIT
from hw2.experiments.store import Store
from hw2.files import read_json
from hw2.report.comparisons import (
    DIFFERENCE,
    INTERVALS,
    LOSS,
    at_phase,
    draw_study,
    epochs,
    study_rows,
)
from hw2.report.nb02_distillation import budget
from hw2.report.style import BLUE, GREY, VERMILION, panels, percent, plot, table

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


def ablation_note(store: Store) -> str:
    """What was spent on each run of the ablation, counted from the first random weights."""
    runs = store.runs("pruned")
    return f"{budget(epochs(store, 'pruned'), runs[0].recipe.images, len(runs))} an arm"


@plot(f"Validation accuracy of each arm minus the whole recipe's. {INTERVALS}")
def ablation(store: Store) -> Figure:
    return draw_study(store.group("ablation"), ablation_note(store))


@table("ablation", **DIFFERENCE, **LOSS)
def ablation_rows(store: Store) -> list[dict]:
    phases = {"right after pruning": "pruned", "recalibrated": "recalibrated"}
    return study_rows(store.group("ablation"), **phases)


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
            "ratio": "not pruned" if ratio is None else ratio,
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
    """What others published: name, parameters, test accuracy, whether the test set chose it
    (`chosen`: yes, no or unknown), and the address of the source.
    """
    return read_json(Path(__file__).with_name("public.json"))["results"]


@table("others", **{"test accuracy": "{:.2%}".format})
def other_rows(store: Store) -> list[dict]:
    rows = []
    for result in public():
        row = {
            "result": result["name"],
            "parameters": result["parameters"],
            "test accuracy": result["accuracy"],
            "chosen by the test set": result["chosen"],
            "source": result["source"],
        }
        rows.append(row)
    return rows


@plot("Validation accuracy against parameters. The dashed line is the limit.")
def frontier(store: Store) -> Figure:
    pruned = [
        (row["parameters"], row["in the end"], f"ratio {row['ratio']:g}")
        for row in frontier_rows(store)[1:]
    ]
    chain = [
        (runs[0].parameters, [run.val_accuracy for run in runs], name)
        for name, runs in store.group("chain").items()
        if name != "teacher"
    ]
    figure, ax = panels((7, 4))
    series = (("by ratio, few epochs", pruned, BLUE), ("this chain", chain, VERMILION))
    for words, points, colour in series:
        sizes = [size for size, _, _ in points]
        for number, (size, accuracies, text) in enumerate(points):
            label = None if number else words
            ax.plot(size, np.mean(accuracies), "o", color=colour, label=label)
            if len(accuracies) > 1:
                ax.plot([size] * len(accuracies), accuracies, "_", color=colour)
            # texts of points with as many parameters stand left, right, left
            right = sizes[:number].count(size) % 2
            offset, side = ((6, -3), "left") if right else ((-6, -3), "right")
            ax.annotate(
                text,
                (size, np.mean(accuracies)),
                xytext=offset,
                textcoords="offset points",
                color=colour,
                fontsize=8,
                ha=side,
            )
    ax.axvline(LIMIT, color=GREY, ls="--", lw=1)
    ax.text(LIMIT * 1.02, ax.get_ylim()[0], f"limit {LIMIT:,}", color=GREY, fontsize=8, va="bottom")
    ax.set(xscale="log", xlim=(7_000, 400_000), xlabel="parameters", ylabel="validation accuracy")
    ticks = (10_000, 30_000, 100_000, 300_000)
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(MultipleLocator(0.005))
    percent(ax.yaxis, 1)
    ax.legend(loc="upper left", fontsize=8)
    note = f"by ratio: {frontier_note(store)}; short dashes are seeds"
    figure.suptitle(note, fontsize=9, color=GREY)
    return figure
