"""Notebook 03: the accuracy on the way of a compression, what of it matters, what each share of the channels costs."""

import textwrap
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from matplotlib.figure import Figure
from safetensors.torch import save

from hw2 import networks, pruning
from hw2.assignment import LIMIT
from hw2.experiments import catalogue
from hw2.files import read_json
from hw2.report import style
from hw2.report.nb01_teacher import curve
from hw2.report.nb02_distillation import DIFFERENCE, at_phase, budget, differences, study_rows
from hw2.report.source import Source
from hw2.report.statistics import rounded, verdict
from hw2.report.style import beside, distinct, draw_curves, draw_rows, panels, percent, plot, table

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
    """Validation accuracies after each phase of compression over the seeds, with sparse learning and without."""
    runs = source.runs("compressed")
    return [
        {"phase": words, "with sparse learning": at_phase(runs, name), "without": at_phase(runs, other)}
        for words, name, other in PHASES
    ]


def draw_phases(data: dict) -> Figure:
    figure, ax = panels((8, 3.8))
    for offset, (line, colour, marker) in zip((8, -14), distinct(data["lines"]), strict=True):
        ax.plot(line["place"], line["value"], color=colour, marker=marker, label=line["name"])
        for number, value in zip(line["place"], line["value"], strict=True):
            if offset > 0 or number:  # both begin at the same point
                beside(ax, f"{value:.1%}", (number, value), (0, offset), colour, ha="center")
    ax.set_xticks(range(len(data["names"])), data["names"])
    ax.set(ylabel="validation accuracy", ylim=(-0.08, 1.1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    percent(ax.yaxis)
    return figure


@plot(draw_phases, "Validation accuracy before pruning, after it, recalibrated, fine-tuned.", "compressed")
def phases(source: Source) -> dict:
    """names; lines, a list of {name, place, value}: accuracies of the delivered run at some of the names."""
    run, lines = source.run("compressed"), []
    for name, column in (("with sparse learning (the delivered network)", 1), ("pruned without sparse learning", 2)):
        place = [number for number, phase in enumerate(PHASES) if phase[column]]
        lines.append({"name": name, "place": place, "value": [run.at_phase(PHASES[n][column]) for n in place]})
    return {"names": [textwrap.fill(words, 12) for words, _, _ in PHASES], "lines": lines}


@plot(draw_curves, "Loss and validation accuracy through sparse learning and fine-tuning.", "compressed")
def compressed_curves(source: Source) -> dict:
    run = source.run("compressed")
    marks = [[run.recipe.sparse.epochs + 0.5, "pruned"]]
    return {"arms": [curve(run, "sparse learning, then fine-tuning")], "marks": marks}


def draw_norms(data: dict) -> Figure:
    figure, axes = panels((9, 2.2 * 3 + 0.5), 3, 3)
    for ax, group in zip(axes.flat, data["groups"], strict=True):
        place = np.arange(1, len(group["before"]) + 1)
        ax.axvspan(0.5, group["removed"] + 0.5, color="#eeeeee", lw=0)
        ax.plot(place, group["before"], color=style.VERMILION, ls="--", label="before sparse learning")
        ax.plot(place, group["after"], color=style.BLUE, label="after")
        ax.set_title(group["name"], fontsize=9)
        ax.set(xlim=(0.5, len(place) + 0.5), ylim=(0, None))
    axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.supxlabel("channels, weakest first", fontsize=10)
    figure.supylabel("norm, as a share of the group's root mean square", fontsize=10)
    figure.suptitle(data["note"], fontsize=10, color=style.GREY)
    return figure


@plot(draw_norms, "Channels' norms by group, in order of size, before and after sparse learning.", "pruned")
def norms(source: Source) -> dict:
    """groups, a list of {name, before, after (norms in order of size), removed (channels)}; note. The first seed's."""
    run, groups = source.run("pruned"), []
    found = run.group_norms
    for name, before, after in zip(pruning.group_names(), found["before"], found["after"], strict=True):
        removed = len(before) - pruning.narrowed((len(before),), run.recipe.ratio)[0]
        sizes = {"before": rounded(sorted(before)), "after": rounded(sorted(after))}
        groups.append({"name": name, **sizes, "removed": removed})
    note = f"{run.name}: {run.recipe.sparse.epochs} epochs of {run.recipe.images:,} images; grey: channels that leave"
    return {"groups": groups, "note": note}


def ablation_note(source: Source) -> str:
    """What was spent on each run of the ablation, counted from the first random weights."""
    runs, parent = source.runs("pruned"), source.run(catalogue.row("pruned").parent).recipe
    epochs = parent.fit.epochs + runs[0].recipe.sparse.epochs + runs[0].recipe.fit.epochs
    return f"{budget(epochs, runs[0].recipe.images, len(runs))} an arm"


@plot(draw_rows, "Validation accuracy of the ablation's arms minus the whole recipe's.", "ablation")
def ablation(source: Source) -> dict:
    return differences(source.group("ablation"), ablation_note(source))


@table("ablation", **DIFFERENCE, verdict=verdict)
def ablation_rows(source: Source) -> list[dict]:
    phases = {"right after pruning": "pruned", "recalibrated": "recalibrated"}
    return [row | {"verdict": row["95 % interval"]} for row in study_rows(source.group("ablation"), **phases)]


def frontier_note(source: Source) -> str:
    """What was spent on each run of the frontier."""
    first = next(iter(source.group("frontier").values()))[0].recipe
    return f"{first.sparse.epochs} + {first.fit.epochs} epochs of {first.images:,} images"


@table("frontier", **{"MACs": lambda macs: f"{macs / 1e6:.1f} M", "on disk": lambda size: f"{size / 1e3:.0f} kB"})
def frontier_rows(source: Source) -> list[dict]:
    """Ratio, size, cost and validation accuracies; the distilled network, not pruned, is the first row."""
    rows = []
    for runs in (source.runs("distilled"), *source.group("frontier").values()):
        ratio = getattr(runs[0].recipe, "ratio", None)
        network = networks.ResNet14(pruning.narrowed(networks.WIDTHS, ratio or 0.0)).eval()
        macs, parameters = tp.utils.count_ops_and_params(network, torch.zeros(1, 3, 28, 28))
        row = {"ratio": "not pruned" if ratio is None else ratio, "widths": "/".join(map(str, network.widths))}
        row |= {"parameters": parameters, "MACs": macs, "on disk": len(save(network.state_dict()))}
        row |= {"right after pruning": at_phase(runs, "pruned"), "in the end": [run.val_accuracy for run in runs]}
        rows.append(row | {"seeds": len(runs)})
    return rows


def public() -> list[dict]:
    """What others published: name, parameters, test accuracy, source, and whether the test set chose it (`best`)."""
    return read_json(Path(__file__).with_name("public.json"))["results"]


@table("others", **{"test accuracy": "{:.2%}".format})
def other_rows(source: Source) -> list[dict]:
    """What others published: their own numbers, and whether the test set chose the epoch or the run."""
    rows = []
    for one in public():
        row = {"result": one["name"], "parameters": one["parameters"], "test accuracy": one["accuracy"]}
        rows.append(row | {"chosen by the test set": "yes" if one["best"] else "no", "source": one["source"]})
    return rows


def draw_frontier(data: dict) -> Figure:
    figure, ax = panels((7.5, 4.2))
    ax.plot(data["parameters"], [np.mean(each) for each in data["validation"]], color=style.BLUE, marker="o", ms=6)
    points = zip(data["ratio"], data["parameters"], data["validation"], strict=True)
    for number, (ratio, count, each) in enumerate(points):
        ax.plot([count] * len(each), each, ls="", marker="_", color=style.BLUE, ms=9)
        beside(ax, f"ratio {ratio:g}", (count, np.mean(each)), (0, -18 if number % 2 else 12), style.BLUE, ha="center")
    ax.axvline(data["limit"], color=style.GREY, ls="--", lw=1)
    beside(ax, "the limit", (data["limit"], 0.02), (-4, 0), xycoords=("data", "axes fraction"), ha="right")
    ticks = (20_000, 50_000, 100_000, 200_000)
    ax.set(xscale="log", xlabel="parameters", ylabel="validation accuracy")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set_title(data["note"], fontsize=9, color=style.GREY)
    percent(ax.yaxis, 1)
    return figure


@plot(draw_frontier, "Validation accuracy against parameters, by pruning ratio.", "frontier")
def frontier(source: Source) -> dict:
    """ratio, parameters and validation (over the seeds) of each pruned network; limit, of the homework; note."""
    columns = {"ratio": "ratio", "parameters": "parameters", "validation": "in the end"}
    rows = frontier_rows(source)[1:]
    found = {name: [row[column] for row in rows] for name, column in columns.items()}
    return found | {"limit": LIMIT, "note": f"the distilled network, pruned: {frontier_note(source)}"}
