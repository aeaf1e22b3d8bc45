"""Whatever a node may answer, it is used only if all of it is as it must be."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.arrays import form, packed
from fedrax.learners.moments import Moments
from fedrax.message import Message, every_time
from fedrax.runtime.distributed.checks import Counts, Rejected, WorkCheck, check_envelope, check_evaluation
from fedrax.runtime.distributed.envelopes import EVALUATED, REFUSED, WORKED, Envelope
from fedrax.strategies.return_weights import Returns


def message(change):
    return Message({"change": np.asarray(change, np.float32)}, (np.int32(7),))


MESSAGE = message(range(4))
REPORT = {"steps": np.int32(20), "episodes": np.int32(2), "return_sum": np.float32(5)}
REPORT["learning"] = {"loss": np.float32(np.nan)}
REPORT["successes"], REPORT["episode_returns"] = np.float32(1), np.array([2, np.nan, 3], np.float32)
REPORT["fault"] = np.zeros(4, np.int32)
EXPECTED = {"run": "r1", "round": 3, "agent": 1}
COUNTS = Counts(steps=(10, 20), episodes=(2, 3))
CHECK = WorkCheck(MESSAGE, REPORT, every_time, max_norm=10.0)
HONEST = Envelope(WORKED, {**EXPECTED, "form": form((MESSAGE, REPORT)), "seconds": 0.5}, packed((MESSAGE, REPORT)))


def told(**fields):
    return dataclasses.replace(HONEST, fields={**HONEST.fields, **fields})


def sent(content=MESSAGE, **report):
    return dataclasses.replace(HONEST, payload=packed((content, {**REPORT, **report})))


def without(name):
    return dataclasses.replace(HONEST, fields={k: v for k, v in HONEST.fields.items() if k != name})


def test_an_honest_answer_is_used_as_it_is():
    worked = CHECK(HONEST, **EXPECTED, counts=COUNTS)
    np.testing.assert_array_equal(worked.message.update["change"], MESSAGE.update["change"])
    assert worked.report["steps"] == 20
    assert worked.seconds == 0.5
    silent = CHECK(sent(successes=np.float32(np.nan)), **EXPECTED, counts=COUNTS)
    assert np.isnan(silent.report["successes"]), "its environment does not say"


LIES = {
    "an old round": (told(round=2), "round 2 where 3"),
    "another run": (told(run="r2"), "run 'r2'"),
    "another agent": (told(agent=0), "agent 0"),
    "other shapes": (told(form="0" * 16), "form"),
    "an extra field": (told(more=1), "unknown field 'more'"),
    "a missing field": (without("seconds"), "no field 'seconds'"),
    "a number as text": (told(round="3"), "not of type int"),
    "a truth as a number": (told(round=True), "not of type int"),
    "a time that is none": (told(seconds=float("nan")), "is nan, not between 0 and 1e\\+08"),
    "a negative time": (told(seconds=-1.0), "is -1.0, not between"),
    "a time of centuries": (told(seconds=1e300), "is 1e\\+300, not between"),
    "a long text": (told(form="x" * 501), "no line"),
    "a text of two lines": (told(form="a\nb"), "no line"),
    "another kind": (dataclasses.replace(HONEST, kind="joined"), "'worked' was asked"),
    "too few bytes": (dataclasses.replace(HONEST, payload=HONEST.payload[:-1]), "bytes where"),
    "a huge message": (dataclasses.replace(HONEST, payload=bytes(10**7)), "10000000 bytes where"),
    "a NaN": (sent(message([0, np.nan, 0, 0])), "not finite"),
    "an infinity": (sent(message([0, np.inf, 0, 0])), "not finite"),
    "a long message": (sent(message([6] * 4)), "norm 12"),
    "too many steps": (sent(steps=np.int32(21)), "21 environment steps, and a round has 10 to 20"),
    "too few steps": (sent(steps=np.int32(9)), "9 environment steps, and a round has 10 to 20"),
    "too many episodes": (sent(episodes=np.int32(4)), "4 episodes in 20 steps, and a round has 2 to 3"),
    "too few episodes": (sent(episodes=np.int32(1)), "1 episodes in 20 steps, and a round has 2 to 3"),
    "an infinite metric": (sent(learning={"loss": np.float32(np.inf)}), "a learning metric that is infinite"),
    "negative steps": (sent(steps=np.int32(-1)), "-1 environment steps"),
    "negative episodes": (sent(episodes=np.int32(-1)), "-1 episodes"),
    "a return that is none": (sent(return_sum=np.float32(np.nan)), "return that is not finite"),
    "an episode without end": (sent(episode_returns=np.full(3, np.inf, np.float32)), "return that is not finite"),
    "more successes than episodes": (sent(successes=np.float32(3)), "3.0 successes in 2 episodes"),
    "negative successes": (sent(successes=np.float32(-1)), "-1.0 successes"),
    "an unknown fault": (sent(fault=np.array([4, 0, 1, 0], np.int32)), "a fault of its collection that cannot be"),
    "a fault after the end": (sent(fault=np.array([2, 0, 21, 0], np.int32)), "a fault of its collection"),
    "a refusal": (Envelope(REFUSED, {"reason": "no space"}), "refused: no space"),
    "a refusal with more": (Envelope(REFUSED, {"reason": "no space", "x": 1}), "unknown field"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_rejected_and_named(lie):
    envelope, why = LIES[lie]
    with pytest.raises(Rejected, match=why):
        CHECK(envelope, **EXPECTED, counts=COUNTS)


def test_what_was_dropped_may_be_less_than_was_asked_for():
    fault = {"fault": np.array([1, 0, 4, 0], np.int32), "successes": np.float32(0)}
    short = CHECK(sent(steps=np.int32(4), episodes=np.int32(0), **fault), **EXPECTED, counts=COUNTS)
    assert short.report["steps"] == 4
    with pytest.raises(Rejected, match="21 environment steps, and a round has 0 to 20"):
        CHECK(sent(steps=np.int32(21), episodes=np.int32(0), **fault), **EXPECTED, counts=COUNTS)


def test_parts_of_a_message_have_norms_of_their_own():
    template = Message({"change": np.zeros(2, np.float32)}, {"sum": np.zeros(1, np.float32)}, np.zeros(1, np.float32))
    content = Message(
        {"change": np.array([3, 4], np.float32)}, {"sum": np.array([7], np.float32)}, np.ones(1, np.float32)
    )
    check = WorkCheck(template, REPORT, every_time, max_norm=None)
    fields = {**EXPECTED, "form": form((template, REPORT)), "seconds": 0.5}
    worked = check(Envelope(WORKED, fields, packed((content, REPORT))), **EXPECTED, counts=COUNTS)
    assert worked.norms == {"update": 5.0, "statistics": 7.0, "individual": 1.0}


def test_what_a_node_says_is_printed_in_one_safe_line():
    with pytest.raises(Rejected) as caught:
        check_envelope(told(run="\x1b[2Jx"), WORKED, EXPECTED)
    assert str(caught.value).isprintable()
    with pytest.raises(Rejected) as caught:
        check_envelope(dataclasses.replace(HONEST, kind="\x1b[2J" * 100), WORKED, EXPECTED)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


MOMENTS = Moments(*(jnp.full(2, x) for x in (20.0, 3.0, 5.0)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"count": [-1, 20]}, "moments of observations that cannot be"),
        ({"count": [20, 1e9]}, "moments of observations that cannot be"),
        ({"spread": [5, -5]}, "moments of observations that cannot be"),
        ({}, None),
        ({"count": [0, 0], "spread": [0, 0]}, None),
    ],
)
def test_moments_that_nothing_observed_has_are_refused(change, why):
    bent = {name: jnp.asarray(value, jnp.float32) for name, value in change.items()}
    content = Message({}, (dataclasses.replace(MOMENTS, **bent), Returns(jnp.asarray(1.0), jnp.asarray(1))))
    check = WorkCheck(content, REPORT, every_time, max_norm=None)
    fields = {**EXPECTED, "form": form((content, REPORT)), "seconds": 0.5}
    envelope = Envelope(WORKED, fields, packed((content, REPORT)))
    if why is None:
        assert check(envelope, **EXPECTED, counts=COUNTS)
    else:
        with pytest.raises(Rejected, match=why):
            check(envelope, **EXPECTED, counts=COUNTS)


def test_an_episode_of_an_evaluation_is_no_longer_than_any_can_be():
    def checked(length):
        arrays = [np.full(2, x, np.float32) for x in (1, length)]
        envelope = Envelope(EVALUATED, {"run": "r1", "agent": 1, "names": "return,length"}, packed(arrays))
        return check_evaluation(envelope, run="r1", agent=1, episodes=2, horizon=10)

    assert checked(10)["length"].tolist() == [10, 10]
    for length in (11, -1):
        with pytest.raises(Rejected, match="a length or a success that cannot be"):
            checked(length)
