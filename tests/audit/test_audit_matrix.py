"""Audits of every learner under every strategy: each attack has answers, or a reason why it does not apply."""

import json

import pytest

from fedrax.audit.auditing import LEAKS, result_of
from fedrax.audit.base import Effort
from fedrax.audit.setting import made_setting
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.learners.base import learners
from fedrax.strategies.base import strategies
from pairs import overrides_of
from shipped import shipped

pytestmark = pytest.mark.slow
LITTLE = Effort(repetitions=20, shadows=12, steps=4, iterations=3, restarts=1)
TINY = ["federation.agents=4", "environment.num_envs=2", "environment.horizon=4", "budget.rounds=2"]


@pytest.mark.parametrize("learner", shipped(learners))
@pytest.mark.parametrize("strategy", shipped(strategies))
def test_every_attack_has_answers_or_a_reason(learner, strategy):
    try:
        setting = made_setting(resolve({}, [*TINY, *overrides_of(learner, strategy)]))
    except FedraxError as error:
        pytest.skip(str(error))  # Which pairs go together is tests/test_matrix.py's.
    for leak in LEAKS:
        result = result_of(leak, setting, LITTLE, 0, lambda text: None)
        assert sorted(result) in (["answers"], ["inapplicable"])
        if "inapplicable" in result:
            assert "\n" not in result["inapplicable"]
        else:
            assert leak.headline in result["answers"]
        # Records are JSON.
        json.dumps(result, allow_nan=False)
