"""What a type checker says of calls: it lets the right ones pass and finds the wrong ones. One run of mypy for all."""

from __future__ import annotations

import re
import subprocess
import sys

from poolnb.lab.provenance import ROOT

# A line that ends in "# wrong" must be an error, every other line must not be one.
SNIPPET = """
from typing import assert_type

import torch
from torch import Tensor

import poolnb
from poolnb import functional as F

x = torch.zeros(1, 4, 8, 8)
assert_type(F.soft_pool2d(x, 2), Tensor)
F.soft_pool2d(x, (2, 2), stride=1, padding=1, beta=torch.tensor(2.0), semi_grad=True, mask=x > 0)
F.soft_pool2d(x, None)
F.weighted_pool2d(x, 2, logits=x)
F.tdgs_pool2d(x, 2, temperature=1.0, training=True, seed=1)
F.soft_pool2d(x, 2, padding="same")
F.soft_pool2d(x, 2, padding=((1, 2), (0, 1)))
F.soft_pool2d(x, None, output_size=(3, None))
assert_type(F.max_pool2d(x, 2), Tensor)
assert_type(F.max_pool2d(x, 2, return_indices=True), tuple[Tensor, Tensor])
F.soft_pool2d(x, 2, padding="valid")  # wrong
F.soft_pool2d(x, None, output_size="3")  # wrong
F.soft_pool2d(x)  # wrong
F.soft_pool2d(x, "2")  # wrong
F.soft_pool2d(x, 2, alpha=1.0)  # wrong
F.soft_pool2d(x, 2, beta="1")  # wrong
F.soft_pool2d([1.0], 2)  # wrong
F.soft_pool2d(x, 2).nothing  # wrong
F.max_pool1d(x, 2, beta=1.0)  # wrong
F.weighted_pool3d(x, 2)  # wrong

pool = poolnb.SoftPool2d(2, stride=1, beta=0.5)
assert_type(pool(x), Tensor)
pool(x, mask=x > 0)
poolnb.StochasticPool2d(2)(x, seed=7)
poolnb.SoftPool2d(None, output_size=3)
values, indices = poolnb.MaxPool2d(2, return_indices=True)(x)
poolnb.AutoPool2d(2, channels=4, device="cpu", dtype=torch.float64)
poolnb.SoftPool2d()  # wrong
poolnb.SoftPool2d("2")  # wrong
poolnb.SoftPool2d(2, beta="1")  # wrong
poolnb.SoftPool2d(2, dtype=torch.float64)  # wrong
poolnb.AutoPool2d(2)  # wrong
poolnb.AutoPool2d(2, channels=4, dtype="float64")  # wrong
pool(x, seed=7)  # wrong
pool(2)  # wrong

model = torch.nn.Sequential(torch.nn.MaxPool2d(2), poolnb.create_pool("gem", 2, dtype=torch.float16))
assert_type(poolnb.replace_pooling(model, "soft", beta=2.0), int)
poolnb.create_pool(2, 2)  # wrong
poolnb.replace_pooling(model, "soft", types="MaxPool2d")  # wrong
"""


def errors() -> dict[int, str]:
    """mypy's errors in the snippet by line, with the project's settings and its cache."""
    command = [sys.executable, "-m", "mypy", "-c", SNIPPET]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {int(line): text for line, text in re.findall(r"^<string>:(\d+): error: (.*)$", done.stdout, re.MULTILINE)}


def test_a_type_checker_finds_the_wrong_calls_and_no_others() -> None:
    found = errors()
    lines = dict(enumerate(SNIPPET.split("\n"), start=1))
    wrong = {number for number, line in lines.items() if line.endswith("# wrong")}
    missed, blamed = sorted(wrong - set(found)), sorted(set(found) - wrong)
    assert not missed, [lines[n] for n in missed]
    assert not blamed, [(lines[n], found[n]) for n in blamed]
