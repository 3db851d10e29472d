"""The page in a real browser, headless and without a network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import made_routed
import pytest
import synthetic_scaling
import synthetic_study as synthetic
from made_reports import QUICK, bench_rows

from isoflop.config import EveryToken, RandomK, Study, TopK, Variant
from isoflop.report import Evidence, LeftOut, routed_model, write_report
from isoflop.report.analysis import analyse

if TYPE_CHECKING:
    from playwright import sync_api as playwright

HOSTILE = (
    "</script><script>window.flag = 1</script>",
    '"><img src=x onerror="window.flag = 2">',
    "\u202e\u0645\u0631\u062d\u0628\u0627 <svg onload=window.flag=3> {{ 7*7 }}",
    "W" * 80,
)


FIGURES = 16


def written_to(tmp_path_factory, study: Study, evidence: Evidence) -> Path:
    """Write a report without PNG and PDF, which take seconds: the page holds the SVG alone."""
    with mock.patch.multiple(
        "isoflop.report.render.vl_convert",
        svg_to_png=mock.Mock(return_value=b""),
        svg_to_pdf=mock.Mock(return_value=b""),
    ):
        return write_report(study, evidence, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return a page whose every text that a user can set is hostile."""
    depths = (EveryToken(), TopK(capacity=0.125), TopK(capacity=0.5), RandomK(capacity=0.5))
    variants = tuple(
        Variant(name=name, depth=depth) for name, depth in zip(HOSTILE, depths, strict=True)
    )
    study = synthetic.study(seeds=(0, 1), variants=variants)
    runs = synthetic.runs(study, widths=(32, 48, 64, 96, 128))
    bad = synthetic.diverged(variants[1], 5e12, 64, f"loss was NaN {HOSTILE[1]}")
    names = {record.run_id: name for name, _, record in runs}
    look = next(record for name, _, record in runs if name == HOSTILE[1])
    inside = routed_model(
        study,
        [record for *_, record in runs],
        names,
        {look.run_id: made_routed.evaluation(look)},
        {look.run_id: made_routed.sample(look)},
    )
    known = Evidence(
        records=[*(record for *_, record in runs), bad],
        variant_of={**names, bad.run_id: HOSTILE[1]},
        missing=[LeftOut(HOSTILE[3], 5e12, "80K", 1, "pending", HOSTILE[0])],
        speeds=bench_rows(runs),
        routed=inside,
        command=f"isoflop report '{HOSTILE[1]}'",
    )
    # The surfaces take seconds to fit, and their figures are as all others.
    with mock.patch("isoflop.report.page.analyse", partial(analyse, estimators=QUICK)):
        return written_to(tmp_path_factory, study, known)


@pytest.fixture(scope="module")
def scaling_page(tmp_path_factory) -> Path:
    """Return the page of a scaling study with 6 runs."""
    study = synthetic_scaling.study(seeds=(0,), sizes=synthetic_scaling.SIZES[:3])
    records, names = synthetic_scaling.joined(synthetic_scaling.runs(study, points=20))
    return written_to(tmp_path_factory, study, Evidence(records, names))


class Opened:
    """A page in a tab, with what it asked for and complained about."""

    def __init__(self, tab: playwright.Page, path: Path) -> None:
        self.tab = tab
        self.requests: list[str] = []
        self.complaints: list[str] = []
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("console", lambda said: self.complaints.append(said.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_function(
            "[...document.querySelectorAll('.live')].filter(one => one.checkVisibility())"
            ".every(one => one.querySelector('svg'))"
        )

    def js(self, expression: str):
        return self.tab.evaluate(expression)


@contextlib.contextmanager
def _open(browser, path: Path, width: int = 1200, **options) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    try:
        yield Opened(context.new_page(), path)
    finally:
        context.close()


@pytest.fixture(scope="module")
def opened(browser, written) -> Iterator[Opened]:
    with _open(browser, written) as one:
        yield one


@pytest.fixture(scope="module")
def phone(browser, written) -> Iterator[Opened]:
    with _open(browser, written, 390, has_touch=True, is_mobile=True) as one:
        yield one


def test_it_opens_without_network_or_complaint(opened: Opened, written: Path) -> None:
    assert opened.requests == [written.as_uri()]
    assert opened.complaints == []
    assert written.stat().st_size < 5_000_000


def test_every_figure_draws_its_marks(opened: Opened, written: Path) -> None:
    names = {path.stem for path in written.parent.joinpath("figures").glob("*.svg")}
    assert len(names) == FIGURES
    marks = opened.js(
        "Object.fromEntries([...document.querySelectorAll('.live')].map(one => [one.id.slice(5), "
        "one.querySelectorAll('[aria-roledescription]').length]))"
    )
    assert set(marks) == names
    assert all(number >= 4 for number in marks.values()), marks


def test_no_text_runs_or_becomes_markup(opened: Opened) -> None:
    assert opened.js("typeof window.flag") == "undefined"
    assert opened.js("document.querySelectorAll('main script, main img:not(.still)').length") == 0
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        assert text in opened.js("document.querySelector('main').innerText")
    assert "\u202e" not in opened.js("document.documentElement.outerHTML")


def test_a_click_in_the_legend_fades_the_other_variants(opened: Opened) -> None:
    figure = opened.tab.locator("#live-loss-against-parameters")
    # A line for each variant; the brackets beside the plot are lines that do not fade.
    opacities = (
        "[...document.querySelectorAll('#live-loss-against-parameters .mark-line path')]"
        ".map(one => Number(one.getAttribute('opacity') ?? 1)).slice(0, 4)"
    )
    assert opened.js(opacities) == [1, 1, 1, 1]
    entry = figure.locator(".role-legend-label text").nth(1)
    entry.click()
    opened.tab.wait_for_function(f"{opacities}.filter(one => one < 0.5).length === 3")
    entry.click()
    opened.tab.wait_for_function(f"{opacities}.every(one => one === 1)")


def test_pointing_at_a_run_tells_its_numbers(opened: Opened) -> None:
    run = opened.tab.locator("#live-loss-against-parameters .mark-symbol path").first
    run.hover(force=True)
    tip = opened.tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert re.search(r"Loss\s+1\.\d{4}", tip.inner_text())
    assert opened.js("typeof window.flag") == "undefined"


@pytest.mark.parametrize("at", ["opened", "phone"])
def test_nothing_is_wider_than_the_screen(at: str, request) -> None:
    shown = request.getfixturevalue(at)
    width = shown.js("document.documentElement.clientWidth")
    assert width == (390 if at == "phone" else 1200)
    assert shown.js("document.documentElement.scrollWidth") == width
    # What is wider, such as a table, scrolls in a box of its own.
    beyond = shown.js(
        "[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, pre, svg'))"
        ".filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
        ".map(one => one.outerHTML.slice(0, 80))"
    )
    assert beyond == []
    assert shown.complaints == []


def test_print_has_every_figure_as_a_still(opened: Opened) -> None:
    shown = opened
    shown.tab.emulate_media(media="print")
    try:
        visible = shown.js(
            "[...document.querySelectorAll('.still')].filter(one => one.checkVisibility() "
            "&& one.complete && one.naturalWidth > 0 && one.clientHeight > 50).length"
        )
        figures = shown.js("document.querySelectorAll('figure:not(.generated)').length")
        assert visible == figures == FIGURES
        assert shown.js(
            "[...document.querySelectorAll('.strip span[style]')].every(one => "
            "getComputedStyle(one).printColorAdjust === 'exact')"
        )
        assert shown.js(
            "[...document.querySelectorAll('.live')].every(one => !one.checkVisibility())"
        )
        pdf = shown.tab.pdf(format="A4")
    finally:
        shown.tab.emulate_media(media="screen")
    assert pdf.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 6 <= pages <= 30


@pytest.mark.parametrize(
    ("at", "figures"),
    [("written", FIGURES), pytest.param("scaling_page", 4, marks=pytest.mark.slow)],
)
def test_without_scripts_the_stills_stand_in(browser, at: str, figures: int, request) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    tab = context.new_page()
    tab.goto(request.getfixturevalue(at).as_uri())
    assert tab.locator("img.still:visible").count() == figures
    assert tab.locator(".live:visible").count() == 0
    assert not tab.locator(".switch:visible").count()
    context.close()


AXES = ("6nd", "causal")
SHOWN = "[...document.querySelectorAll('.choice')].filter(one => one.checkVisibility())"


@pytest.mark.parametrize(
    ("width", "columns"), [pytest.param(1200, 4, marks=pytest.mark.slow), (390, 2)]
)
def test_the_axis_of_compute_is_switched_by_keyboard(browser, scaling_page, width, columns) -> None:
    with _open(browser, scaling_page, width) as shown:
        first, second = (f"#choice-{axis} .live" for axis in AXES)
        assert shown.js(f"{SHOWN}.map(one => one.id)") == ["choice-6nd"]
        shown.tab.locator("#axis-6nd").focus()
        shown.tab.keyboard.press("ArrowRight")
        assert shown.js(f"{SHOWN}.map(one => one.id)") == ["choice-causal"]
        shown.tab.wait_for_selector(f"{second} svg")
        # Every run is drawn in every panel, and panels stand where there is room for them.
        runs = ".mark-symbol [aria-roledescription='point']"
        assert shown.tab.locator(f"{second} {runs}").count() == 6 * 10
        tops = shown.js(
            f"[...document.querySelectorAll('{second} text')]"
            ".filter(one => one.textContent.startsWith('positions'))"
            ".map(one => Math.round(one.getBoundingClientRect().top))"
        )
        assert len(tops) == 8
        assert tops.count(tops[0]) == columns
        shown.tab.keyboard.press("ArrowLeft")
        assert shown.tab.locator(first).is_visible()
        assert shown.js("document.documentElement.scrollWidth") == width
        assert shown.complaints == []
        shown.tab.emulate_media(media="print")
        assert shown.js(f"{SHOWN}.length") == 1
        assert not shown.tab.locator(".switch").is_visible()
