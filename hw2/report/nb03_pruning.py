"""Notebook 03: the accuracy on the way of a compression, what of it matters, what each share of the
channels costs.
"""

import textwrap
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from matplotlib.figure import Figure
from safetensors.torch import save

from hw2 import networks, pruning
from hw2.assignment import LIMIT, NARROW
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.files import read_json
from hw2.report import style
from hw2.report.comparisons import (
    DIFFERENCE,
    INTERVALS,
    LOSS,
    at_phase,
    draw_forest,
    forest_of_study,
    study_rows,
)
from hw2.report.nb01_teacher import curve
from hw2.report.nb02_distillation import budget
from hw2.report.source import Source
from hw2.report.statistics import rounded
from hw2.report.style import (
    beside,
    distinct,
    draw_boxes,
    draw_curves,
    panels,
    percent,
    plot,
    table,
)

#: phases of compression in words; their counts in metrics.json, and those without sparse learning
PHASES = (
    ("distilled", "distilled", "distilled"),
    ("after sparse learning", "sparse", None),
    ("right after pruning", "pruned", "pruned_without_sparse_learning"),
    ("BatchNorm recalibrated", "recalibrated", "recalibrated_without_sparse_learning"),
    ("fine-tuned", "fine_tuned", None),
)


@table("phases")
def phase_rows(source: Source) -> list[dict]:
    """Validation accuracies after each phase of compression over the seeds, with sparse learning
    and without.
    """
    runs = source.runs("compressed")
    return [
        {
            "phase": words,
            "with sparse learning": at_phase(runs, name),
            "without": at_phase(runs, control),
        }
        for words, name, control in PHASES
    ]


def draw_phases(data: dict) -> Figure:
    figure, ax = panels((8, 3.8))
    for offset, (line, colour, marker) in zip((8, -14), distinct(data["lines"]), strict=True):
        ax.plot(line["place"], line["value"], color=colour, marker=marker, label=line["name"])
        for number, value in zip(line["place"], line["value"], strict=True):
            if offset > 0 or number:  # both begin at the same point
                beside(ax, f"{value:.1%}", (number, value), (0, offset), colour, ha="center")
    ax.set_xticks(range(len(data["names"])), data["names"])
    ax.set_yscale("logit")  # or 92 % and 94 % would lie on each other
    ax.set(ylabel="validation accuracy", ylim=(0.05, 0.97))
    ax.set_yticks([0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
    ax.minorticks_off()
    percent(ax.yaxis)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@plot(
    draw_phases,
    "Validation accuracy of seed 0 after each phase of the compression, on a logit scale.",
)
def phases(source: Source) -> dict:
    """names; lines, a list of {name, place, value}: accuracies of the delivered run at some of the
    names.
    """
    run, lines = source.run("compressed"), []
    for name, column in (
        ("with sparse learning (the delivered network)", 1),
        ("pruned without sparse learning", 2),
    ):
        place = [number for number, phase in enumerate(PHASES) if phase[column]]
        value = [run.at_phase(PHASES[number][column]) for number in place]
        row = "compressed" if column == 1 else None
        lines.append({"name": name, "row": row, "place": place, "value": value})
    return {"names": [textwrap.fill(words, 12) for words, _, _ in PHASES], "lines": lines}


@plot(draw_curves, "Sparse learning, then fine-tuning, by epoch. Grey: the learning rate.")
def compressed_curves(source: Source) -> dict:
    run = source.run("compressed")
    mark = [run.recipe.sparse.epochs + 0.5, "pruned"]
    return {"arms": [curve([run], "sparse learning, then fine-tuning", "lr")], "mark": mark}


def draw_norms(data: dict) -> Figure:
    figure, axes = panels((9, 2.2 * 3 + 0.5), 3, 3)
    for ax, group in zip(axes.flat, data["groups"], strict=True):
        place = np.arange(1, len(group["before"]) + 1)
        ax.axvspan(0.5, group["removed"] + 0.5, color="#eeeeee", lw=0)
        ax.plot(
            place, group["before"], color=style.VERMILION, ls="--", label="before sparse learning"
        )
        ax.plot(place, group["after"], color=style.BLUE, label="after")
        ax.set_title(group["name"], fontsize=9)
        ax.set(xlim=(0.5, len(place) + 0.5), ylim=(0, None))
    axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.supxlabel("channels, weakest first", fontsize=10)
    figure.supylabel("norm, relative to the group's root mean square", fontsize=10)
    figure.suptitle(data["note"], fontsize=10, color=style.GREY)
    return figure


@plot(draw_norms, "Norms of a group's channels before and after sparse learning. Grey: they leave.")
def norms(source: Source) -> dict:
    """groups, a list of {name, before, after (norms in order of size), removed (channels)}; note.

    The first seed's.
    """
    run, groups = source.run("compressed"), []
    group_norms = run.group_norms
    for name, before, after in zip(
        pruning.group_names(), group_norms["before"], group_norms["after"], strict=True
    ):
        removed = len(before) - pruning.narrowed((len(before),), run.recipe.ratio)[0]
        sizes = {"before": rounded(sorted(before)), "after": rounded(sorted(after))}
        groups.append({"name": name, **sizes, "removed": removed})
    note = f"{run.name}: {run.recipe.sparse.epochs} epochs of {run.recipe.images:,} images"
    return {"groups": groups, "note": note}


@plot(
    draw_boxes,
    "A group of ResNet-14: convolutions that make its channels, and those that take them in.",
)
def group(source: Source) -> dict:
    """boxes and arrows of the largest group: a channel leaves all of these convolutions.

    Or none.
    """
    network = networks.ResNet14()
    names, sides = {module: name for name, module in network.named_modules()}, []
    largest = max(pruning.groups(pruning.pruner(network, 0.0)), key=len)
    for handler in (tp.prune_conv_out_channels, tp.prune_conv_in_channels):
        sides.append(
            [names[step.dep.target.module] for step in largest if step.dep.handler == handler]
        )
    width = network.get_submodule(sides[0][0]).out_channels
    boxes = [
        {"text": f"one of {width} channels,\nadded by shortcuts", "place": [1, 0], "main": True}
    ]
    for x, side in ((0, sides[0]), (2, sides[1])):
        for number, name in enumerate(side):
            boxes.append({"text": name, "place": [x, (len(side) - 1) / 2 - number], "main": False})
    arrows = [
        [number, 0, ""] if number <= len(sides[0]) else [0, number, ""]
        for number in range(1, len(boxes))
    ]
    return {"boxes": boxes, "arrows": arrows}


def draw_sensitivity(data: dict) -> Figure:
    figure, axes = panels((9, 3.6), 1, 2, sharey=True)
    for ax, kind in zip(axes, ("shortcuts", "convolutions"), strict=True):
        for group in sorted(data["groups"], key=lambda group: group["name"]):
            layer, _, place = group["name"].partition(", ")
            stage = int(layer[5]) - 1  # layer1.0
            line = {
                "color": style.COLOURS[stage],
                "marker": style.MARKERS[stage],
                "ls": "--" if ".1" in layer else "-",
            }
            if place.endswith(kind):
                ax.plot(data["ratios"], group["accuracy"], label=layer, **line)
        ax.set(
            xlabel="share of the group's channels removed", title=f"Groups {data['kinds'][kind]}"
        )
        ax.legend(loc="lower left")
        percent(ax.xaxis)
        percent(ax.yaxis)
    axes[0].set_ylabel("validation accuracy")
    return figure


@plot(
    draw_sensitivity,
    "Validation accuracy with one group pruned alone. Nothing is trained or recalibrated.",
)
def sensitivity(source: Source) -> dict:
    """ratios, from 0; groups, a list of {name, accuracy (by ratio)}; kinds, in words: of the first
    seed's network.
    """
    run, total = source.run("distilled"), source.run("distilled").metrics["val_total"]
    results = zip(pruning.group_names(), run.sensitivity["correct"], strict=True)
    groups = [
        {"name": name, "accuracy": [run.val_accuracy, *(n / total for n in counts)]}
        for name, counts in results
    ]
    kinds = {"shortcuts": "added by shortcuts", "convolutions": "between two convolutions"}
    return {"ratios": [0, *run.sensitivity["ratios"]], "groups": groups, "kinds": kinds}


def ablation_note(source: Source) -> str:
    """What was spent on each run of the ablation, counted from the first random weights."""
    runs, parent = source.runs("pruned"), source.run(EXPERIMENTS["pruned"].parent).recipe
    epochs = parent.fit.epochs + runs[0].recipe.sparse.epochs + runs[0].recipe.fit.epochs
    return f"{budget(epochs, runs[0].recipe.images, len(runs))} an arm"


@plot(draw_forest, f"Validation accuracy of each arm minus the whole recipe's. {INTERVALS}")
def ablation(source: Source) -> dict:
    return forest_of_study(source.group("ablation"), ablation_note(source))


@table("ablation", **DIFFERENCE, **LOSS)
def ablation_rows(source: Source) -> list[dict]:
    phases = {"right after pruning": "pruned", "recalibrated": "recalibrated"}
    return study_rows(source.group("ablation"), **phases)


def frontier_note(source: Source) -> str:
    """What was spent on each run of the frontier."""
    first = next(iter(source.group("frontier").values()))[0].recipe
    return f"{first.sparse.epochs} + {first.fit.epochs} epochs of {first.images:,} images"


def cost(widths: tuple[int, ...]) -> dict[str, int]:
    """Parameters of a ResNet-14 and its multiply-adds for one image.

    As Torch-Pruning counts them.
    """
    macs, parameters = tp.utils.count_ops_and_params(
        networks.ResNet14(widths).eval(), torch.zeros(1, 3, 28, 28)
    )
    return {"parameters": parameters, "MACs": int(macs)}


@table("cost")
def cost_rows(source: Source) -> list[dict]:
    """ResNet-14 against the pruned network; times are the bench's medians, their ratio the median
    of its rounds.
    """
    whole, narrow = cost(networks.WIDTHS), cost(NARROW)
    rows = [{"": name, "ResNet-14": whole[name], "pruned": narrow[name]} for name in whole]
    rows = [row | {"ratio": row["pruned"] / row["ResNet-14"]} for row in rows]
    large, small = (row for row in source.bench["rows"] if row["unit"] == "ms")
    time = {
        "": "ms for one image",
        "ResNet-14": large["median"],
        "pruned": small["median"],
        "ratio": small["ratio"],
    }
    return [*rows, time]


@table(
    "frontier",
    **{"MACs": lambda macs: f"{macs / 1e6:.1f} M", "on disk": lambda size: f"{size / 1e3:.0f} kB"},
)
def frontier_rows(source: Source) -> list[dict]:
    """Ratio, size, cost and validation accuracies; the distilled network, not pruned, is the first
    row.
    """
    rows = []
    for runs in (source.runs("distilled"), *source.group("frontier").values()):
        ratio = getattr(runs[0].recipe, "ratio", None)
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
def other_rows(source: Source) -> list[dict]:
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


def draw_frontier(data: dict) -> Figure:
    figure, ax = panels((7.5, 4.2))
    ax.plot(
        data["parameters"],
        [np.mean(values) for values in data["validation"]],
        color=style.BLUE,
        marker="o",
        ms=6,
    )
    for ratio, count, values in zip(
        data["ratio"], data["parameters"], data["validation"], strict=True
    ):
        ax.plot([count] * len(values), values, ls="", marker="_", color=style.BLUE, ms=9)
        beside(ax, f"ratio {ratio:g}", (count, np.mean(values)), (6, -12), style.BLUE)
    ax.axvline(data["limit"], color=style.GREY, ls="--", lw=1)
    beside(
        ax,
        "the limit",
        (data["limit"], 0.02),
        (-4, 0),
        xycoords=("data", "axes fraction"),
        ha="right",
    )
    ticks = (20_000, 50_000, 100_000, 200_000)
    ax.set(xscale="log", xlabel="parameters", ylabel="validation accuracy")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set_title(data["note"], fontsize=9, color=style.GREY)
    percent(ax.yaxis, 1)
    return figure


@plot(draw_frontier, "Validation accuracy against parameters, by pruning ratio.")
def frontier(source: Source) -> dict:
    """ratio, parameters and validation (over the seeds) of each pruned network; limit, of the
    homework; note.
    """
    columns = {"ratio": "ratio", "parameters": "parameters", "validation": "in the end"}
    rows = frontier_rows(source)[1:]
    lists = {name: [row[column] for row in rows] for name, column in columns.items()}
    return lists | {
        "limit": LIMIT,
        "note": f"the distilled network, pruned: {frontier_note(source)}; dashes are seeds",
    }
