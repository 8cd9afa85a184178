"""The store of runs: what is there, what a recipe's settings are, what was delivered; the sums of everything.

A folder is written aside and renamed when complete, so an interrupted run is never mistaken for a result.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from hw2 import data
from hw2.errors import InputError
from hw2.experiments import catalogue, recipes, schemas
from hw2.experiments.profiles import check_profile
from hw2.experiments.recipes import Recipe
from hw2.experiments.run import Run, cache, home, root
from hw2.files import read_csv, read_json, restore, sha256, write_json, write_text

TRIALS = ("trial", "T", "alpha", "lr", "seed", "epochs", "images", "val_correct", "state")
#: experiments without which a profile delivers nothing
NEEDED = ("teacher", "plain", "distilled", "compressed", "scratch")


def default_profile() -> str:
    """HW2_PROFILE (empty counts as unset), or else the delivered network's, or `cpu` where none is delivered."""
    return check_profile(os.environ.get("HW2_PROFILE") or delivered_profile() or "cpu")


def delivered_profile() -> str | None:
    """That of the project's delivered network; None where none is delivered."""
    return named("cpu")[0].profile if (root("cpu") / "delivered.json").is_file() else None


def place(recipe: Recipe, profile: str, own: bool = False) -> Path:
    """The folder of a recipe's run; `own` recipes, which are not the catalogue's, have theirs in an ignored folder."""
    name = f"{profile}-s{recipe.seed}"
    if own:
        return home(profile) / "own" / recipe.stage / f"{name}-{recipe.digest[:8]}"
    return root(profile) / recipe.stage / name


def find(recipe: Recipe, profile: str, own: bool = False) -> Run | None:
    """The finished run of exactly this recipe, or None."""
    path = place(recipe, profile, own) / "recipe.json"
    return Run(path.parent) if path.is_file() and read_json(path).get("digest") == recipe.digest else None


def check_replaced(folder: Path, recipe: Recipe, replace: bool) -> None:
    """`InputError` where the folder holds another recipe's run or search, unless it may be replaced."""
    name, recorded = "/".join(folder.parts[-2:]), folder / "recipe.json"
    if replace or not (recorded.is_file() or (folder / "metrics.json").is_file()):
        return
    difference = recipes.difference(catalogue.read(read_json(recorded)), recipe)
    raise InputError(f"{name} holds another recipe's run: {difference}; --replace (replace=True) trains in its place")


def every(profile: str) -> list[Run]:
    """All finished runs in the profile's store, which other profiles may share."""
    found = root(profile).glob("*/*-s*/recipe.json")
    return [Run(path.parent) for path in sorted(found) if not path.parent.name.startswith(".")]


def made_by(digest: str, profile: str) -> Run:
    """The run of the recipe with that digest; `InputError` where there is none."""
    for run in every(profile):
        if read_json(run.folder / "recipe.json").get("digest") == digest:
            return run
    raise InputError(f"no run with the recipe {digest[:12]} is there; restore runs/, or train it again")


def require(name: str, seed: int = 0, profile: str | None = None, settings: Settings | None = None) -> Run:
    """The finished run of an experiment, as today's recipe makes it. Never trains and never writes.

    `settings` spares reading the search again for each of many runs. Raises `InputError`: which field differs where the
    folder holds another recipe's run, or the command that trains it.
    """
    profile = check_profile(profile or default_profile())
    recipe = catalogue.recipe(name, profile, seed, settings or Settings(profile))
    if run := find(recipe, profile):
        return run
    check_replaced(place(recipe, profile), recipe, replace=False)
    raise InputError(
        f"{name}/{profile}-s{seed} is not there; train it by `hw2 train {name} --profile {profile} --seed {seed}`"
    )


def finished(name: str, profile: str | None = None) -> list[Run]:
    """An experiment's runs of today's recipes in the order of their seeds. The first seed is required."""
    profile = check_profile(profile or default_profile())
    first, *others = catalogue.seeds(name, profile)
    settings = Settings(profile)
    found = [find(catalogue.recipe(name, profile, seed, settings), profile) for seed in others]
    return [require(name, first, profile, settings), *(run for run in found if run)]


class Settings(catalogue.Unknown):
    """What recipes ask of a profile's runs, each thing read once. `file`: the course's teacher that is to be used."""

    def __init__(self, profile: str, file: str | None = None):
        self.profile, self.file, self.known = profile, file, {}

    def course_file(self, seed: int) -> str | None:
        if self.file:
            return self.file
        recorded = root(self.profile) / "teacher" / f"{self.profile}-s{seed}" / "recipe.json"
        return read_json(recorded).get("weights") if recorded.is_file() else None

    def setting(self, which: str) -> tuple[float, float]:
        """Of the finalists the one with the higher mean on validation is chosen; of equals, the search's first."""
        if not self.known:
            found = trials(self.profile, self)
            first, *others = finalists(found)
            self.known = {"best": best(found), "finalist-1": first, "finalist-2": (others or [first])[0]}
        if which == "chosen" and which not in self.known:
            self.known[which] = self.known[max(("finalist-1", "finalist-2"), key=self._correct)]
        return self.known[which]

    def _correct(self, name: str) -> int:
        """Over all seeds, which must be there: means of unequal seeds would decide nothing."""
        seeds = catalogue.seeds(name, self.profile)
        return sum(require(name, seed, self.profile, self).metrics["val_correct"] for seed in seeds)


def trials(profile: str | None = None, settings: Settings | None = None) -> pd.DataFrame:
    """The trials of the profile's search (trials.csv), as today's recipe makes them. Never searches, never writes."""
    profile = check_profile(profile or default_profile())
    recipe = catalogue.tuning(profile, settings or Settings(profile))
    folder = root(profile) / "tuning" / profile
    if not (folder / "recipe.json").is_file():
        raise InputError(f"the search of profile {profile} is not there; run it by `hw2 tune --profile {profile}`")
    if read_json(folder / "recipe.json").get("digest") != recipe.digest:
        check_replaced(folder, recipe, replace=False)
    return read_csv(folder / "trials.csv", TRIALS, words=("state",))


def best(trials: pd.DataFrame) -> tuple[float, float]:
    """Temperature and alpha with the highest mean count of correct validation images over the seeds.

    Of equals, the lower temperature and then the lower alpha.
    """
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
    if rest.empty:
        return [first]
    smallest = rest[rest.alpha == trials.alpha.min()]
    return [first, best(rest if first[1] == trials.alpha.min() else smallest)]


def named(profile: str) -> tuple[Run, str]:
    """The run that delivered.json names, and the SHA-256 of its weights."""
    content = read_json(root(profile) / "delivered.json", schemas.Delivered)
    catalogue.row(content["run"].partition("/")[0])
    return Run(root(profile) / content["run"]), content["sha256"]


def delivered(profile: str | None = None) -> Run:
    """The run that delivered.json names; `InputError` where its weights are not the named ones."""
    profile = check_profile(profile or default_profile())
    run, digest = named(profile)
    if run.profile != profile:
        raise InputError(f"profile {profile}: the delivered network is {run.name}; `hw2 deliver` names its own")
    weights = run.folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{run.name}: the delivered network has no model.safetensors; {restore(weights)}")
    if sha256(weights) != digest:
        told = f"model.safetensors is not the delivered one (SHA-256 differs); {restore(weights)}"
        raise InputError(f"{run.name}: {told}")
    return run


def name_delivered(run: Run) -> None:
    path, content = root(run.profile) / "delivered.json", {"run": run.name, "sha256": sha256(run.weights)}
    if not path.is_file() or read_json(path) != content:
        with changing(run.profile):
            write_json(path, content)


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
        if not wait:
            yield False
            return
        print(f"hw2: another process trains {recipe.stage}, seed {recipe.seed}; waiting for it", file=sys.stderr)
        held.acquire()
    try:
        yield True
    finally:
        held.release()


@contextmanager
def new_folder(recipe: Recipe, profile: str, own: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes the run's when the block ends well; its recipe.json is written here."""
    final = place(recipe, profile, own)
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
    top, kept = root(profile), []
    for folder, inner, names in os.walk(top):  # bears that another process renames its folder aside meanwhile
        inner[:] = [name for name in inner if name[0] != "."]
        kept += [Path(folder, name) for name in names if name[0] != "." and name != "SHA256SUMS"]
    return "".join(f"{sha256(path)}  {path.relative_to(top).as_posix()}\n" for path in sorted(kept))


def sums_of(profile: str) -> str:
    """The lines of `sums` for the profile's own runs and search, and for the files that all profiles share."""

    def kept(name: str) -> bool:
        stage, _, rest = name.partition("/")
        folder = rest.partition("/")[0]
        return not rest or profile == (folder if stage == "tuning" else folder.rpartition("-s")[0])

    return "".join(line for line in sums(profile).splitlines(keepends=True) if kept(line[66:-1]))


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
