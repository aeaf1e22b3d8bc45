"""Environments, native (JAX) and host (Gymnasium, EnvPool), and the collectors that step them."""
