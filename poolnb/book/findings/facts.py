"""The claims that need no training run: decided by a computation, or by numbers that an executed chapter has kept."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

import numpy as np
import torch

import poolnb.functional as pool
from poolnb.book.findings.evidence import FAILS, HOLDS, OPEN, Finding
from poolnb.lab.provenance import BOOK
from poolnb.lab.statistics import Interval

NEARLY = 90.0  # percent of the way from a window's mean to its maximum: what we call nearly the maximum


def kept_by(chapter: str) -> dict[str, Any]:
    """The values that an executed chapter has kept for its prose, by name."""
    notebook = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    found = {}
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name is not None:
            text = next(iter(output["data"].values()))
            found[name] = ast.literal_eval("".join(text))
    return found


def _exactly(what: str, value: float, n: int, unit: str, verdict: str) -> Finding:
    """A finding without scatter: `n` cases, all counted."""
    return Finding(what, Interval(value, value, value, n), unit, verdict)


def c1() -> list[Finding]:
    shares = kept_by("softmax/softmax")
    places = {
        "first pool, untrained": "share_untrained",
        **{f"pool {place}, trained": f"share_trained_{place}" for place in (1, 2, 3)},
    }
    found = [
        _exactly(f"way from mean to maximum, {title}", shares[name], 3, "%", HOLDS if shares[name] >= NEARLY else FAILS)
        for title, name in places.items()
    ]
    x = torch.rand(64, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(pool.soft_pool2d(x, 2).sum(), x)
    share = 100 * float((gradient != 0).double().mean())
    return [*found, _exactly("taps with a gradient", share, x.numel(), "%", HOLDS if share == 100 else FAILS)]


def c4() -> list[Finding]:
    x = torch.rand(100, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.01
    mean, largest = pool.avg_pool2d(x, 2), pool.max_pool2d(x, 2)
    taps = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    limits = {
        "AutoPool, alpha 0, to the mean": pool.soft_pool2d(x, 2, beta=0.0) - mean,
        "AutoPool, alpha 1, to softmax weighting": pool.soft_pool2d(x, 2, beta=1.0) - (taps.softmax(-1) * taps).sum(-1),
        "AutoPool, alpha 1e6, to the maximum": pool.soft_pool2d(x, 2, beta=1e6) - largest,
        "GeM, p 1, to the mean (positive values)": pool.gem_pool2d(x, 2, p=1.0) - mean,
        "GeM, p 1e4, to the maximum (positive values)": pool.gem_pool2d(x, 2, p=1e4) - largest,
    }
    found = []
    for title, difference in limits.items():
        worst = round(float(difference.abs().max()), 12)  # what is left is rounding, of no two runs the same
        found.append(_exactly(f"largest distance, {title}", worst, mean.numel(), "", HOLDS if worst < 1e-3 else FAILS))
    return found


def c11() -> list[Finding]:
    """Over two ways to enlarge again and two measures: in how many of the photographs soft is better."""
    wins = kept_by("softmax/published-code")
    found = []
    for unit, pixels in (("small", "[0, 1]"), ("large", "[0, 255]")):
        for other, title in (("max", "max"), ("avg", "average")):
            counts = [
                count for name, count in wins.items() if name.startswith(f"wins_{unit}_") and f"_{other}_" in name
            ]
            share = 100 * sum(counts) / (wins["photos"] * len(counts))
            verdict = HOLDS if share > NEARLY else FAILS if share <= 50 else OPEN
            what = f"comparisons in which soft beats {title}, pixels in {pixels}"
            found.append(_exactly(what, share, wins["photos"] * len(counts), "%", verdict))
    return found


def c16() -> list[Finding]:
    x = torch.rand(100, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(pool.max_pool2d(x, 2).sum(), x)
    windows = [one.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2) for one in (x.detach(), gradient)]
    at_argmax = torch.nn.functional.one_hot(windows[0].argmax(-1), 4) == windows[1]
    share = 100 * float(at_argmax.all(-1).double().mean())
    alone = _exactly(
        "windows with all gradient at the argmax", share, at_argmax[..., 0].numel(), "%", _yes(share == 100)
    )

    tie = np.array([4.0, 4.0, 1.0, 2.0])
    first, mask = np.eye(4)[tie.argmax()], (tie == tie.max()).astype(float)
    apart = float(np.abs(first - mask).sum())
    agree = _exactly("distance of answers 1 and 3 at a tie of two", apart, 1, "", _yes(apart == 0))

    image = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3).requires_grad_()
    (ours,) = torch.autograd.grad(pool.max_pool2d(image, 2, ceil_mode=True).sum(), image)
    theirs = _answer_six(np.ones((2, 2)), image.detach().numpy()[0, 0], 2)
    error = float(np.abs(ours.numpy()[0, 0] - theirs).max())
    size = _exactly("error of answer 6 on 3 x 3 with windows of 2, once it runs", error, 9, "", _yes(error == 0))
    return [alone, agree, size]


def _yes(true: bool) -> str:
    return HOLDS if true else FAILS


def _answer_six(above: np.ndarray, image: np.ndarray, width: int) -> np.ndarray:
    """What the NumPy answer computes: the gradient is assigned to the argmax of each slice; slices end at the edge."""
    result = np.zeros_like(image)
    for row in range(math.ceil(image.shape[0] / width)):
        for column in range(math.ceil(image.shape[1] / width)):
            part = image[row * width : (row + 1) * width, column * width : (column + 1) * width]
            inside = np.unravel_index(part.argmax(), part.shape)
            result[row * width + inside[0], column * width + inside[1]] = above[row, column]
    return result
