"""The page of `fedrax watch` in a browser, with Playwright and Chromium (as ``tests/report/test_browser.py``)."""

import json
import shutil
import threading

import pytest

from fedrax.watch.runs import Watched
from fedrax.watch.server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")


LINES = """(() => {
  const { plot } = [...state.charts.values()][0];
  return plot.series.slice(1).map((one, place) => [one.label, one.stroke(plot, place + 1), one.dash]);
})()"""
"""Label, colour and dashes of every line of the first chart."""


def write(run, rows, mode="a"):
    with open(run / "metrics.jsonl", mode) as file:
        file.write("".join(json.dumps({"seed": 0, **row}) + "\n" for row in rows))


def make_run(path, environments="registered"):
    path.mkdir(parents=True)
    (path / "config.toml").write_text(
        f'name = "demo"\n[budget]\nrounds = 10\n[environment.heterogeneity]\nlength = [0.5, 1.0]\n'
        f'[evaluation]\nenvironments = "{environments}"\n'
    )
    write(path, [{"round": number, "return": float(number), "x": 1.0, "y": 2.0} for number in range(4)], "w")
    return path


@pytest.fixture
def open_page():
    """Opens what is watched at a path; complaints of the page fail the test at its end."""
    with sync_api.sync_playwright() as playwright:
        # Tests may run as root, whom Chromium's sandbox refuses.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        complaints, servers = [], []

        def opened(path):
            server = Server(Watched(path), 0)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            servers.append((server, thread))
            # What the test waits for is evaluated in the page, which its own policy forbids.
            page = browser.new_page(bypass_csp=True)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(server.url)
            page.wait_for_function("state.data !== null && state.charts.size > 0")
            return page

        yield opened
        browser.close()
        for server, thread in servers:
            server.shutdown()
            thread.join()
            server.server_close()
        assert complaints == []


HEADINGS = "[...document.querySelectorAll('.chart h2')].map((one) => one.textContent)"


def test_rounds_begin_with_one_and_a_value_that_comes_late_is_whole(tmp_path, open_page):
    run = make_run(tmp_path / "run")
    page = open_page(run)
    assert page.evaluate("[...state.charts.values()][0].plot.data[0].join()") == "1,2,3,4"
    write(run, [{"round": 4, "return": 4.0, "success": 0.5}])
    page.wait_for_function("state.charts.size === 2")
    assert page.evaluate(HEADINGS) == ["return", "success"]
    assert page.evaluate("state.rows.length") == 5
    assert page.evaluate("[...state.charts.values()].map((one) => one.plot.data[0].join())") == ["1,2,3,4,5", "5"]


def test_choosing_values_while_it_asks_begins_no_second_loop(tmp_path, open_page):
    page = open_page(make_run(tmp_path / "run"))
    page.locator("summary").click()
    page.evaluate("for (const box of document.querySelectorAll('#names input')) box.click()")
    page.wait_for_function("state.charts.size === 2 && state.rows.length === 4")
    assert page.evaluate(HEADINGS) == ["x", "y"]
    page.wait_for_timeout(500)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4500)
    assert len(asked) <= 3, "every two seconds"


def test_runs_that_were_evaluated_differently_have_charts_of_their_own(tmp_path, open_page):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", "own")
    page = open_page(tmp_path)
    assert page.evaluate(HEADINGS) == [
        "return: evaluation.environments = registered",
        "return: evaluation.environments = own",
    ]
    assert page.evaluate("[...state.charts.values()].map((one) => one.plot.series.length)") == [2, 2]


def test_seeds_of_a_setup_have_one_colour_and_dashes_of_their_own(open_page, tmp_path):
    for setup in ("a", "b"):
        for seed in (0, 1):
            make_run(tmp_path / setup / f"seed-{seed}")
            rows = [{"seed": seed, "round": number, "return": number, "total_steps": 10} for number in range(3)]
            write(tmp_path / setup / f"seed-{seed}", rows, "w")
    page = open_page(tmp_path)
    lines = page.evaluate(LINES)
    assert [label for label, *_ in lines] == ["a, seed 0", "a, seed 1", "b, seed 0", "b, seed 1"]
    assert len({(colour, str(dash)) for _, colour, dash in lines}) == 4
    assert lines[0][2] == lines[2][2] != lines[1][2] == lines[3][2]
    headings = page.locator("#runs th").all_text_contents()
    assert headings[4:8] == ["most rounds", "mean return", "mean best", "steps, sum of seeds"]
    assert page.locator("#runs tbody tr").first.locator("td").nth(7).text_content() == "20"
    assert "dashes of their own" in page.locator("#runs caption").text_content()
