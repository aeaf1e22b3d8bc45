"""Keys that somebody means who writes a name of another library's, or leaves out or mistakes the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedrax.errors import SOME, FedraxError, near, shown, suggestions, unknown

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
        "batchsize": ("learner.batch_size", "learner.num_minibatches", "strategy.batch"),
        "minibatchsize": ("learner.batch_size", "learner.num_minibatches", "strategy.minibatch"),
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
        "netarch": ("learner.hidden", "learner.actor_layers"),
        "policykwargs": ("learner.hidden", "learner.actor_layers", "learner.activation"),
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
        "fractionevaluate": ("evaluation.every", "evaluation.episodes"),
        "minfitclients": ("runtime.flower.quorum", "federation.participation"),
        "mintrainnodes": ("runtime.flower.quorum", "federation.participation"),
        "fractiontrain": ("federation.participation",),
        "minavailableclients": ("runtime.flower.gather", "federation.agents"),
        "minavailablenodes": ("runtime.flower.gather", "federation.agents"),
        "minevaluateclients": ("evaluation.every", "evaluation.episodes"),
        "minevaluatenodes": ("evaluation.every", "evaluation.episodes"),
        "roundtimeout": ("runtime.flower.deadline",),
        "numsupernodes": ("federation.agents",),
        "initialparameters": ("learner.initial",),
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

SERVER_OPTIMISERS = frozenset({"fedadam", "fedyogi", "fedadagrad", "fedavgm", "fedopt"})
"""Others' strategies that average networks and step by an optimiser at the server, which none does here."""
SERVER_STEP = (
    "no server here steps averaged networks by Adam or momentum; strategy=fedavg has the step's length, "
    "strategy.server_learning_rate, and fedpg-br, gpomdp and svrpg step gradients by learner.optimizer"
)
OTHER_COMPONENTS: Mapping[str, str] = MappingProxyType(
    {
        # Flower.
        "fedtrimmedavg": "aggregator=trimmed-mean",
        "fedmedian": "aggregator=median",
        "faulttolerantfedavg": "strategy=fedavg",
        # Papers on federated learning, and libraries of reinforcement learning.
        "average": "aggregator=mean",
        "rfa": "aggregator=geometric-median",
        "cclip": "aggregator=centered-clipping",
        "signflip": "attack=sign-flipping",
        "littleisenough": "attack=alie",
        "ipm": "attack=inner-product",
        "reinforce": "learner=policy-gradient",
        "vpg": "learner=policy-gradient",
    }
)
"""What others' names for components are here, as :func:`plain` writes them."""


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

    own = [*known, *names.plain_keys(), *DEFAULT_KINDS, "environment", "runtime"]
    own += [f"{kind}.{option}" for kind in DEFAULT_KINDS for option in names.options(kind)]
    called = [key for key in own if plain(key.rpartition(".")[2]) == plain(name)]
    return list(dict.fromkeys([*called, *OTHER_NAMES.get(plain(name), ())]))


def unknown_component(
    component_kind: str, name: str, registered: Mapping[str, Iterable[str]], see: str = "", *, what: str = ""
) -> FedraxError:
    """The error for a name that no component of a kind has, with the kinds that have one of that name.

    Args:
        component_kind: ``strategy``.
        name: ``krum``, ``FedAvg``, ``FedMedian``.
        registered: the names of each kind.
        see: a command that lists those of the kind.
        what: what is unknown, unless that is the kind.
    """
    what, more = what or component_kind, f"; all: {see}" if see else ""
    kind, _, other = OTHER_COMPONENTS.get(plain(name), "").partition("=")
    same = [each for each in registered[component_kind] if plain(each) == plain(name)]
    if same := same or ([other] if kind == component_kind else []):
        return FedraxError(f"unknown {what} {shown(name)} (did you mean {same[0]!r}?){more}")
    if said := component_called(name, registered):
        return FedraxError(f"unknown {what} {shown(name)}: {said}")
    return unknown(what, name, registered[component_kind], see)


def component_called(name: str, registered: Mapping[str, Iterable[str]]) -> str:
    """What somebody sets who wants the component of this name, here or elsewhere; empty where nobody can tell.

    Args:
        name: as of :func:`unknown_component`, as is ``registered``.
    """
    if plain(name) in SERVER_OPTIMISERS:
        return SERVER_STEP
    here = [(kind, each) for kind, names in registered.items() for each in names if plain(each) == plain(name)]
    if plain(name) in OTHER_COMPONENTS:
        kind, _, each = OTHER_COMPONENTS[plain(name)].partition("=")
        here = here or [(kind, each)]
    # "none" is a component of several kinds, and no answer to another's.
    if not here or plain(name) == "none":
        return ""
    kinds = " and ".join(f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind, _ in here)
    return f"it is {kinds} here; set {' or '.join(f'{kind}={each}' for kind, each in here)}"


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
