"""In which order experiments are trained, and how long that took before."""

from operator import itemgetter

from hw2.errors import InputError
from hw2.experiments import catalogue
from hw2.experiments.catalogue import Task
from hw2.experiments.store import Store

SEARCH = ("search", 0)  # the task of searching temperature and alpha


def needs(task: Task, profile: str) -> list[Task]:
    """What must be finished before, in an order in which it can be trained."""
    if task == SEARCH:
        return [("teacher", catalogue.seeds("teacher", profile)[0])]
    name, seed = task
    chosen = catalogue.row(name, profile)
    needed = []
    if chosen.setting:
        needed.append(SEARCH)
    if chosen.setting == "chosen":
        needed += seed_by_seed(catalogue.names(profile, "finalists"), profile)
    if chosen.teacher:
        needed.append(catalogue.teacher(name, seed, profile))
    if chosen.parent:
        needed.append((chosen.parent, seed))
    return needed


def seed_by_seed(names: list[str], profile: str) -> list[Task]:
    """The runs of some rows: first each row's with the lowest seed."""
    tasks = [(name, seed) for name in names for seed in catalogue.seeds(name, profile)]
    return sorted(tasks, key=itemgetter(1))


def members(name: str, seed: int | None, profile: str) -> list[Task]:
    """The runs that `hw2 train NAME` is about: of one seed, or of every seed of the profile."""
    rows = catalogue.members(name, profile)
    if seed is not None:
        return [(row, seed) for row in rows]
    return [(row, number) for row in rows for number in catalogue.seeds(row, profile)]


def before(task: Task, profile: str) -> list[Task]:
    """What it needs, what that needs, and so on, in an order in which it can be trained."""
    return in_order(needs(task, profile), profile)


def in_order(tasks: list[Task], profile: str) -> list[Task]:
    """The tasks and all that they need, each once, none before what it needs."""
    order = []
    for task in tasks:
        order += [*before(task, profile), task]
    return list(dict.fromkeys(order))


def tasks(profile: str) -> list[Task]:
    """Everything that the profile trains, none before what it needs; a group goes seed by seed."""
    groups = dict.fromkeys(row.group for row in catalogue.rows(profile).values())
    members = []
    for group in groups:
        members += seed_by_seed(catalogue.names(profile, group), profile)
    return in_order(members, profile)


def done(task: Task, known: Store) -> bool:
    """Whether the run, or the search, is there as today's recipe makes it."""
    if task == SEARCH:
        return known.searched()
    try:
        return bool(known.require(*task))
    except InputError:
        return False


def hours(task: Task, known: Store) -> float | None:
    """Hours that a run of the row in this profile took, or the search; None where none is there."""
    if task == SEARCH:
        return known.trials.processor_s.sum() / 3600 if known.searched() else None
    for run in known.every():
        if (run.stage, run.profile) == (task[0], known.profile):
            return run.metrics["wall_s"] / 3600
    return None


def announcement(todo: list[Task], known: Store) -> str:
    """What is about to be trained, and how long that took before."""
    (name, seed), count = todo[-1], len(todo) - 1
    before = f", and {count} before it" if count else ""
    return f"hw2: trains {name}, seed {seed}{before}; {estimate(todo, known)}"


def estimate(todo: list[Task], known: Store) -> str:
    """The hours of the tasks in words: the sum of what committed runs of the same rows took."""
    times = [hours(task, known) for task in todo]
    unknown = times.count(None)
    if unknown == len(times):
        return "time unknown: no such run was committed"
    total = sum(value for value in times if value is not None)
    words = f"{total:.1f} hours, as committed runs took"
    return f"{words}, and {unknown} runs of unknown time" if unknown else words
