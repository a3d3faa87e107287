"""What holds wherever pytest is started: from the project's folder, or from a chapter's to check that chapter."""

import os
from pathlib import Path

# Before torch or NumPy is imported, and inherited by the kernels that nbval starts: chapters are made with one thread.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

pytest_plugins = ["redrawn"]  # in tests/helpers

ROOT = Path(__file__).parent
# The markers of whole folders and files. A single test that is slow says so itself.
MARKERS = {
    "book": ["book", "tests/notebooks", "tests/test_repository.py"],
    "site": ["tests/site"],
    "slow": [
        "tests/conformance",
        "tests/gpu",
        "tests/lab/sweeps",
        "tests/lab/test_analysis.py",
        "tests/lab/test_cli.py",
        "tests/lab/test_one_run.py",
        "tests/native/test_cuda_bodies.py",
        "tests/native/test_cuda_build.py",
        "tests/native/test_native.py",
        "tests/native/test_native_math.py",
        "tests/native/test_packaged.py",
        "tests/native/test_sanitized.py",
        "tests/test_integration.py",
        "tests/test_long_windows.py",
        "tests/test_onnx.py",
        "tests/test_random_cases.py",
        "tests/test_raw_ops.py",
        "tests/test_replacing_in_models.py",
    ],
}


def pytest_configure(config):
    """What nbval may overlook. In the settings its file's name would be looked for in the folder pytest starts in."""
    if hasattr(config.option, "nbval_sanitize_with") and config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(ROOT / "tests" / "notebooks" / "sanitize.cfg")


def pytest_collection_modifyitems(items):
    for item in items:
        for marker, places in MARKERS.items():
            if any(item.path.is_relative_to(ROOT / place) for place in places):
                item.add_marker(marker)
