"""Fingerprints of sources: what can change a result changes them, and nothing else does."""

import pytest

from poolnb.lab.fingerprint import file_fingerprint

PYTHON = '''"""A module."""
import math

class Circle:
    """A circle."""

    def area(self, radius):  # in square metres
        """Its area."""
        return math.pi * radius**2
'''
CPP = """// An area.
#define PI 3
/* of a circle,
   in square metres */
double area(double radius) { return PI * radius * radius; }
const char* url = "http://example.org";  // no comment in there
const char quote = '"';  // nor is this a text: "
"""


def fingerprint(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return file_fingerprint(path)


SAME = {
    "a comment": ("a.py", PYTHON, PYTHON.replace("# in square metres", "# in acres")),
    "a docstring": ("a.py", PYTHON, PYTHON.replace("A circle.", "Round.")),
    "no docstring": ("a.py", PYTHON, PYTHON.replace('        """Its area."""\n', "")),
    "blank lines and spaces": ("a.py", PYTHON, PYTHON.replace("import math\n", "import  math\n\n\n\n")),
    "line ends": ("a.py", PYTHON, PYTHON.replace("\n", "\r\n")),
    "a comment in C++": ("a.h", CPP, CPP.replace("An area.", "No area.").replace("square metres", "acres")),
    "no comments in C++": ("a.h", CPP, "\n".join(line.partition("  //")[0] for line in CPP.split("\n")[1:])),
    "spaces in C++": ("a.h", CPP, CPP.replace("return PI", "  return   PI")),
    "line ends in C++": ("a.h", CPP, CPP.replace("\n", "\r\n")),
}
OTHER = {
    "a number": ("a.py", PYTHON, PYTHON.replace("**2", "**3")),
    "a name": ("a.py", PYTHON, PYTHON.replace("math.pi", "math.e")),
    "a text that is no docstring": ("a.py", "x = 'a'\n", "x = 'b'\n"),
    "what is inside a block": ("a.py", "if x:\n    y()\nz()\n", "if x:\n    y()\n    z()\n"),
    "a number's type": ("a.py", "x = 1\n", "x = 1.0\n"),
    "what is no Python": ("a.py", "one (", "two ("),
    "a number in C++": ("a.h", CPP, CPP.replace("PI 3", "PI 4")),
    "an address in C++": ("a.h", CPP, CPP.replace("example", "another")),
    "behind a quote in C++": ("a.h", CPP, CPP.replace("quote =", "mark =")),
    "a line end that C++ sees": ("a.h", "#define A\nint b;\n", "#define A int b;\n"),
}


@pytest.mark.parametrize(("name", "one", "other"), SAME.values(), ids=SAME)
def test_the_same_to_python_or_a_compiler_is_the_same(tmp_path, name, one, other):
    assert one != other and fingerprint(tmp_path, name, one) == fingerprint(tmp_path, name, other)


@pytest.mark.parametrize(("name", "one", "other"), OTHER.values(), ids=OTHER)
def test_what_means_something_else_is_another(tmp_path, name, one, other):
    assert fingerprint(tmp_path, name, one) != fingerprint(tmp_path, name, other)
