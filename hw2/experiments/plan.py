"""What is to be trained, in which order, and the time that it takes."""

import sys

from hw2.errors import InputError
from hw2.experiments import search
from hw2.experiments.catalogue import EXPERIMENTS, Recipes
from hw2.experiments.recipes import Recipe
from hw2.experiments.store import Store, delivered_profile

SEARCH = ("search", 0)
Task = tuple[str, int]  # an experiment and a seed, or SEARCH


def needs(name: str, seed: int, recipes: Recipes) -> list[Task]:
    """What must be finished before, in an order in which it can be trained."""
    if (name, seed) == SEARCH:
        return [("teacher", 0)]
    row = EXPERIMENTS[name]
    needed = [recipes.teacher(name, seed)] if row.teacher else []
    needed += [SEARCH] if row.setting else []
    if row.setting == "chosen":
        needed += [(finalist, number) for finalist in recipes.names("finalists") for number in recipes.seeds(finalist)]
    return needed + ([(row.parent, seed)] if row.parent else [])


def before(name: str, seed: int, recipes: Recipes) -> list[Task]:
    """What it needs, what that needs, and so on, in an order in which it can be trained."""
    order: dict[Task, None] = {}
    for task in needs(name, seed, recipes):
        order |= dict.fromkeys([*before(*task, recipes), task])
    return list(order)


def tasks(recipes: Recipes) -> list[Task]:
    """Everything that the profile trains, none before what it needs."""
    order: dict[Task, None] = {}
    for name in recipes.names():
        for seed in recipes.seeds(name):
            order |= dict.fromkeys([*before(name, seed, recipes), (name, seed)])
    return list(order)


def finished(name: str, seed: int, store: Store) -> bool:
    """Whether its run, or the search, is there as today's recipe makes it."""
    try:
        return len(store.trials) > 0 if (name, seed) == SEARCH else bool(store.require(name, seed))
    except InputError:
        return False


def hours(todo: list[Task], recipes: Recipes, last: Recipe | None = None) -> list[float]:
    """Hours of one core that each task takes, from the delivered runs' seconds. `last`: recipe of the last task."""
    delivered, estimates = Store(delivered_profile() or recipes.profile), []
    runs = {name: delivered.require(name) for name in ("teacher", "plain")}
    rates = {name: run.core_hours / _images(run.recipe) for name, run in runs.items()}
    for name, seed in todo:
        if (name, seed) == SEARCH:
            grid = recipes.tuning()
            images = len(search.settings(grid)) * _images(grid)
        else:
            images = _images(last if last and (name, seed) == todo[-1] else recipes.recipe(name, seed))
        estimates.append(images * rates["teacher" if name == "teacher" else "plain"])
    return estimates


def _images(recipe: Recipe) -> int:
    return sum(fit.epochs for fit in recipe.fits) * recipe.images


def announce(todo: list[Task], profile: str, last: Recipe) -> None:
    """Print what is about to be trained and its hours, where it takes more than minutes. `last`: as for `hours`."""
    try:
        total = sum(hours(todo, Recipes(profile), last))
    except InputError:  # there are no delivered runs to judge by
        return
    (name, seed), count = todo[-1], len(todo) - 1
    if total >= 0.1:
        label = f"{name}, seed {seed}" + (f", and {count} before it" if count else "")
        print(f"hw2: trains {label}: about {total:.1f} hours of one core", file=sys.stderr)


def estimate(profile: str) -> str:
    """The hours of the profile's walk, a line a group and their sum."""
    recipes, totals = Recipes(profile), {}
    todo = tasks(recipes)
    for task, value in zip(todo, hours(todo, recipes), strict=True):
        group = "search" if task == SEARCH else EXPERIMENTS[task[0]].group
        totals[group] = totals.get(group, 0) + value
    lines = [f"{group:10} {value:8.1f} h" for group, value in (totals | {"in all": sum(totals.values())}).items()]
    return "\n".join([f"profile {profile}, hours of one core:", *lines])
