"""Which files a chapter depends on: of the functions that ran and what these refer to, not all that is loaded."""

import pytest

from poolnb.book.reach import reached_files

FILES = {
    "poolnb/__init__.py": "from poolnb import functional\nfrom poolnb.shared import *\nfrom poolnb.api import *\n",
    "poolnb/user.py": "import poolnb\n\ndef use():\n    return poolnb.start(), poolnb.LIMIT\n",
    "poolnb/api.py": "from .shared import LIMIT\n\ndef start():\n    return LIMIT\n",
    "poolnb/shared.py": "LIMIT = 1\n",
    "poolnb/functional.py": """import poolnb.ops as all_of_them
from poolnb import ops
from poolnb.shared import LIMIT

TABLE = {"limit": LIMIT}

def soft(x):
    return ops.soft(x)

def hard(x):
    return all_of_them.hard(x)

def late(x):
    from .ops.hard import hard
    return hard(x)

class Pool:
    limit = 1

    def call(self, x):
        return soft(x)
""",
    "poolnb/ops/__init__.py": "from .soft import soft\nfrom .hard import hard\n",
    "poolnb/ops/soft.py": "from poolnb.ops.taps import total\n\ndef soft(x):\n    return total(x)\n",
    "poolnb/ops/hard.py": "def hard(x):\n    return x\n",
    "poolnb/ops/taps.py": "def total(x):\n    return x\n",
    "ext/operators.def": "",
    "ext/cpu/bind.cpp": '#include "../bindings.h"\n',
    "ext/cpu/run.h": "#include <vector>\n",
    "ext/windows/soft.h": '# include "../taps.h"\n',
    "ext/taps.h": "",
    "ext/bindings.h": "",
    "ext/windows/other.h": "",
}
SHARED_KERNELS = {"ext/operators.def", "ext/cpu/bind.cpp", "ext/bindings.h", "ext/cpu/run.h"}
KERNELS = {"ext/windows/soft.h", "ext/taps.h", *SHARED_KERNELS}
SHARED = {"poolnb/functional.py", "poolnb/shared.py"}
SOFT = {"poolnb/ops/soft.py", "poolnb/ops/taps.py", *KERNELS}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def reached(root, function, file="poolnb/functional.py"):
    lines = FILES[file].split("\n")
    line = next(number for number, text in enumerate(lines, 1) if f"def {function}(" in text)
    return {path.relative_to(root).as_posix() for path in reached_files([(file, line)], root)}


def test_an_operator_means_its_kernels_of_both_kinds(root):
    assert reached(root, "soft") == SHARED | SOFT


def test_a_neighbour_in_the_same_file_does_not_count(root):
    assert reached(root, "hard") == SHARED | {"poolnb/ops/hard.py"}


def test_imports_inside_a_function_count(root):
    assert reached(root, "late") == SHARED | {"poolnb/ops/hard.py"}


def test_a_method_counts_as_its_class(root):
    assert reached(root, "call") == SHARED


def test_a_name_is_followed_to_where_it_is_defined(root):
    assert reached(root, "start", "poolnb/api.py") == {"poolnb/api.py", "poolnb/shared.py"}


def test_a_name_is_followed_through_a_star(root):
    assert reached(root, "use", "poolnb/user.py") == {"poolnb/user.py", "poolnb/api.py", "poolnb/shared.py"}


def test_what_is_gone_is_passed_over(root):
    assert reached_files([("poolnb/nothing.py", 3)], root) == []
