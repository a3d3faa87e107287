"""What pyproject.toml cannot say: `ext/` is part of the package, and a wheel may bring compiled kernels.

`make wheel` sets POOLNB_LIBRARIES to a folder here that `poolnb build --levels` has filled.
"""

import os
import re
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

LIBRARIES = os.environ.get("POOLNB_LIBRARIES")


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python: nothing in it is linked with Python."""

    def get_tag(self):
        platform = super().get_tag()[2]
        needed = [int(minor) for path in libraries() for minor in re.findall(rb"\0GLIBC_2\.(\d+)", path.read_bytes())]
        if platform.startswith("linux_") and needed:
            platform = platform.replace("linux", f"manylinux_2_{max(needed)}", 1)
        return "py3", "none", platform


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return True


def libraries():
    """The compiled kernels that the wheel is to bring; a folder without any is a mistake."""
    found = sorted(Path(LIBRARIES).glob("*/*.so"))
    if not found:
        raise SystemExit(
            f"POOLNB_LIBRARIES is {LIBRARIES!r}, where no libraries are (poolnb build --levels makes them)"
        )
    return found


# The book's own tools are of use in a checkout alone.
packages = find_packages(include=["poolnb", "poolnb.*"], exclude=["poolnb.book", "poolnb.book.*"])
folders = {"poolnb.ext": "ext"}
if LIBRARIES and libraries():
    folders["poolnb.lib"] = os.path.relpath(LIBRARIES)

setup(
    packages=[*packages, *folders],
    package_dir=folders,
    package_data={"poolnb": ["py.typed"], **{folder: ["**/*"] for folder in folders}},
    **({"cmdclass": {"bdist_wheel": PlatformWheel}, "distclass": PlatformDistribution} if LIBRARIES else {}),
)
