"""What may end a command: input that cannot be used, and a request to end."""

import os
import signal
import sys
import threading
from contextlib import contextmanager


class InputError(Exception):
    """Input that cannot be used: the value, what was expected and what to do. The exit status is 2."""


class Ended(Exception):
    """Training was asked to end (SIGTERM) and did so after an epoch. The exit status is 143."""


_asked_to_end = threading.Event()


@contextmanager
def ending_at_an_epoch():
    """While the block runs, SIGTERM lets the epoch (or the view of soft targets) finish and then raises `Ended`."""
    before = signal.signal(signal.SIGTERM, lambda *_: _asked_to_end.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _asked_to_end.clear()


def end_if_asked(label: str) -> None:
    if _asked_to_end.is_set():
        raise Ended(f"{label}: ended by SIGTERM; the same command goes on from here")


@contextmanager
def told_in_a_line():
    """Around a process's work: what a user can mend ends it with one line and status 2, `Ended` with 143."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot write
    try:
        yield
    except Ended as error:
        print(f"hw2: {error}", file=sys.stderr)
        sys.exit(143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what follows has no reader either
        sys.exit(141)
    except (InputError, OSError) as error:
        print("hw2: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
