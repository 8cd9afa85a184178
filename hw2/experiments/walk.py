"""Many runs, trained by one process or several: a failure ends no other."""

import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path

from hw2.errors import Ended, InputError, end_if_asked, ending_at_an_epoch
from hw2.experiments import environment, plan, search, store
from hw2.experiments.catalogue import Task
from hw2.experiments.obtain import obtain
from hw2.experiments.store import Store

Failures = dict[Task, str]  # what could not be trained, and why, in a line


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


def spoilt(task: Task, profile: str, failures: Failures) -> bool:
    """Whether the task failed, or needs one that did."""
    return not failures.keys().isdisjoint([task, *plan.before(task, profile)])


def train_listed(
    todo: list[Task], profile: str, device: str, replace: bool, weights: Path | None = None
) -> Failures:
    """Train these tasks and what they need in order; what failed of several, and why."""
    failures = {}
    for task in todo:
        if not spoilt(task, profile, failures):
            with collecting(task, failures) if len(todo) > 1 else nullcontext():
                options = {"profile": profile, "device": device, "weights": weights}
                print(obtain(*task, replace=replace, **options), flush=True)
    return failures


def walk(todo: list[Task], profile: str, device: str, replace: bool) -> Failures:
    """Train each task that is neither finished nor locked by another process, until all are done.

    A task that fails is not tried again, nor is what needs it. Returns what failed, and why.
    """
    failures = {}
    on_cpu = environment.pick_device(device).type == "cpu"
    with environment.threads(1 if on_cpu else environment.cores()):
        while True:
            end_if_asked(f"profile {profile}")
            known = Store(profile)
            possible = [task for task in todo if not spoilt(task, profile, failures)]
            left = [task for task in possible if not plan.done(task, known)]
            if not left:
                return failures
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
            if not mine:
                return False
            with collecting(task, failures):
                run = obtain(*task, profile=profile, device=device, replace=replace)
                print(run, flush=True)
    return task not in failures


def _worker(*arguments) -> Failures:
    with ending_at_an_epoch():
        return walk(*arguments)


def train_all(
    profile: str, jobs: int | None = None, device: str = "auto", replace: bool = False
) -> Failures:
    """Everything of the profile, by so many processes (None: one a core). Reads no test image.

    Each process walks the whole list. Returns what failed, and why.
    """
    todo = plan.tasks(profile)
    count = jobs or environment.cores()
    if count == 1:
        return walk(todo, profile, device, replace)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        walks = [pool.submit(_worker, todo, profile, device, replace) for _ in range(count)]
        try:
            while wait(walks, timeout=1).not_done:
                end_if_asked(f"profile {profile}")
            return {task: why for each in walks for task, why in each.result().items()}
        except BrokenProcessPool:
            raise InputError("a process was killed; the same command goes on from here") from None
        except (KeyboardInterrupt, Ended):
            for process in multiprocessing.active_children():
                process.terminate()  # by SIGTERM: they end at an epoch
            raise
