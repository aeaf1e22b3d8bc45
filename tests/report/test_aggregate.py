"""What the page computes itself, against what Python computes. Needs Node.js (Debian's ``nodejs``), else a browser's
tests cover it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedrax.report import cells as cells_of_papers
from fedrax.report import charts, tables
from fedrax.report.curves import STATISTICS, summarise
from fedrax.report.runs import Group, History, Run
from fedrax.report.tables import Estimate

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js: apt-get install nodejs")
TEMPLATES = Path(tables.__file__).parent / "templates"


def in_javascript(*files, expression, given):
    """The value of an expression of ``given`` after these templates were read."""
    script = "\n".join((TEMPLATES / file).read_text() for file in files) + f"\nconst given = {json.dumps(given)};\n"
    script += f"console.log(JSON.stringify({expression}));"
    made = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(made.stdout)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 21])
def test_the_legend_has_the_interval_of_the_result_table(seeds):
    """Both by one bootstrap: other draws gave one number two intervals on one page."""
    returns = np.random.default_rng(seeds).normal(-90, 5, (seeds, 3)).round(3)
    histories = [
        History(seed, tuple({"round": place, "return": value} for place, value in enumerate(each)), 1)
        for seed, each in enumerate(returns.tolist())
    ]
    group = Group("ours", (Run("run", {}, {}, {}, tuple(histories)),))
    chart = charts.curves_chart([group], {}, statistic="iqm", smoothing=1)
    curve = "Aggregate.curve(given.groups[0], 'round', 'return', name, 1, given.draws)"
    curves = in_javascript("aggregate.js", expression=f"['iqm', 'mean'].map((name) => {curve})", given=chart)
    for name, made in zip(STATISTICS, curves, strict=True):
        table = Estimate.of(returns[:, -1], name)
        last = [made["y"][-1], made["low"][-1], made["high"][-1]]
        np.testing.assert_allclose(last, [table.value, table.low, table.high], rtol=1e-9)
        drawn = summarise(group, "round", statistic=name)
        np.testing.assert_allclose(made["low"], drawn.low, rtol=1e-9)
        np.testing.assert_allclose(made["high"], drawn.high, rtol=1e-9)


NUMBERS = [
    [-80.7, -97.152, -66.8566],
    [0.5937, 60.85],
    [9.4, 0.00001, 11.2],
    [-1500.4, 3.25],
    [0.75, 1, 0],
    [0, 0],
    [5],
]


def test_the_legend_has_the_digits_of_a_column():
    made = in_javascript("shared.js", expression="given.map(Page.alike)", given=NUMBERS)
    assert made == [tables.alike(*each) for each in NUMBERS]


def test_the_pages_latex_has_the_minus_signs_of_the_tables():
    cells = ["-92.06 [-94.21, -89.26]", "-1,070 [-12,345, 20]", "410", "–", "12.5 %", "a-1_b", "no-2"]
    made = in_javascript("shared.js", "tables.js", expression="given.map(Tables.latexCell)", given=cells)
    assert made == [*map(cells_of_papers.latex_numbers, cells)]
