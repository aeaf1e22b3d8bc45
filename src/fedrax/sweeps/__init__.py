"""Many runs from one file: named setups times seeds, or the trials of a search, several at once (docs/sweeps.md).

A sweep is a TOML file::

    preset = "fedpg-br/cartpole"      # of every setup that names none; or a TOML file's path; default: the defaults
    seeds = 10                        # seeds 0 to 9, or a list of them
    seeds_per_run = 1                 # default: as many as can train in one program
    out = "runs/sweeps/robust"        # default: runs/sweeps/<name of the file>
    jobs = 2                          # at most so many runs at once; default: as many as the cores allow
    cores_per_job = 1

    [set]                             # for all setups; or set = ["budget.rounds=50", ...]
    budget.rounds = 50

    [setups.plain]                    # what a setup changes, written as in a preset
    [setups.robust]
    preset = "fedpg-br/cartpole"      # a setup may have its own preset ...
    attack.kind = "alie"
    "attack.agents" = 3               # ... and keys may be dotted, quoted or not,
    set = ["aggregator=krum"]         # or be given as on the command line

    [grid]                            # every setup, or the preset alone, once for each combination of these
    "learner.learning_rate" = [1e-3, 3e-3]

Later layers win: ``[set]``, the setup, the grid. A grid's combinations are named after their values:
``robust,learner.learning_rate=0.001``. A preset's path is looked up beside the file first, and so are plugins and the
module before an environment's id.

The experiment files of RLHF-And-Friends/FedRL (``{"num_runs": 5, "setups": {NAME: {FLAG: VALUE}}}``, ending in
``.json``) are read too; :data:`fedrax.sweeps.flags.FLAGS` says what each flag becomes.

Everything of a sweep lies in ``out``: ``SETUP/seed-S`` or ``SETUP/seeds-A-B`` is a run, and beside it is a log;
``sweep.json`` the state of every job, kept up to date. Environments and networks of every setup are made before the
first run trains, so that a mistake in any of them is told at once; after a minute of that the rest is left out, which
is said, and a mistake in one of these shows when it trains. More than 1,000 runs are refused without ``--yes``.
Starting the same sweep again does what is missing, and no more.
"""
