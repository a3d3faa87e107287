"""The interactive figures: what they compute, what their controls do, and that everybody can use them."""

import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from poolnb import reference
from poolnb.book.plots import STYLES
from poolnb.book.sphinxext import figures
from poolnb.lab.provenance import BOOK, ROOT

SOURCES = [
    path for suffix in ("md", "ipynb") for path in BOOK.rglob(f"*.{suffix}") if ".ipynb_checkpoints" not in path.parts
]
PLACES = sorted(
    (path.relative_to(ROOT).with_suffix("").as_posix(), name)
    for path in SOURCES
    for name in re.findall(r"```\{interactive\} (\w+)", path.read_text(encoding="utf-8"))
)
LOOKS = {
    "light": ("light", {"width": 1280, "height": 1000}),
    "dark": ("dark", {"width": 1280, "height": 1000}),
    "phone": ("light", {"width": 390, "height": 844}),
}
WHOLE = 60 * 1024  # bytes of all scripts and styles of the figures
MOST = 40_000  # bytes of scripts, styles and data that a page loads for its figure


def test_every_figure_has_its_place():
    assert {name for _, name in PLACES} == set(figures.FIGURES)


# ---- the formulas ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def formulas(browser):
    """Calls a function of formulas.js on each of a list of arguments, in the browser."""
    page = browser.new_page()
    page.add_script_tag(path=figures.SCRIPTS / "formulas.js")

    def call(name, arguments):
        script = "([name, all]) => JSON.stringify(all.map((one) => window.poolnb.formulas[name](...one)))"
        return json.loads(page.evaluate(script, [name, arguments]))

    yield call
    page.close()


def random_windows(seed):
    """1,000 windows of 1 to 9 taps: of both signs, with zeros and ties, some of them very large or small."""
    rng = np.random.default_rng(seed)
    for number in range(1000):
        x = rng.normal(size=rng.integers(1, 10)) * rng.choice([1e-2, 1, 30])
        if number % 3 == 0:
            x = np.round(2 * x) / 2
        yield np.maximum(x, 0) if number % 4 == 0 else x


PARAMETERS = {  # operator: the reference's keyword, and how the parameter is drawn
    "avg": None,
    "max": None,
    "stochastic": None,
    "mixed": ("alpha", lambda rng: rng.uniform(0, 1)),
    "soft": ("beta", lambda rng: rng.uniform(-5, 5)),
    "lse": ("r", lambda rng: rng.choice([0.0, rng.uniform(-5, 5)])),
    "gem": ("p", lambda rng: rng.uniform(0.5, 12)),
    "lp": ("norm_type", lambda rng: rng.uniform(1, 12)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_operator(formulas, name):
    rng, windows = np.random.default_rng(1), list(random_windows(2))
    own = PARAMETERS[name]
    values = [float(own[1](rng)) if own else None for _ in windows]
    found = formulas(name, [[list(x), *([v] if own else [])] for x, v in zip(windows, values, strict=True)])
    for x, v, one in zip(windows, values, found, strict=True):
        row, keywords = x[None, None], {own[0]: v} if own else {}
        y = getattr(reference, f"{name}_pool")(row, len(x), **keywords)
        slopes = getattr(reference, f"{name}_pool_backward")(np.ones_like(y), row, len(x), **keywords)
        parts = slopes if isinstance(slopes, tuple) else (slopes,)
        np.testing.assert_allclose(one["value"], y.item(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one["derivatives"], parts[0].ravel(), rtol=1e-8, atol=1e-10)
        assert sum(one["weights"]) == pytest.approx(1)
        if "pull" in one:
            np.testing.assert_allclose(one["pull"], np.sum(parts[1]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_tdgs(formulas, training):
    from poolnb.reference.sampling import _gumbel

    rng, windows, cases = np.random.default_rng(3), list(random_windows(4)), []
    for seed, x in enumerate(windows):
        own = {"temperature": float(rng.uniform(-1, 3)), "tau": float(rng.uniform(0.2, 3)), "eps": 0.01}
        own |= {"normalize": bool(seed % 3), "hard": bool(seed % 2)}
        cases.append((seed, x, own, list(_gumbel(seed, 0, list(range(len(x))))) if training else None))
    found = formulas("tdgs", [[list(x), own | {"noise": noise}] for _, x, own, noise in cases])
    for (seed, x, own, _), one in zip(cases, found, strict=True):
        row, how = x[None, None], {"training": training, "seed": seed if training else None}
        y = reference.tdgs_pool(row, len(x), **own, **how)
        slopes, pull = reference.tdgs_pool_backward(np.ones_like(y), row, len(x), **own, **how)
        np.testing.assert_allclose(one["value"], y.item(), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(one["derivatives"], slopes.ravel(), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(one["pull"], pull.item(), rtol=1e-6, atol=1e-8)


def test_s3(formulas):
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=8 * rng.integers(1, 5)) for _ in range(100)]
    maps = formulas("maxMap", [[list(x), 2] for x in rows])
    for name, mode in (("s3Average", "average"), ("s3Expectation", "expectation")):
        found = formulas(name, [[one, 2, 4] if mode == "expectation" else [one, 2] for one in maps])
        for x, y in zip(rows, found, strict=True):
            np.testing.assert_allclose(y, reference.s3_pool(x[None, None], 2, eval_mode=mode).ravel(), rtol=1e-9)


def test_windows_are_pytorchs_and_so_are_its_refusals(formulas):
    rng, cases = np.random.default_rng(6), []
    for _ in range(1000):
        length, kernel, stride, dilation = map(int, rng.integers(1, [13, 6, 6, 5]))
        cases.append((length, kernel, stride, int(rng.integers(0, 4)), dilation, bool(rng.integers(2))))
    names = ("length", "kernel", "stride", "padding", "dilation", "ceilMode")
    found = formulas("windows", [[dict(zip(names, case, strict=True))] for case in cases])
    for (length, *own), one in zip(cases, found, strict=True):
        try:
            answer = torch.nn.functional.max_pool1d(torch.eye(length)[:, None], *own[:4], ceil_mode=own[4])[:, 0]
        except RuntimeError as error:
            assert one == {"error": str(error)}
            continue
        # The outputs that are 1 for an input that is 1 at one position are the windows that hold this position.
        theirs = [torch.nonzero(answer[:, o] == 1).ravel().tolist() for o in range(answer.shape[1])]
        assert [[tap for tap in taps if 0 <= tap < length] for taps in one["windows"]] == theirs


def test_power_is_scipys(formulas):
    cases = [(effect, n, 0.05 / m, n - 1) for effect in (0, 0.3, 1, 2) for n in (3, 4, 5, 10, 30) for m in (1, 5, 20)]
    cases.append((1, 5, 0.05, 16))  # other poolers tell of the scatter too
    found = formulas("power", [list(case) for case in cases])
    for (effect, n, alpha, freedom), power in zip(cases, found, strict=True):
        critical, shift = stats.t.isf(alpha / 2, freedom), effect * math.sqrt(n)
        lower = stats.nct.cdf(-critical, freedom, shift) if shift < 5 else 0  # SciPy has NaN where it is nothing
        exact = stats.nct.sf(critical, freedom, shift) + lower
        assert power == pytest.approx(exact, abs=1e-5)


# ---- the pages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_file(watched, site):
    """Opens a page of the site from the disk, without a network."""

    def open_page(name, **options):
        page, _ = watched(**({"offline": True, "reduced_motion": "reduce"} | options))
        page.goto((site / f"{name}.html").as_uri())
        return page

    return open_page


class Figure:
    """A figure on an opened page."""

    def __init__(self, page, name):
        self.page, self.root = page, page.locator(f".interactive[data-figure={name}]")
        self.root.and_(page.locator("[data-ready]")).wait_for()

    def look(self, look):
        """See the page in one of the `LOOKS`, with every drawing as wide as its place."""
        scheme, viewport = LOOKS[look]
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.set_viewport_size(viewport)
        panels = "[...document.querySelectorAll('svg.play-panel')]"
        drawn = f"{panels}.every(one => one.viewBox.baseVal.width === one.clientWidth)"
        self.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}' && {drawn}")

    def state(self):
        """(drawing, numbers)"""
        script = """root => [
            [...root.querySelectorAll("svg")].map(one => one.innerHTML.replace(/ style="(display: none;)?"/g, "")) +
                [...root.querySelectorAll("canvas")].map(one => one.toDataURL()).join(),
            [...root.querySelectorAll(".play-numbers, output, .play-row p")].map(one => one.textContent).join("|"),
        ]"""
        return self.root.evaluate(script)

    def start(self):
        """Start again, with some draws where the figure draws lots."""
        self.root.get_by_role("button", name="Start again").click()
        for button in self.root.get_by_role("button", name=re.compile(r"^Draw \d+")).all():
            button.click()

    def moved(self, act, what):
        """Do `act`, and see that it changes the drawing and the numbers."""
        self.start()
        before = self.state()
        act()
        for part, old, new in zip(("drawing", "numbers"), before, self.state(), strict=True):
            assert old != new, f"{what} does not change the {part}"

    def drag(self, handle):
        handle.scroll_into_view_if_needed()
        box = handle.locator(".knob").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x, y + 35, steps=3)
        self.page.mouse.up()


@pytest.mark.parametrize("page, name", [place for place in PLACES if place[0] != "book/intro"])
def test_every_control_moves_the_figure(open_file, page, name):
    figure = Figure(open_file(page), name)
    for look in LOOKS:
        figure.look(look)
        move_every_control(figure)
        assert figure.page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look][1]["width"], look


def move_every_control(figure):
    """Move each control by mouse and by keyboard; then the figure starts again as it was."""
    figure.root.get_by_role("button", name="Start again").click()
    first = figure.state()
    assert "NaN" not in "".join(first)
    for slider in figure.root.locator("input[type=range]").all():
        label = figure.root.locator(f"label[for={slider.get_attribute('id')}]").inner_text()
        figure.moved(lambda s=slider: far_click(s), label)
        figure.moved(lambda s=slider: far_press(s), f"{label}, by keyboard,")
    for box in figure.root.locator("input[type=checkbox]").all():
        figure.moved(box.click, "the box")
        figure.moved(lambda b=box: b.press("Space"), "the box, by keyboard,")
    for choice in figure.root.locator("select").all():
        last = choice.locator("option").last.get_attribute("value")
        figure.moved(lambda c=choice, v=last: c.select_option(v), "the choice")
        figure.moved(lambda c=choice: c.press("ArrowDown"), "the choice, by keyboard,")
    for button in figure.root.locator("button").all():
        if button.inner_text() != "Start again":
            figure.moved(button.click, button.inner_text())
            figure.moved(lambda b=button: b.press("Enter"), f"{button.inner_text()}, by keyboard,")
    for handle in figure.root.locator("g[role=slider]").all():
        if handle.is_visible():
            label = handle.get_attribute("aria-label")
            figure.moved(lambda h=handle: figure.drag(h), label)
            figure.moved(lambda h=handle: h.press("ArrowDown"), f"{label}, by keyboard,")
    figure.root.get_by_role("button", name="Start again").click()
    assert figure.state() == first, "the figure does not start again as it was"


def far_press(slider):
    """Press the arrow key that a native slider can follow."""
    slider.press("ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight")


def far_click(slider):
    """Click on a native slider, far from where it stands."""
    value, low, high = (float(slider.evaluate(f"one => one.{name}")) for name in ("value", "min", "max"))
    box = slider.bounding_box()
    place = 0.15 if value - low > high - value else 0.85
    slider.click(position={"x": place * box["width"], "y": box["height"] / 2})


def test_draws_come_one_after_the_other_unless_the_reader_wants_no_motion(open_file):
    still = Figure(open_file("book/sampling/tdgs"), "tdgs")
    still.root.get_by_role("button", name="Draw 100").click()
    assert "100 draws" in still.state()[1]
    moving = Figure(open_file("book/sampling/tdgs", reduced_motion="no-preference"), "tdgs")
    moving.root.get_by_role("button", name="Draw 100").click()
    moving.root.get_by_text("100 draws").wait_for()


def test_a_finger_drags_a_tap(open_file):
    figure = Figure(open_file("book/foundations/max", viewport=LOOKS["phone"][1], has_touch=True), "max")
    knob = figure.root.locator("g[role=slider]").first
    knob.scroll_into_view_if_needed()
    box, before = knob.locator(".knob").bounding_box(), float(knob.get_attribute("aria-valuenow"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = figure.page.context.new_cdp_session(figure.page)
    for kind, down in (("touchStart", 0), ("touchMove", 20), ("touchMove", 45)):
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + down}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert float(knob.get_attribute("aria-valuenow")) < before - 0.1


def test_a_temperature_below_zero_is_caught(open_file):
    figure = Figure(open_file("book/sampling/tdgs"), "tdgs")
    step = figure.root.get_by_role("button", name="Step that raises y")
    figure.root.get_by_label("temperature T").fill("0.4")
    for _ in range(10):
        step.click()
    caught = figure.state()
    assert "T is caught" in caught[1]
    step.click()
    assert figure.state() == caught


def test_without_scripts_the_drawings_of_the_page_stay(browser, site):
    page = browser.new_page(java_script_enabled=False)
    page.goto((site / "book/softmax/softmax.html").as_uri())
    assert page.locator(".interactive noscript p").is_visible()
    assert page.locator("article figure img").first.is_visible()
    page.close()


# A wide drawing of the page scrolls in its box on a phone; that is no matter of the interactive figure.
@pytest.mark.parametrize("page, name", PLACES)
def test_accessibility(visit, page, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    figure = Figure(visit(f"{page}.html"), name)
    for look in LOOKS:
        figure.look(look)
        part = ".bd-article" if look == "light" else ".interactive"
        found = axe.run(figure.page, part, {"preload": False}).response["violations"]  # it would load the styles again
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious] == [], look


# ---- what is loaded --------------------------------------------------------------------------------------------------


def test_only_pages_with_a_figure_load_its_scripts_and_little_of_them(site):
    holders = {page for page, _ in PLACES}
    for path in (site / "book").rglob("*.html"):
        page = path.relative_to(site).with_suffix("").as_posix()
        loaded = re.findall(r'(?:src|href)="(?:\.\./)*(_static/figures/[\w./]+)', path.read_text(encoding="utf-8"))
        assert bool(loaded) == (page in holders), page
        assert sum((site / file).stat().st_size for file in loaded) <= MOST, page
    assert sum(file.stat().st_size for file in figures.SCRIPTS.rglob("*.*")) <= WHOLE


def test_operators_have_the_colours_of_the_plots():
    light, dark = figures.colours().split('html[data-theme="dark"]')
    assert dict(re.findall(r"--op-(\w+): (#\w+);", light)) == {name: style.colour for name, style in STYLES.items()}
    assert len(re.findall(r"--op-\w+: #\w+;", dark)) == len(STYLES)
