"""What is imported from ``fedrax`` itself, and what is said of what is not there."""

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
