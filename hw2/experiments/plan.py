"""In which order experiments are trained, and how long that took before."""

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
        for finalist in catalogue.names(profile, "finalists"):
            needed += [(finalist, number) for number in catalogue.seeds(finalist, profile)]
    if chosen.teacher:
        needed.append(catalogue.teacher(name, seed, profile))
    if chosen.parent:
        needed.append((chosen.parent, seed))
    return needed


def before(task: Task, profile: str) -> list[Task]:
    """What it needs, what that needs, and so on, in an order in which it can be trained."""
    order: dict[Task, None] = {}
    for needed in needs(task, profile):
        order |= dict.fromkeys([*before(needed, profile), needed])
    return list(order)


def tasks(profile: str) -> list[Task]:
    """Everything that the profile trains, none before what it needs; a group goes seed by seed."""
    order: dict[Task, None] = {}
    for group in dict.fromkeys(row.group for row in catalogue.rows(profile).values()):
        members = [
            (name, seed)
            for name in catalogue.names(profile, group)
            for seed in catalogue.seeds(name, profile)
        ]
        for task in sorted(members, key=lambda member: member[1]):
            order |= dict.fromkeys([*before(task, profile), task])
    return list(order)


def done(task: Task, known: Store) -> bool:
    """Whether the run, or the search, is there."""
    return known.searched() if task == SEARCH else known.finished(*task)


def hours(task: Task, known: Store) -> float | None:
    """Hours that a run of the row in this profile took, or the search; None where none is there."""
    if task == SEARCH:
        return known.trials.processor_s.sum() / 3600 if known.searched() else None
    runs = [run for run in known.every() if (run.stage, run.profile) == (task[0], known.profile)]
    return runs[0].metrics["wall_s"] / 3600 if runs else None


def announcement(todo: list[Task], known: Store) -> str:
    """What is about to be trained, and how long that took before."""
    (name, seed), count = todo[-1], len(todo) - 1
    before = f", and {count} before it" if count else ""
    return f"hw2: trains {name}, seed {seed}{before}; {told(todo, known)}"


def told(todo: list[Task], known: Store) -> str:
    """The hours of the tasks in words."""
    times = [hours(task, known) for task in todo]
    total = sum(value for value in times if value is not None)
    unknown = times.count(None)
    if unknown == len(times):
        return "time unknown: no such run was committed"
    words = f"{total:.1f} hours, as committed runs took"
    return f"{words}, and {unknown} runs of unknown time" if unknown else words


def estimate(todo: list[Task], profile: str) -> str:
    """The hours of tasks and of what they need, a line a group and their sum."""
    known = Store(profile)
    order = list(dict.fromkeys(need for task in todo for need in [*before(task, profile), task]))
    groups: dict[str, list[Task]] = {}
    for task in order:
        group = "search" if task == SEARCH else catalogue.row(task[0], profile).group
        groups.setdefault(group, []).append(task)
    lines = [
        f"{group:10} {len(part):4} runs: {told(part, known)}" for group, part in groups.items()
    ]
    return "\n".join([*lines, f"{'in all':10} {len(order):4} runs: {told(order, known)}"])
