"""One program for runs that differ in numbers, seeds or budgets, and what may differ in how they compute."""

import contextlib
import typing

import jax
import jax.monitoring
import numpy as np
import pytest

import fedrax
from fedrax.config import COMPONENT_KINDS
from fedrax.environments.native import native_environments
from fedrax.environments.native.pendulum import Pendulum
from fedrax.registry import Scalar, options_of
from fedrax.runtime.library import KEPT, NativePrograms, Programs, shape_of
from fedrax.runtime.make import make_runtime

TINY = [
    "budget.trajectories=none",
    "budget.rounds=4",
    "checkpoint.every=2",
    "federation.agents=5",
    "environment.horizon=15",
    "evaluation.episodes=2",
    "strategy.batch_min=2",
    "strategy.batch_max=3",
    "attack=sign-flipping",
    "attack.agents=1",
]
OTHER = ["attack.scale=4", "learner.learning_rate=0.03", "learner.discount=0.5", "seed=7", "budget.rounds=9"]
"""Numbers, a seed and a budget, and no shape."""

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """The programs compiled within, by name."""
    names = []

    def listen(event, seconds, **details):
        if event == COMPILED:
            names.append(details.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def made(*changes, library=None, preset="fedpg-br/cartpole"):
    return make_runtime(fedrax.resolve(preset, [*TINY, *changes]), library=library)


def run(runtime, calls=2):
    """The states and metrics of some calls, as NumPy."""
    state = runtime.init()
    runtime.compile(state)
    rows = []
    for call in range(calls):
        for after, metrics in runtime.advance(state, call * runtime.rounds_per_call):
            state = after
            rows.append({name: x for name, x in metrics.items() if name != "seconds"})
    return jax.tree.map(np.asarray, (runtime.outputs(state), rows))


def large(names):
    return [name for name in names if name in ("jit(init)", "jit(rounds)")]


@pytest.fixture(scope="module")
def shared():
    """Two runs of one library, what was compiled for the second, and the second's by itself."""
    library = Programs()
    first = run(made(library=library))
    with compilations() as names:
        second = run(made(*OTHER, library=library))
    with compilations() as alone:
        by_itself = run(made(*OTHER))
    return first, second, names, by_itself, alone


@pytest.mark.training
def test_a_second_setup_of_one_shape_compiles_nothing(shared):
    _, _, names, _, alone = shared
    assert large(names) == []
    assert large(alone) == ["jit(init)", "jit(rounds)"]  # The count can tell.


@pytest.mark.training
def test_a_shared_program_computes_the_run_by_itself_to_the_bit(shared):
    first, second, _, by_itself, _ = shared
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), second, by_itself)))
    assert not np.array_equal(*(jax.tree.leaves(outputs)[0] for outputs, _ in (first, second)))


@pytest.mark.parametrize("preset", ["fedpg-br/cartpole", "td3-her/point-push", "fedformer/point-reach"])
def test_the_first_states_have_the_types_that_rounds_return(preset):
    """Weak types, of numbers written as Python's, would make another program of the second call."""
    runtime = make_runtime(fedrax.resolve(preset))
    first = runtime.shapes()
    second, _ = jax.eval_shape(runtime.programs.rounds, first, jax.numpy.asarray(0), runtime.arguments)
    assert first == second
    runtime.close()


@pytest.mark.training
def test_peers_that_come_and_go_are_one_program():
    """Who takes part, whose encoders are known and how old they are is data."""
    small = [
        *("budget.steps_per_agent=none", "budget.rounds=6", "checkpoint.every=2", "evaluation.every=6"),
        *("environment.horizon=10", "federation.local_updates=1", "federation.participation=0.5"),
        *("learner.batch_size=8", "learner.actor_layers=[8]", "learner.learning_starts=10", "strategy.max_age=1"),
        *("critic.dim=4", "critic.heads=2", "critic.encoder_layers=[4]", "critic.decoder_layers=[4]"),
    ]
    runtime = make_runtime(fedrax.resolve("fedformer/point-reach", small))
    state, ages = runtime.init(), []
    with compilations() as names:
        runtime.compile(state)
        for call in range(3):
            ((state, _),) = runtime.advance(state, call * runtime.rounds_per_call)
            ages.append(np.asarray(state.server.age).tolist())
    assert large(names) == ["jit(rounds)"]
    assert len({str(each) for each in ages}) == 3  # Others were absent.


def lowered(*changes):
    runtime = made(*changes)
    state = jax.eval_shape(runtime.programs.init, (), runtime.arguments)
    return runtime.programs.rounds.lower(state, np.int32(0), runtime.arguments).as_text()


HETEROGENEITY = "environment.heterogeneity={length = {distribution = 'uniform', low = %s, high = 0.9}}"


@pytest.mark.parametrize(
    ("one", "other"),
    [([], OTHER), ([HETEROGENEITY % 0.2], [HETEROGENEITY % 0.3, "seed=4"]), (["seeds=2"], ["seeds=2", "seed=2"])],
)
def test_processes_find_each_others_programs(one, other):
    """JAX's cache finds a program by its text."""
    assert lowered(*one) == lowered(*other)
    assert shape_of(made(*one).config) == shape_of(made(*other).config)


@pytest.mark.parametrize(
    "change",
    [
        "attack.agents=2",
        "learner.hidden=[8]",
        "learner.max_gradient_norm=1",
        "seeds=2",
        "evaluation.every=2",
        "strategy.ratio_band=none",
        "budget.steps=100000",
    ],
)
def test_what_is_computed_otherwise_is_another_program(change):
    library = Programs()
    one, other = made(library=library), made(change, library=library)
    assert one.programs is not other.programs
    assert shape_of(one.config) != shape_of(other.config)


def test_a_graph_drawn_from_the_seed_is_a_constant():
    library = Programs()
    changes = ["strategy.topology=random", "strategy.degree=2", "federation.agents=6"]
    one, other, same = (
        make_runtime(fedrax.resolve("fedppo/simple-crossing", [*changes, f"seed={seed}"]), library=library)
        for seed in (0, 3, 0)
    )
    assert one.federation.strategy.graph != other.federation.strategy.graph
    assert one.programs is same.programs is not other.programs


def test_a_library_keeps_the_last_used():
    library, numbers = Programs(), range(KEPT + 1)

    def make():
        return NativePrograms(None, None, None)

    first = [library.of((number,), make) for number in numbers]
    assert library.of((KEPT,), make) is first[KEPT]
    assert library.of((1,), make) is first[1]
    assert library.of((0,), make) is not first[0]


def test_a_library_tells_of_every_run_that_has_its_program():
    told = []
    library = Programs(lambda: told.append("compiled"))
    programs = library.of((0,), lambda: NativePrograms(None, None, None))
    assert not told
    programs.compiled = "a program"
    assert len(told) == 1
    library.of((0,), lambda: NativePrograms(None, None, None))
    assert len(told) == 2


def test_what_is_recorded_and_shown_makes_no_other_program():
    library = Programs()
    changes = ["records.loggers=none", "name=other", "video.agent=1", "checkpoint.keep_policies=true"]
    one, other = made(library=library), made(*changes, library=library)
    assert one.programs is other.programs
    assert shape_of(one.config) == shape_of(other.config)


def test_what_is_an_argument_is_declared_as_a_number():
    """A tracer is no float, and a number that is not declared stays a constant."""
    found = 0
    for registry in COMPONENT_KINDS.values():
        for name in registry:
            component = registry[name]
            hints = typing.get_type_hints(component)
            for key, (field, _, annotation) in options_of(component).items():
                number = Scalar in typing.get_args(hints[key])
                assert number == (not field.metadata.get("static", False)), f"{name}.{key}"
                assert Scalar not in (annotation, *typing.get_args(annotation))
                found += number
    assert found > 30


@pytest.mark.training
def test_an_environment_of_the_same_name_is_not_that_of_before():
    """As in a notebook, whose cell with the class is run again; its actions are transformed, its class is within."""
    library, results = Programs(), []
    settings = ["environment=Again-v0", "learner=ppo", "strategy=fedavg", "learner.num_steps=20", "attack=none"]
    settings += ["attack.agents=0", "learner.num_minibatches=1", "learner.hidden=[8]"]
    before = dict(native_environments._classes)
    try:
        for factor in (1.0, 2.0):

            @native_environments.register("Again-v0")
            class Again(Pendulum):
                def step(self, state, action, key, physics, factor=factor):
                    transition = super().step(state, action, key, physics)
                    return transition._replace(reward=factor * transition.reward)

            runtime = make_runtime(fedrax.resolve({}, [*TINY[:6], *settings]), library=library)
            results.append(float(run(runtime, calls=1)[1][0]["train_return"][0, 0]))
    finally:
        native_environments._classes.clear()
        native_environments._classes.update(before)
    assert results[1] == pytest.approx(2 * results[0], rel=1e-5)
