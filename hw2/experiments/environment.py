"""What a run records of machine and code, and what training asks of them."""

import hashlib
import importlib.metadata
import os
import platform
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from hw2 import data
from hw2.errors import InputError
from hw2.files import program_output

PACKAGES = ("torch", "torchvision", "torch-pruning", "numpy", "optuna")
LOWERING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")  # may lower instruction sets


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int):
    """That many threads of PyTorch's own while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the accelerator where there is one. `InputError` for a device that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("device 'cuda': torch finds none on this machine; use auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def environment(device: torch.device) -> dict:
    """Here and now, as a `run.Environment`."""
    processor, flags = _processor()
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "code": code_at_start(),
        "commit": commit(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in flags if flag.startswith(("avx", "amx"))],
        "lowered_by": {name: os.environ[name] for name in LOWERING if name in os.environ},
    }


def _processor() -> tuple[str, list[str]]:
    """Its name and its flags, as Linux tells them."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor(), []
    fields = dict(re.findall(r"^(.*?)\s*: (.*)$", path.read_text(), re.MULTILINE))
    flags = fields.get("flags") or fields.get("Features", "")
    return fields.get("model name", "unknown"), flags.split()


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is emulated: the processor has no instructions for it, or a variable is set
    that may switch them off.
    """
    if device.type != "cpu":
        return False
    lowered = any(name in os.environ for name in LOWERING)
    return lowered or {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_processor()[1])


def git(*words: str) -> str:
    """What git says of the project; `OSError` with its reason where it fails.

    The repository is the project's own `.git`, never one of a folder above it. Git does not ask
    then who owns it: whoever runs this code trusts the folder already.
    """
    return program_output("git", f"--git-dir={data.PROJECT / '.git'}", *words, folder=data.PROJECT)


def commit() -> str | None:
    """The commit that is checked out; None where the project is no repository."""
    try:
        return git("rev-parse", "--verify", "HEAD")
    except OSError:
        return None


def sources() -> list[str]:
    """The package's source files, sorted by their paths relative to the project."""
    paths = (data.PROJECT / "hw2").rglob("*.py")
    return sorted(path.relative_to(data.PROJECT).as_posix() for path in paths)


def code_digest() -> str:
    """SHA-256 over the package's source files, by their paths relative to hw2/."""
    digest = hashlib.sha256()
    for name in sources():
        digest.update(name.removeprefix("hw2/").encode() + b"\0")
        digest.update((data.PROJECT / name).read_bytes())
    return digest.hexdigest()


code_at_start = cache(code_digest)  # files may be edited while a process trains


def uncommitted() -> list[str]:
    """Source files whose bytes are not those of the commit that is checked out. Raises `OSError`.

    The index and the ignore rules are not asked: they can hide a file from `git status`.
    """
    names = sources()
    blobs = git("hash-object", "--no-filters", "--", *names).splitlines()
    here = dict(zip(names, blobs, strict=True))
    committed = {}
    for line in git("ls-tree", "-r", "-z", "--full-tree", "HEAD", "hw2").split("\0"):
        entry, _, name = line.partition("\t")
        if name.endswith(".py"):
            committed[name] = entry.split()[2]  # after mode and type
    return sorted(name for name in here.keys() | committed if here.get(name) != committed.get(name))


def check_code(profile: str) -> None:
    """`InputError` where hw2/ is not that of a commit, which a run must name; smoke runs need none.

    An unpacked archive has no repository to ask.
    """
    if profile == "smoke" or not (data.PROJECT / ".git").exists():
        return
    try:
        changed = uncommitted()
    except OSError as error:
        raise InputError(f"{error}; a run names the commit that it is trained from") from None
    if code_digest() != code_at_start():
        changed.append("a file changed while this process ran")
    if changed:
        remedy = "commit it before training, or try it in profile smoke"
        raise InputError(f"hw2/ is not what HEAD has ({changed[0]}): {remedy}")
