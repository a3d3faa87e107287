"""What holds wherever pytest is started: from the project's folder, or from a chapter's to check that chapter."""

import os
from pathlib import Path

# Before torch or NumPy is imported, and inherited by the kernels that nbval starts: chapters are made with one thread.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

pytest_plugins = ["redrawn"]  # in tests/


def pytest_configure(config):
    """What nbval may overlook. In the settings its file's name would be looked for in the folder pytest starts in."""
    if hasattr(config.option, "nbval_sanitize_with") and config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "notebooks" / "sanitize.cfg")
