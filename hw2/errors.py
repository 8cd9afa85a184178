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
    """Input that cannot be used: the value, what was expected and what to do.

    The exit status is 2.
    """

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
    """Progress, which leaves nothing behind.

    In a notebook all open bars are text in one output of the cell.

    tqdm's own widget leaves "Error displaying widget" in the saved notebook. An output without data
    is not shown.
    """

    monitor_interval = 0  # no thread, which might draw in another cell
    shown = None  # the cell's output, while bars are open

    def __init__(self, *arguments, **options):
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self.in_cell = hasattr(shell, "kernel")
        unseen = self.in_cell or sys.stderr is None
        super().__init__(*arguments, leave=False, file=io.StringIO() if unseen else None, **options)

    def display(self, msg=None, pos=None):
        if not self.in_cell:
            return super().display(msg, pos)
        bars = sorted(self._instances, key=lambda bar: abs(bar.pos))
        data = {"text/plain": "\n".join(map(str, bars))} if bars else {}
        if Bar.shown:
            Bar.shown.update(data, raw=True)
        else:
            Bar.shown = sys.modules["IPython"].display.display(data, raw=True, display_id=True)
        if not bars:
            Bar.shown = None
        return True


@contextmanager
def ending_at_an_epoch():
    """While the block runs, SIGTERM lets the epoch (or the view of soft targets) finish and then
    raises `Ended`.
    """
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
