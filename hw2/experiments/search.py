"""The search over temperature and alpha, on Optuna: a complete grid, judged on the validation split.

Several processes, on one machine or on many, may share a study through its storage. Optuna is imported where it is
used: loading a network needs none of it.
"""

import itertools
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hw2 import data as source
from hw2 import training
from hw2.data import FashionMNIST
from hw2.distillation import cached_objective
from hw2.errors import Bar, InputError
from hw2.experiments import environment, store
from hw2.experiments.recipes import TuningRecipe, written
from hw2.experiments.run import HISTORY, STEPS, cache
from hw2.files import read_json, write_csv, write_json
from hw2.networks import ResNet14
from hw2.training import Options

HEARTBEAT = 60  # seconds; a trial is taken for dead after twice as long without one, and tried again


@contextmanager
def _database_errors() -> Iterator[None]:
    """A database that cannot be used gets one line; Optuna tells about trials at its warning level only."""
    import optuna
    from sqlalchemy.exc import DBAPIError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since Optuna 2.8
            yield
    except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(f"the search's database cannot be used: {_reason(error)}") from None
    finally:
        optuna.logging.set_verbosity(verbosity)


def _reason(error: Exception) -> str:
    """What the database or its driver said, without the statement that Optuna sent."""
    cause = error.__cause__ or error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())


def database(storage: str):
    """Optuna's storage in the database of that URL. `InputError`, without its password, where it cannot be used."""
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy import event, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):
        form = "sqlite:////folder/study.db or postgresql://user:password@host/name"
        raise InputError(f"--storage: expected a URL such as {form}; a password's own @ : / are %40 %3A %2F")
    memory = ":memory:" in (url.database or ":memory:") or url.query.get("mode") == "memory"
    if memory and url.get_backend_name() == "sqlite":
        raise InputError("--storage: a database in memory is lost; name a file, such as sqlite:////folder/study.db")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            escaped = storage.replace("{", "{{").replace("}", "}}")  # Optuna formats it
            retry = RetryHeartbeatStaleTrialCallback()
            backend = RDBStorage(escaped, heartbeat_interval=HEARTBEAT, heartbeat_stale_trial_callback=retry)
        if backend.engine.dialect.name == "sqlite":  # it locks no row that was read: two workers could take one trial
            event.listen(backend.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return backend
    except Exception as error:  # drivers and migrations raise whatever they met
        reason = _reason(error).replace(url.password or "\0", "***")
        shown = url.set(query={}).render_as_string(hide_password=True)
        raise InputError(f"the search's database cannot be used: {shown}: {reason}") from None


def settings(recipe: TuningRecipe) -> list[dict]:
    """The grid, in order."""
    product = itertools.product(recipe.seeds, recipe.temperatures, recipe.alphas)
    return [{"seed": seed, "T": temperature, "alpha": alpha} for seed, temperature, alpha in product]


def trial_rows(recipe: TuningRecipe) -> list[dict]:
    """The rows of trials.csv, less the counts of correct images."""
    common = {"lr": recipe.fit.lr, "epochs": recipe.fit.epochs, "images": recipe.images, "state": "COMPLETE"}
    return [{"trial": number} | setting | common for number, setting in enumerate(settings(recipe))]


def study(recipe: TuningRecipe, storage: str | None = None, replace: bool = False):
    """The study of the recipe and of this state of the code, its settings enqueued. SQLite in the cache by default.

    Where another state of the code has begun the search, that is an `InputError` unless it may be begun anew.
    """
    import optuna
    from sqlalchemy import URL

    name = f"{recipe.digest}-{environment.code()[:16]}"
    if storage is None:
        storage = URL.create("sqlite", database=str(cache(recipe) / "study.db")).render_as_string()
    with _database_errors(), store.lock(recipe):  # of processes on this machine one makes the tables and enqueues
        backend = database(storage)
        studies = [title for title in optuna.get_all_study_names(backend) if title.startswith(recipe.digest)]
        if studies and name not in studies and not replace:
            raise InputError("another state of hw2/ began this search; check that out to go on, or --replace")
        grid_study = optuna.create_study(storage=backend, study_name=name, direction="maximize", load_if_exists=True)
        for setting in settings(recipe) if not grid_study.trials else ():
            grid_study.enqueue_trial(setting, user_attrs={"setting": setting}, skip_if_exists=True)
    return grid_study


def trained(recipe: TuningRecipe, setting: dict, targets: torch.Tensor, data: FashionMNIST, options: Options, device):
    """Train the student of one setting as its trial did; options may end it after its first steps."""
    torch.manual_seed(setting["seed"])
    loss = cached_objective(targets.to(device), setting["T"], setting["alpha"], targets=recipe.targets)
    arguments = {"seed": setting["seed"], "objective": loss, "options": options, "device": device}
    return training.fit(ResNet14(), recipe.fit, recipe.task(data), **arguments)


def search(recipe: TuningRecipe, targets: torch.Tensor, fashion: FashionMNIST, device, study) -> list[dict]:
    """Run what waits in the study until every setting of the grid is complete; each counts once.

    `targets` are the teacher's soft targets (views, 60000, 10). Returns for each setting, in the grid's order,
    `val_correct`, `epochs` and `steps` as in `training.History`, `environment`, `wall_s` and `processor_s`.
    """
    import optuna
    from optuna.trial import TrialState

    WAITING, RUNNING = TrialState.WAITING, TrialState.RUNNING
    grid = settings(recipe)

    def objective(trial) -> int:
        setting = trial.user_attrs.get("setting")
        if setting is None:  # another worker took the last one that waited, and Optuna made one up
            raise optuna.TrialPruned
        for name in setting:
            trial.suggest_categorical(name, sorted({point[name] for point in grid}))
        started, processor = time.monotonic(), time.process_time()
        label = f"T = {setting['T']:g}, alpha = {setting['alpha']:g}, seed {setting['seed']}"
        options = Options(label, environment=environment.environment(device))
        network, history = trained(recipe, setting, targets, fashion, options, device)
        spent = {"wall_s": time.monotonic() - started, "processor_s": time.process_time() - processor}
        record = {name: getattr(history, name) for name in ("epochs", "steps", "environment")}
        trial.set_user_attr("record", record | {name: round(seconds, 1) for name, seconds in spent.items()})
        return training.validate(network, *recipe.task(fashion).held_out)[1]

    def complete() -> list:
        """The first complete trial of each setting, or None."""
        trials = study.get_trials(states=(TrialState.COMPLETE,))
        return [next((trial for trial in trials if trial.user_attrs["setting"] == setting), None) for setting in grid]

    with _database_errors(), Bar(total=len(grid), desc="trials of the search", unit="trial") as bar:
        while None in (done := complete()):
            bar.update(len(grid) - done.count(None) - bar.n)
            optuna.storages.fail_stale_trials(study)  # those of dead workers wait again
            taken = [trial.user_attrs.get("setting") for trial in study.get_trials(states=(WAITING, RUNNING))]
            for setting, trial in zip(grid, done, strict=True):
                if trial is None and setting not in taken:  # it failed, or its worker was interrupted
                    study.enqueue_trial(setting, user_attrs={"setting": setting})
            if study.get_trials(states=(WAITING,)):
                study.optimize(objective, n_trials=1)
            else:
                time.sleep(1)  # others are at the last ones
    return [{"val_correct": int(trial.value)} | trial.user_attrs["record"] for trial in done]


def write(folder: Path, recipe: TuningRecipe, records: list[dict]) -> None:
    """What `search` found: trials.csv, history.csv and steps.csv with the trial's number, environment.json."""
    pairs = zip(trial_rows(recipe), records, strict=True)
    rows = [row | {"val_correct": record["val_correct"]} for row, record in pairs]
    write_csv(folder / "trials.csv", store.TRIALS, rows)
    for name, key, columns in (("history.csv", "epochs", HISTORY), ("steps.csv", "steps", STEPS)):
        rows = [{"trial": number} | row for number, record in enumerate(records) for row in record[key]]
        write_csv(folder / name, ("trial", *columns), rows)
    environments = [record["environment"] for record in records]
    different = [machine for place, machine in enumerate(environments) if machine not in environments[:place]]
    content = {"environments": different, "of_trials": [different.index(machine) for machine in environments]}
    content |= {name: [record[name] for record in records] for name in ("wall_s", "processor_s")}
    write_json(folder / "environment.json", content)


def obtain_trials(profile: str, device: str = "auto", storage: str | None = None, replace: bool = False) -> None:
    """Search where the profile has no finished search in runs/tuning/<profile>/. Needs the teacher's run."""
    known = store.Store(profile)
    recipe, folder = known.tuning(), known.root / "tuning" / profile
    recorded = folder / "recipe.json"
    if recorded.is_file() and read_json(recorded).get("digest") == recipe.digest:
        return
    store.check_replaced(folder, recipe, replace)
    environment.check_code(profile)
    torch_device = environment.pick_device(device)
    grid_study = study(recipe, storage, replace or profile == "smoke")
    targets = known.made_by(recipe.teacher).soft_targets
    records = search(recipe, targets, source.fashion_mnist(), torch_device, grid_study)
    with store.changing(profile):
        # An older search's recipe goes first, this one's is written last: it says that the trials are whole.
        recorded.unlink(missing_ok=True)
        write(folder, recipe, records)
        write_json(recorded, written(recipe))
