"""Training time without compiling, also where programs compile when they are first met."""

import inspect
import time

import jax.monitoring
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedrax
from fedrax.config import resolve
from fedrax.runtime import compiling
from fedrax.runtime.compiling import CompileClock
from fedrax.runtime.make import make_runtime


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([(1.0, 2.0), (3.0, 5.0)], 3.0),
        ([(2.0, 3.0), (1.0, 4.0)], 3.0),  # the second contains the first
        ([(1.0, 2.0), (3.0, 4.0), (0.5, 6.0)], 5.5),
        ([(1.0, 3.0), (2.0, 4.0)], 3.0),
    ],
)
def test_spans_that_contain_others_count_once(spans, seconds):
    clock = CompileClock()
    for span in spans:
        clock.add_span(*span)
    assert clock.seconds == pytest.approx(seconds)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_what_is_counted_is_the_union(pairs):
    """In the order of their ends, as they are told."""
    spans = sorted(((min(pair), max(pair)) for pair in pairs), key=lambda span: span[1])
    clock = CompileClock()
    for start, end in spans:
        clock.add_span(float(start), float(end))
    assert clock.seconds == len({second for start, end in spans for second in range(start, end)})


def test_other_events_are_not_compiling():
    clock = CompileClock()
    clock.add("/jax/compilation_cache/cache_retrieval_time_sec", 5.0)
    clock.add("/jax/core/compile/backend_compile_duration", 2.0, fun_name="f")
    assert clock.seconds == pytest.approx(2.0)


@pytest.mark.training
def test_training_time_leaves_out_compiling_on_host_environments(tmp_path):
    """The compiler's own time, listened to here, is in the one figure and not in the other."""
    spent = 0.0

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        nonlocal spent
        spent += duration_secs * (event == "/jax/core/compile/backend_compile_duration")

    settings = ["environment.native=false", "environment.horizon=10", "evaluation.episodes=2", "federation.agents=3"]
    settings += ["budget.trajectories=none", "budget.rounds=2", "checkpoint.every=2", "strategy=gpomdp"]
    jax.monitoring.register_event_duration_secs_listener(listen)
    started = time.perf_counter()
    try:
        run = fedrax.train("fedpg-br/cartpole", [*settings, "strategy.batch=3"], out=tmp_path / "run", progress=False)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    wall = time.perf_counter() - started
    summary = run.summary()
    assert spent > 0
    # Programs of the API, before training and after it, are a small part of all that is compiled.
    assert summary["seconds_compile"] > spent / 2
    assert 0 < summary["seconds_train"] < wall - summary["seconds_compile"] + 1e-3
    assert run.metrics()[-1]["seconds"] == summary["seconds_train"]


QUICK = {compiling.LEVEL: 2, compiling.EMITTERS: False}


@pytest.mark.parametrize(
    ("flags", "backend", "quick", "options"),
    [
        ("", "cpu", False, {compiling.LEVEL: 2}),
        ("--xla_other=1", "cpu", False, {compiling.LEVEL: 2}),
        ("", "cpu", True, QUICK),
        (f"--{compiling.LEVEL}=3", "cpu", False, None),
        (f"--{compiling.LEVEL}=3", "cpu", True, None),
        ("", "gpu", False, None),
        ("", "gpu", True, None),
    ],
)
def test_processors_programs_are_compiled_at_the_second_level_unless_somebody_says_another(
    flags, backend, quick, options, monkeypatch
):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    given = []
    monkeypatch.setattr(compiling, "compiler_options", inspect.unwrap(compiling.compiler_options))
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", lambda function, **told: given.append(told))
    compiling.jitted(len, quick=quick, donate_argnums=0)
    assert given == [{"compiler_options": options, "donate_argnums": 0}]


@pytest.mark.parametrize("quick", [False, True])
def test_a_program_computes_with_what_this_version_of_xla_is_told(quick, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(compiling, "compiler_options", inspect.unwrap(compiling.compiler_options))
    assert compiling.jitted(lambda x: 2 * x, quick=quick)(3) == 6


def test_an_option_is_not_given_to_a_later_version_of_xla(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    assert inspect.unwrap(compiling.compiler_options)(quick=True) == {compiling.LEVEL: 2}


@pytest.mark.parametrize("environment", ["CartPole-v1", "MountainCar-v0"])
@pytest.mark.parametrize("how", ["full", "quick"])
def test_all_programs_of_a_run_are_compiled_as_it_says(environment, how, monkeypatch):
    asked = []
    monkeypatch.setattr(compiling, "compiler_options", lambda quick: asked.append(quick))
    settings = [f"environment={environment}", "budget.rounds=1", f"runtime.compiling={how}", "federation.agents=2"]
    runtime = make_runtime(resolve({}, settings))
    runtime.shapes()
    runtime.close()
    assert set(asked) == {how == "quick"}
