"""Interchangeable components: one registry per kind of component, one decorator per component.

A component is a frozen Equinox module whose fields, made with :func:`option`, are its settings. The same
declaration validates a configuration, fills ``fedrax describe`` and documents the class, so adding a component
touches one file.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import operator
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import equinox as eqx
import pydantic
from jaxtyping import Array, Float

from fedrax.errors import FedraxError, nearest, shown, shown_setting, unknown
from fedrax.other_names import unknown_key
from fedrax.plugins import check_component, described, load_installed

T = TypeVar("T")

Scalar = Float[Array, ""]
Number = float | Scalar
"""What an option is whose value compiled programs take as an argument (``option(..., argument=True)``)."""

LARGEST = 2**31 - 1
"""The largest whole number of a configuration: compiled programs count in 32 bits."""
MOST_EPISODES = 1_000_000
"""Of one evaluation: their arrays must fit, and somebody waits for them."""
MOST_UNSEEN = 100_000
"""Environments that no agent has, of one evaluation."""
MOST_ITEMS = 64
"""Of an option that is a list, such as layers of a network."""


_options: dict[type, Mapping[str, tuple[dataclasses.Field[Any], Option, Any]]] = {}


@dataclasses.dataclass(frozen=True)
class Option:
    """What a user may want to know of one setting: meaning, unit, and the interval its value must lie in."""

    meaning: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


def option(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    argument: bool = False,
) -> Any:
    """A field of a component that a configuration can set.

    The field's annotation is its type (use ``Literal`` for a choice); ``minimum`` and ``maximum`` are inclusive, and
    hold for each number of a tuple.

    Options are static, constants of the compiled program, but for real numbers declared with ``argument``: programs
    take these as arguments, so that runs which differ in nothing else share one. Their annotation is :data:`Number`
    or ``Number | None``, and inside a round no Python branch may look at them but for whether they are None.
    """
    declared = {"option": Option(meaning, unit, minimum, maximum)}
    return eqx.field(static=not argument, default=default, metadata=declared)


def options_of(component: type) -> Mapping[str, tuple[dataclasses.Field[Any], Option, Any]]:
    """The settings of a component class: name -> (field, option, resolved type).

    Raises:
        FedraxError: an annotation of the class cannot be resolved.
    """
    known = _options.get(component)
    if known is None:
        known = _options[component] = MappingProxyType(_resolved(component))
    return known


def _resolved(component: type) -> dict[str, tuple[dataclasses.Field[Any], Option, Any]]:
    try:
        hints = typing.get_type_hints(component)
    except Exception as error:  # Whatever an annotation in a plugin evaluates to.
        file = getattr(sys.modules.get(component.__module__), "__file__", component.__module__)
        raise FedraxError(
            f"{file}: the annotations of {component.__qualname__} cannot be read: {described(error)}; mend them"
        ) from None
    return {
        field.name: (field, field.metadata["option"], _set_as(hints[field.name]))
        for field in dataclasses.fields(component)
        if "option" in field.metadata
    }


def _set_as(annotation: Any) -> Any:
    """The type that a configuration gives: of a :data:`Number`, the real number."""
    parts = typing.get_args(annotation)
    if Scalar not in parts:
        return annotation
    return functools.reduce(operator.or_, (part for part in parts if part is not Scalar))


class Registry(Generic[T]):
    """The components of one kind by name.

    Their package is imported whole on first use, so a new file in it is found without being listed anywhere;
    the plugins of installed packages are loaded then too.
    """

    def __init__(self, component_kind: str, package: str) -> None:
        self.component_kind = component_kind
        self.package = package
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: makes the component available as ``name`` in configurations."""

        def add(component: type[T]) -> type[T]:
            known = self._classes.get(name)
            # A module that runs again, as in a notebook, replaces what it registered; another file does not.
            if known is not None and (known.__module__, known.__qualname__) != (
                component.__module__,
                component.__qualname__,
            ):
                raise FedraxError(
                    f"{self.component_kind} {name!r} is already registered by {known.__module__}; choose another name"
                )
            check_component(self.component_kind, name, component)
            self._classes[name] = component
            component.name = name  # type: ignore[attr-defined]
            return component

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._loaded = True
        load_installed()

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._classes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._classes

    def __getitem__(self, name: str) -> type[T]:
        """The class registered as ``name``; raises :class:`FedraxError` naming the nearest one."""
        self._load()
        try:
            return self._classes[name]
        except KeyError:
            raise unknown(self.component_kind, name, self._classes, self._lists) from None

    @property
    def _lists(self) -> str:
        """The command that lists the names."""
        return f"fedrax describe {self.component_kind}" if self.component_kind.isalpha() else "fedrax list"

    def build(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        table: str | None = None,
        among: Iterable[str] | None = None,
    ) -> T:
        """The component ``name`` with these settings, each checked against its option.

        ``table`` is where a configuration has them; unset, the table of the component kind. ``among`` holds the keys of
        all components that the configuration has chosen, one of which may be meant by a key that is not known.

        Raises:
            FedraxError: an unknown name or key, or a value of the wrong type or outside its interval.
        """
        component = self[name]
        known = options_of(component)
        table = self.component_kind if table is None else table
        checked = {}
        for key, value in settings.items():
            if key not in known:
                of = f" of {self.component_kind} {name!r}"
                raise unknown_key(f"{table}.{key}", known, f"fedrax describe {name}", of=of, among=among)
            _, declared, annotation = known[key]
            checked[key] = check_value(f"{table}.{key}", value, annotation, declared)
        return component(**checked)


def of_its_kind(value: Any, annotation: Any) -> Any:
    """The value, unless it or an item of it is true or false where the type has numbers, or the other way round.

    Raises:
        ValueError: it is; Python, and so Pydantic, takes one for the other.
    """
    kinds = _kinds(annotation)
    numbers = kinds & {int, float}
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, bool) and numbers and bool not in kinds:
            raise ValueError("it must be a number, not true or false")
        if type(item) in (int, float) and bool in kinds and not numbers:
            raise ValueError("it must be true or false")
    return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    parts = typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal else ()
    return {kind for part in parts for kind in _kinds(part)} or {annotation}


WORDS = {
    "float": "it must be a number",
    "finite": "it must be a finite number",
    "int": "it must be an integer",
    "bool": "it must be true or false",
    "string": "it must be text",
    "tuple": "it must be a list",
    "list": "it must be a list",
    "model": "it is a table; set its keys one by one",
    "dict": "it is a table; set its keys one by one",
}
"""What Pydantic's errors of a type come to, by the first word of their names: ``float_parsing``, ``int_from_float``."""
BOUNDS = {
    "greater_than": "it must be greater than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "literal_error": "it must be {expected}",
}
"""What its other errors come to, by their whole names."""


def in_words(*errors: Mapping[str, Any]) -> str:
    """Pydantic's errors of one value, which are several where it may have several types, in words that TOML has."""
    said = [_in_words(error) for error in errors]
    return " or ".join(dict.fromkeys([said[0], *(text.removeprefix("it must be ") for text in said[1:])]))


def _in_words(error: Mapping[str, Any]) -> str:
    kind = str(error["type"])
    if kind in BOUNDS:
        return BOUNDS[kind].format(**error["ctx"])
    if (first := kind.partition("_")[0]) in WORDS:
        return WORDS[first]
    text = str(error["msg"]).removeprefix("Value error, ")
    return (text[0].lower() + text[1:]).replace("input should be", "it must be")


def check_value(key: str, value: Any, annotation: Any, declared: Option | None = None) -> Any:
    """``value`` as ``annotation`` demands and inside its interval, or a one-line :class:`FedraxError`.

    ``"none"`` is None where the annotation allows it, since TOML has no null.
    """
    if value == "none" and type(None) in typing.get_args(annotation):
        return None
    try:
        of_its_kind(value, annotation)
    except ValueError as error:
        raise FedraxError(f"{key} = {shown(value)} is not allowed: {error}") from None
    if isinstance(value, (list, tuple)) and (count := _length(annotation)) not in (None, len(value)):
        raise FedraxError(f"{key} = {shown_setting(value)} is not allowed: it must have {count} items")
    try:
        value = _adapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        hint = ""
        literals = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
        if isinstance(value, str) and literals:
            hint = nearest(value, [str(choice) for choice in literals])
        if (place := _item_of(value, error)) is not None:
            same = [each for each in error.errors() if each["loc"][-1] == place]
            raise FedraxError(
                f"item {place + 1} of {key} = {shown(value[place])} is not allowed: {in_words(*same)}"
            ) from None
        words = in_words(*error.errors()) + _as_list(value, annotation)
        if declared is not None and words == WORDS["float"] and (interval := _interval(declared)):
            words += f" {interval}" if interval.startswith("between") else f", {interval}"
        unset = " or none" if type(None) in typing.get_args(annotation) else ""
        raise FedraxError(f"{key} = {shown_setting(value)} is not allowed: {words}{unset}{hint}") from None
    if isinstance(value, tuple) and len(value) > MOST_ITEMS:
        raise FedraxError(f"{key} = {shown(value)} is not allowed: it must have at most {MOST_ITEMS} items")
    if declared is None:
        return value
    for place, number in enumerate(value if isinstance(value, tuple) else (value,), start=1):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            _check_number(f"item {place} of {key}" if isinstance(value, tuple) else key, number, declared)
    return value


def _length(annotation: Any) -> int | None:
    """How many items a tuple must have; None where it may have any number."""
    items = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else (...,)
    return None if ... in items else len(items)


def _item_of(value: Any, error: pydantic.ValidationError) -> int | None:
    """The place of the first item of a list that is not as it must be; None of what is no list."""
    places = [each["loc"][-1] for each in error.errors() if each["loc"]]
    whole = all(isinstance(place, int) for place in places) and len(places) == len(error.errors())
    return int(places[0]) if whole and isinstance(value, (list, tuple)) else None


def _as_list(value: Any, annotation: Any) -> str:
    """Of what, and how, a list is written where it is needed and something else is given: ``64``, ``64,64``."""
    if typing.get_origin(annotation) not in (tuple, list) or isinstance(value, (list, tuple, Mapping)):
        return ""
    items = [each.strip() for each in str(value).strip("()[] ").split(",")]
    try:
        _adapter(annotation).validate_python(items)
    except pydantic.ValidationError:
        return {int: " of integers", float: " of numbers", str: " of texts"}.get(typing.get_args(annotation)[0], "")
    return f", written [{', '.join(items)}]" if any(items) else ""


@functools.cache
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation)


def _check_number(key: str, number: float, declared: Option) -> None:
    low, high = declared.minimum, declared.maximum
    if isinstance(number, int) and number > LARGEST and high is None:
        raise FedraxError(f"{key} = {shown(number)} is not allowed: it must be at most {LARGEST}")
    finite = isinstance(number, int) or math.isfinite(number)  # Some whole numbers are no float.
    if finite and (low is None or number >= low) and (high is None or number <= high):
        return
    interval = _interval(declared)
    rule = interval if finite else f"a finite number {interval}".rstrip()
    raise FedraxError(f"{key} = {shown(number)} is not allowed: it must be {rule}")


def _interval(declared: Option) -> str:
    """``between 0 and 1``, ``at least 0``; empty where there are no bounds."""
    low, high = declared.minimum, declared.maximum
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""
