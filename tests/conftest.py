"""Compiling is most of what these tests cost, so it is made cheap before JAX starts."""

import os
from pathlib import Path

# What is compiled runs for milliseconds: LLVM's optimisation would take three times as long as it saves.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
