"""What the page computes itself, against what Python computes. Needs Node.js (Debian's ``nodejs``), else a browser's
tests cover it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedrax.report import charts, tables
from fedrax.report.curves import STATISTICS, summarise
from fedrax.report.runs import Group, History, Run
from fedrax.report.tables import Estimate

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js: apt-get install nodejs")
TEMPLATES = Path(tables.__file__).parent / "templates"


def in_javascript(file, expression, given):
    """The value of an expression of ``given`` after a template was read."""
    script = f"{(TEMPLATES / file).read_text()}\nconst given = {json.dumps(given)};\n"
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
    (line,) = charts.curves_chart([group], {}, statistic="iqm", smoothing=1)["groups"]
    expression = "['iqm', 'mean'].map((name) => Aggregate.curve(given, 'round', 'return', name, 1))"
    for name, made in zip(STATISTICS, in_javascript("aggregate.js", expression, line), strict=True):
        table = Estimate.of(returns[:, -1], name)
        last = [made["y"][-1], made["low"][-1], made["high"][-1]]
        np.testing.assert_allclose(last, [table.value, table.low, table.high], rtol=1e-9)
        drawn = summarise(group, "round", statistic=name)
        np.testing.assert_allclose(made["low"], drawn.low, rtol=1e-9)
        np.testing.assert_allclose(made["high"], drawn.high, rtol=1e-9)
