"""Our crossings against MiniGrid's: steps, views and the distribution of the mazes."""

import itertools
from collections import Counter

import gymnasium
import jax
import jax.numpy as jnp
import minigrid  # noqa: F401 - registers the environments
import numpy as np
import pytest
from minigrid.core.world_object import Goal, Lava, Wall

from fedrax.environments.base import Box, Discrete, stack_physics
from fedrax.environments.native import native_environments
from fedrax.environments.native.crossing import FORWARD, CrossingState
from fedrax.environments.native.egocentric import Bitboard, Pose

SIZES = {"S9N1": (9, 1), "S9N2": (9, 2), "S9N3": (9, 3), "S11N5": (11, 5)}
IDS = [f"MiniGrid-{kind}Crossing{size}-v0" for kind in ("Simple", "Lava") for size in SIZES]
CORNERS = range(4)
KEY = jax.random.key(0)


def corner_cell(corner, size):
    return (size - 2 if corner in (1, 2) else 1), (size - 2 if corner >= 2 else 1)


def reference_of(name):
    return gymnasium.make(name).unwrapped


def river_cells(environment):
    """``bool[x, y]``: the cells of MiniGrid's maze that are neither empty, nor goal, nor the walls around it."""
    size = environment.width
    cells = np.zeros((size, size), bool)
    for x, y in itertools.product(range(1, size - 1), repeat=2):
        thing = environment.grid.get(x, y)
        cells[x, y] = thing is not None and thing.type in ("wall", "lava")
    return cells


def boards(cells):
    """The cells ``[..., x, y]`` as numbers whose bits they are."""
    bits = 1 << np.arange(cells.shape[-1])
    return Bitboard((cells * bits[:, None]).sum(-2), (cells * bits).sum(-1))


def unpacked(board):
    """The cells ``[..., x, y]`` of our mazes; both halves of a bitboard must tell the same."""
    rows, columns = map(np.asarray, board)
    places = np.arange(rows.shape[-1])
    cells = columns[..., :, None] >> places & 1
    np.testing.assert_array_equal(cells, rows[..., None, :] >> places[:, None] & 1)
    return cells.astype(bool)


def state_of(environment):
    """MiniGrid's state as ours, of NumPy's scalars."""
    (goal,) = (place for place, thing in enumerate(environment.grid.grid) if thing is not None and thing.type == "goal")
    return CrossingState(
        boards(river_cells(environment)),
        goal % environment.width,
        goal // environment.width,
        Pose(*map(int, environment.agent_pos), int(environment.agent_dir)),
        environment.step_count,
    )


def stacked(states):
    return jax.tree.map(lambda *values: jnp.asarray(np.stack(values), jnp.int32), *states)


def move_goal(environment, corner):
    size = environment.width
    environment.grid.set(size - 2, size - 2, None)
    environment.grid.set(*corner_cell(corner, size), Goal())


def place_agent(environment, rng):
    """Anywhere but in a wall, also on lava or on the goal."""
    while True:
        x, y = map(int, rng.integers(1, environment.width - 1, 2))
        thing = environment.grid.get(x, y)
        if thing is None or thing.can_overlap():
            environment.agent_pos, environment.agent_dir = (x, y), int(rng.integers(4))
            return


@pytest.mark.parametrize("name", IDS)
def test_ids_spaces_limit_and_size_are_those_of_minigrid(name):
    ours, reference = native_environments[name], reference_of(name)
    space = reference.observation_space["image"]
    assert isinstance(ours.spaces.observation, Box)
    assert ours.spaces.observation.shape == space.shape
    np.testing.assert_array_equal(ours.spaces.observation.low, space.low.ravel())
    np.testing.assert_array_equal(ours.spaces.observation.high, space.high.ravel())
    assert ours.spaces.action == Discrete(int(reference.action_space.n))
    assert ours.time_limit == reference.max_steps
    assert (ours.size, ours.crossings) == (reference.width, reference.num_crossings)
    assert ours.lava == (reference.obstacle_type is Lava)
    assert ours().physics() == {"orientation": 0, "start_corner": 0, "goal_corner": 2}


@pytest.mark.parametrize("name", ["MiniGrid-SimpleCrossingS9N3-v0", "MiniGrid-LavaCrossingS11N5-v0"])
def test_random_walks_equal_minigrids(name):
    walks, steps = 24, 90
    reference, ours = reference_of(name), native_environments[name]()
    starts, records, actions = [], [], []
    bumps = 0
    for seed in range(walks):
        rng = np.random.default_rng(seed)
        reference.reset(seed=seed)
        move_goal(reference, 1 + seed % 3)
        place_agent(reference, rng)
        starts.append(state_of(reference))
        # All seven actions, and forward often enough to get about. A walk goes on after its end: the rules do not.
        walk = rng.choice(7, steps, p=[0.15, 0.15, 0.5, 0.05, 0.05, 0.05, 0.05])
        for action in walk:
            before = tuple(reference.agent_pos)
            observation, reward, terminated, *_ = reference.step(int(action))
            bumps += action == FORWARD and before == tuple(reference.agent_pos)
            x, y = reference.agent_pos
            records.append((observation["image"], reward, terminated, int(x), int(y), reference.agent_dir))
        actions.append(walk)

    def walk_of(start, actions):
        def step(state, action):
            after = ours.step(state, action, KEY, ours.physics())
            return after.state, (after.observation, after.reward, after.terminated, after.state.agent)

        return jax.lax.scan(step, start, actions)

    end, (image, reward, terminated, agent) = jax.jit(jax.vmap(walk_of))(stacked(starts), jnp.asarray(actions))
    images, rewards, ends, xs, ys, headings = map(np.array, zip(*records, strict=True))
    shape = (walks, steps)
    for found, wanted in zip(agent, (xs, ys, headings), strict=True):
        np.testing.assert_array_equal(found, wanted.reshape(shape))
    assert image.dtype == jnp.float32
    np.testing.assert_array_equal(image, images.reshape(*shape, 7, 7, 3))
    np.testing.assert_allclose(reward, rewards.reshape(shape), rtol=1e-6)
    np.testing.assert_array_equal(terminated, ends.reshape(shape))
    np.testing.assert_array_equal(end.steps, steps)
    # What was compared must have happened.
    assert bumps > 50
    assert len(set(rewards)) > 5
    assert (((rewards == 0) & ends).sum() > 20) == ours.lava


def test_views_among_random_walls_equal_minigrids():
    """Mazes do not tell every rule of visibility apart, so here single walls, or lines with one gap, stand anywhere."""
    name = "MiniGrid-SimpleCrossingS11N5-v0"
    reference, ours = reference_of(name), native_environments[name]()
    states, images = [], []
    rng = np.random.default_rng(0)
    size = reference.width
    grids = [rng.random((size, size)) < density for density in np.repeat([0.05, 0.15, 0.3, 0.5], 20)]
    for turn in range(20):
        lines = np.repeat(np.arange(size)[:, None] % 2 == 0, size, axis=1)
        lines &= np.arange(size) != rng.integers(1, size - 1, (size, 1))
        grids.append(lines if turn % 2 else lines.T)
    for walls in grids:
        reference.reset(seed=0)
        for x, y in itertools.product(range(1, size - 1), repeat=2):
            reference.grid.set(x, y, Wall() if walls[x, y] else None)
        reference.grid.set(*map(int, rng.integers(1, size - 1, 2)), Goal())
        for _ in range(8):
            place_agent(reference, rng)
            states.append(state_of(reference))
            images.append(reference.gen_obs()["image"])
    seen = jax.jit(jax.vmap(lambda state: ours.step(state, jnp.asarray(6), KEY, ours.physics()).observation))(
        stacked(states)
    )
    np.testing.assert_array_equal(seen, images)


@pytest.fixture(scope="module")
def generate():
    """Our mazes: state and observation for ``[mazes]`` keys and parameters each, compiled once per class."""
    compiled = {name: jax.jit(jax.vmap(native_environments[name]().reset)) for name in IDS}

    def mazes(name, tables, count, seed=0):
        keys = jax.random.split(jax.random.key(seed), count)
        physics = stack_physics([[native_environments[name]().physics() | table for table in tables]])
        every = jax.tree.map(lambda values: jnp.repeat(values[0], count), physics)
        state, image = compiled[name](jnp.tile(keys, len(tables)), every)
        return state, np.asarray(image)

    return mazes


@pytest.mark.parametrize("name", ["MiniGrid-SimpleCrossingS9N3-v0", "MiniGrid-LavaCrossingS11N5-v0"])
def test_a_fresh_maze_is_what_minigrid_would_show(generate, name):
    reference = reference_of(name)
    tables = [{"start_corner": start, "goal_corner": (start + 2) % 4} for start in CORNERS]
    state, images = generate(name, tables, 8)
    for maze, image in enumerate(images):
        own = jax.tree.map(lambda values, maze=maze: np.asarray(values[maze]), state)
        assert own.steps == 0
        assert own.agent.heading == 0
        reference.reset(seed=0)
        rivers = unpacked(own.rivers)
        for x, y in itertools.product(range(1, reference.width - 1), repeat=2):
            reference.grid.set(x, y, reference.obstacle_type() if rivers[x, y] else None)
        reference.grid.set(own.goal_x, own.goal_y, Goal())
        reference.agent_pos, reference.agent_dir = (own.agent.x, own.agent.y), 0
        np.testing.assert_array_equal(image, reference.gen_obs()["image"])


def test_one_river_is_uniform_over_lines_and_gaps(generate):
    count = 21_000
    state, _ = generate("MiniGrid-SimpleCrossingS9N1-v0", [{}], count)
    counts = Counter(cells.tobytes() for cells in unpacked(state.rivers))
    assert len(counts) == 6 * 7
    expected = count / 42
    deviation = sum((found - expected) ** 2 / expected for found in counts.values())
    assert deviation < 75  # chi-square with 41 degrees of freedom: exceeded once in a thousand


@pytest.mark.training
@pytest.mark.parametrize("name", ["MiniGrid-SimpleCrossingS9N3-v0", "MiniGrid-LavaCrossingS11N5-v0"])
def test_mazes_have_the_distribution_of_minigrids_generator(generate, name):
    """Every two cells are river together as often as in MiniGrid: that tells lines, rooms and paths."""
    few, many = 1500, 15_000
    reference = reference_of(name)
    reference.reset(seed=5)
    theirs = []
    for _ in range(few):
        reference._gen_grid(reference.width, reference.height)
        theirs.append(river_cells(reference))
    state, _ = generate(name, [{}], many)

    def together(mazes):
        flat = np.asarray(mazes).reshape(len(mazes), -1).astype(np.float32)
        return flat.T @ flat

    wanted, found = together(theirs), together(unpacked(state.rivers))
    assert ((found == 0) <= (wanted == 0)).all()
    pooled = (wanted + found + 1) / (few + many + 2)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / few + 1 / many))
    assert np.abs((found / many - wanted / few) / spread).max() < 4.5


def river_lines(cells):
    """For each maze the vertical and the horizontal rivers: ``bool[maze, line]`` twice, at lines 2, 4, ...

    A river fills its line but for one gap; of another line, only cells where rivers cross it are taken.
    """
    inner = cells[:, 1:-1, 1:-1]
    length = inner.shape[1]
    return inner.sum(2)[:, 1:-1:2] == length - 1, inner.sum(1)[:, 1:-1:2] == length - 1


@pytest.mark.training
@pytest.mark.parametrize(("size", "crossings"), SIZES.values())
def test_orientation_chooses_among_the_rivers(generate, size, crossings):
    name = f"MiniGrid-SimpleCrossingS{size}N{crossings}-v0"
    count, lines = 300, (size - 3) // 2
    state, _ = generate(name, [{"orientation": orientation} for orientation in range(3)], count)
    cells = unpacked(state.rivers)
    assert not cells[:, [0, -1]].any()
    assert not cells[:, :, [0, -1]].any()
    vertical, horizontal = river_lines(cells)
    either, only_vertical, only_horizontal = (slice(start * count, (start + 1) * count) for start in range(3))
    np.testing.assert_array_equal((vertical.sum(1) + horizontal.sum(1))[either], crossings)
    for along, across, rows in ((vertical, horizontal, only_vertical), (horizontal, vertical, only_horizontal)):
        np.testing.assert_array_equal(along[rows].sum(1), min(crossings, lines))
        assert not across[rows].any()
        np.testing.assert_allclose(along[rows].mean(0), min(crossings, lines) / lines, atol=0.1)
    # Nothing but rivers: each fills its line but for the gap, and shares a cell with each it meets.
    v, h = vertical.sum(1), horizontal.sum(1)
    np.testing.assert_array_equal(cells.sum((1, 2)), (v + h) * (size - 3) - v * h)


def reachable(free, start):
    """``bool[maze, x, y]``: the cells that can be reached from ``start``, ``bool[maze, x, y]``, over free ones."""
    while True:
        after = start.copy()
        after[:, 1:] |= start[:, :-1]
        after[:, :-1] |= start[:, 1:]
        after[:, :, 1:] |= start[:, :, :-1]
        after[:, :, :-1] |= start[:, :, 1:]
        after &= free
        if (after == start).all():
            return start
        start = after


@pytest.mark.training
@pytest.mark.parametrize("name", IDS[:4])
def test_every_maze_can_be_solved_between_every_two_corners(generate, name):
    size, count = native_environments[name].size, 100
    tables = [
        {"orientation": orientation, "start_corner": start, "goal_corner": goal}
        for orientation in range(3)
        for start, goal in itertools.permutations(CORNERS, 2)
    ]
    state, _ = generate(name, tables, count)
    mazes = np.arange(count * len(tables))
    ends = ("start_corner", "goal_corner")
    starts, goals = (np.repeat([corner_cell(t[end], size) for t in tables], count, axis=0).T for end in ends)
    np.testing.assert_array_equal(state.agent[:2], starts)
    np.testing.assert_array_equal((state.goal_x, state.goal_y), goals)
    free = np.zeros((len(mazes), size, size), bool)
    free[:, 1:-1, 1:-1] = True
    free &= ~unpacked(state.rivers)
    start = np.zeros_like(free)
    start[mazes, *starts] = True
    reached = reachable(free, start)
    assert reached[mazes, *goals].all()
    # Some room is off the way in some maze, or the search would have walked through rivers.
    assert name.endswith("N1-v0") or not (reached == free).all()


def test_the_way_between_neighbouring_corners_keeps_to_its_side(generate):
    state, _ = generate("MiniGrid-SimpleCrossingS11N5-v0", [{"start_corner": 3, "goal_corner": 2}], 300)
    cells = unpacked(state.rivers)
    _, horizontal = river_lines(cells)
    size, mazes = 11, np.arange(300)
    lowest = np.where(horizontal.any(1), size - 3 - 2 * horizontal[:, ::-1].argmax(1), 0)
    free = ~cells & (np.arange(size) > lowest[:, None])[:, None, :]
    free[:, [0, -1]] = free[:, :, [0, -1]] = False
    start = np.zeros_like(cells)
    start[mazes, 1, size - 2] = True
    assert reachable(free, start)[mazes, size - 2, size - 2].all()


def test_mazes_of_other_corners_are_mirrored(generate):
    count = 50
    pairs = [(0, 2), (1, 3), (2, 0), (3, 1), (0, 1), (1, 0), (3, 2), (2, 3), (0, 3), (1, 2), (2, 1), (3, 0)]
    tables = [{"start_corner": start, "goal_corner": goal} for start, goal in pairs]
    state, _ = generate("MiniGrid-SimpleCrossingS9N3-v0", tables, count)
    cells = dict(zip(pairs, unpacked(state.rivers).reshape(len(pairs), count, 9, 9), strict=True))
    left_right, up_down, both = np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]
    for canonical, mirrored, mirror in [
        ((0, 2), (1, 3), left_right),
        ((0, 2), (2, 0), both),
        ((0, 2), (3, 1), up_down),
        ((0, 1), (1, 0), left_right),
        ((0, 1), (3, 2), up_down),
        ((0, 1), (2, 3), both),
        ((0, 3), (1, 2), left_right),
        ((0, 3), (3, 0), up_down),
        ((0, 3), (2, 1), both),
    ]:
        np.testing.assert_array_equal(cells[mirrored], cells[canonical][mirror])
    assert (cells[0, 2] != cells[1, 3]).any()


def test_equal_corners_are_harmless(generate):
    """A mistake, but one that must not poison the other agents of a federation."""
    name = "MiniGrid-LavaCrossingS11N5-v0"
    state, image = generate(name, [{"start_corner": corner, "goal_corner": corner} for corner in CORNERS], 10)
    assert np.isfinite(image).all()
    ours = native_environments[name]()
    after = jax.jit(jax.vmap(lambda state: ours.step(state, jnp.asarray(FORWARD), KEY, ours.physics())))(state)
    assert np.isfinite(after.observation).all()
    assert np.isfinite(after.reward).all()
