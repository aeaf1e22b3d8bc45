"""The published numbers are those of the specification, whole and well-formed."""

import pytest

from fedrax.errors import FedraxError
from fedrax.report import published
from fedrax.report.curves import AXES


def test_known_points():
    cartpole = published.load("fedpg-br-cartpole")
    ten = cartpole["FedPG-BR K=10"]
    assert dict(zip(ten.x, ten.y, strict=True))[1000] == 483
    assert ten.x[-1] == 5000
    dip = published.load("fedpg-br-lunarlander")["GPOMDP K=1"]
    assert dict(zip(dip.x, dip.y, strict=True))[2000] == -1500
    assert published.load("fedpg-br-halfcheetah")["FedPG-BR K=10"].y[-1] == 2546
    attacked = published.load("fedpg-br-halfcheetah-attacks")
    assert attacked["SVRPG random-action"].y[-1] == 75
    assert attacked["FedPG-BR random-noise"].byzantine == 3


@pytest.mark.parametrize("name", published.names())
def test_every_figure_is_whole(name):
    figure = published.load(name)
    assert figure.source
    assert figure.environment
    assert figure.x_meaning
    assert figure.read_off_error > 0
    names = [series.name for series in figure.series]
    assert len(names) == len(set(names))
    for series in figure.series:
        assert series.axis in AXES
        assert len(series.x) == len(series.y) >= 6
        assert list(series.x) == sorted(set(series.x))
        assert series.byzantine < series.agents


def test_counts_of_the_tables():
    assert {name: len(published.load(name).series) for name in published.names()} == {
        "fedpg-br-cartpole": 5,
        "fedpg-br-lunarlander": 5,
        "fedpg-br-halfcheetah": 5,
        "fedpg-br-halfcheetah-attacks": 16,
    }


def test_unknown_names_are_refused():
    with pytest.raises(FedraxError, match="did you mean 'fedpg-br-cartpole'"):
        published.load("fedpg-br-cartpol")
    with pytest.raises(FedraxError, match="did you mean 'FedPG-BR K=1'"):
        published.load("fedpg-br-cartpole")["FedPG-BR K=11"]
