"""All of a profile, trained by one process or several."""

import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from hw2.errors import Ended, InputError, end_if_asked, ending_at_an_epoch, told_in_a_line
from hw2.experiments import catalogue, environment, plan, search, store
from hw2.experiments.catalogue import Task
from hw2.experiments.obtain import obtain
from hw2.experiments.store import Store

Failures = MutableMapping[Task, str]  # what could not be trained, and why, in a line


def walk(todo: list[Task], profile: str, device: str, replace: bool, failures: Failures) -> None:
    """Train each task that is neither finished nor locked by another process, until all are done.

    A task that fails is added to `failures`, which processes may share, and is not tried again;
    nor is what needs it.
    """
    on_cpu = environment.pick_device(device).type == "cpu"
    with environment.threads(1 if on_cpu else environment.cores()):
        while True:
            end_if_asked(f"profile {profile}")
            known = Store(profile)
            left = [
                task for task in possible(todo, profile, failures) if not plan.done(task, known)
            ]
            if not left:
                return
            if not any(attempt(task, known, device, replace, failures) for task in left):
                time.sleep(1)  # other processes are at what is left


def attempt(task: Task, known: Store, device: str, replace: bool, failures: Failures) -> bool:
    """Train a task whose needs are finished and that no other process is at; whether it is done."""
    profile = known.profile
    if not all(plan.done(needed, known) for needed in plan.needs(task, profile)):
        return False
    if task == plan.SEARCH:  # all processes take part
        with collecting(task, failures):
            search.obtain_trials(profile, device, replace)
    else:
        with store.lock(known.recipe(*task), wait=False) as mine:
            if not mine or task in failures:  # another process is at it, or has just tried it
                return False
            with collecting(task, failures):  # a failure is known before the lock is free
                run = obtain(*task, profile=profile, device=device, replace=replace)
                print(run, flush=True)
    return task not in failures


@contextmanager
def collecting(task: Task, failures: Failures) -> Iterator[None]:
    """An exception in the block ends this task alone: it is told now and kept in `failures`."""
    try:
        yield
    except Ended:
        raise
    except Exception as error:
        if not isinstance(error, InputError | OSError):
            traceback.print_exc()  # a defect, for which a line is not enough
        reason = " ".join(str(error).split()) or type(error).__name__
        failures[task] = reason
        print(f"hw2: {task[0]}, seed {task[1]} failed: {reason}", file=sys.stderr, flush=True)


def possible(todo: list[Task], profile: str, failures: Failures) -> list[Task]:
    """Those of the tasks that did not fail and need none that failed."""
    failed = set(failures.keys())
    return [task for task in todo if failed.isdisjoint([task, *plan.before(task, profile)])]


def train_listed(
    todo: list[Task], profile: str, device: str, replace: bool, weights: Path | None = None
) -> Failures:
    """Train these tasks and what they need, one after the other; what failed, and why.

    A failure among several does not end the others. That of a task alone is raised.
    """
    failures = {}
    for task in todo:
        if task in possible(todo, profile, failures):
            with collecting(task, failures) if len(todo) > 1 else nullcontext():
                options = {"profile": profile, "device": device, "weights": weights}
                print(obtain(*task, replace=replace, **options), flush=True)
    return failures


def summary(todo: list[Task], profile: str, failures: Failures) -> str:
    """The tasks that failed, a line each, and how many were not trained since they need them."""
    lines = [f"{name}, seed {seed} failed: {why}" for (name, seed), why in failures.items()]
    tried = len(possible(todo, profile, failures)) + len(failures.keys() & set(todo))
    if tried < len(todo):
        lines.append(f"{len(todo) - tried} that need them were not trained")
    return "\n".join(lines)


def _worker(*arguments) -> None:
    with told_in_a_line(), ending_at_an_epoch():
        walk(*arguments)


def train_all(
    profile: str, jobs: int | None = None, device: str = "auto", replace: bool = False
) -> Failures:
    """Everything of the profile, by so many processes (None: one a core). Reads no test image.

    Returns what failed, and why: the rest is trained all the same.
    """
    todo = plan.tasks(profile)
    count = jobs or environment.cores()
    if count == 1:
        failures: Failures = {}
        walk(todo, profile, device, replace, failures)
        return failures
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        shared = manager.dict()
        arguments = todo, profile, device, replace, shared
        workers = [context.Process(target=_worker, args=arguments) for _ in range(count)]
        for worker in workers:
            worker.start()
        _wait(workers, profile)
        return dict(shared)


def _wait(workers: list, profile: str) -> None:
    """Until all processes ended. Those that are asked to end do so at an epoch."""
    try:
        while alive := [worker for worker in workers if worker.is_alive()]:
            alive[0].join(1)
            end_if_asked(f"profile {profile}")
    except (KeyboardInterrupt, Ended):
        for worker in workers:
            worker.terminate()  # by SIGTERM
        for worker in workers:
            worker.join()
        raise
    if broken := [worker.exitcode for worker in workers if worker.exitcode]:
        raise InputError(f"a process ended with status {broken[0]}: see above")


def members(name: str, seed: int | None, profile: str) -> list[Task]:
    """The runs that `hw2 train NAME` is about: of one seed, or of every seed of the profile."""
    rows = catalogue.members(name, profile)
    if seed is not None:
        return [(row, seed) for row in rows]
    return [(row, number) for row in rows for number in catalogue.seeds(row, profile)]
