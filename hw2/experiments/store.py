"""The store of runs: a recipe goes in, a folder comes out; the test set's ledger; the sums of everything.

A folder is written aside and renamed when complete, so an interrupted run is never mistaken for a result.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from hw2 import distillation, files, networks
from hw2.data import PROJECT, FashionMNIST
from hw2.errors import InputError
from hw2.experiments import recipes
from hw2.experiments.recipes import Recipe
from hw2.training import History, predict

#: variables by which the instruction set can be lowered, and the values that leave no bfloat16
LOWERING = {
    "ATEN_CPU_CAPABILITY": ("DEFAULT", "AVX2"),
    "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
PACKAGES = ("torch", "torchvision", "torch-pruning", "numpy", "optuna")
HISTORY = ("epoch", "lr", "train_loss", "val_loss", "val_accuracy")
PRODUCT = "matrix product, float32"  # in `hw2 bench`: what the machine itself can do
LEDGER = ("when", "run", "recipe", "correct", "total")
WORDS = ("when", "run", "recipe", "state")  # columns of our tables that hold no numbers


def home(profile: str | None = None) -> Path:
    """Where runs, figures, report and submission of a profile belong: the project, but build/smoke/ for smoke."""
    return PROJECT / "build/smoke" if profile == "smoke" else PROJECT


def root(profile: str | None = None) -> Path:
    return home(profile) / "runs"


def cache(recipe: Recipe) -> Path:
    """The ignored folder of what a run needs while it trains and nobody needs afterwards."""
    return PROJECT / "cache" / recipe.digest[:16]


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable JSON ({error}); restore it with `git checkout`") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; restore it with `git checkout`")
    return content


def write_text(path: Path, text: str) -> None:
    files.write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Floats are written by repr, so that reading them gives the same number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def parse_csv(path: Path, **more) -> pd.DataFrame:
    """pandas' reader, which by itself unpacks what is named .gz and takes a field too many for the name of its row."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, index_col=False, compression=None, **more)
        except pd.errors.ParserWarning:
            raise ValueError("rows have more fields than the header") from None


def read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = parse_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable CSV ({str(error).strip()}); restore it with `git checkout`") from None
    if tuple(table.columns) != columns:
        raise InputError(f"{path}: columns {','.join(map(str, table.columns))}, expected {','.join(columns)}")
    if table.isna().any(axis=None):
        raise InputError(f"{path}: a row lacks a value; restore it with `git checkout`")
    numbers = table[[name for name in columns if name not in WORDS]]
    if len(table) and not all(kind.kind in "iuf" for kind in numbers.dtypes):
        raise InputError(f"{path}: a column of numbers holds something else; restore it with `git checkout`")
    return table


@dataclass(frozen=True)
class Run:
    """A finished run's folder, `<root>/<stage>/<profile>-s<seed>`."""

    folder: Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def profile(self) -> str:
        return self.folder.name.rpartition("-s")[0]

    @cached_property
    def recipe(self) -> dict:
        """The recipe's fields, and its digest under `digest`."""
        return read_json(self.folder / "recipe.json")

    @property
    def digest(self) -> str:
        if "digest" not in self.recipe:
            raise InputError(f"{self.folder / 'recipe.json'}: no digest; restore it with `git checkout`")
        return self.recipe["digest"]

    @property
    def metrics(self) -> dict:
        return read_json(self.folder / "metrics.json")

    @property
    def environment(self) -> dict:
        return read_json(self.folder / "environment.json")

    @cached_property
    def history(self) -> pd.DataFrame:
        return read_csv(self.folder / "history.csv", HISTORY)

    @property
    def weights(self) -> Path:
        """The weights' file; the teacher's is too large to commit and stays in the cache of where it was trained."""
        inside = self.folder / "model.safetensors"
        return inside if inside.is_file() else PROJECT / "cache" / self.digest[:16] / "model.safetensors"

    def network(self) -> networks.ResNet14:
        return networks.load(self.weights)

    @cached_property
    def soft_targets(self) -> Tensor:
        """Teacher runs only: float16 logits (views, 60000, 10), checked to be this teacher's, of its views."""
        path, described = self.folder / "soft_targets.npy", self.folder / "soft_targets.json"
        expected = {"teacher": self.digest} | {name: self.recipe[name] for name in ("pad", "view_seed", "views")}
        targets = distillation.read_cache(path)
        if read_json(described) != expected | {"sha256": sha256(path)} or len(targets) != expected["views"]:
            raise InputError(f"{path}: not what {described.name} and recipe.json say; restore it with `git checkout`")
        return targets

    @cached_property
    def validation_logits(self) -> Tensor:
        """Of the search's finalists and arms: float16 logits (n, 10) of the validation images."""
        return self._kept("validation_logits.npy", np.float16, (10,))

    @cached_property
    def validation_classes(self) -> Tensor:
        """Of the ablation's arms and the frontier: predicted classes (n,) of the validation images, uint8."""
        return self._kept("validation_classes.npy", np.uint8, ())

    def _kept(self, name: str, kind: type, each: tuple[int, ...]) -> Tensor:
        path = self.folder / name
        array = distillation.read_array(path, "restore it with `git checkout`")
        shape = (self.metrics["val_total"], *each)
        if array.dtype != kind or array.shape != shape:
            raise InputError(f"{path}: {array.dtype} {array.shape}, expected {np.dtype(kind)} {shape}")
        return torch.from_numpy(array.copy())

    @property
    def val_accuracy(self) -> float:
        return self.metrics["val_correct"] / self.metrics["val_total"]

    @property
    def test_accuracy(self) -> float | None:
        """None until the test set was read for this run."""
        metrics = self.metrics
        return None if metrics["test_correct"] is None else metrics["test_correct"] / metrics["test_total"]


def place(recipe: Recipe, profile: str) -> Path:
    """The folder of a recipe's run."""
    return root(profile) / recipe.stage / f"{profile}-s{recipe.seed}"


def check_replaced(folder: Path, recipe: Recipe, replace: bool) -> None:
    """`InputError` where the folder holds another recipe's run or search, unless it may be replaced."""
    name, recorded = "/".join(folder.parts[-2:]), folder / "recipe.json"
    if replace or not (recorded.is_file() or (folder / "metrics.json").is_file()):
        return
    difference = recipes.difference(recipes.parse(read_json(recorded)), recipe)
    raise InputError(f"{name} holds another recipe's run: {difference}; --replace (replace=True) trains in its place")


def find(recipe: Recipe, profile: str) -> Run | None:
    """The finished run of exactly this recipe, or None."""
    run = Run(place(recipe, profile))
    if (run.folder / "recipe.json").is_file() and run.digest == recipe.digest:
        return run
    return None


@contextmanager
def lock(recipe: Recipe) -> Iterator[None]:
    """One process at a time trains a recipe; another one waits, says so, and finds the run finished."""
    cache(recipe).mkdir(parents=True, exist_ok=True)
    held = FileLock(cache(recipe) / "lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"hw2: another process trains {recipe.stage}, seed {recipe.seed}; waiting for it", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def new_folder(recipe: Recipe, profile: str) -> Iterator[Path]:
    """A temporary folder that becomes the run's when the block ends well; its recipe.json is written here."""
    final = place(recipe, profile)
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    older = aside.with_suffix(".old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_json(aside / "recipe.json", {"digest": recipe.digest, **asdict(recipe)})
        yield aside
        with changing(profile):
            if final.exists():  # of an older recipe; half removed under its name it could be taken for whole
                final.rename(older)
            aside.rename(final)
    finally:
        shutil.rmtree(older, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def write_training(folder: Path, history: History, metrics: dict, device: torch.device) -> None:
    """history.csv, steps.csv, metrics.json and environment.json of a run, the last as it was at the first step."""
    write_csv(folder / "history.csv", HISTORY, history.epochs)
    write_csv(folder / "steps.csv", ("step", "loss"), history.steps)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "environment.json", history.environment or environment(device))


def sittings() -> list[dict]:
    """The committed measurements, one for each `hw2 bench --keep`; the same for all profiles."""
    path = root() / "bench.json"
    return read_json(path)["sittings"] if path.exists() else []


def bench() -> dict:
    """The sitting at which the machine was disturbed least: its matrix product was the fastest.

    Raises InputError where nothing was measured.
    """

    def rate(sitting: dict) -> float:
        return {row["name"]: row["median"] for row in sitting["rows"]}[PRODUCT]

    found = sittings()
    if not found:
        raise InputError(f"{root() / 'bench.json'}: no speeds; measure them by `hw2 bench --keep`")
    return max(found, key=rate)


def environment(device: torch.device) -> dict:
    """What a run's numbers may depend on besides its recipe. Runs of before 2026-11-26 lack the last four entries."""
    name, flags = _processor()
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "code": CODE,
        "commit": commit(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in flags if flag.startswith(("avx", "amx"))],
        "lowered_by": {name: os.environ[name] for name in LOWERING if name in os.environ},
    }


def _processor() -> tuple[str, list[str]]:
    """Its name and its flags, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), []
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}
    return told.get("model name", "unknown"), told.get("flags", told.get("Features", "")).split()


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is emulated: on a processor without instructions for it, or where they are turned off."""
    lowered = any(os.environ.get(name, "").upper() in LOWERING[name] for name in LOWERING)
    return device.type == "cpu" and (lowered or not {"avx512_bf16", "amx_bf16", "bf16"} & set(_processor()[1]))


def _git(*words: str) -> str:
    """What git answers about the project; `InputError` where it does not."""
    try:
        done = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"git: {error}; a run names the commit that it is trained from") from None
    if done.returncode:
        raise InputError(f"git: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}; a run names its commit")
    return done.stdout.rstrip()


def commit() -> str | None:
    """The commit that is checked out; None where the project is no repository."""
    try:
        return _git("rev-parse", "HEAD") if (PROJECT / ".git").exists() else None
    except InputError:
        return None


def check_code(profile: str) -> None:
    """`InputError` where hw2/ is not that of a commit, which a run must name; smoke runs need none.

    In an unpacked archive there is no repository to ask: then the digest of the code alone names it.
    """
    if profile == "smoke" or not (PROJECT / ".git").exists():
        return
    changed = _git("status", "--porcelain", "--", "hw2").splitlines()
    if changed or code_digest() != CODE:
        what = changed[0][3:] if changed else "a file changed while this process ran"
        raise InputError(f"hw2/ is not what HEAD has ({what}): commit it before training, or try it in profile smoke")


def check_checkpoints(recipe: Recipe, replace: bool) -> None:
    """`InputError` where another state of the code left checkpoints of this recipe; with `replace` they go."""
    for path in sorted(cache(recipe).glob("*.pt")):
        try:
            made = torch.load(path, map_location="cpu", weights_only=True)["history"]["environment"]
            told = f"was made by another state of hw2/ (commit {made['commit']})"
            if made["code"] == CODE:
                continue
        except Exception:  # torch raises whatever its unpickler met
            told = "is damaged, or older than this code"
        if not replace:
            raise InputError(f"{path}: this checkpoint {told}; check that out to go on, or start afresh by --replace")
        clear(recipe)


def clear(recipe: Recipe) -> None:
    """Remove what only unfinished training needs; the lock and the teacher's weights stay."""
    for path in (*cache(recipe).glob("*.pt"), *cache(recipe).glob("view-*.npy")):
        path.unlink(missing_ok=True)


def code_digest() -> str:
    """SHA-256 over the package's source files, by their paths relative to it."""
    digest = hashlib.sha256()
    top = PROJECT / "hw2"
    for name in sorted(path.relative_to(top).as_posix() for path in top.rglob("*.py")):
        digest.update(name.encode() + b"\0" + (top / name).read_bytes())
    return digest.hexdigest()


CODE = code_digest()  # when this process started: files may be edited while it trains


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the accelerator's peak, or this process's; None where the system does not say (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass  # not Linux; there getrusage would count what the parent process had before this one started
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def ledger(profile: str) -> pd.DataFrame:
    """Every reading of the test set; a recipe is read once."""
    path = root(profile) / "test_ledger.csv"
    return read_csv(path, LEDGER) if path.is_file() else pd.DataFrame(columns=LEDGER)


def read_test_set(run: Run | None, network: nn.Module, data: FashionMNIST) -> Tensor:
    """Predicted classes (10000,) of the test images: the one place that evaluates the test set.

    The first reading of a recipe goes into the ledger and the run's metrics. Every later one must give the recorded
    count and leaves no trace; `InputError` where it does not. `run` is None for weights that no run of ours left,
    such as a classmate's: they are graded and not recorded.
    """
    classes = predict(network, data.test_images)
    if run is None:
        return classes
    correct, total = int((classes == data.test_labels).sum()), len(classes)
    recorded = _recorded(run)
    if recorded not in (None, correct):
        raise InputError(
            f"{run.name}: {correct} test images correct, but the ledger's reading says {recorded}; "
            "restore the run and the ledger with `git checkout`"
        )
    if recorded is None or run.test_accuracy is None:  # the latter: the same recipe, trained again
        with changing(run.profile):
            if _recorded(run) is None:  # nor has another process read it by now
                when = datetime.now(UTC).isoformat(timespec="seconds")
                new = {"when": when, "run": run.name, "recipe": run.digest, "correct": correct, "total": total}
                rows = [*ledger(run.profile).to_dict("records"), new]
                write_csv(root(run.profile) / "test_ledger.csv", LEDGER, rows)
            write_json(run.folder / "metrics.json", run.metrics | {"test_correct": correct, "test_total": total})
    return classes


def _recorded(run: Run) -> int | None:
    """The ledger's count for the run's recipe."""
    rows = ledger(run.profile)
    known = rows[rows.recipe == run.digest].correct
    return int(known.iloc[0]) if len(known) else None


def of_weights(path: Path, profile: str | None) -> Run | None:
    """The run that left these weights, or None."""
    digest = sha256(path)
    for found in sorted(root(profile).glob("*/*/model.safetensors")):
        if not found.parent.name.startswith(".") and sha256(found) == digest:
            return Run(found.parent)
    return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextmanager
def changing(profile: str) -> Iterator[None]:
    """Around every change under the profile's runs: one process at a time, and SHA256SUMS of how things are then.

    The old sums go first: a process that is killed in between leaves no sums, not wrong ones.
    """
    top = root(profile)
    (PROJECT / "cache").mkdir(parents=True, exist_ok=True)
    with FileLock(PROJECT / "cache" / f"{home(profile).name}.lock", is_singleton=True):
        (top / "SHA256SUMS").unlink(missing_ok=True)
        yield
        write_text(top / "SHA256SUMS", sums(profile))


def ensure_sums(profile: str) -> None:
    """Write SHA256SUMS where there is none: a process was killed while it changed something."""
    if not (root(profile) / "SHA256SUMS").is_file():
        with changing(profile):
            pass
