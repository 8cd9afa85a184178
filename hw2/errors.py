"""What may end a command: input that cannot be used, and a request to end."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager


class InputError(Exception):
    """Input that cannot be used. The text names the value, what was expected and what to do.

    The command line prints it on one line and exits with status 2.
    """


class Ended(Exception):
    """Training was asked to end (SIGTERM) and did so after an epoch. The command line exits with status 143."""


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
