"""From a configuration to a finished run directory: rounds, records, checkpoints, resume."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from fedrax.config import Config
from fedrax.config_tables import TD3_HER
from fedrax.environments.crash import EnvironmentCrash
from fedrax.environments.success import LAST, SUCCESS
from fedrax.errors import FedraxError
from fedrax.federation import State
from fedrax.opening import setup_line
from fedrax.privacy.guarantee import guarantee
from fedrax.records.checkpoint import load_checkpoint, save_checkpoint, save_policy
from fedrax.records.exchanges import Exchanges
from fedrax.records.files import append_traceback
from fedrax.records.live import LiveLoggers, behind, log_rest
from fedrax.records.manifest import check_unchanged, finish_manifest
from fedrax.records.metrics import MetricsWriter, RowFiles, missing_rounds, rounds_recorded
from fedrax.records.progress import Progress
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import write_summary
from fedrax.records.td3_her import TD3HERFiles
from fedrax.runtime.base import Runtime
from fedrax.runtime.compiling import compile_seconds
from fedrax.runtime.continuation import accepting, begin_manifest, note_restart, table
from fedrax.runtime.counters import Counters
from fedrax.runtime.draws import divergence, task_ids
from fedrax.runtime.final_evaluation import best_policies, evaluate_finally, measured_finally
from fedrax.runtime.initial import initial_files, initial_networks, saved_parts, saved_path, start_from, with_saved
from fedrax.runtime.lost_rounds import LostRounds, resume_text
from fedrax.runtime.memory import size_text
from fedrax.runtime.telling import differing, first_rounds, goal, going_on, promise, show, train_seconds
from fedrax.runtime.videos import record_videos

logger = logging.getLogger(__name__)


def train_run(config: Config, runtime: Runtime, directory: RunDirectory, *, progress: bool) -> None:
    """Trains until the budget is used, from the last checkpoint in ``directory`` if there is one.

    Rows are on disk before the checkpoint that follows them, and a resume drops the rows past its checkpoint, so
    the records of a run that was killed and resumed equal those of one that was not.

    Raises:
        FedraxError: an environment crashed, or too many rounds in a row were lost; how to go on is said.
    """
    try:
        _train_run(config, runtime, directory, progress=progress)
    except EnvironmentCrash as crash:
        path = append_traceback(directory.path, crash)
        again = resume_text(config, directory.path)
        raise FedraxError(
            f"{crash}; the traceback is in {path}; mend it, then {again} goes on from the last checkpoint"
        ) from crash


def _train_run(config: Config, runtime: Runtime, directory: RunDirectory, *, progress: bool) -> None:
    # Loggers end after the summary is written: a service that answers slowly leaves no finished run without one.
    with contextlib.ExitStack() as logging_ends:
        stopped = _trained_run(config, runtime, directory, logging_ends, progress=progress)
    if stopped is not None:
        raise FedraxError(stopped)


def _trained_run(
    config: Config, runtime: Runtime, directory: RunDirectory, logging_ends: contextlib.ExitStack, *, progress: bool
) -> str | None:
    """As :func:`train_run`, until loggers are to end; returns why it stopped, where too many rounds were lost."""
    with Progress(*goal(config), enabled=progress, compiling=compile_seconds) as display:
        before = compile_seconds()
        display.note(setup_line(config))
        display.wait("compiling")
        state, counters, meta = _where_it_stands(config, runtime, directory)
        begun = directory.manifest.exists()
        if not begun:
            directory.write_config(config.to_toml())
            begin_manifest(directory, config, files=initial_files(config))
        missing = missing_rounds(directory, _rounds_done(config, counters))
        if missing:
            logger.warning("%s lacks %s; the run goes on without", directory.metrics_jsonl, ", ".join(missing))

        had_finished = meta["finished"]
        stopped = meta.get("failed") if had_finished else None
        if not had_finished:
            settings = (directory, config.records.loggers)
            live = LiveLoggers(*settings, name=config.name, seeds=config.all_seeds, config=table(config))
            compiled = before - meta["seconds_compile"]
            runtime.compile(state)
            logging_ends.enter_context(live)
            stopped = _train(
                config, runtime, directory, state, counters, meta, display, live, begun=begun, compiled=compiled
            )
    # A finished run may have been killed before its summary.
    if meta["finished"] and not directory.summary.exists():
        readers = runtime.federation.strategy.readers
        summary = _summary(config, counters, readers, meta["seconds_compile"]) | _missed(directory)
        if stopped is not None:
            summary["failed"] = stopped
        write_summary(directory, summary | ({"missing_metrics": missing} if missing else {}))
        finish_manifest(directory)
    if had_finished:
        send_rest(config, directory)
    return stopped


def send_rest(
    config: Config,
    directory: RunDirectory,
    guard: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> None:
    """Gives the loggers of a finished run the rows that they could not take; one that still cannot is a warning.

    ``guard`` is held meanwhile, where there are such.
    """
    loggers, seeds = config.records.loggers, config.all_seeds
    try:
        if left := behind(directory, loggers, seeds):
            with guard():
                log_rest(LiveLoggers(directory, left, name=config.name, seeds=seeds, config=table(config)), directory)
    except FedraxError as error:
        logger.warning("%s: loggers were not given the rest of the rows: %s", directory.path, error)


def _missed(directory: RunDirectory) -> dict[str, Any]:
    """Of a federation of nodes, in how many rounds each agent was to take part and its answer was not used."""
    exchanges = Exchanges(directory.path)
    exchanges.read()
    missed = {str(agent): exchanges.missed(agent) for agent in sorted(exchanges.last)}
    return {"missed_rounds": missed} if missed else {}


def _where_it_stands(
    config: Config, runtime: Runtime, directory: RunDirectory
) -> tuple[State, list[Counters], dict[str, Any]]:
    """State, totals and meta to go on from: those of the last checkpoint, or of the beginning.

    A finished run whose budget has grown goes on from its end. Where environments cannot start there as a longer run's
    would have stood (:meth:`Runtime.starts_at`), they start anew, which is said and recorded.

    Raises:
        FedraxError: a checkpoint of another run.
    """
    fresh = runtime.init()
    counted = partial(Counters.restored, message_bytes=runtime.message_bytes(0))
    restored = load_checkpoint(directory.checkpoints, fresh, accepting(config))
    if restored is not None:
        state, meta = restored
        active = np.asarray(jax.vmap(runtime.active)(state.tally))
        if meta["finished"] and not active.any():
            return state, [counted(saved) for saved in meta.get("final_counters", meta["counters"])], meta
        counters = [counted(saved) for saved in meta["counters"]]
        rounds = {counter.rounds for counter, more in zip(counters, active, strict=True) if more}
        if meta["finished"] and not runtime.starts_at(rounds):
            note_restart(directory, rounds, config.checkpoint.every)
        return state, counters, meta | {"finished": False, "round": min(rounds, default=meta["round"])}
    if directory.metrics_jsonl.exists() and directory.metrics_jsonl.stat().st_size:
        logger.warning("%s has no checkpoint that can be used; the run starts at its beginning", directory.path)
    if initial_files(config):
        check_unchanged(directory, initial_files(config))
    if config.learner["initial"] is not None:
        del fresh  # A replay may take half of the memory.
        fresh = start_from(runtime, initial_networks(config, runtime.federation))
    if saved_path(config) is not None:
        fresh = with_saved(fresh, runtime.federation, saved_parts(config, runtime.federation))
    return fresh, [Counters() for _ in config.all_seeds], {"seconds_compile": 0.0, "finished": False, "round": 0}


def _rounds_done(config: Config, counters: list[Counters]) -> dict[int, int]:
    """Each seed's rounds."""
    return {seed: counter.rounds for seed, counter in zip(config.all_seeds, counters, strict=True)}


def _train(
    config: Config,
    runtime: Runtime,
    directory: RunDirectory,
    state: State,
    counters: list[Counters],
    meta: dict[str, Any],
    display: Progress,
    live: LiveLoggers,
    *,
    begun: bool,
    compiled: float,
) -> str | None:
    """Rounds until the budget is used; brings ``counters`` and ``meta`` up to date.

    ``compiled`` is what :func:`compile_seconds` is to be counted from.

    Returns why it stopped where too many rounds were lost: looked at where a checkpoint is due, so that none is lost.
    """
    first, tables = int(meta["round"]), table(config)
    further: tuple[RowFiles, ...] = (*_layout(config, runtime, directory), live)
    # Before the rows past the checkpoint are dropped.
    recorded = rounds_recorded(directory) if begun and first else 0
    without = measured_finally(config, meta)
    meta.pop("final_counters", None)
    done = _rounds_done(config, counters)
    with MetricsWriter(directory, resume_round=done, without=without, further=further) as writer:
        if begun:
            display.note(going_on(first, recorded))
        if runtime.replay_bytes:
            display.note(f"replays take {size_text(runtime.replay_bytes)}")
        if runtime.never_ends is not None:
            display.note(runtime.never_ends)
        if runtime.guarantee is not None:
            display.note(promise(config, runtime.guarantee))
        differences = divergence(config)
        if differences:
            display.note(differing(differences))
        if runtime.compiles_ahead:
            seconds = compile_seconds() - compiled - meta["seconds_compile"]
            rounds = first_rounds(config, first, runtime.until(first))
            display.wait(f"compiled in {seconds:.1f} s; {rounds}")
        finished = False
        stopped: str | None = None
        lost = LostRounds(config)
        best: np.ndarray | None = None
        while not finished and stopped is None:
            for latest, block in runtime.advance(state, first):
                state = state if latest is None else latest
                rows = _rows(config, counters, block, runtime)
                lost.see(rows)
                writer.write(rows)
                show(runtime, display, counters, rows)
            finished = not _any_active(runtime, state)
            first = runtime.until(first)
            writer.sync()
            active = np.asarray(jax.vmap(runtime.active)(state.tally)).tolist()
            stopped = lost.verdict(counters, active, directory.path)
            meta |= {
                "round": first,
                "finished": finished,
                # A run that learned nothing has failed whenever it is looked at again.
                "failed": stopped if finished else None,
                "counters": [dataclasses.asdict(c) for c in counters],
                "config": tables,
            }
            if finished:
                # Apart from counters and state: a run whose budget grows goes on as if there had been no end.
                writer.finish(evaluate_finally(config, runtime, state, counters))
                meta["final_counters"] = [dataclasses.asdict(c) for c in counters]
                show(runtime, display, counters, [])
            if config.video.every is not None and first % config.video.every < runtime.rounds_per_call:
                _record_video(config, runtime, state, directory, first)
            meta["seconds_compile"] = compile_seconds() - compiled
            outputs = runtime.outputs(state)
            if jax.tree.leaves(outputs):
                save_policy(directory.policy, outputs)
                if config.checkpoint.keep_policies:
                    save_policy(directory.kept_policy(max(counter.rounds for counter in counters)), outputs)
                if best is None or finished or not np.array_equal(best, state.best_return):
                    save_policy(directory.best_policy, best_policies(runtime, state, meta))
                    best = np.asarray(state.best_return)
            save_checkpoint(directory.checkpoints, first, state, meta)
            live.finished = finished
    return stopped


def _record_video(config: Config, runtime: Runtime, state: State, directory: RunDirectory, rounds: int) -> None:
    """Records a video of the first seed's policy after so many rounds."""
    agent = config.video.agent
    params = jax.tree.map(lambda x: x[0], runtime.outputs(state))
    if runtime.federation.personal:
        params = jax.tree.map(lambda x: x[agent], params)
    record_videos(config, runtime, params, directory.path / "videos" / f"round-{rounds}", agent=agent)


def _layout(config: Config, runtime: Runtime, directory: RunDirectory) -> tuple[TD3HERFiles, ...]:
    """The files in another layout that the run is to write."""
    if config.records.csv_layout != TD3_HER:
        return ()
    federation, tasks = runtime.federation, task_ids(config)
    pooled = federation.agents < federation.sites
    each = [config.environment.id if pooled else tasks[agent % len(tasks)] for agent in range(federation.agents)]
    settings = {**config.learner, "rounds": config.budget.rounds, "horizon": runtime.training_horizon}
    return (TD3HERFiles(directory.td3_her, config.all_seeds, tuple(each), settings),)


def _rows(
    config: Config,
    counters: list[Counters],
    block: dict[str, np.ndarray],
    runtime: Runtime,
) -> list[dict[str, Any]]:
    """The log's rows of a block of metrics ``[seeds, rounds, ...]``, round by round; adds to the counters."""
    rows, federation = [], runtime.federation
    for index in range(block["active"].shape[1]):
        for position, (seed, counter) in enumerate(zip(config.all_seeds, counters, strict=True)):
            if block["active"][position, index]:
                metrics = {name: values[position, index] for name, values in block.items()}
                row = counter.row(
                    seed,
                    metrics,
                    agents=federation.agents,
                    participants=federation.participants,
                    message_bytes=runtime.message_bytes(counter.rounds),
                    readers=federation.strategy.readers,
                    episodic=federation.learner.episodic,
                    updates=federation.local_updates,
                )
                rows.append(row)
    return rows


def _any_active(runtime: Runtime, state: State) -> bool:
    return bool(np.any(jax.vmap(runtime.active)(state.tally)))


def _summary(
    config: Config,
    counters: list[Counters],
    readers: float | None,
    seconds_compile: float,
) -> dict[str, Any]:
    """The run's totals: scalars with one seed, lists with several."""
    each = [
        {
            "final_return": counter.final_return,
            "best_return": counter.best_return,
            **({} if math.isnan(counter.final_worst) else {"final_return_worst": counter.final_worst}),
            **{
                f"final_{kind}": counter.final_evaluation[kind]
                for kind in (SUCCESS, LAST)
                if kind in counter.final_evaluation
            },
            "rounds": counter.rounds,
            "dropped_collections": counter.dropped_collections,
            **counter.totals(config.federation.agents, readers),
        }
        for counter in counters
    ]
    by_seed = {
        str(seed): {name: one[name] for name in ("final_return", "final_return_worst", "best_return") if name in one}
        for seed, one in zip(config.all_seeds, each, strict=True)
    }
    bound = guarantee(config.privacy, config.federation)
    merged = {name: [one[name] for one in each] if len(each) > 1 else each[0][name] for name in each[0]}
    return {
        **merged,
        "seconds_compile": seconds_compile,
        "seconds_train": train_seconds(counters),
        "seeds": list(config.all_seeds),
        **({"by_seed": by_seed} if len(each) > 1 else {}),
        **({} if bound is None else {"privacy": bound.summary(max(counter.rounds for counter in counters))}),
        "final_evaluation": {
            str(seed): counter.final_evaluation
            for seed, counter in zip(config.all_seeds, counters, strict=True)
            if counter.final_evaluation
        },
    }
