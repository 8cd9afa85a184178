"""Kills at random moments, a full disk, a read-only folder, two processes at one work.

    python tests/torture/faults.py [--times 20] [--seed 0] [--keep] [CAMPAIGN...]

A forked process does the work, with the tests' profile. Every file that has its final name is whole. Work that is begun
again ends with the bits of undisturbed work. Exit status 1 where a campaign fails; `--keep` writes torture.json.
"""

import argparse
import errno
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}  # a forked process has no threads of a pool

import pytest
import torch
from helpers import keep_torture, tiny_network

import conftest
from hw2 import data as source
from hw2.errors import InputError
from hw2.experiments import plan, profiles, search, store, train, walk
from hw2.experiments.run import root
from hw2.report import write

LIMIT = 120  # seconds that no work takes, or it hangs
WRITING = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")  # Python's audit events
SPENT = ("wall_s", "processor_s", "peak_memory_bytes")
RESULT, BROKEN, ERROR, KILLED = 0, 1, 3, -signal.SIGALRM  # a worker's exit statuses; ERROR: one that is told to users
FSIZE = resource.RLIMIT_FSIZE
FEW = conftest.first(source.fashion_mnist())
FIGURES = {f"figures/{path.name}": path.read_bytes() for path in (source.PROJECT / "figures").iterdir()}
Hurt = Callable[[Path], object]  # what befalls a worker: it is told the project's folder before it begins


class Failure(Exception):
    """Something was lost, half, or other than undisturbed work leaves it."""


def training() -> None:
    for name in store.NEEDED:
        train.obtain(name, profile="smoke")
    walk.deliver("smoke")


def finalists() -> None:
    for name, seed in plan.missing("distilled", 0, "smoke"):
        train.obtain(name, seed, profile="smoke")


CACHING = partial(train.obtain, "teacher", profile="smoke")
TUNING = partial(search.obtain_trials, "smoke", "cpu")
WORKS = {  # name -> the work, and what is done before
    "training": (training, (CACHING, TUNING, finalists)),
    "tuning": (TUNING, (CACHING,)),
    "caching": (CACHING, ()),
    "report": (partial(write.write, "smoke"), ()),
}


def untouched(folder: Path) -> None: ...


def watch(act: Callable[[int, str, str], object], folder: Path) -> None:
    """Call `act` before each change of the folder from now on: its number from 1, its audit event, its path."""
    numbers = itertools.count(1)

    def hook(event: str, arguments: tuple) -> None:
        if event not in WRITING or not str(arguments[0]).startswith(str(folder)):
            return
        if event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            act(next(numbers), event, str(arguments[0]))

    sys.addaudithook(hook)


def die_in(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # nothing here catches SIGALRM


def setting(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """What a worker believes: a small profile, small networks, `folder` for the project."""
    conftest.patched(patch, folder, FEW)
    patch.setitem(profiles.PROFILES["smoke"]["common"], "views", 8)
    patch.setattr(search, "HEARTBEAT", 1)
    patch.setattr(search, "ResNet14", tiny_network)
    patch.setattr(write, "made", lambda source: FIGURES)
    patch.setattr(write, "output", lambda profile: folder)


def start(work: Callable, folder: Path, hurt: Hurt, told: Path) -> int:
    """Fork a worker, which leaves its count of changes, or a traceback, in `told`."""
    if pid := os.fork():
        return pid
    status, answer, changes, unlimited = BROKEN, "", [], resource.getrlimit(FSIZE)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        setting(pytest.MonkeyPatch(), folder)
        watch(lambda *change: changes.append(change), folder)
        die_in(LIMIT)
        hurt(folder)
        work()
        if hurt is untouched and root("smoke").is_dir():
            assert (root("smoke") / "SHA256SUMS").read_text() == store.sums("smoke")
        status, answer = RESULT, str(len(changes))
    except BaseException as error:
        status = ERROR if isinstance(error, (InputError, OSError)) and str(error) else BROKEN
        answer = traceback.format_exc()
    finally:
        resource.setrlimit(FSIZE, unlimited)
        told.write_text(answer)
        os._exit(status)


class Case:
    """A work that was done once without disturbance; every disturbance begins at a copy of `before`."""

    def __init__(self, top: Path, name: str):
        self.top, self.made, (self.work, needed) = top / name, 0, WORKS[name]
        self.before = self.project(None)
        for earlier in needed:
            self.end(earlier, self.before)
        after, started = self.project(self.before), time.monotonic()
        self.events = self.end(self.work, after)
        self.seconds = time.monotonic() - started
        self.earlier, self.after = essence(self.before), essence(after)

    def project(self, like: Path | None) -> Path:
        self.made += 1
        folder = self.top / f"project-{self.made}"
        return shutil.copytree(like, folder) if like else folder.mkdir(parents=True) or folder

    def outcomes(self, work: Callable, folder: Path, *hurts: Hurt) -> list[int]:
        """Workers at one work at once, and what came of each: KILLED, ERROR or RESULT."""
        started, found, files = time.monotonic(), [], [self.top / f"told-{number}" for number in range(len(hurts))]
        for pid, file in [(start(work, folder, hurt, file), file) for hurt, file in zip(hurts, files, strict=True)]:
            found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            if found[-1] not in (KILLED, ERROR, RESULT) or time.monotonic() - started > LIMIT:
                told = file.read_text() if file.is_file() else ""
                raise Failure(f"exit status {found[-1]} after {time.monotonic() - started:.0f} s: {told}")
        return found

    def end(self, work: Callable, folder: Path) -> int:
        """Undisturbed to the end: how many changes that took."""
        status, told = self.outcomes(work, folder, untouched)[0], (self.top / "told-0").read_text()
        if status != RESULT:
            raise Failure(told)
        return int(told)


def essence(folder: Path) -> dict[str, object]:
    """Name -> content of what is the same however the work went: not seconds, checkpoints, files written aside."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if re.search(r"(^|/)\.|\.(tmp|pt|db|db-journal|lock)$|/(lock|SHA256SUMS|view-\d+\.npy)$", name):
            continue
        if path.name == "metrics.json" or "tuning/smoke/environment" in name:
            content = {key: value for key, value in json.loads(content).items() if key not in SPENT}
        elif path.name == "test_ledger.csv":
            content = sorted(line.partition(",")[2] for line in content.decode().splitlines())
        found[name] = content
    return found


def check_whole(case: Case, folder: Path) -> None:
    """Of disturbed work: whatever has its final name is whole, be it of before or after."""
    found = essence(folder)
    for name, content in found.items():
        good = [one[name] for one in (case.after, case.earlier) if name in one]
        if name.endswith("metrics.json"):
            good += [one | {"test_correct": None, "test_total": None} for one in good]
        if name.endswith("test_ledger.csv") and set(content) <= set(case.after[name]):
            good = [content]
        if content not in good:
            raise Failure(f"{name} is half, or of nothing that was asked for")
        # The classes come later, when the test set is read for the run.
        rest = {one for one in case.after if Path(one).parent == Path(name).parent and "test_classes" not in one}
        if name.endswith("/recipe.json") and (missing := rest - found.keys()):
            raise Failure(f"{name} stands for a run that lacks {', '.join(sorted(missing))}")
    for path in folder.glob("cache/*/*.pt"):
        torch.load(path, weights_only=True)


def killed(draw: random.Random, case: Case) -> Hurt:
    """At a random time, or up to 3 ms after a random change of the folder has begun."""
    event, late, soon = draw.randint(1, case.events), draw.uniform(0, case.seconds), draw.uniform(0, 0.003)
    if draw.random() < 0.5:
        return lambda folder: die_in(late)
    return partial(watch, lambda number, *_: number == event and die_in(soon))


def refuse(code: int, path: str) -> None:
    raise OSError(code, os.strerror(code), path)


# Each gives a round's hurts, one after another; those in one tuple at once.
def kills(draw: random.Random, case: Case, number: int) -> list[tuple[Hurt, ...]]:
    return [(killed(draw, case),) for _ in range(draw.randint(1, 4))]


def full_disk(draw: random.Random, case: Case, number: int) -> list[tuple[Hurt, ...]]:
    """Either no file can grow beyond a size, which breaks writes off in the middle; or files can no longer be begun."""
    size, last = int(2 ** draw.uniform(5, 19)), draw.randrange(case.events) if number else 0
    if number % 2:
        return [(lambda folder: resource.setrlimit(FSIZE, (size, resource.getrlimit(FSIZE)[1])),)]
    beginning = ("open", "os.mkdir")
    return [(partial(watch, lambda n, event, path: n > last and event in beginning and refuse(errno.ENOSPC, path)),)]


def read_only(draw: random.Random, case: Case, number: int) -> list[tuple[Hurt, ...]]:
    """Every folder, or a part of them; SQLite, which does not ask Python, is spared."""
    share = 100 * draw.random() if number else 100
    closed = lambda path: zlib.crc32(os.path.dirname(path).encode()) % 100 < share  # noqa: E731
    return [(partial(watch, lambda n, event, path: closed(path) and refuse(errno.EACCES, path)),)]


def two_processes(draw: random.Random, case: Case, number: int) -> list[tuple[Hurt, ...]]:
    """Both at the same work at once; in every second round one of them is killed."""
    return [(killed(draw, case) if number % 2 else untouched, lambda folder: None)]


KINDS = {"kills": kills, "full disk": full_disk, "read-only": read_only, "two processes": two_processes}


def campaign(case: Case, kind: str, times: int, seed: int) -> str:
    """So many rounds of hurts, each ended without; what came of them."""
    draw, count = random.Random(seed), Counter()
    for number in range(times):
        folder = case.project(case.before)
        for hurts in KINDS[kind](draw, case, number):
            count.update(case.outcomes(case.work, folder, *hurts))
            check_whole(case, folder)
        case.end(case.work, folder)
        if essence(folder) != case.after:
            raise Failure("not what undisturbed work leaves")
        shutil.rmtree(folder)
    if bool(count[ERROR]) != (kind in ("full disk", "read-only")):
        raise Failure(f"{count[ERROR]} errors: a full disk and a read-only folder bring some, nothing else does")
    return f"{count[KILLED]} killed, {count[ERROR]} clear errors, {count[RESULT]} results; all ended with the same bits"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", default=[""])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    asked, failed = parser.parse_args(), False
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="hw2-faults-") as top:
        for name, kind in itertools.product(WORKS, KINDS):
            if not f"{kind}, {name}".startswith(tuple(asked.campaigns)):
                continue
            try:
                told = campaign(Case(Path(top, kind), name), kind, asked.times, asked.seed)
                if asked.keep:
                    keep_torture({"kind": kind, "of": name, "tried": asked.times, "told": told})
            except Failure as error:
                failed, told = True, f"FAILED: {error}"
            print(f"{kind}, {name}: {asked.times} tried, {told}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
