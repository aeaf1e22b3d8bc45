"""Networks of the TD3+HER reference become ours and theirs again, without PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Dict, Spaces, Tokens
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION
from fedrax.errors import FedraxError
from fedrax.exchange.td3_her import ACTOR, from_params, networks_in, places, to_params
from fedrax.learners.base import learners
from fedrax.learners.critics.base import critics

from reference_networks import act, made, values


def box(count, reach=1.0):
    return Box((count,), (-reach,) * count, (reach,) * count)


def spaces_of(observation, goal, actions, **more):
    parts = {OBSERVATION: box(observation), ACHIEVED: box(goal), DESIRED: box(goal), **more}
    return Spaces(Dict.of(parts), box(actions))


SPACES = spaces_of(8, 2, 3)
WIDE = {"actor_layers": (256, 256, 256), "feature_layers": (256, 256), "head_layers": (256,)}


def fresh(spaces=SPACES, **changes):
    learner = learners.build("td3", {**WIDE, **changes})
    return learner.init_params(jax.random.key(3), spaces)


def seen(count=7, observation=8, goal=2, actions=3, seed=1):
    generator = np.random.default_rng(seed)
    sizes = {OBSERVATION: observation, ACHIEVED: goal, DESIRED: goal}
    parts = {name: generator.normal(size=(count, size)).astype(np.float32) for name, size in sizes.items()}
    return parts, generator.uniform(-1, 1, (count, actions)).astype(np.float32)


def assert_same_functions(params, networks, parts, action):
    want = act(networks, parts[OBSERVATION], parts[DESIRED])
    ours = jax.tree.map(jnp.asarray, parts)
    np.testing.assert_allclose(params.act(ours), want, atol=1e-5)
    for mine, theirs in zip(
        params.values(ours, jnp.asarray(action)),
        values(networks, parts[OBSERVATION], parts[DESIRED], action),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "head"), [((256, 256), (256,)), ((256,), (256, 256)), ((256, 256, 256), ())], ids=str
)
def test_imported_networks_compute_the_same_wherever_features_end(features, head):
    networks = made(8, 2, 3)
    params = to_params(networks, fresh(feature_layers=features, head_layers=head), SPACES, "x")
    assert_same_functions(params, networks, *seen())


def test_what_the_reference_does_not_see_does_not_count():
    """Neither the achieved goal nor parts that a federation of tasks adds, wherever their names are sorted."""
    spaces = spaces_of(8, 2, 3, a_first=box(4), task_identity=box(3))
    networks = made(8, 2, 3)
    params = to_params(networks, fresh(spaces), spaces, "x")
    parts, action = seen()
    more = np.random.default_rng(5)
    parts |= {"a_first": more.normal(size=(7, 4)).astype("f4"), "task_identity": more.normal(size=(7, 3)).astype("f4")}
    assert_same_functions(params, networks, parts, action)


def test_places_are_those_of_the_encoder():
    """By hand: the parts in the order of their names are achieved (0, 1), desired (2, 3), observation (4 to 6)."""
    where = places(spaces_of(3, 2, 1), "x")
    assert where.seen == [4, 5, 6, 2, 3]
    assert (where.others, where.size) == ({ACHIEVED: [0, 1]}, 7)


def test_there_and_back_is_the_same_to_the_bit():
    networks = made(8, 2, 3)
    back = from_params(to_params(networks, fresh(), SPACES, "x"), SPACES, "x", lambda: None)
    for kind in ("actor", "critic"):
        ours, theirs = getattr(back, kind), getattr(networks, kind)
        assert list(ours) == list(theirs), "the order of the reference's state_dict, by which it federates"
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
            assert ours[name].dtype == np.float32


def test_networks_that_see_the_achieved_goal_are_exported_where_it_is_a_part_of_the_observation():
    params = fresh()
    parts, action = seen()
    parts[ACHIEVED] = parts[OBSERVATION][:, 3:5]
    assert_same_functions(params, from_params(params, SPACES, "x", lambda: 3), parts, action)
    with pytest.raises(FedraxError, match="they see the part 'achieved_goal' of observations"):
        from_params(params, SPACES, "x", lambda: None)


def test_tables_in_place_of_arrays_are_refused():
    state = {f"{layer}.{part}": {"x": np.zeros(2)} for layer in ACTOR for part in ("weight", "bias")}
    with pytest.raises(FedraxError, match="holds a table in place of an array; the file is not what it says"):
        networks_in([("file.pth", state)])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"actor_layers": (256, 256)},
            r"the actor's hidden layers are \[256, 256\], and the reference's \[256, 256, 256",
        ),
        ({"head_layers": (64,)}, r"the critic's hidden layers are \[256, 256, 64\]"),
        ({"activation": "tanh"}, "learner.activation = 'tanh'"),
        ({"normalise": True}, "learner.normalise = true"),
    ],
)
def test_networks_of_another_form_are_not_exported(changes, why):
    with pytest.raises(FedraxError, match=why):
        from_params(fresh(**changes), SPACES, "x", lambda: 0)


@pytest.mark.training
def test_other_learners_and_other_parts_are_not_exported():
    ppo = learners.build("ppo", {})
    with pytest.raises(FedraxError, match="the run's learner is not td3"):
        from_params(ppo.init_params(jax.random.key(0), SPACES), SPACES, "x", lambda: 0)
    spaces = spaces_of(8, 2, 3, task_identity=box(3))
    with pytest.raises(FedraxError, match="they see the part 'task_identity'"):
        from_params(fresh(spaces), spaces, "x", lambda: 0)


@pytest.mark.training
@pytest.mark.parametrize(
    ("spaces", "why"),
    [
        (spaces_of(9, 2, 3), "the networks see 10 numbers of observation and goal and have 3 actions, and 'x' has 11"),
        (spaces_of(8, 2, 4), "have 3 actions, and 'x' has 10 and 4"),
        (Spaces(box(10), box(3)), "need a goal environment"),
        (Spaces(Dict.of({OBSERVATION: box(8), DESIRED: Tokens(2, 5)}), box(3)), "the part 'desired_goal'"),
        (Spaces(SPACES.observation, Box((3,), (0.0,) * 3, (1.0,) * 3)), "actions lie between -a and a"),
        (Spaces(SPACES.observation, box(3, reach=2.0)), "learner.scale_actions = false where a is not 1"),
    ],
)
def test_networks_of_another_environment_are_not_imported(spaces, why):
    with pytest.raises(FedraxError, match=why) as error:
        to_params(made(8, 2, 3), fresh(spaces), spaces, "x")
    assert "\n" not in str(error.value)


def test_actions_in_other_units():
    """max_action = 2: twice the tanh, and critics see actions as they are."""
    spaces = Spaces(SPACES.observation, box(3, reach=2.0))
    networks = made(8, 2, 3)
    params = to_params(networks, fresh(spaces, scale_actions=False), spaces, "x")
    parts, action = seen()
    mine = jax.tree.map(jnp.asarray, parts)
    np.testing.assert_allclose(params.act(mine), 2 * act(networks, parts[OBSERVATION], parts[DESIRED]), atol=1e-5)
    ours = params.values(mine, jnp.asarray(2 * action))[0]
    np.testing.assert_allclose(ours, values(networks, parts[OBSERVATION], parts[DESIRED], 2 * action)[0], atol=1e-5)


NETWORKS = made(3, 2, 1, (4, 5, 6))


def changed(state, **arrays):
    return {**state, **{name.replace("__", "."): array for name, array in arrays.items()}}


@pytest.mark.parametrize("order", [("actor", "critic"), ("critic", "actor")])
def test_either_file_may_come_first(order):
    found = networks_in([(name, getattr(NETWORKS, name)) for name in order])
    assert found == NETWORKS
    assert found.widths == ((4, 5, 6), (4, 5, 6))
    assert networks_in([("model", {"actor": NETWORKS.actor, "critic": NETWORKS.critic})]) == NETWORKS


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ([NETWORKS.actor], "no file holds the critic"),
        ([NETWORKS.critic], "no file holds the actor"),
        ([NETWORKS.actor, NETWORKS.actor, NETWORKS.critic], "file 1 holds a second actor"),
        ([{}], "file 0 is no network"),
        ([np.zeros(3)], "file 0 is no network"),
        ([{"actor": NETWORKS.actor, "critic": np.zeros(3)}], "file 0 is no network"),
        ([{k: v for k, v in NETWORKS.actor.items() if k != "fc2.bias"}], "the arrays fc2.bias are missing"),
        ([changed(NETWORKS.actor, extra=np.zeros(1))], "the arrays extra are not of its layout"),
        ([changed(NETWORKS.actor, fc2__weight=np.zeros((5, 9)))], r"file 0: fc2 has a weight of \[5, 9\]"),
        ([changed(NETWORKS.actor, fc1__weight=np.zeros(4))], "file 0: fc1 has a weight of"),
        ([changed(NETWORKS.actor, fc3__bias=np.zeros(7))], "file 0: fc3 has a weight of"),
        (
            [changed(NETWORKS.actor, fc1__weight=np.full((4, 5), np.nan))],
            "file 0: fc1 holds numbers that are not finite",
        ),
        ([NETWORKS.actor, made(9, 2, 1, (4, 5, 6)).critic], "actor and critic are of different environments"),
        (
            [NETWORKS.actor, changed(NETWORKS.critic, q1_out__weight=np.zeros((2, 6)), q1_out__bias=np.zeros(2))],
            "not of one shape",
        ),
    ],
)
def test_files_that_are_not_what_they_say(contents, why):
    with pytest.raises(FedraxError, match=why) as error:
        networks_in([(f"file {number}", content) for number, content in enumerate(contents)])
    assert "\n" not in str(error.value)


@pytest.mark.training
def test_networks_that_only_look_like_theirs_are_refused():
    """SAC's actor returns a deviation too, and an attending critic is none of dense layers alone."""
    soft = learners.build("sac", WIDE).init_params(jax.random.key(0), SPACES)
    with pytest.raises(FedraxError, match="the run's learner is not td3"):
        from_params(soft, SPACES, "x", lambda: 0)
    critic = critics.build("fedformer", {"dim": 8, "encoder_layers": (8,)}).bind(2)
    attending = learners.build("td3", WIDE).judged_by(critic).init_params(jax.random.key(0), SPACES)
    with pytest.raises(FedraxError, match="attend over their peers' encoders"):
        from_params(attending, SPACES, "x", lambda: 0)
