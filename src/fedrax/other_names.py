"""Keys that somebody means who writes a name of another library's, or leaves out or mistakes the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedrax.errors import SOME, FedraxError, near, suggestions

OTHER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # CleanRL, Stable-Baselines3 and papers.
        "lr": ("learner.learning_rate",),
        "stepsize": ("learner.learning_rate",),
        "policylr": ("learner.learning_rate",),
        "qlr": ("learner.learning_rate",),
        "anneallr": ("learner.anneal_learning_rate",),
        "gamma": ("learner.discount",),
        "discountfactor": ("learner.discount",),
        "alpha": ("learner.temperature",),
        "autotune": ("learner.learn_temperature",),
        "entcoef": ("learner.entropy_coefficient",),
        "entropycoef": ("learner.entropy_coefficient",),
        "vfcoef": ("learner.value_coefficient",),
        "valuecoef": ("learner.value_coefficient",),
        "klcoef": ("learner.kl_coefficient",),
        "clipcoef": ("learner.clip_coefficient",),
        "cliprange": ("learner.clip_coefficient",),
        "clipvloss": ("learner.clip_value_loss",),
        "cliprangevf": ("learner.clip_value_loss",),
        "lambda": ("learner.gae_lambda",),
        "lam": ("learner.gae_lambda",),
        "maxgradnorm": ("learner.max_gradient_norm",),
        "gradclip": ("learner.max_gradient_norm",),
        "normadv": ("learner.normalise_advantages",),
        "normalizeadvantage": ("learner.normalise_advantages",),
        "normalizeadvantages": ("learner.normalise_advantages",),
        "nsteps": ("learner.num_steps",),
        "rolloutlength": ("learner.num_steps",),
        "nepochs": ("learner.update_epochs",),
        "nminibatches": ("learner.num_minibatches",),
        "minibatches": ("learner.num_minibatches",),
        "replaysize": ("learner.buffer_size",),
        "memorysize": ("learner.buffer_size",),
        "batch": ("learner.batch_size", "strategy.batch"),
        "batchsize": ("learner.batch_size", "strategy.batch"),
        "minibatchsize": ("learner.num_minibatches", "strategy.minibatch"),
        "polyak": ("learner.tau",),
        "startsteps": ("learner.learning_starts",),
        "policynoise": ("learner.target_noise",),
        "targetpolicynoise": ("learner.target_noise",),
        "noiseclip": ("learner.target_noise_clip",),
        "actionnoise": ("learner.exploration_noise",),
        "policyfrequency": ("learner.policy_delay",),
        "policyfreq": ("learner.policy_delay",),
        "gradientsteps": ("learner.updates_per_step",),
        "hiddensizes": ("learner.hidden",),
        "hiddensize": ("learner.hidden",),
        "hiddenlayers": ("learner.hidden",),
        "netarch": ("learner.hidden",),
        "activationfn": ("learner.activation",),
        "optim": ("learner.optimizer",),
        "optimiser": ("learner.optimizer",),
        "env": ("environment.id",),
        "envid": ("environment.id",),
        "envname": ("environment.id",),
        "gymid": ("environment.id",),
        "envkwargs": ("environment.kwargs",),
        "nenvs": ("environment.num_envs",),
        "numenv": ("environment.num_envs",),
        "numenvironments": ("environment.num_envs",),
        "maxepisodesteps": ("environment.horizon",),
        "episodelength": ("environment.horizon",),
        "totaltimesteps": ("budget.steps", "budget.steps_per_agent"),
        "timesteps": ("budget.steps", "budget.steps_per_agent"),
        "totalsteps": ("budget.steps", "budget.steps_per_agent"),
        "episodes": ("budget.trajectories", "evaluation.episodes"),
        "evalepisodes": ("evaluation.episodes",),
        "nevalepisodes": ("evaluation.episodes",),
        "evalfreq": ("evaluation.every",),
        "evalinterval": ("evaluation.every",),
        "evalevery": ("evaluation.every",),
        "savefreq": ("checkpoint.every",),
        "saveinterval": ("checkpoint.every",),
        "randomseed": ("seed",),
        "nseeds": ("seeds",),
        "numseeds": ("seeds",),
        "expname": ("name",),
        "runname": ("name",),
        "capturevideo": ("video.every",),
        "track": ("records.loggers",),
        # Flower and papers on federated learning.
        "clients": ("federation.agents",),
        "nclients": ("federation.agents",),
        "numclients": ("federation.agents",),
        "nagents": ("federation.agents",),
        "numagents": ("federation.agents",),
        "workers": ("federation.agents",),
        "numworkers": ("federation.agents",),
        "numnodes": ("federation.agents",),
        "fractionfit": ("federation.participation",),
        "fraction": ("federation.participation",),
        "clientfraction": ("federation.participation",),
        "localepochs": ("federation.local_updates",),
        "nrounds": ("budget.rounds",),
        "numrounds": ("budget.rounds",),
        "numserverrounds": ("budget.rounds",),
        "commrounds": ("budget.rounds",),
        "serverlr": ("strategy.server_learning_rate",),
        "mu": ("strategy.proximal",),
        "proximalmu": ("strategy.proximal",),
        "byzantine": ("attack.agents",),
        "numbyzantine": ("attack.agents",),
        "nummalicious": ("attack.agents",),
        "noisemultiplier": ("privacy.noise",),
        "clippingnorm": ("privacy.clip",),
    }
)
"""Our keys by others' names for them, in lower case and without what joins words."""


def plain(name: str) -> str:
    """In lower case, without what joins words: ``learningrate`` of ``Learning-Rate``."""
    return "".join(character for character in name.lower() if character.isalnum())


def keys_called(name: str, known: Iterable[str] = ()) -> list[str]:
    """The keys of a configuration that ``name``, without its table, may mean: called so here, or elsewhere.

    Args:
        name: ``learning_rate``, ``lr``, ``Learning-Rate``.
        known: further keys, such as those that plugins bring.
    """
    from fedrax import names
    from fedrax.sources import DEFAULT_KINDS

    own = [*known, *names.plain_keys()]
    own += [f"{kind}.{option}" for kind in DEFAULT_KINDS for option in names.options(kind)]
    called = [key for key in own if plain(key.rpartition(".")[2]) == plain(name)]
    return list(dict.fromkeys([*called, *OTHER_NAMES.get(plain(name), ())]))


def unknown_key(
    key: str, allowed: Iterable[str], see: str = "", *, of: str = "", known: Iterable[str] = ()
) -> FedraxError:
    """The error for a key that its table does not have, with the one that is meant, as far as that can be told.

    Args:
        key: dotted.
        allowed: the keys of its table, without the table.
        see: a command that lists them.
        of: whose table it is, such as `` of learner 'ppo'``.
        known: as of :func:`keys_called`.
    """
    table, _, name = key.rpartition(".")
    allowed, meant = list(allowed), keys_called(name, known)
    start, more = f"unknown key {key}{of}", f"; all: {see}" if see else ""
    here = [each.rpartition(".")[2] for each in meant if each.rpartition(".")[0] == table]
    here = [each for each in here if each in allowed]
    if here:
        return FedraxError(f"{start} (did you mean {' or '.join(map(repr, here))}?){more}")
    elsewhere = [each for each in meant if each.rpartition(".")[0] != table]
    if elsewhere and not near(name, allowed):
        return FedraxError(f"{start} (did you mean {' or '.join(elsewhere[:SOME])}?)")
    others = f"; who has one: fedrax describe {key}" if of and key in meant else ""
    return FedraxError(f"{start}{suggestions(name, allowed, see)}{others}")
