"""Notebook 02: the search, its finalists, the arms."""

from matplotlib.figure import Figure

from hw2.experiments.store import Store, finalists
from hw2.report import comparisons
from hw2.report.style import heat, plot, table


@plot("The search: validation accuracy by temperature and alpha, over the seeds.")
def tuning(store: Store) -> Figure:
    total = store.require("teacher").metrics["val_total"]
    trials = store.trials[store.trials.alpha > 0]  # labels alone are a control
    cells = trials.assign(accuracy=trials.val_correct / total).groupby(["T", "alpha"]).accuracy
    accuracy = cells.mean().unstack()
    deviation = cells.std().unstack()
    chosen = finalists(trials)
    seeds = trials.seed.nunique()
    middle = (accuracy.min(axis=None) + accuracy.max(axis=None)) / 2
    texts = {}
    for row, temperature in enumerate(accuracy.index):
        for column, alpha in enumerate(accuracy.columns):
            value = accuracy.iloc[row, column]
            text = f"{value:.2%}"
            if seeds > 1:
                text += f"\n± {100 * deviation.iloc[row, column]:.2f}"
            if (temperature, alpha) in chosen:
                text += "\nfinalist"
            texts[row, column] = text, value > middle
    rows = [f"{value:g}" for value in accuracy.index], "temperature"
    columns = [f"{value:g}" for value in accuracy.columns], "alpha, weight of the KL term"
    figure = heat(accuracy, texts, rows, columns, "viridis", "validation accuracy")
    tuning = store.tuning
    spent = f"{tuning.fit.epochs} epochs of {tuning.images:,} images, {seeds} seeds"
    figure.axes[0].set_title(f"validation accuracy; {spent} a setting", fontsize=9)
    return figure


@table("finalists")
def finalist_rows(store: Store) -> list[dict]:
    """Validation accuracies of each finalist over the seeds, in its trials and its longer runs."""
    trials, total = store.trials, store.require("teacher").metrics["val_total"]
    rows = []
    for runs in store.group("finalists").values():
        temperature, alpha = runs[0].recipe.temperature, runs[0].recipe.alpha
        short = trials[(trials["T"] == temperature) & (trials.alpha == alpha)].val_correct / total
        rows.append(
            {
                "setting": f"T = {temperature:g}, alpha = {alpha:g}",
                "short trials": short.tolist(),
                "trained longer": [run.val_accuracy for run in runs],
            }
        )
    return rows


@table("arms", **comparisons.DIFFERENCE, **comparisons.LOSS)
def arm_rows(store: Store) -> list[dict]:
    return comparisons.study_rows(store.group("arms"))


@plot(f"Validation accuracy of each arm minus KD of averaged targets. {comparisons.INTERVALS}")
def arm_differences(store: Store) -> Figure:
    return comparisons.draw_study(store, "arms")
