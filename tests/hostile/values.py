"""Every option of a configuration, and values for it that nobody means: by its declared type, at the edges of it."""

from __future__ import annotations

import inspect
import typing
from types import UnionType
from typing import NamedTuple

from fedrax.config import COMPONENT_KINDS, Config
from fedrax.config_tables import Model
from fedrax.environments.distributions import joint_distributions
from fedrax.environments.native import native_environments
from fedrax.registry import options_of

NUMBERS = [
    *("-1", "0", "1", "2", "3", "-0.0", "0.5", "1.5", "nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "1e-9"),
    *("2147483647", "2147483648", "-2147483649", "4294967296", "9223372036854775807", "9223372036854775808"),
    *("1" + "0" * 30, "-1" + "0" * 30, "1" + "0" * 400, "1" * 5000, "0x10", "1_000"),
]
TEXTS = [
    *("text", '""', '"[/x]"', '"a\\u0000b"', '"\\uD800"', '"$HOME ${x} %s {0}"', '"../../.."', '"/"', '"/dev/null"'),
    *('"' + "long" * 3000 + '"', "é\u202e", "\udcff", '"\\n\\n"', "'", '"', "[", "{", "=", "a=b", "none", '"none"'),
]
OTHERS = [
    *("true", "false", "[]", "[1]", "[0]", "[-1]", '["x"]', "[[]]", "[[1, 2], [3]]", "[nan]", "[1e400]", "[true]"),
    *('[1, "x"]', "{}", "{x = 1}", '{kind = "x"}', "{kind = []}", "[{}]", "1979-05-27", "07:32:00"),
    *("1979-05-27T07:32:00Z", "[" * 200 + "]" * 200, "[" * 3000 + "]" * 3000, str([1] * 2000)),
]
FITTING = (
    ("environment=CartPole-v1",),
    ("environment=CartPole-v1", "strategy=fedavg", "learner=ppo"),
    ("environment=Pendulum-v1", "strategy=fedavg", "learner=td3"),
    ("environment=Pendulum-v1", "strategy=fedavg", "learner=sac"),
    ("environment=CartPole-v1", "strategy=fedavg", "learner=sac-discrete"),
    ("environment=CartPole-v1", "learner=ppo"),
    ("environment=Pendulum-v1", "learner=td3"),
    ("environment=Pendulum-v1", "learner=sac"),
)
"""What a component may need beside it: the first that it can run with."""


class Setting(NamedTuple):
    """An option by its key, and the settings under which it counts."""

    key: str
    choices: tuple[str, ...] = ()
    """Values that its type lists."""
    under: tuple[str, ...] = ()

    @property
    def values(self) -> list[str]:
        """What it may be given, as on the command line."""
        return [*self.choices, *NUMBERS, *TEXTS, *OTHERS]


def settings() -> list[Setting]:
    """All of them: of the tables, and of every registered component."""
    found = list(_of_model("", Config))
    for kind, registry in COMPONENT_KINDS.items():
        found.append(Setting(kind, tuple(registry.names())))
        for name in registry.names():
            for option, (_, _, annotation) in options_of(registry[name]).items():
                found.append(Setting(f"{kind}.{option}", choices_of(annotation), (f"{kind}={name}",)))
    for id in native_environments.names():
        for parameter in native_environments[id]().physics():
            found.append(Setting(f"environment.heterogeneity.{parameter}", (), (f"environment={id}",)))
    for name in joint_distributions.names():
        joint = joint_distributions[name]
        under = (f"environment={min(joint.environments)}", f"environment.heterogeneity.distribution={name}")
        for option, (_, _, annotation) in options_of(joint).items():
            found.append(Setting(f"environment.heterogeneity.{option}", choices_of(annotation), under))
    return found


def _of_model(prefix: str, model: type[Model]) -> typing.Iterator[Setting]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        yield Setting(f"{prefix}{name}", choices_of(annotation))
        if inspect.isclass(annotation) and issubclass(annotation, Model):
            yield from _of_model(f"{prefix}{name}.", annotation)


def choices_of(annotation: object) -> tuple[str, ...]:
    """What a type lists by name."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return tuple(map(str, arguments))
    if origin in (typing.Union, UnionType, tuple):
        return tuple(choice for part in arguments for choice in choices_of(part))
    return ()
