"""Keys that somebody means who writes a name of another library's, or leaves out or mistakes the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedrax.errors import SOME, FedraxError, near, nearest, shown, suggestions, unknown
from fedrax.kinds import DEFAULT_KINDS

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
        "batch": ("learner.batch_size", "strategy.batch", "strategy.batch_min", "strategy.batch_max"),
        "batchsize": (
            "learner.batch_size",
            "learner.num_minibatches",
            "strategy.batch",
            "strategy.batch_min",
            "strategy.batch_max",
        ),
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
        "trainfreq": ("learner.num_steps",),
        "trainfrequency": ("learner.num_steps",),
        "hiddensizes": ("learner.hidden",),
        "hiddensize": ("learner.hidden",),
        "hiddenlayers": ("learner.hidden",),
        "netarch": ("learner.hidden", "learner.actor_layers"),
        "policykwargs": ("learner.hidden", "learner.actor_layers", "learner.activation"),
        "activationfn": ("learner.activation",),
        **dict.fromkeys(("algo", "algorithm", "algorithmname", "agentclass", "agenttype"), ("learner", "strategy")),
        **dict.fromkeys(("model", "modelclass", "rlalgorithm", "rlalgo"), ("learner",)),
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

DEVICE = (
    "no setting has the device: JAX takes a GPU where its build for CUDA is installed, else the CPU; to force one, set "
    "the environment variable JAX_PLATFORMS to cpu or cuda"
)
"""How a device is chosen."""
_PROGRESS = "progress is shown by itself; to hide it, give a command --quiet, or a function of Python progress=False"
_FOLDER = "everything of a run is written to its folder: give --out DIR, or out=DIR in Python"
_TENSORBOARD = (
    "TensorBoard's files are written to the run's folder by themselves; records.loggers says what logs, and --out DIR, "
    "or out=DIR in Python, which folder it is"
)
_WANDB = "Weights & Biases is a logger: set records.loggers.wandb.project (fedrax describe wandb)"
_MLFLOW = "MLflow is a logger: set records.loggers.mlflow.experiment (fedrax describe mlflow)"
_POLICY = (
    "the policy's network fits the environment by itself; its layers are learner.hidden, or learner.actor_layers of "
    "sac and td3"
)
_PRIVACY = "differential privacy is the table privacy: privacy.noise, privacy.clip and others (fedrax describe privacy)"
_VIDEO = "videos are recorded every so many rounds: video.every=100 for one every 100 (fedrax describe video)"
_DETERMINISTIC = "a run is the same again with the same seed on the same kind of device; set seed"
OTHER_WAYS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("device", "cuda", "usecuda", "nocuda", "gpu", "gpus", "gpuid", "usegpu", "numgpus"), DEVICE),
        **dict.fromkeys(("accelerator", "platform", "numgpusperworker", "clientresources"), DEVICE),
        **dict.fromkeys(("verbose", "verbosity", "quiet", "progress", "progressbar", "loglevel"), _PROGRESS),
        **dict.fromkeys(("loginterval", "logfreq"), "every round is recorded, and logged by records.loggers"),
        **dict.fromkeys(("out", "outdir", "outputdir", "logdir", "savedir", "savepath", "logpath"), _FOLDER),
        **dict.fromkeys(("tensorboard", "tensorboardlog", "tblogname"), _TENSORBOARD),
        **dict.fromkeys(("capturevideo", "recordvideo", "savevideo"), _VIDEO),
        "track": f"every run is recorded in its folder; {_WANDB}",
        **dict.fromkeys(("wandb", "usewandb", "wandbproject", "wandbprojectname", "wandbentity", "wandbmode"), _WANDB),
        **dict.fromkeys(("mlflow", "usemlflow", "mlflowexperiment", "mlflowuri"), _MLFLOW),
        **dict.fromkeys(("policy", "policyclass", "policytype", "policynetwork"), _POLICY),
        **dict.fromkeys(("dp", "usedp", "differentialprivacy"), _PRIVACY),
        **dict.fromkeys(("deterministic", "torchdeterministic", "cudnndeterministic"), _DETERMINISTIC),
    }
)
"""How that is done here which is a setting elsewhere and none here, by others' names for it, as :func:`plain` writes
them."""

SERVER_OPTIMISERS = frozenset({"fedadam", "fedyogi", "fedadagrad", "fedavgm", "fedopt"})
"""Others' strategies that average networks and step by an optimiser at the server, which none does here."""
SERVER_STEP = (
    "no server here steps averaged networks by Adam or momentum; strategy=fedavg has the step's length, "
    "strategy.server_learning_rate, and fedpg-br, gpomdp and svrpg step gradients by learner.optimizer"
)
_VALUES = "no learner here learns action values alone; of discrete actions, set learner=sac-discrete or learner=ppo"
OTHER_LEARNERS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("dqn", "doubledqn", "ddqn", "duelingdqn", "qrdqn", "c51", "rainbow", "qlearning"), _VALUES),
        **dict.fromkeys(("a2c", "a3c", "trpo"), "there is none here; of the same family, set learner=ppo"),
        "ddpg": "there is none here; set learner=td3, which improved on it",
    }
)
"""What comes closest to other libraries' learners that none here is, as :func:`plain` writes them."""
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


def registered_names() -> dict[str, list[str]]:
    """The names of the package's own components by kind, without importing them."""
    from fedrax import names

    components = names.components()
    return {kind: list(components[names.plural(kind)]) for kind in DEFAULT_KINDS}


def component_called(name: str, registered: Mapping[str, Iterable[str]], subject: str = "it") -> str:
    """What somebody sets who wants the component of this name, here or elsewhere; empty where nobody can tell.

    Args:
        name: as of :func:`unknown_component`, as is ``registered``.
        subject: what it is called in the sentence.
    """
    if plain(name) in SERVER_OPTIMISERS:
        return SERVER_STEP
    if plain(name) in OTHER_LEARNERS and name not in registered["learner"]:
        return OTHER_LEARNERS[plain(name)]
    here = [(kind, each) for kind, names in registered.items() for each in names if plain(each) == plain(name)]
    if plain(name) in OTHER_COMPONENTS:
        kind, _, each = OTHER_COMPONENTS[plain(name)].partition("=")
        here = here or [(kind, each)]
    # "none" is a component of several kinds, and no answer to another's.
    if not here or plain(name) == "none":
        return ""
    kinds = " and ".join(f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}" for kind, _ in here)
    return f"{subject} is {kinds} here; set {' or '.join(f'{kind}={each}' for kind, each in here)}"


def chosen_elsewhere(key: str, value: object, registered: Mapping[str, Iterable[str]]) -> str:
    """What is said of ``algo=ppo``, which chooses a component under a key that is not ours; empty of any other key.

    Args:
        key: without a table.
        value: what it is set to.
        registered: as of :func:`unknown_component`.
    """
    meant = OTHER_NAMES.get(plain(key)) or keys_called(key)
    if not isinstance(value, str) or other_way(key) or not all(each in registered for each in meant):
        return ""
    return component_called(value, registered, subject=value)


def other_way(key: str) -> str:
    """How that is done here which elsewhere is a setting or a table of this name; empty where nobody can tell.

    Args:
        key: ``device``, ``runtime.device``, ``wandb.group``.
    """
    return next(
        (
            OTHER_WAYS[plain(part)]
            for part in (key.rpartition(".")[2], key.partition(".")[0])
            if plain(part) in OTHER_WAYS
        ),
        "",
    )


def unknown_key(
    key: str,
    allowed: Iterable[str],
    see: str = "",
    *,
    of: str = "",
    known: Iterable[str] = (),
    among: Iterable[str] | None = None,
    within: str = "",
) -> FedraxError:
    """The error for a key that its table does not have, with the one that is meant, as far as that can be told.

    Args:
        key: dotted.
        allowed: the keys of its table, without the table.
        see: a command that lists them.
        of: whose table it is, such as `` of learner 'ppo'``.
        known: as of :func:`keys_called`.
        among: the keys of the components that a configuration has chosen: no other component's is proposed, but said
            to be of that one. Unset, nothing is chosen.
        within: what is set in it, where it is given as a table: ``net_arch`` of ``policy_kwargs.net_arch``.
    """
    table, _, name = key.rpartition(".")
    allowed, chosen = list(allowed), None if among is None else list(among)
    if chosen is not None:
        from fedrax import names

        known = [*names.plain_keys(), *chosen]
    if within and not near(name, allowed) and (inner := keys_called(within.rpartition(".")[2], known)):
        meant, key = inner, f"{key}.{within}"
    else:
        meant = keys_called(name, known)
    start, more = f"unknown key {key}{of}", f"; all: {see}" if see else ""
    here = [each.rpartition(".")[2] for each in meant if each.rpartition(".")[0] == table]
    here = [each for each in here if each in allowed]
    if here:
        return FedraxError(f"{start} (did you mean {' or '.join(map(repr, here))}?){more}")
    if not meant and (way := other_way(key)):
        return FedraxError(f"{start}: {way}")
    strange = [each for each in meant if chosen is not None and each not in chosen and is_of_some(each)]
    elsewhere = [each for each in meant if each.rpartition(".")[0] != table and each not in strange]
    if elsewhere and not near(name, allowed):
        return FedraxError(f"{start} (did you mean {' or '.join(elsewhere[:SOME])}?)")
    if others := whose(strange):
        guess = nearest(name, allowed)
        return FedraxError(f"{start}{f'{guess};' if guess else ':'} {others}{more}")
    return FedraxError(f"{start}{suggestions(name, allowed, see)}")


def is_of_some(key: str) -> bool:
    """Whether the key is an option that some components of its kind have, and others do not."""
    from fedrax import names

    kind, _, option = key.partition(".")
    if kind not in DEFAULT_KINDS or option in ("", "kind"):
        return False
    return len(names.owners(kind).get(option, ())) < len(names.components()[names.plural(kind)])


def whose(keys: Iterable[str]) -> str:
    """``learner.buffer_size is of learner sac, sac-discrete or td3``."""
    from fedrax import names

    said = []
    for key in keys:
        kind, _, option = key.partition(".")
        if owners := names.owners(kind).get(option):
            of = f"{', '.join(owners[:-1])} or {owners[-1]}" if owners[1:] else owners[0]
            said.append(f"{key} is of {kind} {of}")
    return ", ".join(said[:SOME])
