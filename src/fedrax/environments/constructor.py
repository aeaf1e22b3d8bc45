"""Arguments of a Gymnasium environment's constructor: which there are, and which a run may set."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from fedrax.errors import FedraxError, nearest
from fedrax.plugins import described, where

REQUIRED = inspect.Parameter.empty
"""The default of an argument that must be given."""

ELSEWHERE = {
    "max_episode_steps": "environment.horizon",
    "render_mode": "no option: fedrax render chooses it",
    "disable_env_checker": "no option: the checker is always off",
}
"""Arguments that ``gymnasium.make`` takes for itself, and what sets them here."""


@dataclasses.dataclass(frozen=True)
class Constructor:
    """What an environment is made from."""

    arguments: Mapping[str, Any]
    """Defaults by name, those of the registration included; :data:`REQUIRED` where there is none."""
    any_name: bool
    """Whether it takes arguments of other names too, as one with ``**kwargs`` does."""

    @property
    def listed(self) -> str:
        """Its arguments in words."""
        names = ", ".join(self.arguments) or "no arguments"
        return f"{names} and others" if self.any_name and self.arguments else names


def constructor_of(id: str) -> Constructor:
    """The constructor of the registered environment ``id``.

    ``**kwargs`` of a class are looked up in the classes that it inherits from. Of a constructor that cannot be
    imported nothing is known: making the environment says why.
    """
    spec = gymnasium.registry.get(id)
    if spec is None:  # EnvPool alone has it.
        return Constructor({}, any_name=False)
    try:
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        known = signature_of(creator) if creator is not None else Constructor({}, any_name=True)
    except Exception:
        return Constructor({}, any_name=True)
    registered = {name: value for name, value in spec.kwargs.items() if name not in ELSEWHERE}
    return Constructor({**known.arguments, **registered}, known.any_name)


def signature_of(creator: Callable[..., Any]) -> Constructor:
    """The constructor of an environment's class, or a function that makes one."""
    if inspect.isclass(creator):
        kinds = [kind for kind in creator.__mro__ if kind is not object and "__init__" in vars(kind)]
        signatures = [list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:] for kind in kinds]
    else:
        signatures = [list(inspect.signature(creator).parameters.values())]
    arguments: dict[str, Any] = {}
    any_name = False
    for number, parameters in enumerate(signatures):
        for parameter in parameters:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            # What a base class needs, the class that inherits from it gives.
            if named and (number == 0 or parameter.default is not REQUIRED):
                arguments.setdefault(parameter.name, parameter.default)
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not any_name:
            break
    return Constructor({name: value for name, value in arguments.items() if name not in ELSEWHERE}, any_name)


def check_kwargs(id: str, kwargs: Mapping[str, Any]) -> None:
    """Refuses arguments that the constructor of ``id`` does not take, and the lack of those that it needs.

    Raises:
        FedraxError: names them, and what there is.
    """
    known = constructor_of(id)
    for name in kwargs:
        if name in ELSEWHERE:
            raise FedraxError(f"environment.kwargs.{name} is not allowed: it is set by {ELSEWHERE[name]}")
        if name not in known.arguments and not known.any_name:
            raise FedraxError(
                f"unknown argument environment.kwargs.{name}{nearest(name, known.arguments)}: the constructor of "
                f"environment {id!r} takes {known.listed}"
            )
    missing = [name for name, default in known.arguments.items() if default is REQUIRED and name not in kwargs]
    if missing:
        names = ", ".join(missing)
        raise FedraxError(
            f"environment {id!r} needs the argument{'s' * (len(missing) > 1)} {names}: set "
            + ", ".join(f"environment.kwargs.{name}" for name in missing)
        )


def default_of(id: str, name: str, kwargs: Mapping[str, Any]) -> float:
    """The value of an argument that differs between agents where no agent is meant: given, or the constructor's own.

    Raises:
        FedraxError: there is none, or it is no number.
    """
    value = kwargs.get(name, constructor_of(id).arguments.get(name, REQUIRED))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        found = "no default" if value is REQUIRED else f"the default {value!r}, which is no number"
        raise FedraxError(
            f"environment.heterogeneity.{name} varies an argument of environment {id!r} that has {found}: set "
            f"environment.kwargs.{name} to the number that holds where no agent's own is meant, as at the server"
        )
    return value


def given(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as Python's: TOML has no null, so ``"none"`` stands for it."""
    return {name: None if isinstance(value, str) and value == "none" else value for name, value in kwargs.items()}


@functools.cache
def envpool_options(id: str) -> dict[str, bool | int | float]:
    """Numbers that EnvPool's ``id`` can be made with and Gymnasium's constructor takes too, with their defaults."""
    import envpool

    config = envpool.make_spec(id).config._asdict()
    shared = constructor_of(id).arguments
    return {k: v for k, v in config.items() if k in shared and isinstance(v, (bool, int, float))}


def cannot_make(id: str, arguments: Mapping[str, Any], error: Exception) -> FedraxError:
    """The error for an environment whose constructor failed: where, with what, and why."""
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    # What Gymnasium and Python's import say is plain; where it happened matters of an environment's own code.
    plain = isinstance(error, (gymnasium.error.Error, ImportError))
    reason = " ".join(str(error).split()) if plain else f"{where(error)}{described(error)}"
    return FedraxError(f"environment {id!r} cannot be made{f' with {shown}' if shown else ''}: {reason}")
