"""Runs held against others: the chain's pairs by Welch's test, studies by Dunnett's."""

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hw2 import data
from hw2.experiments import catalogue, ledger
from hw2.experiments.catalogue import EXPERIMENTS
from hw2.experiments.run import HISTORY, Metrics, Run
from hw2.experiments.store import Store
from hw2.files import read_csv, read_json
from hw2.report import statistics
from hw2.report.statistics import Difference
from hw2.report.style import BLUE, GREY, VERMILION, panels, table

#: the comparisons of the chain that docs/design.md declares
DECLARED = (
    ("distilled", "plain"),
    ("narrow", "narrow_plain"),
    ("compressed", "scratch"),
    ("compressed", "unpruned"),
    ("compressed", "distilled"),
)


def tested(runs: list[Run]) -> list[float]:
    """Accuracies on the test set, of the runs for which it was read."""
    return [run.test_accuracy for run in runs if run.test_accuracy is not None]


def epochs(store: Store, name: str) -> int:
    """In all, those of the network that it began with included."""
    own = sum(fit.epochs for fit in store.require(name).recipe.fits)
    parent = catalogue.row(name, store.profile).parent
    return own + epochs(store, parent) if parent else own


def losses(runs: list[Run]) -> list[float]:
    """Validation losses after the last epoch."""
    return [float(run.history.val_loss.iloc[-1]) for run in runs]


def at_phase(runs: list[Run], phase: str | None) -> list[float] | None:
    """Validation accuracies after a phase of the compression; None where the runs have none."""
    return [run.at_phase(phase) for run in runs] if phase and "phases" in runs[0].metrics else None


def _values(runs: list[Run], measure: str) -> list[float]:
    """Accuracies in percent, or losses."""
    if measure == "val_loss":
        return losses(runs)
    accuracies = tested(runs) if measure == "test_accuracy" else [run.val_accuracy for run in runs]
    return [100 * accuracy for accuracy in accuracies]


def declared(store: Store, measure: str = "val_accuracy") -> dict[tuple[str, str], Difference]:
    """The declared pairs with values of `measure`: first row minus second, points or losses."""
    known = catalogue.names(store.profile)
    samples = {
        pair: tuple(_values(store.runs(name), measure) for name in pair)
        for pair in DECLARED
        if set(pair) <= set(known)
    }
    samples = {pair: both for pair, both in samples.items() if all(both)}
    return dict(zip(samples, statistics.welch([*samples.values()]), strict=True))


def study(runs: dict[str, list[Run]], measure: str = "val_accuracy") -> dict[str, Difference]:
    """Each other row of a study minus its first, in percentage points or as losses."""
    first, *others = (_values(row, measure) for row in runs.values())
    return dict(zip([*runs][1:], statistics.dunnett(first, others), strict=True))


def compare(
    store: Store, name: str, reference: str, measure: str = "val_accuracy"
) -> Difference | None:
    """A row minus another: of the declared pairs, of a study, or else by Welch's test alone.

    None where the measure is the test set's and was not read for both.
    """
    samples = tuple(_values(store.runs(row), measure) for row in (name, reference))
    if not all(samples):
        return None
    if (name, reference) in DECLARED:
        return declared(store, measure)[name, reference]
    group = EXPERIMENTS[name].group
    if group in ("arms", "ablation") and reference == catalogue.names(store.profile, group)[0]:
        return study(store.group(group), measure)[name]
    return statistics.welch([samples])[0]


#: columns of a table -> how a difference, or losses, are written there
DIFFERENCE = {
    "minus the first": statistics.points,
    "95% interval": statistics.bounds,
    "p": statistics.p_of,
    "detectable": statistics.detectable,
}
LOSS = {"validation loss": statistics.spread_of_losses}
INTERVALS = "Simultaneous 95% intervals by Dunnett's test; filled: a difference was detected."


def study_rows(runs: dict[str, list[Run]], **phases: str) -> list[dict]:
    """Each row of a study: accuracies and losses on validation, and how its accuracy differs from
    the first row's in percentage points.

    `phases`: column -> phase of the compression after which the accuracy is told as well.
    """
    found, rows = study(runs), []
    for name, row in runs.items():
        told = {"arm": name, "what it is": EXPERIMENTS[name].words}
        told |= {column: at_phase(row, phase) for column, phase in phases.items()}
        told |= {"validation": [run.val_accuracy for run in row], "validation loss": losses(row)}
        rows.append(told | dict.fromkeys(DIFFERENCE, found.get(name)))
    return rows


def study_note(store: Store, group: str) -> str:
    """What was spent on each run of a study, its parents' epochs included, and its setting."""
    first, *_ = catalogue.names(store.profile, group)
    runs = store.runs(first)
    recipe = runs[0].recipe
    spent = f"{epochs(store, first)} epochs of {recipe.images:,} images, {len(runs)} seeds an arm"
    return f"{spent}; T = {recipe.temperature:g}, alpha = {recipe.alpha:g}"


def draw_study(store: Store, group: str) -> Figure:
    """A study's differences from its first row."""
    runs = store.group(group)
    words = {name: EXPERIMENTS[name].words for name in runs}
    rows = {words[name]: found for name, found in study(runs).items()}
    return draw_forest({f"minus {words[next(iter(runs))]}": rows}, study_note(store, group))


def draw_forest(groups: dict[str, dict[str, Difference]], note: str = "") -> Figure:
    """heading -> words -> difference in percentage points: intervals under each other."""
    rows = []
    for heading, found in groups.items():
        rows += [(heading, None), *found.items()]
    figure, ax = panels((9, 0.3 * len(rows) + 0.8))
    ax.axvline(0, color=GREY, ls="--", lw=1)
    ax.set_yticks(range(len(rows)), [words for words, _ in rows], fontsize=8)
    ax.tick_params(axis="y", length=0)
    for place, (_, found) in enumerate(rows):
        if found is None:
            ax.get_yticklabels()[place].set_weight("bold")
            continue
        colour = VERMILION if found.detected else BLUE
        if found.low is not None:
            ax.plot([found.low, found.high], [place, place], color=colour, lw=1.5)
        ax.plot(found.mean, place, "o", color=colour, mfc=colour if found.detected else "white")
        beside = ax.get_yaxis_transform()
        ax.text(1.02, place, statistics.told(found), va="center", fontsize=8, transform=beside)
    ax.set(xlabel=f"percentage points of validation accuracy\n{note}", ylim=(len(rows) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@table(
    "pairs",
    **DIFFERENCE,
    **{
        "validation": statistics.points,
        "loss": lambda found: f"{found.mean:+.3f}",
        "test": statistics.points_and_bounds,
        "McNemar's p": statistics.p_value,
    },
)
def pair_rows(store: Store) -> list[dict]:
    """The declared comparisons: differences in percentage points and of validation losses, and
    McNemar's test on the test images.

    A run whose test set was not read stays unread: only its validation counts.
    """
    rows, truth = [], data.fashion_mnist().test_labels
    loss, test = declared(store, "val_loss"), declared(store, "test_accuracy")
    for pair, found in declared(store).items():
        both = [store.runs(name) for name in pair]
        row = {"difference": ", minus ".join(EXPERIMENTS[name].words for name in pair)}
        row["seeds"] = " : ".join(str(len(runs)) for runs in both)
        row |= dict.fromkeys(("validation", "95% interval", "p", "detectable"), found)
        row |= {"loss": loss[pair], "test": test.get(pair)}
        row |= {"more often right": None, "McNemar's p": None}
        if pair in test:
            right = [
                torch.stack([ledger.answers(run) == truth for run in runs if run.test_accuracy])
                for runs in both
            ]
            first, second, row["McNemar's p"] = statistics.mcnemar(*right)
            row["more often right"] = f"{first} : {second}"
        rows.append(row)
    return rows


#: what was tried before docs/design.md fixed the recipe, by 306a0f0; in runs/choices/
CHOICES = {
    "scratch": "none",
    "pad_1": "moved by one pixel",
    "pad_0": "mirrored alone",
    "student_teaches": "taught by a ResNet-14 that is better than the ResNet-50",
    "new_views": "a new view in every epoch",
}


@table("choices", **LOSS)
def choice_rows(store: Store) -> list[dict]:
    """Changes of the network from scratch. Their recipes are of code that is no more."""
    rows = []
    for name, words in CHOICES.items():
        folders = sorted((data.PROJECT / "runs/choices" / name).glob("*"))
        metrics = [read_json(folder / "metrics.json", Metrics) for folder in folders]
        ends = [read_csv(folder / "history.csv", HISTORY).iloc[-1] for folder in folders]
        if folders:
            row = {"change": words, "seeds": len(folders)}
            row["validation"] = [one["val_correct"] / one["val_total"] for one in metrics]
            rows.append(row | {"validation loss": [float(end.val_loss) for end in ends]})
    return rows


def unlike(store: Store, name: str, other: str) -> list[str]:
    """What sets two rows' trainings apart besides what is asked: hardware, learning rate."""
    rows = store.runs(name), store.runs(other)
    machines = [{host["hardware"] for run in row for host in run.environments} for row in rows]
    rates = [row[0].recipe.fit.lr for row in rows]
    differs = {"hardware": machines[0] != machines[1], "learning rate": rates[0] != rates[1]}
    return [words for words in differs if differs[words]]
