"""Trials that Optuna suggests, through its own interface: ask, tell, and samplers by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedrax.errors import FedraxError, unknown
from fedrax.sweeps.settings import Search
from fedrax.sweeps.space import Range


class Optuna:
    """A study, made anew of the trials so far whenever it is asked: nothing of it needs to be kept."""

    def __init__(self, search: Search) -> None:
        """Raises:
        FedraxError: Optuna is not installed, or has no such sampler.
        """
        try:
            import optuna
        except ImportError:
            raise FedraxError(
                "search.method = 'optuna' needs the package optuna: pip install \"fedrax[optuna]\", or set it to random"
            ) from None
        self._optuna, self._search = optuna, search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        samplers = [name for name in dir(optuna.samplers) if name.endswith("Sampler") and name != "BaseSampler"]
        if search.sampler not in samplers:
            raise unknown("search.sampler", search.sampler, samplers)
        self._dimensions = {key: self._distribution(dimension) for key, dimension in search.space.items()}

    def ask(self, trials: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
        """So many further trials."""
        optuna = self._optuna
        try:
            # Another seed every time: the study begins anew, and would suggest the same again.
            sampler = getattr(optuna.samplers, self._search.sampler)(seed=self._search.seed + len(trials))
        except TypeError as error:
            raise FedraxError(
                f"search.sampler = {self._search.sampler!r} cannot be made of a seed alone: {error}; choose another"
            ) from None
        direction = {"maximise": "maximize", "minimise": "minimize"}[self._search.direction]
        study = optuna.create_study(direction=direction, sampler=sampler)
        for trial in trials:
            value = trial["values"][-1]
            state = optuna.trial.TrialState.COMPLETE if value is not None else optuna.trial.TrialState.FAIL
            params = {key: self._told(key, x) for key, x in trial["params"].items()}
            study.add_trial(
                optuna.trial.create_trial(state=state, value=value, params=params, distributions=self._dimensions)
            )
        asked = [study.ask(self._dimensions).params for _ in range(count)]
        return [
            {
                "number": len(trials) + index,
                "params": {key: self._given(key, params[key]) for key in self._dimensions},
                "limits": [],
                "results": [],
                "values": [],
            }
            for index, params in enumerate(asked)
        ]

    def _distribution(self, dimension: Any) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(dimension, Range):
            return distributions.CategoricalDistribution([json.dumps(value) for value in dimension.values])
        if dimension.kind == "integers":
            return distributions.IntDistribution(int(dimension.low), int(dimension.high))
        return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log-uniform")

    def _told(self, key: str, value: Any) -> Any:
        return value if isinstance(self._search.space[key], Range) else json.dumps(value)

    def _given(self, key: str, value: Any) -> Any:
        return value if isinstance(self._search.space[key], Range) else json.loads(value)
