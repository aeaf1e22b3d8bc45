"""Compiling is most of what these tests cost, so it is made cheap before JAX starts."""

import functools
import os
from importlib.metadata import version
from pathlib import Path

# What is compiled runs for milliseconds: LLVM's optimisation would take three times as long as it saves, and XLA's
# emitters of fused loops half of what is left. The slow tests' own command says otherwise: they run for minutes.
FLAG = "--xla_backend_optimization_level"
CHEAP = FLAG not in os.environ.get("XLA_FLAGS", "")
if CHEAP:
    # A flag that it does not know ends the process: of later versions nobody knows.
    known = tuple(map(int, version("jax").split(".")[:2])) <= (0, 10)
    emitters = " --xla_cpu_use_fusion_emitters=false" if known else ""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=0{emitters}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
# Most programs compile in less than the second from which JAX keeps them: two thirds of the suite's time.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# How long an example takes is a matter of what else the machine does.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

CHECKED = (
    *("learners", "aggregators", "attacks", "strategies", "evaluation", "federation", "message"),
    *("environments.native", "environments.native_collector", "environments.native_noise", "environments.native_steps"),
    *("privacy.clip", "privacy.noise", "privacy.protection", "audit"),
    *("arrays", "trees", "parts", "seeds", "topology", "topology_weights"),
)
"""What computes with arrays: shapes and types of arguments and results are checked wherever tests call it."""
# An integer may stand where a real number is annotated, as for every type checker.
TOWER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook([f"fedrax.{name}" for name in CHECKED], TOWER)

from fedrax.runtime import compiling  # noqa: E402


@functools.wraps(compiling.compiler_options)
def compiler_options(*, quick: bool = False) -> dict[str, int]:
    """Said for each program, as it is for a user's, which may not be called while JAX traces."""
    return {compiling.LEVEL: 0}


if CHEAP:
    compiling.compiler_options = compiler_options
