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
#: variables by which the instruction set can be lowered, and the values that leave no bfloat16
LOWERING = {
    "ATEN_CPU_CAPABILITY": ("DEFAULT", "AVX2"),
    "ONEDNN_MAX_CPU_ISA": (
        "SSE41",
        "AVX",
        "AVX2",
        "AVX2_VNNI",
        "AVX2_VNNI_2",
        "AVX512_CORE",
        "AVX512_CORE_VNNI",
    ),
}
#: instruction set that a run recorded -> variables with which a process computes so, where its
#: processor knows more
SETS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def lowering(recorded: dict) -> dict[str, str]:
    """Variables with which a process computes as one did that recorded this environment."""
    if recorded["device"] != "cpu":
        return {}
    return recorded["lowered_by"] or SETS.get(recorded["instruction_set"], {})


@contextmanager
def variables(values: dict[str, str]):
    """Processes that the block starts have these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


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
    """`auto` is the accelerator where there is one.

    Raises `InputError` for an unknown or unavailable device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': torch finds none on this machine; use auto or cpu")
    return torch.device(
        "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")
    )


def environment(device: torch.device) -> dict:
    """Here and now, as a `schemas.Environment`."""
    name, flags = _processor()
    return {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "code": code(),
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
    fields = {
        line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)
    }
    return fields.get("model name", "unknown"), fields.get(
        "flags", fields.get("Features", "")
    ).split()


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is emulated: on a processor without instructions for it, or where they are
    turned off.
    """
    lowered = any(os.environ.get(name, "").upper() in LOWERING[name] for name in LOWERING)
    return device.type == "cpu" and (
        lowered or not {"avx512_bf16", "amx_bf16", "bf16"} & set(_processor()[1])
    )


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
        content = (data.PROJECT / name).read_bytes()
        digest.update(name.removeprefix("hw2/").encode() + b"\0" + content)
    return digest.hexdigest()


#: `code_digest` as it was when it was first asked for: files may be edited while a process trains
code = cache(code_digest)


def uncommitted() -> list[str]:
    """Source files whose bytes are not those of the commit that is checked out. Raises `OSError`.

    The index and the ignore rules are not asked: they can hide a file from `git status`.
    """
    names = sources()
    ids = git("hash-object", "--no-filters", "--", *names).splitlines()
    here = dict(zip(names, ids, strict=True))
    committed = {}
    for line in git("ls-tree", "-r", "-z", "--full-tree", "HEAD", "hw2").split("\0"):
        entry, _, name = line.partition("\t")
        if name.endswith(".py"):
            committed[name] = entry.split()[2]  # after mode and type
    return sorted(name for name in here.keys() | committed if here.get(name) != committed.get(name))


def check_code(profile: str) -> None:
    """`InputError` where hw2/ is not that of a commit, which a run must name; smoke runs need none.

    In an unpacked archive there is no repository to ask: then the digest of the code alone names
    it.
    """
    if profile == "smoke" or not (data.PROJECT / ".git").exists():
        return
    try:
        changed = uncommitted()
    except OSError as error:
        raise InputError(f"{error}; a run names the commit that it is trained from") from None
    if changed or code_digest() != code():
        change = changed[0] if changed else "a file changed while this process ran"
        raise InputError(
            f"hw2/ is not what HEAD has ({change}): commit it before training, or try it in "
            f"profile smoke"
        )


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the accelerator's peak, or this process's as Linux tells it; None elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.is_file() else None
    return match and 1024 * int(match[1])
