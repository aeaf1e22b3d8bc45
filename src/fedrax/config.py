"""A run's configuration: frozen models, one per table; TOML in and out; every mistake is one line.

Sources are layers, later ones winning: the strategy's implied defaults, a preset or the user's TOML file, then
``key=value`` overrides. What a strategy's ``mode`` stands for ranks just below the layer that says the mode. The table
of a component kind may hold tables per component (``[strategy.svrpg]``), of which only the chosen one's counts, so one
preset serves several strategies.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from fedrax.aggregators.base import Aggregator, PreAggregator, aggregators, preaggregators
from fedrax.arguments import OVERRIDES, PLUGINS, takes
from fedrax.arguments import source as a_source
from fedrax.attacks.base import Attack, attacks
from fedrax.compression.base import Compression, compressions
from fedrax.config_tables import (
    BudgetConfig,
    CheckpointConfig,
    EnvironmentConfig,
    EvaluationConfig,
    FederationConfig,
    Model,
    PrivacyConfig,
    RecordsConfig,
    RuntimeConfig,
    VideoConfig,
)
from fedrax.errors import FedraxError, near, shown, shown_setting
from fedrax.evaluation.measure import renamed, resolved_evaluation
from fedrax.kinds import DEFAULT_KINDS
from fedrax.layers import merge_settings
from fedrax.learners.base import Learner, learners
from fedrax.learners.critics.base import Critic, critics
from fedrax.loggers.base import Logger, built
from fedrax.migration import refuse_former_keys
from fedrax.other_names import (
    chosen_elsewhere,
    component_called,
    keys_called,
    other_way,
    unknown_component,
    unknown_key,
)
from fedrax.plugins import load_plugins, located, located_in, relocated, short_name
from fedrax.privacy.guarantee import resolved_privacy
from fedrax.registry import LARGEST, Registry, in_words, options_of
from fedrax.sources import in_tables as in_tables
from fedrax.sources import merge
from fedrax.sources import parse_override as parse_override
from fedrax.sources import presets as presets
from fedrax.sources import read_source as read_source
from fedrax.strategies.base import Strategy, strategies

COMPONENT_KINDS: dict[str, Registry[Any]] = {
    "learner": learners,
    "critic": critics,
    "strategy": strategies,
    "aggregator": aggregators,
    "preaggregator": preaggregators,
    "attack": attacks,
    "compression": compressions,
}
BASES: dict[str, type] = {
    "learner": Learner,
    "critic": Critic,
    "strategy": Strategy,
    "aggregator": Aggregator,
    "preaggregator": PreAggregator,
    "attack": Attack,
    "compression": Compression,
}


class Config(Model):
    """Everything that determines a run, resolved: every option of every component is written out."""

    name: str = pydantic.Field("run", min_length=1, max_length=200, description="what the run is called in reports")
    seed: int = pydantic.Field(0, ge=0, description="first seed")
    seeds: int = pydantic.Field(1, gt=0, le=100_000, description="number of seeds trained together: seed, seed+1, ...")
    plugins: tuple[str, ...] = pydantic.Field(
        (), description="Python files or modules that register components and environments"
    )
    environment: EnvironmentConfig = EnvironmentConfig()
    federation: FederationConfig = FederationConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    video: VideoConfig = VideoConfig()
    records: RecordsConfig = RecordsConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    learner: dict[str, Any] = {}
    critic: dict[str, Any] = {}
    strategy: dict[str, Any] = {}
    aggregator: dict[str, Any] = {}
    preaggregator: dict[str, Any] = {}
    attack: dict[str, Any] = {}
    compression: dict[str, Any] = {}

    @pydantic.field_validator("name")
    @classmethod
    def _name_can_be_shown(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("it must be one line of printable characters")
        return name

    @pydantic.field_validator("seeds")
    @classmethod
    def _seeds_can_be_counted(cls, seeds: int, info: pydantic.ValidationInfo) -> int:
        # JAX would cut larger ones to 32 bits, and two seeds of a run could become the same.
        if info.data.get("seed", 0) + seeds - 1 > LARGEST:
            raise ValueError(f"the last seed, seed + seeds - 1, must be at most {LARGEST}")
        return seeds

    def component(self, component_kind: str) -> Any:
        """The component chosen of this kind, built from its options."""
        settings = dict(getattr(self, component_kind))
        return COMPONENT_KINDS[component_kind].build(settings.pop("kind"), settings)

    def hands_out_own(self) -> bool:
        """Whether the run hands out a policy of every agent."""
        strategy: Strategy = self.component("strategy")
        return strategy.hands_out_own(self.component("learner"))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def to_toml(self) -> str:
        """The configuration as TOML that reads back equal."""
        return tomli_w.dumps(_written(self.model_dump(mode="json")))

    def digest(self) -> str:
        """A short hash of all but the seeds, the name and what is recorded: runs that share it are one experiment.

        Of plugins it holds what they are called, and not where they lie.
        """
        content = self.model_dump(mode="json", exclude={"seed", "seeds", "name", "records"})
        for component_kind in ("critic", "compression"):
            if content[component_kind] == {"kind": DEFAULT_KINDS[component_kind]}:
                # As of runs that were recorded before there were others; so too goals, sampling, privacy and best_by.
                del content[component_kind]
        if self.privacy == PrivacyConfig():
            del content["privacy"]
        if content["environment"]["goals"] is None:
            del content["environment"]["goals"], content["environment"]["held_out_goals"]
        if content["federation"]["sampling"] == "uniform":
            del content["federation"]["sampling"]
        if content["evaluation"]["best_by"] == "mean":
            del content["evaluation"]["best_by"]
        if content["learner"].get("critic_torso") == "shared":
            # As of runs that were recorded when it always was.
            del content["learner"]["critic_torso"]
        if content["strategy"]["kind"] == "fedpg-br":
            # It only says what the aggregator is where none is set, and that is in here.
            del content["strategy"]["filter"]
        # How long it compiles, and what is measured beside the evaluation, makes no other experiment.
        del content["runtime"]["compiling"], content["evaluation"]["aggregation"]
        content["plugins"] = [short_name(plugin) for plugin in self.plugins]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@takes(source=a_source(), overrides=OVERRIDES, plugins=PLUGINS)
def resolve(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    plugins: Iterable[str] = (),
) -> Config:
    """The configuration that a preset, file or table describes under these ``key=value`` overrides.

    The plugins of all layers are loaded, and stand in the configuration with the place where they were found: a
    relative path in a file is relative to that file, any other to the current folder.

    Args:
        source: a preset's name, a TOML file's path, or a table.
        overrides: layers above it, each a ``key=value``, or a table of values by key.
        plugins: more of them, which take the place of those of the same name.

    Raises:
        FedraxError: one line that names the key, the value, what is allowed and the nearest valid name.
    """
    here = Path.cwd()
    if isinstance(source, (str, Path)):
        base = located_in(in_tables(read_source(source)), Path(source).absolute().parent)
    else:
        base = located_in(in_tables(source or {}), here)
    changes = [located_in(parse_override(text), here) for text in overrides]
    for layer in (base, *changes):
        refuse_former_keys(layer)
    plain = merge_settings({k: v for k, v in layer.items() if k not in COMPONENT_KINDS} for layer in [base, *changes])
    plain["plugins"] = relocated(plain["plugins"], [located(plugin, here) for plugin in plugins])
    load_plugins(plain["plugins"])
    layers = [base, merge(changes)]
    for layer in layers:
        for component_kind, table in layer.items():
            if component_kind in COMPONENT_KINDS and not isinstance(table, Mapping):
                raise FedraxError(
                    f"{component_kind} = {shown(table)} is not allowed: give {component_kind}.kind and its options"
                )

    said = layers[1].get("evaluation", {})
    if isinstance(said, Mapping) and "per_agent" in said:
        raise renamed(said["per_agent"])

    strategy = _choose("strategy", layers, {}, 0)
    _built("strategy", strategy, _keys({"strategy": strategy["kind"]}))
    implies = strategies[strategy["kind"]].implies
    # Whoever says `mode` means what it stands for, whatever an earlier layer said of that.
    rank = max((i for i, layer in enumerate(layers) if "mode" in layer.get("strategy", {})), default=0)
    implied = implies(_choose("strategy", layers, implies(strategy).get("strategy", {}), rank))
    chosen = {
        component_kind: _choose(component_kind, layers, implied.get(component_kind, {}), rank)
        for component_kind in COMPONENT_KINDS
    }
    keys = _keys({component_kind: table["kind"] for component_kind, table in chosen.items()})
    built = _built("strategy", chosen["strategy"], keys)
    personal = built.hands_out_own(COMPONENT_KINDS["learner"][chosen["learner"]["kind"]])
    plain["evaluation"] = resolved_evaluation(plain, personal=personal)
    completed = {component_kind: _complete(component_kind, table, keys) for component_kind, table in chosen.items()}
    config = _validate({**plain, **completed}, keys)
    if config.budget == BudgetConfig():
        raise FedraxError("no budget: set budget.rounds, budget.trajectories, budget.steps or budget.steps_per_agent")
    config = _with_loggers(config)
    said = resolved_privacy(config.privacy, config.federation, config.budget.rounds)
    return config.model_copy(update={"privacy": config.privacy.model_copy(update=said)}) if said else config


def _choose(component_kind: str, layers: list[dict[str, Any]], implied: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The chosen component and its options, in the layers' order; ``implied`` goes before layer ``rank``."""
    registry = COMPONENT_KINDS[component_kind]
    kind = implied.get("kind", DEFAULT_KINDS[component_kind])
    for layer in layers:
        kind = layer.get(component_kind, {}).get("kind", kind)
    if not isinstance(kind, str):
        raise FedraxError(
            f"{component_kind}.kind = {shown(kind)} is not allowed: give a name (fedrax describe {component_kind})"
        )
    if kind not in registry:
        raise unknown_component(component_kind, kind, COMPONENT_KINDS, f"fedrax describe {component_kind}")
    component = registry[kind]
    if not issubclass(component, BASES[component_kind]):
        raise FedraxError(
            f"{component_kind} {kind!r} is no {component_kind}: derive {component.__module__}.{component.__qualname__} "
            f"from fedrax's {BASES[component_kind].__name__}"
        )
    common = options_of(BASES[component_kind])
    own = options_of(component)
    settings: dict[str, Any] = {}
    speaking = None
    for index, layer in enumerate(layers):
        if index == rank:
            settings.update({key: value for key, value in implied.items() if key in own})
        table = layer.get(component_kind, {})
        speaking = table.get("kind", speaking)
        for key, value in table.items():
            if key == "kind":
                continue
            if isinstance(value, Mapping):
                if key not in registry:
                    raise _unknown_table(component_kind, kind, key, value)
                if key == kind:
                    settings.update(value)
            elif key in common or speaking in (None, kind):
                settings[key] = value
    return {"kind": kind, **settings}


def _unknown_table(component_kind: str, kind: str, key: str, table: Mapping[str, Any]) -> FedraxError:
    """The error for a table in a component's that is no other component's of the kind, as another library may have."""
    inner = _within(table)
    meant = keys_called(inner.rpartition(".")[2]) or keys_called(key) or other_way(f"{key}.{inner}")
    if meant and not near(key, COMPONENT_KINDS[component_kind]) and not component_called(key, COMPONENT_KINDS):
        options, of = options_of(COMPONENT_KINDS[component_kind][kind]), f" of {component_kind} {kind!r}"
        among = _keys({component_kind: kind})
        see = f"fedrax describe {kind}"
        return unknown_key(f"{component_kind}.{key}", options, see, of=of, among=among, within=inner)
    what, see = f"table {component_kind}.{key}: no {component_kind} is called", f"fedrax describe {component_kind}"
    return unknown_component(component_kind, key, COMPONENT_KINDS, see, what=what)


def _within(value: Any) -> str:
    """The first key in a table, and in the table there: ``net_arch`` of ``{net_arch = [64]}``; else nothing."""
    parts = []
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        parts.append(str(name))
    return ".".join(parts)


def _with_loggers(config: Config) -> Config:
    """The configuration with every option of its loggers written out."""
    made: dict[str, Logger] = built(config.records.loggers)
    tables = {name: {key: getattr(one, key) for key in options_of(type(one))} for name, one in made.items()}
    return config.model_copy(update={"records": config.records.model_copy(update={"loggers": tables})})


def _built(component_kind: str, table: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The component, its options checked; ``keys`` are those of the configuration (:func:`_keys`)."""
    settings = {key: value for key, value in table.items() if key != "kind"}
    return COMPONENT_KINDS[component_kind].build(table["kind"], settings, among=keys)


def _complete(component_kind: str, table: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The component's table with every option written out, checked by building it."""
    component = _built(component_kind, table, keys)
    return {"kind": table["kind"], **{name: getattr(component, name) for name in options_of(type(component))}}


def _validate(tables: Mapping[str, Any], keys: Iterable[str]) -> Config:
    try:
        return Config.model_validate(tables)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        # A key that cannot be encoded has no place of its own.
        unreadable = first["type"] == "string_unicode" and hasattr(_model(first["loc"]), "model_fields")
        if first["type"] == "extra_forbidden" or unreadable:
            *outer, name = map(str, [*first["loc"], first["input"]] if unreadable else first["loc"])
            table = ".".join(outer)
            see = f"fedrax describe {table}" if table else "fedrax list"
            key, within = ".".join([*outer, name]), _within(first["input"])
            fields = _model(outer).model_fields
            if not outer and (said := _of_a_component(name, within, tables)):
                raise FedraxError(f"unknown key {key}.{within}: {said}") from None
            said = "" if outer or near(name, fields) else chosen_elsewhere(name, first["input"], COMPONENT_KINDS)
            if said:
                raise FedraxError(f"unknown key {key}: {said}") from None
            raise unknown_key(key, fields, see, among=keys, within=within) from None
        key = _key_of(first["loc"])
        same = [each for each in error.errors() if _key_of(each["loc"]) == key]
        raise FedraxError(f"{key} = {shown_setting(first['input'])} is not allowed: {in_words(*same)}") from None


def _of_a_component(name: str, option: str, tables: Mapping[str, Any]) -> str:
    """What is said of ``ppo.clip``, an option under the name of its component; empty of any other name."""
    kind = next((kind for kind, registry in COMPONENT_KINDS.items() if option and name in registry), "")
    if not kind or name == "none":
        return ""
    options = list(options_of(COMPONENT_KINDS[kind][name]))
    meant = [
        each for each in keys_called(option, [f"{kind}.{each}" for each in options]) if each.startswith(f"{kind}.")
    ]
    meant = [each for each in meant if each.partition(".")[2] in options]
    meant = meant[:1] or [f"{kind}.{each}" for each in near(option, options)[:1]]
    also = "" if tables[kind]["kind"] == name else f"{kind}={name} and "
    guess = f" (did you mean {also}{meant[0]}?)" if meant else ""
    return f"options of {kind} {name} are given as {kind}.KEY{guess}; all: fedrax describe {name}"


def _model(tables: Iterable[str | int]) -> type[Model]:
    """The table at the end of these within one another, or what a setting is there."""
    model: Any = Config
    for name in tables:
        model = model.model_fields[name].annotation if hasattr(model, "model_fields") else model
    return typing.cast(type[Model], model)


def _key_of(location: Iterable[str | int]) -> str:
    """The key at a place of Pydantic's, which also names the type that was tried."""
    model: Any = Config
    parts: list[str] = []
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = fields[part].annotation
        elif isinstance(part, str):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _keys(kinds: Mapping[str, str]) -> list[str]:
    """Every key of the options of these components, by kind, without plain settings, which every configuration has."""
    return [
        f"{component_kind}.{key}"
        for component_kind, kind in kinds.items()
        for key in options_of(COMPONENT_KINDS[component_kind][kind])
    ]


def _written(value: Any) -> Any:
    """``value`` with None as ``"none"``, since TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    return "none" if value is None else value
