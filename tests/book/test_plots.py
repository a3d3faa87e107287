"""The book's drawings: what they draw, and whether colour-blind readers can tell the operators apart."""

import itertools
from itertools import combinations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from skimage.color import deltaE_ciede2000, rgb2lab  # noqa: E402

from poolnb.book import plots  # noqa: E402
from poolnb.book.sphinxext import figures  # noqa: E402
from poolnb.geometry import resolve  # noqa: E402
from poolnb.lab.analysis import half_width  # noqa: E402
from poolnb.lab.statistics import Interval  # noqa: E402

# Full protanopia and deuteranopia in linear RGB: Machado, Oliveira and Fernandes 2009, table 1.
COLOUR_VISION = {
    "typical": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def seen(colour: str, vision: str) -> np.ndarray:
    """CIELAB of `colour` as someone with that colour vision sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(COLOUR_VISION[vision]) @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def test_every_pool_has_a_style():
    poolnb = pytest.importorskip("poolnb")
    assert set(poolnb.list_pools()) <= set(plots.STYLES)


def test_no_two_operators_look_alike():
    looks = [(s.colour, str(s.dashes)) for s in plots.STYLES.values()]
    assert len(set(looks)) == len(looks)
    assert len({s.marker for s in plots.STYLES.values()}) == len(plots.STYLES)


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_families_can_be_told_apart_by_colour(vision):
    bases = [seen(base, vision) for base in plots._FAMILIES]
    nearest = min(deltaE_ciede2000(a, b) for a, b in combinations(bases, 2))
    assert nearest > 10  # 2.3 is a just noticeable difference


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_shades_inside_a_family_can_be_told_apart(vision):
    for base, family in plots._FAMILIES.items():
        shades = [seen(plots.colour(name), vision) for name in family]
        assert all(deltaE_ciede2000(a, b) > 10 for a, b in combinations(shades, 2)), base


def test_unknown_operator_is_named():
    with pytest.raises(ValueError, match="name must be one of .*'max'.* got 'median'"):
        plots.style("median")


def test_number_grid_writes_every_number_and_hatches_nan(ax):
    plots.number_grid(ax, np.array([[1.0, np.nan], [-2.5, 4.0]]))
    assert [t.get_text() for t in ax.texts] == ["1", "-2.5", "4"]
    assert [bool(p.get_hatch()) for p in ax.patches] == [False, True, False, False]


def test_number_grid_text_is_legible_on_every_tint(ax):
    plots.number_grid(ax, np.linspace(0, 1, 12).reshape(3, 4))
    faces = [p.get_facecolor() for p in ax.patches]
    inks = [t.get_color() for t in ax.texts]
    assert inks[0] == "black" and inks[-1] == "white" and len(faces) == 12


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_number_grid_refuses_other_dimensions(ax, shape):
    with pytest.raises(ValueError, match="values must have two dimensions"):
        plots.number_grid(ax, np.zeros(shape))


@pytest.mark.parametrize(
    "arguments",
    [dict(kernel_size=3, stride=2), dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=2, dilation=3)],
)
def test_window_rows_fill_exactly_the_valid_taps(ax, arguments):
    geometry = resolve((8,), **arguments)
    plots.window_rows(ax, geometry)
    taps = [p for p in ax.patches if p.get_width() < 1]
    filled = [p for p in taps if p.get_facecolor()[:3] != (1, 1, 1)]
    assert len(taps) == geometry.output[0] * geometry.kernel[0]
    assert len(filled) == sum(map(len, geometry.axis_taps(0)))


def test_window_rows_draw_windows_of_different_lengths(ax):
    geometry = resolve((8,), None, output_size=3)
    plots.window_rows(ax, geometry)
    assert len([p for p in ax.patches if p.get_width() < 1]) == sum(map(len, geometry.axis_taps(0))) == 3 + 4 + 3


def test_window_rows_leave_masked_taps_hollow(ax):
    geometry = resolve((6,), 2)
    plots.window_rows(ax, geometry, mask=[True] * 3 + [False] * 3)
    filled = [p for p in ax.patches if p.get_width() < 1 and p.get_facecolor()[:3] != (1, 1, 1)]
    assert len(filled) == 3


def test_window_grid_draws_one_outline_per_window_of_the_right_size(ax):
    geometry = resolve((5, 6), (3, 2), stride=2, padding=1, dilation=(2, 1))
    plots.window_grid(ax, geometry, values=np.arange(30).reshape(5, 6))
    outlines = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_facecolor()[3] == 0]
    assert len(outlines) == geometry.output[0] * geometry.output[1]
    assert all(round(p.get_height()) == 5 and round(p.get_width()) == 2 for p in outlines)
    assert len(ax.texts) == 30


@pytest.mark.parametrize(("draw", "size"), [(plots.window_rows, (4, 4)), (plots.window_grid, (4,))])
def test_windows_refuse_the_wrong_number_of_dimensions(ax, draw, size):
    with pytest.raises(ValueError, match="geometry must have .* spatial dimension"):
        draw(ax, resolve(size, 2))


def test_maps_share_one_colour_scale():
    figure = plots.maps({"a": np.array([[0.0, 1.0]]), "b": np.array([[0.0, 5.0]])})
    scales = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    plt.close(figure)
    assert scales == {(0.0, 5.0)}


def test_signed_maps_are_white_at_zero():
    figure = plots.maps({"g": np.array([[-1.0, 3.0]])}, cmap=plots.SIGNED)
    assert figure.axes[0].images[0].get_clim() == (-3.0, 3.0)
    plt.close(figure)


def test_curves_label_each_parameter_and_limit(ax):
    x = np.linspace(0, 1, 5)
    plots.curves(ax, x, {0.5: x, 2: x**2}, name="p", limits={"max": x**3})
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["p = 0.5", "p = 2", "max"]


# What the dark theme's `invert(1) hue-rotate(180deg)` does to a drawing of lines, as the filter's standard has it.
TURNED = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])


def contrasts(colour):
    """The contrast of a line on the light page, and on the dark one."""
    rgb, dark = np.array(to_rgb(colour)), np.array(to_rgb(figures._DARK_PAGE))
    turned = np.clip(TURNED @ (1 - rgb), 0, 1)
    pairs = (np.ones(3), rgb), (turned, dark)
    return [(figures._luminance(a) + 0.05) / (figures._luminance(b) + 0.05) for a, b in pairs]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_every_curve_of_a_family_is_seen_on_both_themes(ax, count):
    x = np.linspace(0, 1, 5)
    plots.curves(ax, x, {p: p * x for p in range(count)}, name="p")
    assert len(ax.lines) == count
    assert min(min(contrasts(line.get_color())) for line in ax.lines) > 3


# The orange and the sky blue of Okabe and Ito are paler than that; marks and dashes help.
@pytest.mark.parametrize("name", sorted(set(plots.STYLES) - {"gem", "stochastic"}))
def test_an_operator_is_seen_on_both_themes(name):
    assert min(contrasts(plots.colour(name))) > 3


def test_bars_write_their_numbers(ax):
    plots.bars(ax, {"max": 0.25, "avg": 0.5})
    assert [t.get_text().strip() for t in ax.texts] == ["0.25", "0.50"]
    assert [p.get_facecolor()[:3] for p in ax.patches] == [to_rgb(plots.colour(n)) for n in ("max", "avg")]


def test_a_forest_has_a_filled_marker_where_something_is_decided():
    _, ax = plt.subplots()
    rows = {"a": Interval(1, 0.5, 1.5, 3), "b": Interval(0.1, -1, 1.2, 3), "c": None}
    plots.forest(ax, rows, "points", verdicts={"a": "above", "b": "undecided"}, margin=0.5)
    markers = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in markers] == [plots.INK, "white"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    _, empty = plt.subplots()
    plots.forest(empty, {"a": None}, "points")
    assert [text.get_text() for text in empty.texts] == ["no runs yet"]


def test_the_power_figure_draws_half_widths():
    _, ax = plt.subplots()
    plots.power(ax, {"CIFAR-10": 0.4}, 15, margin=0.5, seeds=[4, 12, 24])
    assert list(ax.lines[0].get_ydata()) == [half_width(n, 0.4, 15) for n in (4, 12, 24)]


def test_a_few_large_values_leave_a_map_its_contrast():
    values = np.linspace(0, 1, 1024).reshape(32, 32)
    values[0, 0] = 100.0
    (picture,) = plots.maps({"a": values}).axes[0].images
    assert picture.get_clim()[0] == 0 and 0.9 < picture.get_clim()[1] < 1.1
    assert picture.colorbar.extend == "max"
    (small,) = plots.maps({"a": values[:4, :4]}).axes[0].images
    assert small.get_clim() == (0, 100) and small.colorbar.extend == "neither"


def test_names_cover_neither_each_other_nor_a_mark(ax):
    marks = {"soft": (1.0, 1.0), "stochastic": (1.02, 0.98), "lse": (1.3, 1.0), "max": (1.0, 1.06)}
    for at in marks.values():
        ax.plot(*at, "o")
    ax.set(xlim=(0.5, 2), ylim=(0.5, 1.5))
    plots.name_marks(ax, marks)
    boxes = [text.get_window_extent() for text in ax.texts]
    places = ax.transData.transform(list(marks.values()))
    assert [text.get_text() for text in ax.texts] == list(marks)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*place) for box in boxes for place in places)
