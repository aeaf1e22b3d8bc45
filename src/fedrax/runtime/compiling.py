"""Compiled programs kept between processes, and how long this process has spent compiling."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from fedrax.config import Config

EVENTS = "/jax/core/compile/"
"""What JAX calls the parts of compiling: tracing, lowering, and the compiler itself or reading its cache."""
REACH = 1000
"""Spans that one that ends later may contain; older ones are only counted."""


class CompileClock:
    """Seconds in which JAX compiled, counted once where one program's compiling contains another's."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._before = 0.0
        self._lock = threading.Lock()

    def add(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Takes up an event that has just ended, as :mod:`jax.monitoring` tells it."""
        if event.startswith(EVENTS):
            end = time.perf_counter()
            self.add_span(end - duration_secs, end)

    def add_span(self, start: float, end: float) -> None:
        """Takes up a span; one that ends later may contain or overlap those before it."""
        with self._lock:
            while self._spans and self._spans[-1][1] > start:
                start = min(start, self._spans.pop()[0])
            self._spans.append((start, end))
            if len(self._spans) > REACH:
                first, last = self._spans.pop(0)
                self._before += last - first

    @property
    def seconds(self) -> float:
        """Since the process began to listen."""
        with self._lock:
            return self._before + sum(end - start for start, end in self._spans)


_clock = CompileClock()
jax.monitoring.register_event_duration_secs_listener(_clock.add)


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far; differences tell what lay between."""
    return _clock.seconds


LEVEL = "xla_backend_optimization_level"
"""XLA's name for how hard LLVM tries."""


EMITTERS = "xla_cpu_use_fusion_emitters"
"""XLA's name for its newer way to write loops, which compile longer than they save in a run of a minute."""


def compiler_options(*, quick: bool = False) -> dict[str, int | bool] | None:
    """What XLA is told; None: nothing.

    On processors LLVM's third level takes twice as long as the second, for rounds that are no faster (CartPole: 33 s
    and 16 s of one core, and the same metrics). Whoever sets the level in ``XLA_FLAGS`` decides. Without its emitters
    of fused loops XLA compiles the same in half of that (23 s and 13 s), for rounds that are 5 to 12 % slower.
    """
    own = jax.default_backend() != "cpu" or LEVEL in os.environ.get("XLA_FLAGS", "")
    if own:
        return None
    # An option that XLA does not know is an error: of later versions nobody knows.
    known = jax.__version_info__[:2] <= (0, 10)
    return {LEVEL: 2, EMITTERS: False} if quick and known else {LEVEL: 2}


def jitted(function: Callable[..., Any], *, quick: bool = False, **options: Any) -> Any:
    """``jax.jit(function, **options)``, compiled by :func:`compiler_options`: not to be called while JAX traces.

    All programs of a run are compiled alike, in whichever process, so that they round alike.
    """
    return jax.jit(function, compiler_options=compiler_options(quick=quick), **options)


def quickly(config: Config) -> bool:
    """Whether a run's programs are to be compiled soon, and not to run fast."""
    return config.runtime.compiling == "quick"


def enable_compilation_cache() -> None:
    """Keeps compiled programs between processes, in the user's cache folder, unless told otherwise."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fedrax" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
