"""The store of runs: what is there, what a recipe's settings are, what was delivered; the sums of everything.

A folder is written aside and renamed when complete, so an interrupted run is never mistaken for a result.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache as once
from functools import cached_property
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from hw2 import data
from hw2.errors import InputError
from hw2.experiments import catalogue, recipes, schemas
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import Run, cache, home, root
from hw2.files import broken, read_csv, read_json, sha256, write_json, write_text

TRIALS = ("trial", "T", "alpha", "lr", "seed", "epochs", "images", "val_correct", "state")


def delivered_profile() -> str | None:
    """That of the project's delivered network; None where none is delivered."""
    return Store("full").named()[0].profile if (root("full") / "delivered.json").is_file() else None


class Store(catalogue.Recipes):
    """A profile's finished runs, as today's recipes make them. It never trains and never writes.

    The profile is by default HW2_PROFILE (empty counts as unset), or else the delivered network's, or `full` where none
    is delivered. `file` is the SHA-256 of a course's teacher that is to be used. What was found is not read again.
    """

    def __init__(self, profile: str | None = None, file: str | None = None):
        super().__init__(profile or os.environ.get("HW2_PROFILE") or delivered_profile() or "full")
        self.root, self.file = root(self.profile), file
        self.setting, self.recipe, self.require = once(self.setting), once(self.recipe), once(self.require)

    def place(self, recipe: Recipe, own: bool = False) -> Path:
        """The folder of a recipe's run; `own` recipes, which are not the catalogue's, have theirs where git ignores."""
        name = f"{self.profile}-s{recipe.seed}"
        if own:
            return home(self.profile) / "own" / recipe.stage / f"{name}-{recipe.digest[:8]}"
        return self.root / recipe.stage / name

    def find(self, recipe: Recipe, own: bool = False) -> Run | None:
        """The finished run of exactly this recipe, or None."""
        path = self.place(recipe, own) / "recipe.json"
        return Run(path.parent) if path.is_file() and read_json(path).get("digest") == recipe.digest else None

    def every(self) -> list[Run]:
        """All finished runs in the store's folder, which profiles may share."""
        return [Run(path.parent) for path in sorted(self.root.glob("*/[!.]*-s*/recipe.json"))]

    def made_by(self, digest: str) -> Run:
        """The run of the recipe with that digest; `InputError` where there is none."""
        for run in self.every():
            if read_json(run.folder / "recipe.json").get("digest") == digest:
                return run
        raise InputError(f"no run with the recipe {digest[:12]} is there; restore runs/, or train it again")

    def require(self, name: str, seed: int = 0) -> Run:
        """The finished run of an experiment; `InputError` tells what differs, or the command that trains it."""
        recipe = self.recipe(name, seed)
        if run := self.find(recipe):
            return run
        check_replaced(self.place(recipe), recipe, replace=False)
        command = f"hw2 train {name} --profile {self.profile} --seed {seed}"
        raise InputError(f"{name}/{self.profile}-s{seed} is not there; train it by `{command}`")

    def runs(self, name: str) -> list[Run]:
        """An experiment's runs, in the order of their seeds. The first of the profile's seeds is required."""
        seeds = self.seeds(name)
        runs = [self.find(self.recipe(name, seed)) for seed in seeds[1:]]
        return [self.require(name, seed) for seed in seeds[:1]] + [run for run in runs if run]

    def run(self, name: str) -> Run:
        """An experiment's run of its first seed."""
        return self.require(name, self.seeds(name)[0])

    def group(self, group: str) -> dict[str, list[Run]]:
        """Row -> its runs, in the catalogue's order: the first row is what studies hold the others against."""
        return {name: self.runs(name) for name in self.names(group)}

    def course_file(self, seed: int) -> str | None:
        recorded = self.root / "teacher" / f"{self.profile}-s{seed}" / "recipe.json"
        return self.file or (read_json(recorded).get("weights") if recorded.is_file() else None)

    def setting(self, which: str) -> tuple[float, float]:
        """Of the finalists the one with the higher mean on validation is chosen; of equals, the search's first."""
        settings = finalists(self.trials)
        if which == "chosen":  # over all seeds, which must be there: means of unequal seeds would decide nothing
            correct = [
                sum(self.require(name, seed).metrics["val_correct"] for seed in self.seeds(name))
                for name in self.names("finalists")
            ]
            which = "finalist-2" if correct[-1] > correct[0] else "finalist-1"
        return {"best": settings[0], "finalist-1": settings[0], "finalist-2": settings[-1]}[which]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of the search (trials.csv)."""
        recipe, folder = self.tuning(), self.root / "tuning" / self.profile
        if not (folder / "recipe.json").is_file():
            raise InputError(f"{folder}: the search is not there; run it by `hw2 tune --profile {self.profile}`")
        if read_json(folder / "recipe.json").get("digest") != recipe.digest:
            check_replaced(folder, recipe, replace=False)
        return read_csv(folder / "trials.csv", TRIALS, words=("state",))

    def named(self) -> tuple[Run, str]:
        """The run that delivered.json names, and the SHA-256 of its weights."""
        content = read_json(self.root / "delivered.json", schemas.Delivered)
        catalogue.EXPERIMENTS[content["run"].partition("/")[0]]  # an `InputError` for what is none
        return Run(self.root / content["run"]), content["sha256"]

    @cached_property
    def delivered(self) -> Run:
        """The run that delivered.json names; `InputError` where its weights are not the named ones."""
        run, digest = self.named()
        if run.profile != self.profile:
            raise InputError(f"profile {self.profile}: the delivered network is {run.name}; `hw2 deliver` names one")
        weights = run.folder / "model.safetensors"
        if not weights.is_file():
            raise broken(weights, "the delivered network has no model.safetensors")
        if sha256(weights) != digest:
            raise broken(weights, "not the delivered weights (SHA-256 differs)")
        return run


def check_replaced(folder: Path, recipe: Recipe, replace: bool) -> None:
    """`InputError` where the folder holds another recipe's run or search, unless it may be replaced."""
    name, recorded = "/".join(folder.parts[-2:]), folder / "recipe.json"
    if replace or not (recorded.is_file() or (folder / "metrics.json").is_file()):
        return
    difference = recipes.difference(catalogue.read(read_json(recorded)), recipe)
    raise InputError(f"{name} holds another recipe's run: {difference}; --replace (replace=True) trains in its place")


def best(trials: pd.DataFrame) -> tuple[float, float]:
    """Temperature and alpha with the highest mean count on validation over the seeds; of equals, the lower ones."""
    if trials.empty:
        raise InputError("trials.csv has no trials; restore it, or search again by `hw2 tune --replace`")
    temperature, alpha = trials.groupby(["T", "alpha"], sort=True).val_correct.mean().idxmax()
    return float(temperature), float(alpha)


def finalists(trials: pd.DataFrame) -> list[tuple[float, float]]:
    """The settings that are worth training longer: the best, and the best other one of the smallest alpha.

    Early in training even a weak teacher beats the student, so short trials favour a large alpha. Where the best has
    the smallest alpha itself, the second is the best of all others.
    """
    first = best(trials)
    rest = trials[(trials["T"] != first[0]) | (trials.alpha != first[1])]
    if first[1] > trials.alpha.min():
        rest = rest[rest.alpha == trials.alpha.min()]
    return [first] if rest.empty else [first, best(rest)]


@contextmanager
def lock(recipe: Recipe, wait: bool = True) -> Iterator[bool]:
    """One process at a time trains a recipe. Another one waits, says so, and finds the run finished.

    Without `wait` the block gets False at once where another process holds the lock.
    """
    cache(recipe).mkdir(parents=True, exist_ok=True)
    held = FileLock(cache(recipe) / "lock", is_singleton=True)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if wait:
            print(f"hw2: another process trains {recipe.stage}, seed {recipe.seed}; waiting for it", file=sys.stderr)
            held.acquire()
    try:
        yield held.is_locked
    finally:
        held.release()


@contextmanager
def new_folder(recipe: Recipe, profile: str, own: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes the run's when the block ends well; its recipe.json is written here."""
    final = Store(profile).place(recipe, own)
    # Who trains holds the recipe's lock: of its digest there is one such folder, and what a killed process left goes.
    aside = final.with_name(f".{final.name}.{recipe.digest[:16]}.tmp")
    older = aside.with_suffix(".old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_json(aside / "recipe.json", recipes.written(recipe))
        yield aside
        with nullcontext() if own else changing(profile):
            if final.exists():  # of an older recipe; half removed under its name it could be taken for whole
                final.rename(older)
            aside.rename(final)
    finally:
        shutil.rmtree(older, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def sums(profile: str) -> str:
    """SHA256SUMS of everything under the profile's runs, in `sha256sum --check`'s format."""
    top, paths = root(profile), []
    for folder, inner, names in os.walk(top):  # bears that another process renames its folder aside meanwhile
        inner[:] = [name for name in inner if name[0] != "."]
        paths += [Path(folder, name) for name in names if name[0] != "." and name != "SHA256SUMS"]
    return "".join(f"{sha256(path)}  {path.relative_to(top).as_posix()}\n" for path in sorted(paths))


def complete_sums(profile: str) -> None:
    """Mend what killed processes left: folders aside whose recipe's lock nobody holds go, missing sums are written."""
    for path in root(profile).glob("*/.*-s*.*"):
        held = FileLock(data.PROJECT / "cache" / path.name.split(".")[-2] / "lock")
        with suppress(Timeout, OSError), held.acquire(timeout=0):
            shutil.rmtree(path)
    if root(profile).is_dir() and not (root(profile) / "SHA256SUMS").is_file():
        with changing(profile):
            pass


@contextmanager
def changing(profile: str) -> Iterator[None]:
    """Around every change under the profile's runs: one process at a time, and SHA256SUMS of how things are then.

    The old sums go first: a process that is killed in between leaves no sums, not wrong ones.
    """
    top = root(profile)
    (data.PROJECT / "cache").mkdir(parents=True, exist_ok=True)
    with FileLock(data.PROJECT / "cache" / f"{home(profile).name}.lock", is_singleton=True):
        (top / "SHA256SUMS").unlink(missing_ok=True)
        for left in (*top.glob(".*.tmp"), *top.glob("[!.]*/[!.]*/.*.tmp")):  # by a process that was killed
            left.unlink()
        yield
        write_text(top / "SHA256SUMS", sums(profile))
