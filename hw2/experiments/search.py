"""The search over temperature and alpha, on Optuna: a complete grid, judged on the validation split.

Several processes, on one machine or on many, may share a study through its storage.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as with_values

import optuna
import pandas as pd
import sqlalchemy
import torch
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DBAPIError

from hw2 import training
from hw2.data import FashionMNIST
from hw2.distillation import cached_objective
from hw2.errors import InputError
from hw2.experiments import store as runs
from hw2.experiments.recipes import TuningRecipe
from hw2.networks import ResNet14

HEARTBEAT = 30  # seconds; a trial is taken for dead after twice as long without one
COLUMNS = ("trial", "T", "alpha", "lr", "seed", "epochs", "images", "val_correct", "state")


@dataclass
class Found:
    """A finished search: rows of trials.csv in the grid's order, and what each trial recorded, by which it is replayed.

    A record holds `epochs` and `steps` as in `training.History`, `environment` (`runs.environment`), `wall_s` and
    `processor_s`.
    """

    trials: list[dict]
    records: list[dict]

    @property
    def tables(self) -> dict[str, tuple[tuple[str, ...], list[dict]]]:
        """File -> columns and rows."""

        def of(kind: str) -> list[dict]:
            return [{"trial": number} | row for number, record in enumerate(self.records) for row in record[kind]]

        return {
            "trials.csv": (COLUMNS, self.trials),
            "history.csv": (("trial", *runs.HISTORY), of("epochs")),
            "steps.csv": (("trial", "step", "loss"), of("steps")),
        }

    @property
    def environments(self) -> dict:
        """The different environments, and for each trial the number of its own; seconds of each trial."""
        different = []
        for record in self.records:
            if record["environment"] not in different:
                different.append(record["environment"])
        return {
            "environments": different,
            "of_trials": [different.index(record["environment"]) for record in self.records],
            **{name: [record[name] for record in self.records] for name in ("wall_s", "processor_s")},
        }


class Storage(RDBStorage):
    """Takes a trial for dead whose heartbeat has not changed for two intervals by this process's own steady clock.

    Optuna compares times of day: a clock that was set back makes it wait for as long as that, one that was set forward
    kills the living, and a worker that died before its first heartbeat is waited for without end.
    """

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        query = (
            "SELECT trials.trial_id, heartbeat FROM trials LEFT JOIN trial_heartbeats USING (trial_id) "
            "WHERE study_id = :study AND state = 'RUNNING'"
        )
        with self.engine.connect() as connection:
            running = connection.execute(sqlalchemy.text(query), {"study": study_id}).all()
        now, before = time.monotonic(), getattr(self, "_unchanged", {})
        self._unchanged = {tuple(row): before.get(tuple(row), now) for row in running}
        return [trial for (trial, _), since in self._unchanged.items() if now - since > 2 * self.heartbeat_interval]


def study(recipe: TuningRecipe, storage: str | None = None, replace: bool = False) -> optuna.Study:
    """The study of the recipe and of this state of the code. Storage is a URL; SQLite in the cache by default.

    A trial whose worker died is taken up again after its heartbeat stops. Where another state of the code has begun the
    search, that is an `InputError` unless it may be begun anew (`replace`).
    """
    name = f"{recipe.digest}-{runs.CODE[:16]}"
    if storage is None:
        folder = runs.cache(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{folder / 'study.db'}"
    attempts = 10
    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, since Optuna 2.8
                database = Storage(
                    storage,
                    heartbeat_interval=HEARTBEAT,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
                )
            known = [one for one in optuna.get_all_study_names(database) if one.startswith(recipe.digest)]
            if known and name not in known and not replace:
                raise InputError("another state of hw2/ began this search; check that out to go on, or --replace")
            return optuna.create_study(storage=database, study_name=name, direction="maximize", load_if_exists=True)
        except DBAPIError:  # another worker is making the tables of a new database right now
            if not attempts:
                raise
            time.sleep(0.5)


def _tried(grid: optuna.Study, *states: TrialState) -> dict[tuple, FrozenTrial]:
    """(seed, T, alpha) -> the first trial of that setting in one of these states."""
    trials = [trial for trial in grid.get_trials(states=states) if "setting" in trial.user_attrs]
    return {tuple(trial.user_attrs["setting"]): trial for trial in reversed(trials)}


def _trial(
    recipe: TuningRecipe, data: FashionMNIST, cache: torch.Tensor, device: torch.device, setting: tuple, **more
) -> tuple[int, dict]:
    """Train the student of one setting (temperature, alpha, learning rate, seed): correct images, and its record."""
    temperature, alpha, lr, seed = setting
    started, processor = time.monotonic(), time.process_time()
    train, validation = training.parts(data, recipe.images, recipe.validation)
    torch.manual_seed(seed)
    network, history = training.fit(
        ResNet14(),
        data,
        train,
        validation,
        with_values(recipe.fit, lr=lr),
        seed=seed,
        pad=recipe.pad,
        view_count=recipe.views,
        view_seed=recipe.view_seed,
        objective=cached_objective(cache.to(device), temperature, alpha, targets=recipe.targets),
        device=device,
        environment=runs.environment(device),
        label=f"T = {temperature:g}, alpha = {alpha:g}",
        **more,
    )
    correct = training.validate(network, data.train_images[validation], data.train_labels[validation])[1]
    record = {name: getattr(history, name) for name in ("epochs", "steps", "environment")}
    spent = {"wall_s": time.monotonic() - started, "processor_s": time.process_time() - processor}
    return correct, record | {name: round(seconds, 1) for name, seconds in spent.items()}


@contextmanager
def told():
    """A database that cannot be read or written, as on a full disk or in a read-only folder, is told on one line."""
    try:
        yield
    except (DBAPIError, StorageInternalError) as error:
        reason = error if isinstance(error, DBAPIError) else error.__cause__
        raise InputError(f"the search's database cannot be used: {getattr(reason, 'orig', reason)}") from None


@contextmanager
def quiet():
    """Optuna tells about trials at its warning level only."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def search(
    recipe: TuningRecipe,
    data: FashionMNIST,
    cache: torch.Tensor,
    device: torch.device,
    storage: str | None = None,
    replace: bool = False,
) -> Found:
    """Run what is left of the study.

    Several processes may search one study at once: of two trials of one setting the later one gives way.
    """

    def objective(trial: Trial) -> int:
        if "setting" not in trial.user_attrs:  # another worker took the last one: nothing to make up
            raise optuna.TrialPruned
        mine = tuple(trial.user_attrs["setting"])
        first = _tried(trial.study, TrialState.RUNNING, TrialState.COMPLETE)[mine]
        if first.number < trial.number:
            raise optuna.TrialPruned
        temperature = trial.suggest_categorical("T", recipe.temperatures)
        alpha = trial.suggest_categorical("alpha", recipe.alphas)
        seed = trial.suggest_categorical("seed", recipe.seeds)
        correct, record = _trial(recipe, data, cache, device, (temperature, alpha, recipe.fit.lr, seed))
        trial.set_user_attr("record", record)
        return correct

    settings = list(itertools.product(recipe.seeds, recipe.temperatures, recipe.alphas))
    with quiet(), told():
        grid = study(recipe, storage, replace)
        while missing := set(settings) - _tried(grid, TrialState.COMPLETE).keys():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(grid)
            taken = _tried(grid, TrialState.WAITING, TrialState.RUNNING)
            for seed, temperature, alpha in (s for s in settings if s in missing and s not in taken):
                grid.enqueue_trial(
                    {"T": temperature, "alpha": alpha, "seed": seed}, user_attrs={"setting": [seed, temperature, alpha]}
                )
            if grid.get_trials(states=(TrialState.WAITING,)):
                try:
                    grid.optimize(objective, n_trials=1)
                except UpdateFinishedTrialError:
                    pass  # others took this trial for dead meanwhile, and try its setting
                except (AssertionError, ValueError) as error:  # so Optuna stumbles over the same
                    if "Cannot tell" not in f"{error} {error.__context__}":
                        raise
            else:
                time.sleep(1)  # another worker is at the last ones
        done = _tried(grid, TrialState.COMPLETE)
    rows = [
        {
            "trial": number,
            "T": temperature,
            "alpha": alpha,
            "lr": recipe.fit.lr,
            "seed": seed,
            "epochs": recipe.fit.epochs,
            "images": recipe.images,
            "val_correct": int(done[seed, temperature, alpha].value),
            "state": done[seed, temperature, alpha].state.name,
        }
        for number, (seed, temperature, alpha) in enumerate(settings)
    ]
    return Found(rows, [done[setting].user_attrs["record"] for setting in settings])


COMMAND = ["-m", "hw2"]


@contextmanager
def helpers(count: int, command: list[str]):
    """`count` further processes that search the same study while the block runs; the cores are shared out evenly.

    A helper that fails takes nothing with it: its trial is taken up by another worker. It is told on standard error.
    """
    threads = max(1, (os.cpu_count() or 1) // (count + 1))
    before = torch.get_num_threads()
    torch.set_num_threads(threads if count else before)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    started = [
        subprocess.Popen([sys.executable, *COMMAND, *command], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield started
        for process in started:
            if process.wait() != 0:
                print(f"hw2: a worker of the search ended with status {process.returncode}", file=sys.stderr)
    finally:
        for process in started:
            process.kill()
        torch.set_num_threads(before)


def best(trials: pd.DataFrame) -> tuple[float, float]:
    """Temperature and alpha with the highest mean count of correct validation images over the seeds.

    Of equals, the lower temperature and then the lower alpha.
    """
    if trials.empty:
        raise InputError("trials.csv has no trials; restore it with `git checkout`")
    means = trials.groupby(["T", "alpha"], sort=True).val_correct.mean()
    temperature, alpha = means.idxmax()
    return float(temperature), float(alpha)


def finalists(trials: pd.DataFrame) -> list[tuple[float, float]]:
    """The two settings that are worth training longer: the best, and the best one of the smallest alpha.

    A short trial may flatter a teacher that soon knows less than the student; the smallest alpha is where such a one
    can do the least harm. Where both are one setting, the second is the best of all others.
    """
    first = best(trials)
    rest = trials[(trials["T"] != first[0]) | (trials.alpha != first[1])]
    if rest.empty:
        return [first]
    smallest = rest[rest.alpha == trials.alpha.min()]
    return [first, best(rest if first[1] == trials.alpha.min() else smallest)]
