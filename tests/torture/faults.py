"""Kills at random moments, a full disk, a read-only folder, two processes on one run, a clock that jumps.

    python tests/torture/faults.py [--times 20] [--seed 0] [--keep] [CAMPAIGN...]

The shrunken smoke profile of the tests does the work in a process of its own, which is forked, so that each one is
past its imports. Whatever befalls it, every file that a reader would take for whole is whole; and when the work is
begun again and let be, it ends with the files of undisturbed work, bit for bit. One line a campaign; exit status 1
where one fails. `--keep` puts what was told into runs/torture.json, from which README's table is made.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gzip
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}  # a forked process has no threads of a pool

import numpy as np
import pytest
import sqlalchemy
import torch
import torch_pruning  # noqa: F401 (here and not in each process)
import torchvision
from helpers import keep_torture, tiny_network

import conftest
from hw2 import data as source
from hw2.errors import InputError
from hw2.experiments import recipes, stages
from hw2.experiments import search as tuning
from hw2.experiments import store as runs
from hw2.report import write as report

LIMIT = 120  # seconds that no work takes, or it hangs
WRITING = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")  # Python's audit events
DAY = 86400


class Failure(Exception):
    """Something was lost, half, or other than undisturbed work leaves it."""


# --- the work: each a function of the project's folder ---------------------------------------------------------------


def train(folder: Path) -> None:
    stages.read_test_sets([stages.distilled(), stages.compressed(), stages.plain()])
    stages.deliver(stages.compressed())


def tune(folder: Path) -> None:
    stages.tuned()


def cache(folder: Path) -> None:
    stages.teacher()


def fetch(folder: Path) -> None:
    source.load(folder / "data")


def write_report(folder: Path) -> None:
    report.write(folder / "out")


def committed() -> dict[str, bytes]:
    """What `report.files` makes of the committed runs, without making it: that writes nothing and takes long."""
    found = [*(source.PROJECT / "figures").iterdir(), *(source.PROJECT / n for n in ("report.md", "submission.csv"))]
    return {path.relative_to(source.PROJECT).as_posix(): path.read_bytes() for path in found if path.is_file()}


def mirror(folder: Path) -> dict:
    """Serve four files of noise, as gzip; what `hw2.data` and torchvision must hold to take them for right."""
    folder.mkdir()
    files, resources, noise = {}, [], np.random.default_rng(0)
    for name, (_, shape) in source.FILES.items():
        shape = (4000 if len(shape) == 3 else 1000, *shape[1:])
        content = bytes(4 + 4 * len(shape)) + noise.integers(0, 10, shape, np.uint8).tobytes()
        files[name] = hashlib.sha256(content).hexdigest(), shape
        packed = gzip.compress(content, 1)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments):  # who asked was killed
            pass

    server = Server(("127.0.0.1", 0), partial(Quiet, directory=folder))
    server.timeout, parent = 1, os.getpid()
    if not os.fork():  # no thread: those who fork have none
        while os.getppid() == parent:
            server.handle_request()
        os._exit(0)
    server.socket.close()
    return {"files": files, "resources": resources, "address": f"http://127.0.0.1:{server.server_port}/"}


# --- a process that does it -------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A forked process, leader of a group of its own. `pipe` tells a byte when it is where it is to be met."""

    pid: int
    pipe: int
    told: Path

    def wait(self, limit: float = LIMIT) -> int | None:
        """Its status (negative: the signal), or None where it still works after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        os.close(self.pipe)
        return os.waitstatus_to_exitcode(ended[1])

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)

    def finish(self) -> dict:
        """Wait to its end; what it told. `Failure` where it hangs."""
        if self.wait() is None:
            self.kill()
            self.wait()
            raise Failure(f"still at work after {LIMIT} s")
        return json.loads(self.told.read_text())


def changes(event: str, arguments: tuple, folder: str) -> bool:
    """Whether an audit event is about to change something in `folder`."""
    if event not in WRITING or not str(arguments[0]).startswith(folder):
        return False
    return event != "open" or bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Bench:
    """Where projects are made, worked in, hurt and compared."""

    def __init__(self, top: Path, seed: int):
        self.top, self.random = top, random.Random(seed)
        self.mirror = mirror(top / "mirror")
        self.content = committed()
        self.few = conftest.first(source.fashion_mnist())
        self.made = 0
        self.cases = {}

    def setting(self, folder: Path) -> None:
        """What a worker's process believes: a small profile, small networks, `folder` for the project."""
        patch = pytest.MonkeyPatch()
        conftest.patched(patch, folder, self.few)
        shrunken = conftest.SHRUNKEN | {"common": conftest.SHRUNKEN["common"] | {"views": 8}}
        patch.setitem(recipes.NUMBERS, "smoke", shrunken)
        patch.setattr(tuning, "HEARTBEAT", 1)
        patch.setattr(tuning, "ResNet14", tiny_network)
        patch.setattr(report, "files", lambda: self.content)
        patch.setattr(source, "PROJECT", folder)
        patch.setattr(source, "FILES", self.mirror["files"])
        patch.setattr(source, "DEBIAN_FOLDER", Path("no-such-folder"))
        patch.setenv("PATH", "")  # no apt-get
        patch.setenv("no_proxy", "*")
        patch.delenv("HW2_DATA", raising=False)
        patch.setattr(torchvision.datasets.FashionMNIST, "resources", self.mirror["resources"])
        patch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [self.mirror["address"]])

    def start(self, work: Callable, folder: Path, event: int = 0, hurt: Callable = lambda folder: None) -> Worker:
        """Fork a worker. It tells when it starts (event 0) or is about to change the folder for the so manieth time."""
        self.made += 1
        told = self.top / f"told-{self.made}.json"
        reached, tell = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell)
            with suppress(OSError):  # it has done so itself, or is gone
                os.setpgid(pid, pid)
            return Worker(pid, reached, told)
        answer = {"error": "", "kind": ""}
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            seen = 0

            def watch(name: str, arguments: tuple) -> None:
                nonlocal seen
                if changes(name, arguments, str(folder)):
                    seen += 1
                    if seen == event:
                        os.write(tell, b".")

            self.setting(folder)
            sys.addaudithook(watch)
            hurt(folder)
            started = time.monotonic()
            if not event:
                os.write(tell, b".")
            work(folder)
            answer |= {"seconds": time.monotonic() - started, "events": seen}
        except BaseException as error:
            clear = isinstance(error, (InputError, OSError)) and str(error)
            answer |= {
                "kind": type(error).__name__,
                "error": str(error) if clear else "",
                "trace": traceback.format_exc(),
            }
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            told.write_text(json.dumps(answer))
            os._exit(bool(answer["kind"]))

    def done(self, work: Callable, folder: Path, **more) -> dict:
        """Undisturbed work (but for `hurt`): what the worker told."""
        told = self.start(work, folder, **more).finish()
        if told["kind"]:
            raise Failure(told["trace"])
        return told

    def case(self, name: str) -> Case:
        """The named work, done once without disturbance; every disturbance begins where that has begun."""
        if name not in self.cases:
            work, needed = CASES[name]
            before = self.project()
            for earlier in needed:
                self.done(earlier, before)
            after = self.project(before)
            told = self.done(work, after)
            self.cases[name] = Case(work, before, essence(before), essence(after), told["seconds"], told["events"])
        return self.cases[name]

    def project(self, like: Path | None = None) -> Path:
        self.made += 1
        folder = self.top / f"project-{self.made}"
        return shutil.copytree(like, folder) if like else folder.mkdir() or folder

    def check(self, case: Case, folder: Path) -> None:
        """The folder is what undisturbed work leaves."""
        found = essence(folder)
        wrong = sorted(name for name in found | case.after if found.get(name) != case.after.get(name))
        if wrong:
            raise Failure(f"not as without disturbance: {', '.join(wrong)}")
        top = folder / "build/smoke/runs"
        if top.exists():
            if not (top / "SHA256SUMS").is_file():
                raise Failure("SHA256SUMS is missing")
            listed = dict(line.split("  ")[::-1] for line in (top / "SHA256SUMS").read_text().splitlines())
            files = [path for path in visible(top) if path.name != "SHA256SUMS"]
            if listed != {path.relative_to(top).as_posix(): runs.sha256(path) for path in files}:
                raise Failure("SHA256SUMS is not of what lies there")

    def end(self, case: Case, folder: Path) -> None:
        """Undisturbed to the end, and right; the folder goes."""
        self.done(case.work, folder)
        self.check(case, folder)
        shutil.rmtree(folder)


@dataclass
class Case:
    work: Callable
    before: Path
    earlier: dict
    after: dict
    seconds: float
    events: int


CASES = {
    "training": (train, (cache, tune, lambda folder: stages.finalists())),
    "tuning": (tune, (cache,)),
    "caching": (cache, ()),
    "data fetch": (fetch, ()),
    "report": (write_report, ()),
}


# --- what is whole ----------------------------------------------------------------------------------------------------


def visible(top: Path) -> list[Path]:
    """Files that a reader could take for something: not those written aside."""
    found = [path for path in top.rglob("*") if not any(part.startswith(".") for part in path.relative_to(top).parts)]
    return sorted(path for path in found if path.is_file() and path.suffix != ".tmp")


SPENT = ("wall_s", "processor_s", "peak_memory_bytes")


def essence(folder: Path) -> dict[str, object]:
    """Name -> content of what is the same however the work went: not seconds, memory, times of day, checkpoints."""
    found = {}
    for path in visible(folder):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.name == "metrics.json":
            content = {k: v for k, v in json.loads(content).items() if k not in SPENT}
        elif path.name == "test_ledger.csv":
            content = sorted(line.partition(",")[2] for line in content.decode().splitlines())
        elif path.parent.parent.name == "tuning" and path.name == "environment.json":
            content = {k: v for k, v in json.loads(content).items() if k not in SPENT}
        elif path.suffix in (".pt", ".db", ".db-journal") or re.fullmatch(r"lock|SHA256SUMS|view-\d+\.npy", path.name):
            continue
        found[name] = content
    return found


def check_whole(case: Case, folder: Path) -> None:
    """Of disturbed work: whatever has its final name is whole, be it of before or after."""
    found = essence(folder)
    for name, content in found.items():
        good = [case.after.get(name), case.earlier.get(name)]
        if name.endswith("metrics.json"):
            good += [one | {"test_correct": None, "test_total": None} for one in good if one]
        if name.endswith("test_ledger.csv"):
            good = [content] if set(content) <= set(good[0]) else []
        if content not in good:
            raise Failure(f"{name} is half, or of nothing that was asked for")
        if name.endswith("/recipe.json"):
            rest = {other for other in case.after if Path(other).parent == Path(name).parent}
            if missing := rest - found.keys():
                raise Failure(f"{name} stands for a run that lacks {', '.join(sorted(missing))}")
    for path in visible(folder):
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        if path.name == "SHA256SUMS" and not re.fullmatch(r"([0-9a-f]{64}  [^\n]+\n)*", path.read_text()):
            raise Failure("SHA256SUMS is half")


# --- the campaigns ----------------------------------------------------------------------------------------------------


def kills(bench: Bench, name: str, times: int) -> tuple[int, str]:
    """SIGKILL, half at a random time, half up to 3 ms after a random change of the folder has begun."""
    case, killed, halves, restarts = bench.case(name), 0, 0, 0
    while killed < times:
        folder = bench.project(case.before)
        for _ in range(bench.random.randint(1, 4)):
            event = bench.random.randint(1, case.events) if bench.random.random() < 0.5 else 0
            delay = bench.random.uniform(0, 0.003 if event else case.seconds)
            worker = bench.start(case.work, folder, event)
            if select.select([worker.pipe], [], [], LIMIT)[0] and os.read(worker.pipe, 1):
                status = worker.wait(delay)
                if status is None:
                    worker.kill()
                    status = worker.wait()
            else:
                status = worker.wait()  # it ended before
            if status != -signal.SIGKILL:
                if status != 0:
                    raise Failure(worker.told.read_text())
                break
            killed += 1
            halves += len(visible(folder)) < len([path for path in folder.rglob("*") if path.is_file()])
            check_whole(case, folder)
        restarts += 1
        bench.end(case, folder)
    return killed, f"{halves} kills left half files aside; {restarts} works ended with the bits of undisturbed work"


def hurt_then_end(bench: Bench, name: str, times: int, hurts: list[Callable]) -> tuple[int, int, int]:
    """Work under each hurt; (tried, clear errors, results). What is there is whole; without the hurt the work ends."""
    case, errors, results = bench.case(name), 0, 0
    for number in range(times):
        folder = bench.project(case.before)
        told = bench.start(case.work, folder, hurt=hurts[number % len(hurts)]).finish()
        mend(folder)
        if told["kind"] and not told["error"]:
            raise Failure(f"no clear error: {told['trace']}")
        errors += bool(told["kind"])
        results += not told["kind"]
        check_whole(case, folder)
        bench.end(case, folder)
    return times, errors, results


def full_disk(bench: Bench, name: str, times: int) -> tuple[int, str]:
    """Either no file can grow beyond a size, which breaks writes off in the middle; or files can no longer be begun."""

    def largest(size: int, folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def full(after: int, folder: Path) -> None:
        seen = 0

        def refuse(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event in ("open", "os.mkdir") and changes(event, arguments, str(folder)):
                seen += 1
                if seen > after:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

        sys.addaudithook(refuse)

    case = bench.case(name)
    sizes = [int(2 ** bench.random.uniform(5, 19)) for _ in range(times)]
    hurts = [partial(largest, size) if n % 2 else partial(full, bench.random.randrange(case.events))
             for n, size in enumerate(sizes)]  # fmt: skip
    tried, errors, results = hurt_then_end(bench, name, times, hurts)
    return tried, f"{errors} clear errors, {results} results; nothing half, all ended with space again"


def bind_permissions() -> None:
    """For root, permission bits do not bind: give up the two capabilities that are above them (Linux)."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, kept = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, kept)
    for word in (0, 1):  # CAP_DAC_OVERRIDE is 1, CAP_DAC_READ_SEARCH 2; of the effective and the permitted ones
        kept[word] &= ~0b110
    if libc.capset(header, kept):
        raise OSError(ctypes.get_errno(), "capset")


def mend(folder: Path) -> None:
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(0o755)


def read_only(bench: Bench, name: str, times: int) -> tuple[int, str]:
    """Every folder of the project, or a part of them."""

    def close(share: float, folder: Path) -> None:
        chosen = random.Random(share)
        for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            if chosen.random() < share:
                path.chmod(0o555)
        bind_permissions()

    shares = [1.0, *(bench.random.uniform(0.1, 1) for _ in range(times - 1))]
    tried, errors, results = hurt_then_end(bench, name, times, [partial(close, share) for share in shares])
    if not errors:
        raise Failure("a read-only folder was no hindrance: the campaign tries nothing")
    return tried, f"{errors} clear errors, {results} results; all ended when writable again"


def two_processes(bench: Bench, name: str, times: int) -> tuple[int, str]:
    """Both at the same work at once; in every second round one of them is killed."""
    case, killed = bench.case(name), 0
    for number in range(times):
        folder = bench.project(case.before)
        one, other = (bench.start(case.work, folder) for _ in range(2))
        if number % 2 and other.wait(bench.random.uniform(0, case.seconds)) is None:
            other.kill()
            other.wait()
            killed += 1
            check_whole(case, folder)
        elif not number % 2 and other.finish()["kind"]:
            raise Failure(json.loads(other.told.read_text())["trace"])
        told = one.finish()
        if told["kind"]:
            raise Failure(told["trace"])
        bench.check(case, folder)
        bench.end(case, folder)
    return times, f"of {killed} pairs one was killed: both, or the other, ended with the same bits"


def clock(bench: Bench, name: str, times: int) -> tuple[int, str]:
    """Python's clock and the database's jump by up to a year at each look; or stay off, after a kill."""

    def jumping(offset: Callable[[], float], folder: Path) -> None:
        real, now = time.time, datetime.now
        time.time = lambda: real() + offset()
        runs.datetime = SimpleNamespace(now=lambda zone: now(zone) + timedelta(seconds=offset()))

        def stamp() -> str:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time()))

        def connected(connection, record) -> None:
            connection.create_function("current_timestamp", 0, stamp)

        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", connected)

    case = bench.case(name)
    for number in range(times):
        folder, draw = bench.project(case.before), random.Random(number)
        first = later = partial(jumping, partial(draw.choice, (-400 * DAY, -DAY / 24, 0, DAY / 24, 400 * DAY)))
        if number % 2:
            first, later = partial(jumping, float), partial(jumping, partial(float, draw.choice((-400, 400)) * DAY))
        worker = bench.start(case.work, folder, hurt=first)
        if worker.wait(bench.random.uniform(0, case.seconds)) is None:
            worker.kill()
            worker.wait()
        check_whole(case, folder)
        bench.done(case.work, folder, hurt=later)
        bench.check(case, folder)
        shutil.rmtree(folder)
    return times, "jumps about a kill: the same bits"


CAMPAIGNS = {
    **{f"kills, {name}": (kills, name) for name in CASES},
    **{f"full disk, {name}": (full_disk, name) for name in CASES},
    **{f"read-only, {name}": (read_only, name) for name in CASES},
    **{f"two processes, {name}": (two_processes, name) for name in CASES},
    **{f"clock, {name}": (clock, name) for name in ("training", "tuning")},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"beginnings of: {'; '.join(CAMPAIGNS)}")
    parser.add_argument("--times", type=int, default=20, help="kills a campaign; of the others, half as many rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="write what was tried into runs/torture.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory(prefix="hw2-faults-") as top:
        bench = Bench(Path(top), asked.seed)
        for label, (campaign, name) in CAMPAIGNS.items():
            if asked.campaigns and not label.startswith(tuple(asked.campaigns)):
                continue
            started = time.monotonic()
            try:
                tried, told = campaign(bench, name, asked.times if campaign is kills else -(-asked.times // 2))
                if asked.keep:
                    keep_torture({"kind": label.partition(",")[0], "of": name, "tried": tried, "told": told})
                told = f"{tried} tried, {told}"
            except Failure as error:
                failed, told = True, f"FAILED: {error}"
            print(f"{label}: {told} ({time.monotonic() - started:.0f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
