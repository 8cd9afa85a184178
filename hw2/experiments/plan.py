"""What is to be trained, in which order, and the time that it takes."""

import sys

from hw2.errors import InputError
from hw2.experiments import catalogue, search, store
from hw2.experiments.recipes import Recipe

SEARCH = ("search", 0)
Task = tuple[str, int]  # an experiment and a seed, or SEARCH


def needs(name: str, seed: int, profile: str) -> list[Task]:
    """What must be finished before, in an order in which it can be trained."""
    if (name, seed) == SEARCH:
        return [("teacher", 0)]
    row, which = catalogue.row(name), catalogue.setting(name, profile)
    found = [(row.teacher, 0)] if row.teacher else []
    found += [SEARCH] if which else []
    if which == "chosen":
        names = catalogue.names(profile, "finalists")
        found += [(finalist, number) for finalist in names for number in catalogue.seeds(finalist, profile)]
    return found + ([(row.parent, seed)] if row.parent else [])


def tasks(profile: str) -> list[Task]:
    """Everything that the profile trains, none before what it needs."""
    found: dict[Task, None] = {}
    for name in catalogue.names(profile):
        for seed in catalogue.seeds(name, profile):
            found |= dict.fromkeys([*needs(name, seed, profile), (name, seed)])
    return list(found)


def finished(name: str, seed: int, profile: str, settings: store.Settings) -> bool:
    """Whether its run, or the search, is there as today's recipe makes it."""
    try:
        if (name, seed) == SEARCH:
            store.trials(profile, settings)
        else:
            store.require(name, seed, profile, settings)
    except InputError:
        return False
    return True


def missing(name: str, seed: int, profile: str) -> list[Task]:
    """What must be trained before, in order: what it needs, and what that needs, as far as it is not finished."""
    settings = store.Settings(profile)
    return [one for one in _all_needs(name, seed, profile) if not finished(*one, profile, settings)]


def _all_needs(name: str, seed: int, profile: str) -> dict[Task, None]:
    found: dict[Task, None] = {}
    for one in needs(name, seed, profile):
        found |= _all_needs(*one, profile) | {one: None}
    return found


def hours(todo: list[Task], profile: str, last: Recipe | None = None) -> list[float]:
    """Hours of one core that each task takes, from the delivered runs' seconds. `last`: recipe of the last task."""
    rates = {name: _hours_an_image(name) for name in ("teacher", "plain")}
    found = []
    for name, seed in todo:
        if (name, seed) == SEARCH:
            grid = catalogue.tuning(profile, catalogue.Unknown())
            images = len(search.settings(grid)) * grid.fit.epochs * grid.images
        else:
            usual = catalogue.recipe(name, profile, seed, catalogue.Unknown())
            images = _images(last if last and (name, seed) == todo[-1] else usual)
        found.append(images * rates["teacher" if name == "teacher" else "plain"])
    return found


def announce(todo: list[Task], profile: str, last: Recipe) -> None:
    """Print what is about to be trained and its hours, where it takes more than minutes. `last`: as for `hours`."""
    try:
        total = sum(hours(todo, profile, last))
    except InputError:  # there are no delivered runs to judge by
        return
    (name, seed), count = todo[-1], len(todo) - 1
    if total >= 0.1:
        told = f"{name}, seed {seed}" + (f", and {count} before it" if count else "")
        print(f"hw2: trains {told}: about {total:.1f} hours of one core", file=sys.stderr)


def estimate(profile: str) -> str:
    """The hours of the profile's walk, a line a group and their sum."""
    todo, found = tasks(profile), {}
    for one, value in zip(todo, hours(todo, profile), strict=True):
        group = "search" if one == SEARCH else catalogue.row(one[0]).group
        found[group] = found.get(group, 0) + value
    lines = [f"{group:10} {value:8.1f} h" for group, value in (found | {"in all": sum(found.values())}).items()]
    return "\n".join([f"profile {profile}, hours of one core:", *lines])


def consequence(profile: str) -> str:
    """What another teacher brings about, in a question."""
    total = sum(hours(tasks(profile), profile))
    return (
        f"Runs of profile {profile} that learn from the old teacher become stale: up to {total:.1f} core hours. Go on?"
    )


def _images(recipe: Recipe) -> int:
    """How many images the recipe's training sees."""
    return sum(fit.epochs for fit in recipe.fits) * recipe.images


def _hours_an_image(name: str) -> float:
    run = store.require(name, 0, store.delivered_profile() or store.default_profile())
    return run.core_hours / _images(run.recipe)
