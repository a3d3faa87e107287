"""The book's drawings: one theme, one style per operator, and the pictures that several chapters share.

Colours are those of Okabe and Ito (Wong, Nature Methods 8:441, 2011), which colour-blind readers can tell apart. There
are fewer such colours than operators, so a colour names a family of operators, and shade, dashes and marker name the
operator inside it. A line is never told from another by its colour alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from poolnb.geometry import Geometry
from poolnb.lab.statistics import Interval
from poolnb.modules import POOLS

# Colour maps by what is shown. All three are ordered in lightness, so they survive print and colour blindness.
VALUES = "cividis, stretched"  # activations: most of a feature map lies near 0, and is told apart there
WEIGHTS = "Blues"  # weights and other quantities that start at 0
SIGNED = "RdBu_r"  # gradients and differences, white at 0

INK, FAINT = "#333333", "#b8b8b8"

_stretched = ListedColormap(colormaps["cividis"](np.sqrt(np.linspace(0, 1, 256))), name=VALUES)
colormaps.register(_stretched, force=True)


# ---- theme and styles ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How an operator is drawn in every figure: colour, dashes and marker."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str


def _shade(colour: str, share: float) -> str:
    """`colour` with its lightness cut to `share`."""
    red, green, blue = to_rgb(colour)
    return to_hex((share * red, share * green, share * blue))


# One base colour per family (two for the mixtures), one marker per operator; a new operator gets one that is free.
_FAMILIES: dict[str, dict[str, str]] = {
    "#D55E00": {"max": "o"},
    "#0072B2": {"avg": "s"},
    "#009E73": {"soft": "^", "swap": "v", "auto": "<"},
    "#E69F00": {"gem": "D", "lse": "d", "lp": "p"},
    "#8C4A1F": {"ada": "1", "edscw": "2"},
    "#CC79A7": {"mixed": "P", "gated": "X", "tree": "*"},
    "#56B4E9": {"stochastic": "h", "s3": "H", "tdgs": "8"},
    "#5A5A5A": {"attention": ">", "lip": "."},
    "#332288": {},
    "#FF4467": {"rank": "3", "quantile": "4"},
    "#6680FF": {},
}
# Families whose members get their looks as they come: the file of their modules, and its colour.
_FILES = {"statistics": "#332288", "antialiasing": "#6680FF"}
_SHADES = (1.0, 0.62, 0.3, 0.8, 0.45)
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (8, 2, 2, 2)),
    (0, (8, 2, 2, 2, 2, 2)),
)
_FREE_MARKERS = "x+|_"


def _styles() -> dict[str, Style]:
    """The look of every pooler; one without a line in `_FAMILIES` joins those that stand in the same file."""
    families = {base: dict(family) for base, family in _FAMILIES.items()}
    bases = {POOLS[name][2].__module__: base for base, family in _FAMILIES.items() for name in family}
    bases |= {f"poolnb.modules.{file}": base for file, base in _FILES.items()}
    markers = iter(_FREE_MARKERS)
    for name, classes in POOLS.items():
        if not any(name in family for family in _FAMILIES.values()):
            families[bases[classes[2].__module__]][name] = next(markers)
    return {
        name: Style(_shade(base, _SHADES[i]), _DASHES[i], marker)
        for base, family in families.items()
        for i, (name, marker) in enumerate(family.items())
    }


STYLES = _styles()


def use_theme() -> None:
    """Set the book's theme for every figure that follows. Call it once, in a chapter's first cell."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette=[STYLES[name].colour for name in ("avg", "max", "soft", "gem", "mixed", "tdgs", "attention")],
        rc={
            "figure.dpi": 110,
            "figure.figsize": (7.0, 3.4),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",  # the page lays a card under it
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.labelsize": 11,
            "ytick.labelsize": 10,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "legend.handlelength": 3.2,  # long enough for every pattern of dashes
            "lines.linewidth": 2.0,
            "lines.markersize": 6,
            "image.interpolation": "nearest",
        },
    )


def colour(name: str) -> str:
    """The colour of operator `name`, as ``#rrggbb``."""
    return _style(name).colour


def style(name: str, markers: bool = False) -> dict[str, Any]:
    """Keyword arguments of ``plt.plot`` for operator `name`: colour, dashes and, on request, marker."""
    look = _style(name)
    keywords: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes}
    return keywords | {"marker": look.marker} if markers else keywords


def _style(name: str) -> Style:
    if name not in STYLES:
        raise ValueError(f"name must be one of {sorted(STYLES)}, got {name!r}")
    return STYLES[name]


# ---- numbers in a grid -----------------------------------------------------------------------------------------------


def number_grid(
    ax: Axes,
    values: np.ndarray,
    *,
    title: str = "",
    fmt: str = "{:g}",
    shade: np.ndarray | None = None,
    cmap: str = WEIGHTS,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw a (height, width) array as cells that carry their numbers.

    Cells are tinted by `shade`, an array of the same shape (default: the values), over `limits` (default: 0 to the
    largest magnitude; symmetric about 0 for the SIGNED map). NaN draws an empty, hatched cell.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"values must have two dimensions, got shape {values.shape}")
    tint = values if shade is None else np.asarray(shade, dtype=float)
    if tint.shape != values.shape:
        raise ValueError(f"shade must have the shape of values, {values.shape}, got {tint.shape}")
    norm = Normalize(*(limits or _limits(tint, cmap)))
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            _cell(ax, row, column, face="white", edge=FAINT, hatch="////")
            continue
        face = to_hex(colormaps[cmap](norm(tint[row, column])))
        _cell(ax, row, column, face=face)
        _ = ax.text(column, row, fmt.format(value), ha="center", va="center", color=_legible(face))
    _frame(ax, values.shape, title)


def _limits(values: np.ndarray, cmap: str) -> tuple[float, float]:
    """Range of the colours: symmetric about 0 for signed data, from 0 (or below) otherwise."""
    finite = values[np.isfinite(values)]
    high = float(np.abs(finite).max()) if finite.size else 0.0
    high = high or 1.0
    if cmap == SIGNED:
        return -high, high
    return min(0.0, float(finite.min()) if finite.size else 0.0), high


def _contrast(values: np.ndarray, cmap: str, many: int = 500) -> tuple[float, float]:
    """Range of the colours of a map: `_limits`, without the largest magnitudes of `many` values or more."""
    finite = values[np.isfinite(values)]
    if finite.size < many:
        return _limits(values, cmap)
    most = float(np.quantile(np.abs(finite), 0.995))
    return _limits(np.clip(finite, -most, most), cmap) if most > 0 else _limits(values, cmap)


def _legible(background: str) -> str:
    """Black or white, whichever reads better on `background` (relative luminance of WCAG)."""
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.18 else "white"


def _cell(ax: Axes, row: float, column: float, *, face: str, edge: str = "white", hatch: str = "") -> None:
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=1.0))


def _frame(ax: Axes, shape: Sequence[int], title: str, margin: float = 0.0) -> None:
    height, width = shape
    ax.set(
        xlim=(-0.55 - margin, width - 0.45 + margin),
        ylim=(height - 0.45 + margin, -0.55 - margin),
        xticks=[],
        yticks=[],
        title=title,
    )
    ax.set_aspect("equal")
    ax.set_frame_on(False)


# ---- windows ---------------------------------------------------------------------------------------------------------


def window_rows(ax: Axes, geometry: Geometry, *, title: str = "", mask: Sequence[bool] | None = None) -> None:
    """Draw a one-dimensional geometry: the input on top, and below it one row per output with the taps of its window.

    Filled squares are valid taps; hollow ones fall in the padding, past the end, or on a masked position.
    """
    if geometry.dims != 1:
        raise ValueError(f"geometry must have one spatial dimension, got {geometry.dims}")
    (size,), (padding,), (dilation,), (stride,) = (
        geometry.source or geometry.size,
        geometry.padding,
        geometry.dilation,
        geometry.stride,
    )
    allowed = np.ones(size, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    stop = size if geometry.source else max(size, geometry.reach[0] - padding)
    starts = [output * stride - padding for output in range(geometry.output[0])]
    rows = [[first + tap * dilation for tap in range(geometry.kernel[0])] for first in starts]
    if geometry.source:
        rows = geometry.axis_taps(0)
    for position in range(-padding, stop):
        inside = 0 <= position < size
        valid = inside and bool(allowed[position])
        face = "#dddddd" if valid else "white"
        _cell(ax, 0, position, face=face, edge=FAINT, hatch="" if valid else "////")
        if inside:
            _ = ax.text(position, 0, str(position), ha="center", va="center")
    for output, taps in enumerate(rows):
        row = output + 1.35
        for position in taps:
            valid = 0 <= position < size and bool(allowed[position])
            square = Rectangle((position - 0.36, row - 0.36), 0.72, 0.72, linewidth=1.4, edgecolor=colour("avg"))
            square.set_facecolor(colour("avg") if valid else "white")
            square.set_linestyle("-" if valid else ":")
            ax.add_patch(square)
        _ = ax.text(-padding - 0.9, row, f"$y_{{{output}}}$", ha="right", va="center")
    ax.set(xlim=(-padding - 1.9, stop - 0.4), ylim=(geometry.output[0] + 0.95, -0.6), xticks=[], yticks=[], title=title)
    ax.set_aspect("equal")
    ax.set_frame_on(False)


def window_grid(
    ax: Axes,
    geometry: Geometry,
    *,
    values: np.ndarray | None = None,
    fmt: str = "{:g}",
    title: str = "",
    only: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Draw a two-dimensional geometry: input cells, hatched cells outside the input, and the outline of each window.

    `values` are written into the cells; `only` lists the output positions whose windows are drawn (default: all).
    """
    if geometry.dims != 2:
        raise ValueError(f"geometry must have two spatial dimensions, got {geometry.dims}")
    (height, width), (top, left) = geometry.size, geometry.padding
    bottom, right = (max(s, r - p) for s, r, p in zip(geometry.size, geometry.reach, geometry.padding, strict=True))
    for row in range(-top, bottom):
        for column in range(-left, right):
            inside = 0 <= row < height and 0 <= column < width
            _cell(ax, row, column, face="#eeeeee" if inside else "white", edge=FAINT, hatch="" if inside else "////")
            if inside and values is not None:
                _ = ax.text(column, row, fmt.format(values[row, column]), ha="center", va="center")
    every = [(i, j) for i in range(geometry.output[0]) for j in range(geometry.output[1])]
    cycle = [STYLES[name].colour for name in ("avg", "max", "soft", "gem", "mixed", "tdgs")]
    for place, (i, j) in enumerate(every if only is None else only):
        y, x = i * geometry.stride[0] - top, j * geometry.stride[1] - left
        inset = 0.06 if geometry.non_overlapping else 0.06 + 0.05 * (place % 4)  # keep overlapping outlines apart
        outline = Rectangle(
            (x - 0.5 + inset, y - 0.5 + inset), geometry.span[1] - 2 * inset, geometry.span[0] - 2 * inset
        )
        outline.set(facecolor="none", edgecolor=cycle[place % len(cycle)], linewidth=2.2)
        outline.set_linestyle("-" if place < len(cycle) else "--")
        ax.add_patch(outline)
    ax.set(xlim=(-left - 0.6, right - 0.4), ylim=(bottom - 0.4, -top - 0.6), xticks=[], yticks=[], title=title)
    ax.set_aspect("equal")
    ax.set_frame_on(False)


# ---- maps and curves -------------------------------------------------------------------------------------------------


def maps(
    images: Mapping[str, np.ndarray],
    *,
    cmap: str = VALUES,
    shared: bool = True,
    colourbar: bool = True,
    label: str = "",
    height: float = 2.6,
    columns: int | None = None,
) -> Figure:
    """Draw (height, width) arrays side by side under their titles: feature maps, weights or gradients.

    With `shared`, all panels have one colour scale, so that they can be compared; its bar carries `label`. A scale of
    many values ends where all but the largest in 200 lie, so that these few do not leave the others one shade; its bar
    then ends in a point.
    """
    if not images:
        raise ValueError("images must hold at least one array, got none")
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    first = next(iter(images.values()))
    width = height * columns * max(0.6, first.shape[1] / first.shape[0])
    scale = min(1.0, 8.2 / width)
    figure, axes = plt.subplots(rows, columns, figsize=(width * scale, rows * height * scale + 0.35), squeeze=False)
    low_high = [_contrast(np.asarray(image), cmap) for image in images.values()]
    common = min(low for low, _ in low_high), max(high for _, high in low_high)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (title, image), own in zip(axes.flat, images.items(), low_high, strict=False):
        low, high = common if shared else own
        picture = ax.imshow(image, cmap=cmap, vmin=low, vmax=high)
        ax.set_title(title)
        if colourbar and not shared:
            _bar(figure, picture, [ax], label)
    if colourbar and shared:
        _bar(figure, picture, list(axes.flat), label)
    return figure


def _bar(figure: Figure, picture: Any, axes: list[Axes], label: str) -> None:
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes if ax.images]
    below = any(np.nanmin(one) < picture.norm.vmin for one in shown)
    above = any(np.nanmax(one) > picture.norm.vmax for one in shown)
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(picture, ax=axes, shrink=0.85, pad=0.02, extend=extend)
    bar.outline.set_visible(False)
    bar.set_label(label)


def tones(count: int) -> list[str]:
    """`count` colours from pale to dark, as ``#rrggbb``, for lines whose order matters.

    None is paler than a line may be: each has a contrast of 3 on a light page, and on a dark one that turns it inside
    out.
    """
    return [to_hex(tone) for tone in colormaps["viridis"](np.linspace(0.58, 0.02, count))]


def curves(
    ax: Axes,
    x: np.ndarray,
    family: Mapping[Any, np.ndarray],
    *,
    name: str,
    limits: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draw a family of curves y(x), one per value of the parameter called `name`, from pale to dark.

    `limits` maps names of operators to the curves that the family tends to; they are drawn in the operators' styles.
    """
    for tone, (value, y) in zip(tones(len(family)), family.items(), strict=True):
        ax.plot(
            x, y, color=tone, label=f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} = {value}"
        )
    for operator, y in (limits or {}).items():
        ax.plot(x, y, **(style(operator) | {"linestyle": ":"}), label=operator, zorder=1.5)
    _ = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def bars(ax: Axes, values: Mapping[str, float], *, fmt: str = "{:.2f}", label: str = "") -> None:
    """Draw one horizontal bar per operator, in its colour, with its number written at its end."""
    for row, (name, value) in enumerate(values.items()):
        ax.barh(row, value, color=colour(name), height=0.65)
        _ = ax.text(value, row, " " + fmt.format(value), va="center", ha="left")
    ax.set(yticks=range(len(values)), yticklabels=list(values), xlabel=label)
    ax.invert_yaxis()
    ax.margins(x=0.15)


def name_marks(ax: Axes, marks: Mapping[str, tuple[float, float]], size: float = 8) -> None:
    """Write each name beside its mark (x, y), where it covers no mark and no other name. Call it when all is drawn."""
    ax.figure.canvas.draw()
    points = {name: ax.transData.transform(at) for name, at in marks.items()}
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points.values()]
    for name, at in marks.items():
        for across, up in ((6, 3), (6, -9), (-6, 3), (-6, -9), (0, 8), (0, -14), (12, 12), (-12, 12), (12, -18)):
            side = "left" if across > 0 else "right" if across < 0 else "center"
            label = ax.annotate(name, at, (across, up), textcoords="offset points", fontsize=size, ha=side)
            box = label.get_window_extent().padded(1)
            if not any(box.overlaps(other) for other in taken):
                break
            label.remove()
        else:  # no place is free
            label = ax.annotate(name, at, (6, 3), textcoords="offset points", fontsize=size)
            box = label.get_window_extent()
        taken.append(box)


# ---- comparisons -----------------------------------------------------------------------------------------------------


def forest(
    ax: Axes,
    rows: Mapping[str, Interval | None],
    label: str,
    *,
    verdicts: Mapping[str, str] | None = None,
    margin: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Draw one interval per row, top to bottom, about a line at 0.

    The marker is filled where the `verdicts` (default: none given) decide something and hollow where one is
    "undecided". A band shows the `margin` within which two are taken as equal. `colours` names a row's colour. A row
    that is None, for which there are no runs yet, is left empty.
    """
    if not any(rows.values()):
        _ = ax.text(0.5, 0.5, "no runs yet", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    if margin is not None:
        ax.axvspan(-margin, margin, color=FAINT, alpha=0.3, linewidth=0)
    ax.axvline(0, color=FAINT, linewidth=1)
    for place, (name, one) in enumerate(rows.items()):
        if one is None:
            continue
        tone = (colours or {}).get(name, INK)
        undecided = (verdicts or {}).get(name, "").startswith("undecided")
        ax.plot([one.low, one.high], [place, place], color=tone, linewidth=2, solid_capstyle="butt")
        ax.plot(one.mean, place, marker="o", color=tone, markerfacecolor="white" if undecided else tone)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel=label, ylim=(len(rows) - 0.5, -0.5))


def power(ax: Axes, scatters: Mapping[str, float], groups: int, *, margin: float, seeds: Sequence[int]) -> None:
    """Draw the half-width of the intervals of a study of so many `seeds`.

    A true difference of that size is told from none in half of such studies. One line per residual standard deviation,
    named by `scatters`; `groups` counts the baseline. A line at the `margin`, since only intervals narrower than that
    can show that two are equal.
    """
    from poolnb.lab.analysis import half_width

    widest_first = sorted(scatters.items(), key=lambda row: -row[1])  # as the curves lie below each other
    cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for (name, sd), dashes, tone in zip(widest_first, itertools.cycle(_DASHES), itertools.cycle(cycle)):
        widths = [half_width(n, sd, groups) for n in seeds]
        ax.plot(seeds, widths, color=tone, linestyle=dashes, label=f"{name}: {sd:.2f}")
    ax.axhline(margin, color=FAINT, linewidth=1)
    ax.set(xlabel="seeds", ylabel="half-width in points", xlim=(min(seeds), max(seeds)), ylim=(0, None))
    _ = ax.legend(title="standard deviation of the rest", fontsize=9, title_fontsize=9)
