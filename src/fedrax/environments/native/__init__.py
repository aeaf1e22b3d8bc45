"""Environments written in JAX, by the id of the Gymnasium environment they equal step for step."""

from fedrax.environments.base import NativeEnvironment
from fedrax.registry import Registry

native_environments: Registry[NativeEnvironment] = Registry("native environment", "fedrax.environments.native")
