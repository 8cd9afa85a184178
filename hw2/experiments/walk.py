"""All of a profile: its walk by one process or several, and its delivery."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from hw2 import data, pruning, training
from hw2.errors import Ended, InputError, end_if_asked, ending_at_an_epoch, told_in_a_line
from hw2.experiments import environment, ledger, plan, search, store, train
from hw2.experiments.catalogue import Recipes
from hw2.experiments.run import Run
from hw2.experiments.store import Store
from hw2.files import read_json, sha256, write_json

RATIOS = (0.125, 0.25, 0.5, 0.75, 0.875)  # by which one group is pruned alone

Failures = MutableMapping[plan.Task, str]  # what could not be trained, and why, in a line


def work(profile: str, device: str, replace: bool, failures: Failures) -> None:
    """Take the next task whose needs are finished and that nobody works at, until all are done; one thread on a CPU.

    A task that fails is added to `failures`, which processes share, and is not tried again; nor is what needs it.
    """
    torch_device = environment.pick_device(device)
    with environment.threads(1 if torch_device.type == "cpu" else os.cpu_count()):
        todo, done = plan.tasks(Recipes(profile)), set()
        while left := [task for task in possible(todo, profile, failures) if task not in done]:
            known = Store(profile)
            for task in left:
                with collecting(task, failures):
                    ready = done.issuperset(plan.needs(*task, known))
                    if ready and (plan.finished(*task, known) or _try(*task, known, device, replace)):
                        done.add(task)
                        break
            else:
                end_if_asked(f"profile {profile}")
                time.sleep(1)  # others are at what is left
    store.complete_sums(profile)


@contextmanager
def collecting(task: plan.Task, failures: Failures) -> Iterator[None]:
    """An exception in the block ends this task and not its process: it is told now, and kept in `failures`."""
    try:
        yield
    except Ended:
        raise
    except Exception as error:
        if not isinstance(error, InputError | OSError):
            traceback.print_exc()  # a defect, for which a line is not enough
        failures[task] = " ".join(str(error).split()) or type(error).__name__
        print(f"hw2: {task[0]}, seed {task[1]} failed: {failures[task]}", file=sys.stderr, flush=True)


def possible(todo: list[plan.Task], profile: str, failures: Failures) -> list[plan.Task]:
    """Those of the tasks that did not fail and need none that failed."""
    failed, recipes = set(failures.keys()), Recipes(profile)
    return [task for task in todo if not failed or failed.isdisjoint([task, *plan.before(*task, recipes)])]


def summary(todo: list[plan.Task], profile: str, failures: Failures) -> str:
    """The tasks that failed, a line each, and how many of all were not trained since they need them."""
    lines = [f"{name}, seed {seed} failed: {reason}" for (name, seed), reason in failures.items()]
    others = len(todo) - len(possible(todo, profile, failures)) - len(failures.keys() & set(todo))
    return "\n".join([*lines, *([f"{others} that need them were not trained"] if others else [])])


def _try(name: str, seed: int, known: Store, device: str, replace: bool) -> bool:
    """Whether the task was there for the taking, and is done now. All take part in the search."""
    if (name, seed) == plan.SEARCH:
        search.obtain_trials(known.profile, device, replace=replace)
        return True
    with store.lock(known.recipe(name, seed), wait=False) as mine:
        if mine:
            print(train.obtain(name, seed, profile=known.profile, device=device, replace=replace), flush=True)
        return mine


def _worker(*arguments) -> None:
    with told_in_a_line(), ending_at_an_epoch():
        work(*arguments)


def train_all(profile: str, jobs: int | None = None, device: str = "auto", replace: bool = False) -> Failures:
    """Everything of the profile, by so many processes (None: one for each core). Evaluates no test image.

    Returns what failed, and why: the rest is trained all the same.
    """
    count = jobs or os.cpu_count() or 1
    if count == 1:
        failures = {}
        work(profile, device, replace, failures)
        return failures
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        failures = manager.dict()
        _train_all(context, count, (profile, device, replace, failures))
        return dict(failures)


def _train_all(context, count: int, arguments: tuple) -> None:
    """Start so many workers and wait for them; those that are asked to end do so at an epoch."""
    profile = arguments[0]
    started = [context.Process(target=_worker, args=arguments) for _ in range(count)]
    for process in started:
        process.start()
    try:
        while alive := [process for process in started if process.is_alive()]:
            alive[0].join(1)
            end_if_asked(f"profile {profile}")
    except (KeyboardInterrupt, Ended):
        for process in started:
            process.terminate()  # by SIGTERM: each ends at an epoch
        for process in started:
            process.join()
        raise
    if broken := [process for process in started if process.exitcode]:
        raise InputError(f"{len(broken)} of {count} processes ended with status {broken[0].exitcode}: see above")


def deliver(profile: str) -> Run:
    """Name the delivered network, then read the test set once for each recipe of the chain.

    Then measure, on the validation split, how sensitive the parent's groups of channels are to pruning. `InputError`
    while a network that the report cannot do without is missing.
    """
    known = Store(profile)
    chain = [known.require(name, seed) for name in known.names("chain") for seed in known.seeds(name)]
    run, path = known.run("compressed"), known.root / "delivered.json"
    store.complete_sums(profile)
    content = {"run": run.name, "sha256": sha256(run.weights)}
    if not path.is_file() or read_json(path) != content:
        with store.changing(profile):
            write_json(path, content)
    for member in chain:
        ledger.read_test_set(member, data.fashion_mnist())
    parent, path = known.run("distilled"), known.run("distilled").folder / "sensitivity.json"
    if not path.is_file():
        table = {"weights": sha256(parent.weights), "ratios": RATIOS}
        groups = range(len(pruning.group_names()))
        table["correct"] = [[sensitivity(parent, number, ratio) for ratio in RATIOS] for number in groups]
        with store.changing(profile):
            write_json(path, table)
    return run


def sensitivity(run: Run, number: int, ratio: float, fashion: data.FashionMNIST | None = None) -> int:
    """Validation images that its network gets right with one group of channels pruned alone."""
    images, labels = run.recipe.task(fashion or data.fashion_mnist()).held_out
    return int((training.predict(pruning.prune_group(run.network(), number, ratio), images) == labels).sum())
