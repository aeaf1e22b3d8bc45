"""Compiling is most of what these tests cost, so it is made cheap before JAX starts."""

import os
from pathlib import Path

# What is compiled runs for milliseconds: LLVM's optimisation would take three times as long as it saves.
# The slow tests' own command says otherwise: they run for minutes.
FLAG = "--xla_backend_optimization_level"
if FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
# Most programs compile in less than the second from which JAX keeps them: two thirds of the suite's time.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
