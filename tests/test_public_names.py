"""What is imported from ``fedrax`` itself, and what is said of what is not there."""

from pathlib import Path

import pytest

import fedrax


def test_what_a_run_does_is_not_looked_for_in_vain():
    for name in fedrax._OF_A_RUN:
        assert callable(getattr(fedrax.Run, name))
    with pytest.raises(
        AttributeError, match=r"has no attribute 'evaluate'; a run has it: fedrax.load\(RUN\).evaluate$"
    ):
        fedrax.evaluate  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'trian' \(did you mean 'train'\?\)"):
        fedrax.trian  # noqa: B018


def test_a_sweep_is_run_by_a_function_whatever_was_imported_before(tmp_path):
    from fedrax import api, sweeps

    assert fedrax.sweep is api.sweep
    assert sweeps.__doc__
    with pytest.raises(fedrax.FedraxError, match="cannot read the sweep"):
        fedrax.sweep(tmp_path / "none.toml")


def test_no_public_name_is_hidden_by_a_module():
    """A package is an attribute of Fedrax once it is imported, and a function of its name is not found any more."""
    root = Path(fedrax.__file__).parent
    modules = {path.stem for path in root.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(fedrax.__all__)
