"""For tests and notebooks alike: outputs go to a temporary folder, and nbval's silent passes are seen to elsewhere."""

import os
import tempfile

# Notebook 04 writes figures, report and submission: a test run must not heal the tree that it is checking.
os.environ["HW2_OUT"] = tempfile.mkdtemp(prefix="hw2-out-")


def pytest_collectstart(collector):
    # tests/test_notebooks.py fails for any committed standard error and compares every picture; what a machine of
    # another kind warns about is not the notebook's text.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/png")
