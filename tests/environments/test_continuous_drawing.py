"""Pictures of Pendulum and MountainCar show their states."""

import math

import jax
import numpy as np
import pytest

from fedrax.environments.drawing import HEIGHT, WIDTH, draw_mountain_car, draw_pendulum
from fedrax.environments.native.mountain_car import MountainCarContinuous
from fedrax.environments.native.pendulum import Pendulum

PHYSICS = MountainCarContinuous().physics()
POLE, CART, FLAG = (224, 159, 62), (45, 59, 80), (208, 87, 107)


def pixels(picture, colour):
    """Pixels (row, column) of a colour."""
    return np.argwhere(np.abs(picture.astype(int) - colour).sum(axis=2) < 20)


def test_the_pictures_are_frames():
    for kind in (Pendulum, MountainCarContinuous):
        environment = kind()
        physics = environment.physics()
        state, _ = environment.reset(jax.random.key(0), physics)
        picture = environment.draw(state, physics)
        assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("theta", [0.0, 0.5, -2.0, 3.0])
def test_the_rod_points_where_the_state_says(theta):
    """A positive angle leans left, as in Gymnasium's pictures."""
    down, right = pixels(draw_pendulum(theta, {"l": 1.0}), POLE).mean(0) - [(HEIGHT - 1) / 2, (WIDTH - 1) / 2]
    assert math.remainder(math.atan2(-right, -down) - theta, math.tau) == pytest.approx(0, abs=0.03)


def test_a_longer_rod_is_drawn_longer_and_stays_in_the_picture():
    extent = [np.ptp(pixels(draw_pendulum(0.0, {"l": length}), POLE)[:, 0]) for length in (0.5, 1.0)]
    assert extent[1] - extent[0] == pytest.approx(0.5 * HEIGHT / 3.6, abs=2)
    np.testing.assert_array_equal(draw_pendulum(0.0, {"l": 1.7}), draw_pendulum(0.0, {"l": 9.0}))


@pytest.mark.parametrize("position", [-1.0, -math.pi / 6, 0.2])
def test_the_car_stands_on_its_hill(position):
    rows, columns = pixels(draw_mountain_car(position, PHYSICS | {"goal_position": 9.0}), CART).T
    slope = math.atan(1.35 * math.cos(3 * position))
    at = (position + 1.2) * WIDTH / 1.8
    ground = HEIGHT - (0.45 * math.sin(3 * position) + 0.55) * WIDTH / 1.8
    assert (columns.min() + columns.max()) / 2 == pytest.approx(at - 18 * math.sin(slope), abs=2)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(ground - 18 * math.cos(slope), abs=2)


@pytest.mark.parametrize("goal", [0.45, 0.0])
def test_the_flag_stands_at_the_goal(goal):
    columns = pixels(draw_mountain_car(-0.5, PHYSICS | {"goal_position": goal}), FLAG)[:, 1]
    assert columns.min() == pytest.approx((goal + 1.2) * WIDTH / 1.8, abs=3)
