"""Matplotlib, imported here before all else: it starts whatever the user's settings are, and says nothing of them."""

import contextlib
import logging
import os
import sys

if "matplotlib" not in sys.modules:
    # It warns of an outdated matplotlibrc or an unwritable folder; figures follow neither (`style.files`).
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    wanted = os.environ.pop("MPLBACKEND", "")
    import matplotlib

    with contextlib.suppress(ValueError):  # of a backend that it does not know; files are drawn without one
        if wanted:
            matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"] = wanted
