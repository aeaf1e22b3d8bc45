"""Training time without compiling, also where programs compile when they are first met."""

import time

import jax.monitoring
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedrax
from fedrax.runtime import compiling
from fedrax.runtime.compiling import CompileClock


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


@pytest.mark.parametrize(
    ("flags", "backend", "options"),
    [
        ("", "cpu", {compiling.LEVEL: 2}),
        ("--xla_other=1", "cpu", {compiling.LEVEL: 2}),
        (f"--{compiling.LEVEL}=3", "cpu", None),
        ("", "gpu", None),
    ],
)
def test_processors_programs_are_compiled_at_the_second_level_unless_somebody_says_another(
    flags, backend, options, monkeypatch
):
    given = []
    monkeypatch.setattr(compiling, "compiler_options", compiling.compiler_options.__wrapped__)
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", lambda function, **told: given.append(told))
    compiling.jitted(len, donate_argnums=0)
    assert given == [{"compiler_options": options, "donate_argnums": 0}]


def test_a_program_of_the_second_level_computes(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_options", lambda: {compiling.LEVEL: 2})
    assert compiling.jitted(lambda x: 2 * x)(3) == 6
