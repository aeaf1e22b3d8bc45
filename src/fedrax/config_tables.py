"""The plain tables of a configuration: frozen, strict about unknown keys, every setting with its meaning."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from fedrax.evaluation.measure import Environments
from fedrax.loggers.base import DEFAULT, by_name
from fedrax.registry import LARGEST, MOST_EPISODES, of_its_kind

TD3_HER = "td3-her"
"""The layout of records that is the TD3+HER reference's."""


def _is_plain(value: Any) -> bool:
    """Whether a value is one of TOML's, and equal to itself."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or (isinstance(value, (str, bool, int, float)) and value == value)


class Model(pydantic.BaseModel):
    """Frozen, and strict about unknown keys."""

    # Infinities stay what they are: as JSON's null they would be read back as unset.
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="constants")

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        assert info.field_name is not None
        return of_its_kind(value, cls.model_fields[info.field_name].annotation)

    @pydantic.field_validator("*")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(f"it must be at most {LARGEST}")
        return value

    @pydantic.model_validator(mode="before")
    @classmethod
    def _unset(cls, table: Any) -> Any:
        """Reads ``"none"`` as unset, since TOML has no null; in place of a table it is the empty one."""
        if not isinstance(table, Mapping):
            return table
        unset: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if type(None) in typing.get_args(field.annotation):
                unset[name] = None
            elif typing.get_origin(field.annotation) is dict:
                unset[name] = {}
        return {key: unset[key] if value == "none" and key in unset else value for key, value in table.items()}


class EnvironmentConfig(Model):
    """Where agents act."""

    id: str = pydantic.Field(
        "CartPole-v1",
        description="Gymnasium id, or one of Fedrax's own; native when it is in JAX; MODULE:ID imports a module first; "
        "environment.task=NAME is short for a task of Meta-World",
    )
    kwargs: dict[str, Any] = pydantic.Field(
        default_factory=dict,
        description="arguments of a host environment's constructor, by name; 'none' is Python's None",
    )
    horizon: int | None = pydantic.Field(
        None,
        gt=0,
        description="steps after which a training episode is cut; unset, the environment's own limit, if it has one",
    )
    native: bool = pydantic.Field(True, description="use the JAX version where there is one")
    backend: typing.Literal["auto", "envpool", "gymnasium"] = pydantic.Field(
        "auto",
        description="who steps a host environment; auto: EnvPool when it is installed and knows the id",
    )
    mission: bool = pydantic.Field(
        False, description="MiniGrid: the words of the mission are part of the observation, for tasks that need them"
    )
    num_envs: int = pydantic.Field(
        8,
        gt=0,
        description="environments per agent, stepped together (whole episodes on native ones: one each)",
    )
    tasks: list[str] = pydantic.Field(
        default_factory=list,
        description="environments that the agents take in turn in place of id, which is the server's: shorter "
        "observations are padded, and masked; MT10 is short for Meta-World's ten",
    )
    task_identity: bool = pydantic.Field(False, description="which task it is, is a part of the observation")
    goals: int | None = pydantic.Field(
        None,
        gt=0,
        description="initial states, such as goals, that an agent's training episodes start at, drawn for it alone; "
        "unset, each starts at another",
    )
    held_out_goals: int = pydantic.Field(
        0,
        ge=0,
        description="further ones of each agent that evaluations start at, and nobody trains on; 0: those of goals",
    )
    terminate_on_success: bool = pydantic.Field(
        False, description="a training episode ends in the step in which its goal is reached; evaluations go on"
    )
    threads: int | None = pydantic.Field(
        None, gt=0, le=1024, description="threads of a host environment; unset, all cores"
    )
    heterogeneity: dict[str, Any] = pydantic.Field(
        default_factory=dict,
        description="per-agent physical parameters, constructor arguments and noise: name = number, list, or "
        "{distribution, ...}; or distribution = NAME, a joint one, and its options",
    )
    draws: int = pydantic.Field(
        1,
        gt=0,
        description="draws from heterogeneity, and of goals, which the seeds of a run take in turn; 1: all seeds of a "
        "run act in the same environments, which its first seed decides",
    )

    @pydantic.field_validator("kwargs")
    @classmethod
    def _can_be_written(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name, value in kwargs.items():
            if not _is_plain(value):
                raise ValueError(
                    f"{name} cannot be recorded; give finite numbers, texts, booleans, lists or tables (a text that "
                    "reads as something else is quoted: '\"nan\"')"
                )
        return kwargs

    @pydantic.field_validator("draws")
    @classmethod
    def _something_to_draw(cls, draws: int, info: pydantic.ValidationInfo) -> int:
        if draws > 1 and not info.data.get("heterogeneity") and info.data.get("goals") is None:
            raise ValueError("there is nothing to draw: set environment.heterogeneity, or environment.draws=1")
        return draws

    @pydantic.field_validator("held_out_goals")
    @classmethod
    def _held_out_of_some(cls, held_out: int, info: pydantic.ValidationInfo) -> int:
        if held_out and info.data.get("goals") is None:
            raise ValueError("it needs environment.goals, how many goals each agent trains on; or set it to 0")
        return held_out


class FederationConfig(Model):
    """Who takes part."""

    agents: int = pydantic.Field(10, gt=0, le=1_000_000, description="number of agents K")
    participation: float = pydantic.Field(
        1.0, gt=0, le=1, description="fraction of the agents, drawn anew, that take part in a round"
    )
    sampling: typing.Literal["uniform", "poisson"] = pydantic.Field(
        "uniform",
        description="uniform: exactly that fraction of the agents takes part; poisson: each agent does with that "
        "probability, whoever else does, so that their number varies and may be 0",
    )
    dropout: float = pydantic.Field(
        0.0, ge=0, lt=1, description="chance that a participating agent does its work but never answers"
    )
    local_updates: int = pydantic.Field(1, gt=0, description="collections and updates of an agent within a round")
    max_lost_rounds: int | None = pydantic.Field(
        10,
        gt=0,
        description="rounds in a row in which nobody's message is usable, because numbers were not finite, after which "
        "the run stops, at the next checkpoint, and of several seeds once all are so; none: never",
    )


class BudgetConfig(Model):
    """When training ends: at the first limit reached."""

    rounds: int | None = pydantic.Field(None, gt=0, description="communication rounds")
    trajectories: int | None = pydantic.Field(
        None,
        gt=0,
        description="trajectories per agent, as the reference counts them (README, 'What is counted')",
    )
    steps: int | None = pydantic.Field(
        None, gt=0, le=2_000_000_000, description="environment steps of all agents and the server together"
    )
    steps_per_agent: int | None = pydantic.Field(
        None, gt=0, le=2_000_000_000, description="environment steps of each agent"
    )


class EvaluationConfig(Model):
    """Evaluation of what the federation hands out, always on the same initial states."""

    every: int = pydantic.Field(1, gt=0, description="rounds between evaluations")
    episodes: int = pydantic.Field(
        10,
        gt=0,
        le=MOST_EPISODES,
        description="episodes of each policy, spread over the environments it is in (at least one in each)",
    )
    horizon: int | None = pydantic.Field(None, gt=0, description="steps of an episode at most; unset, as in training")
    seed: int = pydantic.Field(90210, ge=0, description="seed of the initial states, the same for every run compared")
    greedy: bool = pydantic.Field(True, description="take the most probable action; false: sample, as in training")
    environments: Environments | None = pydantic.Field(
        None,
        description="all: every policy in every agent's environment; own: each agent's policy in that agent's; "
        "registered: in the registered one; unset, all where environment.heterogeneity is set, else registered",
    )
    aggregation: bool = pydantic.Field(
        False,
        description="test every agent's networks in its own environment twice more: as they left its learning, and as "
        "the next broadcast makes them (return_before, return_after, and so on)",
    )
    best_by: typing.Literal["mean", "median"] = pydantic.Field(
        "mean",
        description="which return makes a policy the best so far: the mean over agents, or the median of theirs, which "
        "fewer than half of them cannot move at will; the mean where agents are not evaluated one by one",
    )


class CheckpointConfig(Model):
    """How much a crash may cost."""

    every: int = pydantic.Field(
        10,
        gt=0,
        description="rounds between checkpoints; a native environment compiles so many into one call",
    )
    keep_policies: bool = pydantic.Field(
        False, description="keep the policy of every checkpoint, in policies/round-N.safetensors"
    )


class VideoConfig(Model):
    """Videos of the policy while it learns."""

    every: int | None = pydantic.Field(
        None, gt=0, description="rounds between videos, each made at the next checkpoint; unset, none"
    )
    agent: int = pydantic.Field(0, ge=0, description="whose environment, and policy where agents keep their own")


class RecordsConfig(Model):
    """What a run writes beside its own records."""

    csv_layout: typing.Literal["fedrax", "td3-her"] = pydantic.Field(
        "fedrax",
        description="td3-her: also the CSV files of the TD3+HER reference, agent by agent, in the folder td3-her; "
        "fedrax: metrics.csv alone",
    )
    loggers: dict[str, dict[str, Any]] = pydantic.Field(
        {name: dict(options) for name, options in DEFAULT.items()},
        description="where rows go while the run trains: names (tensorboard, wandb, mlflow, a plugin's), or a table of "
        "options by name, records.loggers.wandb.project=mine; none: nowhere",
    )

    @pydantic.field_validator("loggers", mode="before")
    @classmethod
    def _names_stand_for_defaults(cls, loggers: Any) -> Any:
        return by_name(loggers)

    @pydantic.field_serializer("loggers")
    def _none_is_written(self, loggers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]] | list[str]:
        # As an empty table it would be no key of the configuration.
        return loggers or []


class PrivacyConfig(Model):
    """What agents' updates may reveal: clipping, noise and a sum that hides its terms (docs/privacy.md)."""

    unit: typing.Literal["agent", "trajectory"] | None = pydantic.Field(
        None,
        description="whose influence is bounded and counted: all that an agent ever sends, or one of its episodes "
        "(learners that send a gradient of whole episodes); unset, nobody's",
    )
    model: typing.Literal["central", "local", "distributed"] = pydantic.Field(
        "central",
        description="who adds the noise: the server, which is trusted, to the sum; each agent, to its own update; or "
        "agents together, each a share, under privacy.secure_sum",
    )
    clip: float | None = pydantic.Field(
        None,
        ge=1e-15,
        le=1e15,
        description="longest update of an agent, or gradient of an episode (Euclidean norm); unset, any",
    )
    clip_by: typing.Literal["flat", "layer"] = pydantic.Field(
        "flat", description="what is clipped: the update as one vector, or each array by itself to its share"
    )
    clip_quantile: float | None = pydantic.Field(
        None,
        gt=0,
        lt=1,
        description="share of the agents whose updates shall not be shortened: from privacy.clip on, the clip moves "
        "there round by round (Andrew et al., 2021); unset, it stays",
    )
    clip_rate: float = pydantic.Field(
        0.2, gt=0, le=10, description="how fast it moves: the step of its logarithm, times how far the share is off"
    )
    clip_noise: float | None = pydantic.Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="standard deviation of the noise on how many updates were not shortened, a part of privacy.noise; "
        "unset, a twentieth of the participants, at least privacy.noise",
    )
    noise: float | None = pydantic.Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="standard deviation of the noise on the sum, in units of the clip (local: on each update); unset, "
        "what privacy.epsilon allows, or none",
    )
    epsilon: float | None = pydantic.Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="what the whole training may cost; with privacy.noise, rounds end before they exceed it",
    )
    delta: float | None = pydantic.Field(
        None, gt=0, lt=1, description="chance that epsilon does not hold; unset, 1e-5 or, with many agents, n^-1.1"
    )
    neighbours: typing.Literal["add-or-remove", "replace"] | None = pydantic.Field(
        None,
        description="in what two federations that must look alike differ: one unit more, or another in its place "
        "(which needs twice the noise); unset, replace for episodes and local noise, else add-or-remove",
    )
    secure_sum: bool = pydantic.Field(
        False, description="the server learns the sum of the updates and no update (Bonawitz et al., 2017)"
    )
    bits: int | None = pydantic.Field(
        None,
        ge=8,
        le=30,
        description="of a number in a secure sum; unset, the most up to 20 of which the sum over the agents fits 32",
    )
    threshold: float | None = pydantic.Field(
        None,
        gt=0.5,
        le=1,
        description="share of a round's participants without whom a secure sum cannot be opened; unset, two thirds",
    )
    honest: float | None = pydantic.Field(
        None,
        gt=0,
        le=1,
        description="share of a round's participants whose noise must suffice where noise is distributed; unset, "
        "privacy.threshold",
    )


class FlowerConfig(Model):
    """How a federation of processes waits, checks and saves."""

    quorum: float = pydantic.Field(
        0.5, gt=0, le=1, description="share of a round's participants without whose answers it does not end"
    )
    deadline: float = pydantic.Field(
        600.0, gt=0, description="seconds after which a round ends without those who have not answered"
    )
    gather: float = pydantic.Field(
        120.0, ge=0, description="seconds that the first round waits for all agents before a quorum suffices"
    )
    max_norm: Annotated[float, pydantic.Field(gt=0)] | typing.Literal["adaptive"] | None = pydantic.Field(
        "adaptive",
        description="updates longer than this (Euclidean norm) are excluded; adaptive: those 30 times as long as what "
        "is usual in this round and recent ones (off where an attack is simulated); none: any finite one is used",
    )
    max_failures: int | None = pydantic.Field(
        2,
        gt=0,
        description="a node that was lost, late or excluded in so many of the last 5 rounds in which it was asked is "
        "not asked for 4 rounds, then 16, then 64, while others suffice for the quorum; none: it is always asked",
    )
    save_every: int = pydantic.Field(
        1,
        gt=0,
        description="rounds between saves of an agent on its node; more where replays are large",
    )
    staleness: int = pydantic.Field(
        0,
        ge=0,
        description="rounds overlap, and an answer may be of a model so many rounds old; 0: they do not",
    )
    fast: bool = pydantic.Field(
        False, description="nodes and server look for messages more often, by means internal to Flower"
    )


class RuntimeConfig(Model):
    """Where and how it runs."""

    kind: typing.Literal["simulation", "flower"] = pydantic.Field(
        "simulation", description="all agents in this process, or each in its own, as nodes of a Flower federation"
    )
    agents_per_batch: int | None = pydantic.Field(
        None, gt=0, description="agents computed side by side (the rest follow); unset, chosen from the sizes"
    )
    compiling: typing.Literal["full", "quick"] = pydantic.Field(
        "full",
        description="quick: on processors, programs compile in half of the time and run up to a tenth slower, for runs "
        "of a minute",
    )
    shared_seeds: bool = pydantic.Field(
        False,
        description="flower: nodes draw from the run's seed, as the simulation does, so that whoever knows the "
        "configuration can recompute their trajectories; false: each from a secret of its own",
    )
    flower: FlowerConfig = pydantic.Field(
        default_factory=FlowerConfig, description="how a federation of processes waits, checks and saves"
    )
