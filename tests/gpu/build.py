"""Build the compiled kernels for one device, and check them against PyTorch's as `poolnb build` does."""

import sys

from poolnb import _build

print(_build.build(sys.argv[1]))
