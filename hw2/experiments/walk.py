"""All of a profile: its walk by one process or several, and its delivery."""

import multiprocessing
import os
import time

from hw2 import data
from hw2.errors import Ended, InputError, end_if_asked, ending_at_an_epoch, told_in_a_line
from hw2.experiments import catalogue, environment, ledger, plan, search, store, train
from hw2.experiments.run import Run


def work(profile: str, device: str, replace: bool) -> None:
    """Take the next task whose needs are finished and that nobody works at, until all are done; one thread on a CPU."""
    where = environment.pick_device(device)
    with environment.threads(1 if where.type == "cpu" else os.cpu_count()):
        done: set[tuple[str, int]] = set()
        while len(done) < len(plan.tasks(profile)):
            settings = store.Settings(profile)
            for one in plan.tasks(profile):
                ready = one not in done and done.issuperset(plan.needs(*one, profile))
                if ready and (plan.finished(*one, profile, settings) or _try(*one, profile, device, replace)):
                    done.add(one)
                    break
            else:
                end_if_asked(f"profile {profile}")
                time.sleep(1)  # others are at what is left
    store.complete_sums(profile)


def _try(name: str, seed: int, profile: str, device: str, replace: bool) -> bool:
    """Whether the task was there for the taking, and is done now. All take part in the search."""
    if (name, seed) == plan.SEARCH:
        search.obtain_trials(profile, device, replace=replace)
        return True
    recipe = catalogue.recipe(name, profile, seed, store.Settings(profile))
    with store.lock(recipe, wait=False) as mine:
        if mine:
            print(train.obtain(name, seed, profile=profile, device=device, replace=replace), flush=True)
        return mine


def _worker(profile: str, device: str, replace: bool) -> None:
    with told_in_a_line(), ending_at_an_epoch():
        work(profile, device, replace)


def train_all(profile: str, jobs: int | None = None, device: str = "auto", replace: bool = False) -> None:
    """Everything of the profile, by so many processes (None: one for each core). Evaluates no test image."""
    count = jobs or os.cpu_count() or 1
    if count == 1:
        work(profile, device, replace)
        return
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_worker, args=(profile, device, replace)) for _ in range(count)]
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
    if failed := [process for process in started if process.exitcode]:
        raise InputError(f"{len(failed)} of {count} processes ended with status {failed[0].exitcode}: see above")


def deliver(profile: str, fashion: data.FashionMNIST | None = None) -> Run:
    """Name the delivered network, then read the test set once for each recipe of the chain.

    `InputError` while a network that the report cannot do without is missing.
    """
    settings = store.Settings(profile)
    for name in store.NEEDED:
        for seed in catalogue.seeds(name, profile):
            store.require(name, seed, profile, settings)
    run = store.require("compressed", 0, profile, settings)
    store.complete_sums(profile)
    store.name_delivered(run)
    for name in catalogue.names(profile, "chain"):
        for seed in catalogue.seeds(name, profile):
            if found := store.find(catalogue.recipe(name, profile, seed, settings), profile):
                ledger.read_test_set(found, fashion or data.fashion_mnist())
    return run
