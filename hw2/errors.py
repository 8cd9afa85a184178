"""What users are told: input that cannot be used, a request to end, and how far training is."""

import io
import os
import signal
import sys
import threading
from contextlib import contextmanager

from tqdm import tqdm

_asked_to_end = threading.Event()


class InputError(Exception):
    """What was given, what was expected and what to do. The exit status is 2."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"hw2: {self}"]


def choose(kind: str, known: dict, name: object):
    """What is known by that name; `InputError` for another name."""
    if name not in known:
        raise InputError(f"{kind} {name!r}: expected one of {', '.join(known)}")
    return known[name]


class Ended(Exception):
    """Training was asked to end (SIGTERM) and did so after an epoch. The exit status is 143."""


class Bar(tqdm):
    """Progress on standard error, where there is one; it leaves nothing behind."""

    monitor_interval = 0  # tqdm starts no thread of its own

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, leave=False, disable=sys.stderr is None, **options)


@contextmanager
def ending_at_an_epoch():
    """While the block runs, SIGTERM raises `Ended` at the next call of `end_if_asked`."""
    before = signal.signal(signal.SIGTERM, lambda *_: _asked_to_end.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _asked_to_end.clear()


def end_if_asked(label: str) -> None:
    """`Ended` where SIGTERM came: called between epochs, and while a process waits."""
    if _asked_to_end.is_set():
        raise Ended(f"{label}: ended by SIGTERM; the same command goes on from here")


@contextmanager
def told_in_a_line():
    """Around a process's work: what a user can mend ends it with one line and status 2.

    `Ended` is a line and status 143, Ctrl-C status 130.
    """
    if sys.stderr is None:  # closed: print would write into standard output in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a kernel's is none, and writes any name
            # a file's name may hold what the terminal cannot write
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except Ended as error:
        print(f"hw2: {error}", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what follows has no reader either
        sys.exit(141)
    except (InputError, OSError) as error:
        print("hw2: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
