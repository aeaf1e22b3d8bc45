"""The tight epsilon of sampled releases, by privacy loss distributions, from the optional package dp-accounting."""

from __future__ import annotations

from collections.abc import Sequence

from fedrax.errors import FedraxError
from fedrax.privacy.accountant import Releases, check_delta


def epsilon_pld(releases: Sequence[Releases], delta: float) -> float:
    """The least epsilon, up to a discretisation that errs upwards, as :func:`fedrax.privacy.accountant.epsilon`.

    Neighbours differ by a unit added or removed.

    Raises:
        FedraxError: dp-accounting is not installed, or ``delta`` is no probability between 0 and 1.
    """
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise FedraxError(
            f"the tight epsilon needs the package dp-accounting ({error}): install it with `pip install 'fedrax[dp]'`"
        ) from None
    check_delta(delta)
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for each in releases:
        if each.count > 0:
            release = dp_accounting.GaussianDpEvent(each.noise)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(each.sampling, release), each.count)
    return float(accountant.get_epsilon(delta))
