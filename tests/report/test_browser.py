"""The page in a browser: what can be chosen, pointed at and saved, on a desk and on a phone.

Needs Playwright's Python package and Debian's Chromium (``apt-get install chromium``); no browser is downloaded.
"""

import json
import re
import shutil

import numpy as np
import pytest

from fedrax.report import charts
from fedrax.report.curves import summarise
from fedrax.report.html import write_report
from fedrax.report.runs import group_runs, load_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Tests may run as root, whom Chromium's sandbox refuses.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a report of these runs; what the page complains of or asks a network for fails the test at its end."""
    complaints, pages = [], []

    def opened(runs, width=1400, **options):
        file = write_report(runs, tmp_path / "report.html")
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


@pytest.fixture
def runs(write_run, tmp_path):
    """Four setups, of which two have the same returns; one has a name that would end a script."""
    folder = tmp_path / "runs"
    write_run(folder / "a", seeds=(0, 1, 2, 3, 4), rounds=30)
    write_run(folder / "b", seeds=(0, 1, 2, 3, 4), rounds=30, strategy="svrpg")
    write_run(folder / "c", seeds=(10, 11, 12, 13), rounds=20, strategy="gpomdp")
    write_run(folder / "</script><b>&", seeds=(50,), rounds=10, attack="sign-flipping", byzantine=3, filtering=True)
    return folder


def legend(page):
    """The values beside the names of the first chart's lines."""
    keys = page.locator("figure.chart").first.locator(".key")
    return {key.locator(".name").inner_text(): key.locator(".value").inner_text() for key in keys.all()}


def test_the_page_aggregates_as_the_picture_does(runs, open_page):
    page = open_page([runs])
    groups = group_runs(load_runs([runs]))
    for axis in ("trajectories", "seconds"):
        for statistic in ("iqm", "mean"):
            for smoothing in (1, 5):
                given = [axis, "return", statistic, smoothing]
                made = page.evaluate(
                    "([x, y, statistic, smoothing]) => Charts.all[0].spec.groups.map("
                    "(group) => Aggregate.curve(group, x, y, statistic, smoothing, Charts.all[0].spec.draws))",
                    given,
                )
                for group, curve in zip(groups, made, strict=True):
                    ours = summarise(group, axis, "return", statistic, smoothing)
                    np.testing.assert_allclose(curve["x"], ours.x)
                    np.testing.assert_allclose(curve["y"], ours.centre)
                    for bound in ("low", "high"):
                        theirs = np.array(curve[bound], float)
                        np.testing.assert_allclose(theirs, getattr(ours, bound), rtol=1e-9)


def test_the_last_point_of_a_long_curve_is_kept(runs, open_page):
    """On an axis that is not whole, the grid's end may be rounded past the last evaluation, which then is none."""
    page = open_page([runs])
    lost = page.evaluate(
        """() => Array.from({length: 2000}, (_, place) => (place + 1) / 7).filter((by) => {
            const x = Array.from({length: 400}, (_, step) => by * (step + 1));
            const {y} = Aggregate.curve({seeds: [{x: {t: x}, y: {r: x}}]}, "t", "r", "mean", 1);
            return y.length !== 300 || y[299] === null;
        })"""
    )
    assert lost == []


def test_a_thinned_chart_offers_no_other_smoothing(write_run, tmp_path, open_page, monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 100)
    monkeypatch.setattr(charts, "LEAST_OF_SEED", 30)
    page = open_page([write_run(tmp_path / "long", rounds=100)])
    assert page.locator("[data-choice=smoothing]").count() == 0
    assert page.locator("[data-choice=x]").count() > 0


def test_values_are_read_under_the_pointer(runs, open_page):
    page = open_page([runs])
    page.set_viewport_size({"width": 1000, "height": 900})
    assert legend(page)["fedpg-br, no attack"].startswith("3,020 [")
    plot = page.locator("figure.chart .u-over").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    said = page.locator("figure.chart .at").first.inner_text()
    assert said.startswith("trajectories per agent (reference count): 1,")
    x = float(said.rpartition(": ")[2].replace(",", ""))
    value = legend(page)["fedpg-br, no attack"].partition(" ")[0]
    assert float(value.replace(",", "")) == x + 20


def test_lines_are_switched_off_and_the_axis_is_chosen(runs, open_page):
    page = open_page([runs])
    chart = page.locator("figure.chart").first
    state = "Charts.all[0].plot.series.length"
    before = page.evaluate(state)
    key = chart.locator(".key").filter(has_text="gpomdp")
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    # The line, its two bounds, and its four seeds.
    assert page.evaluate(state) == before - 7
    assert legend(page)["gpomdp, no attack"] == ""
    key.click()
    chart.locator("[data-choice=seeds]").uncheck()
    assert page.evaluate(state) == before - 14
    chart.locator("[data-choice=bands]").uncheck()
    assert page.evaluate(state) == 1 + 4
    chart.locator("[data-choice=x]").select_option("seconds")
    assert page.evaluate("Math.max(...Charts.all[0].plot.data[0])") == 30 * 15
    assert page.evaluate("Charts.all[0].plot.axes[0].label") == "training time, s"
    chart.locator("[data-choice=logX]").check()
    chart.locator("[data-choice=logY]").check()
    assert page.evaluate("['x', 'y'].map((name) => Charts.all[0].plot.scales[name].distr)") == [3, 3]
    chart.locator("[data-choice=smoothing]").select_option("3")
    assert legend(page)["gpomdp, no attack"] == "2,015"


def test_a_double_click_leaves_one_line(runs, open_page):
    page = open_page([runs])
    keys = page.locator("figure.chart").first.locator(".key")
    keys.nth(1).dblclick()
    assert [key.get_attribute("aria-pressed") for key in keys.all()].count("true") == 1


def test_lines_that_coincide_are_told_apart(runs, open_page):
    page = open_page([runs])
    note = page.locator("figure.chart .coincide").first
    assert note.inner_text() == "svrpg, no attack (dashed) lies on fedpg-br, no attack."
    page.locator("figure.chart").first.locator(".key").filter(has_text="svrpg").click()
    assert note.inner_text() == ""


def test_tables_sort_and_are_saved(runs, open_page):
    page = open_page([runs])
    table = page.locator("section").filter(has_text="Results").locator("table").first
    first = "[...document.querySelectorAll('table')][0]"
    table.locator("th button").nth(2).click()
    sorted_by = f"[...{first}.tBodies[0].rows].map((row) => row.cells[2].textContent)"
    assert [float(text.partition(" ")[0].replace(",", "")) for text in page.evaluate(sorted_by)] == sorted(
        float(text.partition(" ")[0].replace(",", "")) for text in page.evaluate(sorted_by)
    )
    keys = page.evaluate("['1 min 12 s', '0.42 s', '1.5 kB', '2 h 5 min', '–', '12,346 [1, 2]', 'x'].map(Tables.key)")
    assert keys == [72, 0.42, 1500, 7500, None, 12346, "x"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="LaTeX").first.click()
    text = saved.value.path().read_text()
    assert text.startswith("\\begin{tabular}{lrrrr}\n\\toprule\n")
    assert "sign-flipping" in text


@pytest.mark.parametrize("suffix", ["csv", "svg", "png"])
def test_charts_are_saved_as_they_are_shown(suffix, runs, open_page):
    page = open_page([runs])
    with page.expect_download() as saved:
        page.locator("figure.chart").first.get_by_role("button", name=suffix.upper()).click()
    assert saved.value.suggested_filename == f"cartpole-learning-curves.{suffix}"
    content = saved.value.path().read_bytes()
    if suffix == "csv":
        lines = content.decode().splitlines()
        assert (
            lines[0]
            == '"line","trajectories per agent (reference count)"'.replace('"', "") + ",evaluation return,low,high"
        )
        assert len(lines) == 1 + 30 + 30 + 20 + 10
    elif suffix == "svg":
        assert content.startswith(b"<svg xmlns=")
        assert page.evaluate(
            "(text) => new DOMParser().parseFromString(text, 'image/svg+xml').querySelector('parsererror') === null",
            content.decode(),
        )
        assert b"NaN" not in content
    else:
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000


def test_a_chart_and_a_picture_are_printed_as_vectors(runs, open_page, browser):
    page = open_page([runs])
    page.add_init_script("window.print = () => { window.top.printed = document.documentElement.outerHTML; }")
    page.reload()
    live, still = page.locator("figure.chart").first, page.locator("figure.map").first
    for figure in (live, still):
        figure.get_by_role("button", name="PDF").click()
        page.wait_for_function("window.printed")
        document = page.evaluate("window.printed")
        page.evaluate("window.printed = undefined")
        sheet = browser.new_page()
        sheet.set_content(document)
        pdf = sheet.pdf(prefer_css_page_size=True)
        sheet.close()
        assert pdf.count(b"/Type /Page\n") == 1
        # Of the heat map the colour bar is one.
        assert pdf.count(b"/Subtype /Image") == (1 if figure is still else 0)
        # The page is as large as the picture: in points, of which a pixel is three quarters.
        shown = page.evaluate("(text) => parseFloat(/<svg[^>]* width=.([\\d.]+)/.exec(text)[1])", document)
        width = float(re.search(rb"/MediaBox \[0 0 ([\d.]+)", pdf)[1])
        assert width == pytest.approx(0.75 * shown, abs=1)
    assert page.evaluate("document.querySelectorAll('iframe').length") == 2
    page.evaluate("for (const frame of Array.from(frames)) frame.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.querySelectorAll('iframe').length === 0")


def test_a_cell_of_a_heat_map_is_read_under_the_pointer(runs, open_page):
    page = open_page([runs])
    figure = page.locator("figure.map").first
    said = figure.locator(".at")
    assert said.inner_text() == "Point at a cell to read it."
    number = figure.locator("svg text").filter(has_text=re.compile("^2,115$"))
    number.scroll_into_view_if_needed()
    number.hover()
    assert said.inner_text() == "gpomdp + mean, none: 2,115"
    page.mouse.move(1, 1)
    assert said.inner_text() == "Point at a cell to read it."


def test_what_the_filter_did_is_chosen(runs, open_page):
    page = open_page([runs])
    section = page.locator("section").filter(has_text="What the filter did")
    section.locator("[data-choice=y]").select_option("rule 1")
    chart = "Charts.all.find((chart) => chart.figure.closest('section').textContent.includes('What the filter did'))"
    assert page.evaluate(f"{chart}.plot.axes[1].label") == "share of rounds with first rule (R1)"
    assert set(page.evaluate(f"{chart}.plot.data[1]")) == {0, 1}


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(width, scheme, runs, open_page):
    page = open_page([runs], width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = (
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, pre')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert page.evaluate(beyond) == []
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("Charts.all.every((chart) => chart.plot.width <= 700)")


def test_paper_and_browsers_without_scripts_show_the_picture(runs, open_page):
    page = open_page([runs], java_script_enabled=False)
    assert page.locator("figure.chart .static svg").first.is_visible()
    printed = open_page([runs])
    assert not printed.locator("figure.chart .static svg").first.is_visible()
    printed.emulate_media(media="print")
    assert printed.locator("figure.chart .static svg").first.is_visible()
    assert not printed.locator("figure.chart canvas").first.is_visible()


def test_a_name_cannot_end_a_script(runs, open_page):
    page = open_page([runs])
    assert page.evaluate("document.querySelector('main b') === null")
    assert json.loads(page.evaluate("JSON.stringify(Charts.all[0].spec.groups.length)")) == 4
