"""The store of runs: what is there, what a recipe's settings are, what was delivered.

A folder is written aside and renamed when complete: an interrupted run is no result.
"""

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from hw2.errors import InputError, end_if_asked
from hw2.experiments import catalogue, compose, recipes
from hw2.experiments.compose import Known, Setting
from hw2.experiments.recipes import Recipe, TuningRecipe
from hw2.experiments.run import Delivered, Run, cache, home, root
from hw2.files import broken, read_csv, read_json, sha256, write_json

TRIALS = ("trial", "T", "alpha", "seed", "val_correct", "processor_s", "device", "hardware")


def delivered_profile() -> str | None:
    """That of the project's delivered network; None where none is delivered."""
    path = root("full") / "delivered.json"
    if not path.is_file():
        return None
    return Run(root("full") / read_json(path, Delivered)["run"]).profile


class Store:
    """A profile's finished runs, as today's recipes make them. It never trains and never writes.

    The profile is by default HW2_PROFILE (empty counts as unset), or else the delivered network's,
    or `full` where none is delivered. `file` is the SHA-256 of a course's teacher that is to be
    used. What was found is not read again.
    """

    def __init__(self, profile: str | None = None, file: str | None = None):
        wanted = profile or os.environ.get("HW2_PROFILE")
        self.profile = wanted or delivered_profile() or "full"
        self.root = root(self.profile)
        self.file = file
        self.known = Known(self.setting, self.course_file)  # what recipes ask of finished runs
        self._recipes: dict[catalogue.Task, Recipe] = {}
        self._runs: dict[Path, Run] = {}
        catalogue.seeds("teacher", self.profile)  # `InputError` for an unknown profile

    # What a row's recipe is.

    def recipe(self, name: str, seed: int | None = None) -> Recipe:
        """The recipe of a row's run, by default of the row's first seed."""
        task = name, catalogue.seeds(name, self.profile)[0] if seed is None else seed
        if task not in self._recipes:
            self._recipes[task] = compose.recipe(*task, self.profile, self.known)
        return self._recipes[task]

    @cached_property
    def tuning(self) -> TuningRecipe:
        """The recipe of the search."""
        return compose.tuning(self.profile, self.known)

    def course_file(self, seed: int) -> str | None:
        """SHA-256 of the file that stands in for the teacher's training, or None."""
        folder = self.root / "teacher" / f"{self.profile}-s{seed}"
        there = (folder / "recipe.json").is_file()
        return self.file or (self.at(folder).recorded.get("weights") if there else None)

    def setting(self, which: str) -> Setting:
        """Temperature and alpha: `best` of the search, those of a finalist, or `chosen`.

        Of the finalists the one with the higher mean on validation is chosen; of equals, the first.
        """
        settings = finalists(self.trials)
        if which == "chosen":
            # Over all seeds, which must be there: means of unequal seeds would decide nothing.
            first, second = (self._correct(name) for name in ("finalist-1", "finalist-2"))
            which = "finalist-2" if second > first else "finalist-1"
        return {"best": settings[0], "finalist-1": settings[0], "finalist-2": settings[-1]}[which]

    def _correct(self, finalist: str) -> int:
        seeds = catalogue.seeds(finalist, self.profile)
        return sum(self.require(finalist, seed).metrics["val_correct"] for seed in seeds)

    # What is there.

    def place(self, recipe: Recipe, own: bool = False) -> Path:
        """The folder of a recipe's run; `own` recipes have theirs where git ignores it."""
        name = f"{self.profile}-s{recipe.seed}"
        if own:
            return home(self.profile) / "own" / recipe.stage / f"{name}-{recipe.digest[:8]}"
        return self.root / recipe.stage / name

    def at(self, folder: Path) -> Run:
        """The run in a folder, one object a folder: each keeps what it has read."""
        return self._runs.setdefault(folder, Run(folder))

    def find(self, recipe: Recipe, own: bool = False) -> Run | None:
        """The finished run of exactly this recipe, or None."""
        folder = self.place(recipe, own)
        if not (folder / "recipe.json").is_file():
            return None
        run = self.at(folder)
        return run if run.digest == recipe.digest else None

    def every(self) -> list[Run]:
        """All finished runs in the store's folder, which profiles may share."""
        paths = sorted(self.root.glob("*/[!.]*-s*/recipe.json"))
        return [self.at(path.parent) for path in paths]

    def made_by(self, digest: str) -> Run:
        """The run of the recipe with that digest; `InputError` where there is none."""
        for run in self.every():
            if run.digest == digest:
                return run
        remedy = "restore runs/, or train it again"
        raise InputError(f"no run with the recipe {digest[:12]} is there; {remedy}")

    def require(self, name: str, seed: int | None = None) -> Run:
        """A finished run, by default of the first seed; `InputError` says what is missing."""
        recipe = self.recipe(name, seed)
        if run := self.find(recipe):
            return run
        check_replaced(self.place(recipe), recipe, replace=False)
        command = f"hw2 train {name} --profile {self.profile} --seed {recipe.seed}"
        run = f"{name}/{self.profile}-s{recipe.seed}"
        raise InputError(f"{run} is not there; train it by `{command}`")

    def runs(self, name: str) -> list[Run]:
        """An experiment's runs, in the order of their seeds. The first seed's is required."""
        seeds = catalogue.seeds(name, self.profile)
        required = [self.require(name, seed) for seed in seeds[:1]]
        found = [self.find(self.recipe(name, seed)) for seed in seeds[1:]]
        return required + [run for run in found if run]

    def group(self, group: str) -> dict[str, list[Run]]:
        """Row -> its runs, in the catalogue's order: studies hold others against the first row."""
        return {name: self.runs(name) for name in catalogue.names(self.profile, group)}

    @property
    def search_folder(self) -> Path:
        return self.root / "tuning" / self.profile

    def searched(self) -> bool:
        """Whether the search is there as today's recipe makes it."""
        path = self.search_folder / "recipe.json"
        return path.is_file() and read_json(path).get("digest") == self.tuning.digest

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of the search (trials.csv)."""
        folder = self.search_folder
        if not (folder / "recipe.json").is_file():
            command = f"hw2 tune --profile {self.profile}"
            raise InputError(f"{folder}: the search is not there; run it by `{command}`")
        if not self.searched():
            check_replaced(folder, self.tuning, replace=False)
        return read_csv(folder / "trials.csv", TRIALS, words=("device", "hardware"))

    @cached_property
    def delivered(self) -> Run:
        """The run that delivered.json names; `InputError` where its weights are not those."""
        remedy = f"`hw2 deliver --profile {self.profile}` names the delivered network"
        if not (self.root.is_dir() or root("full").is_dir()):  # a wheel has none
            remedy = "hw2 is installed without its runs: clone it, and `pip install -e .` there"
        named = read_json(self.root / "delivered.json", Delivered, remedy)
        run = self.at(self.root / named["run"])
        catalogue.row(run.stage, run.profile)  # `InputError` for what is none
        if run.profile != self.profile:
            problem = f"the delivered network is {run.name}; `hw2 deliver` names one"
            raise InputError(f"profile {self.profile}: {problem}")
        weights = run.folder / "model.safetensors"
        if not weights.is_file():
            raise broken(weights, "the delivered network has no model.safetensors")
        if sha256(weights) != named["sha256"]:
            raise broken(weights, "not the delivered weights (SHA-256 differs)")
        return run


def check_replaced(folder: Path, recipe: Recipe, replace: bool) -> None:
    """`InputError` where the folder holds another recipe's run, unless it may be replaced."""
    recorded = folder / "recipe.json"
    if replace or not (recorded.is_file() or (folder / "metrics.json").is_file()):
        return
    name = "/".join(folder.parts[-2:])
    difference = recipes.difference(compose.read(read_json(recorded)), recipe)
    remedy = "--replace (replace=True) trains in its place"
    raise InputError(f"{name} holds another recipe's run: {difference}; {remedy}")


def best(trials: pd.DataFrame) -> Setting:
    """The setting with the highest mean validation count over seeds; of equals, the lower ones."""
    if trials.empty:
        raise InputError("trials.csv has no trials; restore it, or search by `hw2 tune --replace`")
    temperature, alpha = trials.groupby(["T", "alpha"], sort=True).val_correct.mean().idxmax()
    return float(temperature), float(alpha)


def finalists(trials: pd.DataFrame) -> list[Setting]:
    """The settings worth training longer: the best, and the best other one of the smallest alpha.

    Early in training even a weak teacher beats the student, so short trials favour a large alpha.
    Where the best has the smallest alpha itself, the second is the best of all others. Trials of
    alpha = 0 are a control and no setting: they have no soft targets.
    """
    trials = trials[trials.alpha > 0]
    first = best(trials)
    others = trials[(trials["T"] != first[0]) | (trials.alpha != first[1])]
    smallest = trials.alpha.min()
    if first[1] > smallest:
        others = others[others.alpha == smallest]
    return [first] if others.empty else [first, best(others)]


@contextmanager
def lock(recipe: Recipe, wait: bool = True) -> Iterator[bool]:
    """One process at a time trains a recipe. Another one waits, says so, and finds the run.

    Without `wait` the block gets False at once where another process holds the lock. SIGTERM ends
    the waiting.
    """
    cache(recipe).mkdir(parents=True, exist_ok=True)
    held = FileLock(cache(recipe) / "lock", is_singleton=True)  # one object, which counts its holds
    label = f"{recipe.stage}, seed {recipe.seed}"
    for second in itertools.count():
        with suppress(Timeout):
            held.acquire(timeout=1 if wait else 0)
            break
        if not wait:
            yield False
            return
        if second == 0:
            print(f"hw2: another process trains {label}; waiting for it", file=sys.stderr)
        end_if_asked(label)
    try:
        yield True
    finally:
        held.release()


@contextmanager
def new_folder(recipe: Recipe, profile: str, own: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes the run's when the block ends well; it gets recipe.json.

    Who trains holds the recipe's lock: a folder aside is what a killed process left, and goes.
    """
    final = Store(profile).place(recipe, own)
    aside = final.with_name(f".{final.name}.{recipe.digest[:16]}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_json(aside / "recipe.json", recipes.written(recipe))
        yield aside
        (final / "recipe.json").unlink(missing_ok=True)  # half removed it is not taken for whole
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
