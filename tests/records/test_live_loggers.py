"""Rows in the hands of loggers while a run trains: each once, and never at the cost of the run."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

import pytest
from tensorboardX.event_file_writer import EventsWriter

from fedrax.api import resume, train
from fedrax.config import Config, resolve
from fedrax.describe import describe
from fedrax.errors import FedraxError
from fedrax.loggers.base import Logger, Point, Stream, loggers, values_of
from fedrax.records import live as live_module
from fedrax.records.live import LiveLoggers, behind, log_rest
from fedrax.records.metrics import MetricsWriter
from fedrax.records.rundir import RunDirectory
from fedrax.registry import option
from fedrax.runtime.continuation import differences, may_change

BASE = {"budget": {"rounds": 1}}
PLAIN = {"axis": "rounds", "agents": False}


class Remembered(Stream):
    def __init__(self, kept, id):
        self.kept, self.id = kept, id

    def log(self, points):
        self.kept.extend(points)

    def close(self, *, finished):
        self.kept.append(finished)


@pytest.fixture
def remembering():
    """A remote logger in memory, called ``remembering``; what it was given, by id."""
    kept: dict[str, list[Point | bool]] = {}

    @loggers.register("remembering")
    class Remembering(Logger):
        colour: str = option("red", "a setting")

        def open(self, run):
            id = run.id or f"new-{run.seed}"
            return Remembered(kept.setdefault(id, []), id)

    yield kept
    del loggers._classes["remembering"]


def row(round, seed=0, **values):
    return {"seed": seed, "round": round, "return": 10.0 * round + seed, "total_steps": 100 * (round + 1), **values}


def record(path, parts, settings, *, seeds=(0,), finished=True):
    """A run in parts: the rounds at its checkpoint, and the rows that follow."""
    path.mkdir(exist_ok=True)
    run = RunDirectory(path)
    for done, rows in parts:
        with (
            LiveLoggers(run, settings, name="demo", seeds=seeds, config={"federation": {"agents": 2}}) as live,
            MetricsWriter(run, done, further=[live]) as writer,
        ):
            for each in rows:
                writer.write([each])
            live.finished = finished


def logged(points):
    return [(point.x, point.values["return"]) for point in points if isinstance(point, Point)]


def test_a_row_is_logged_when_it_is_recorded(tmp_path, remembering):
    run = RunDirectory(tmp_path)
    with (
        LiveLoggers(run, {"remembering": {}}, name="demo", seeds=[0], config={}) as live,
        MetricsWriter(run, further=[live]) as writer,
    ):
        for number in range(3):
            writer.write([row(number)])
            deadline = time.monotonic() + 20
            while len(remembering.get("new-0", [])) <= number and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            assert logged(remembering["new-0"])[-1] == (number, 10.0 * number)
    assert remembering["new-0"][-1] is False, "the run's budget was not used"


def test_a_resumed_run_logs_no_row_twice(tmp_path, remembering):
    rows = [row(number, seed) for number in range(6) for seed in (3, 4)]
    # Eight rows were written, the checkpoint was after two rounds.
    record(tmp_path / "run", [(0, rows[:8]), (2, rows[4:])], {"remembering": {}}, seeds=(3, 4))
    assert set(remembering) == {"new-3", "new-4"}, "the resumed run goes on where the first part has logged"
    for seed in (3, 4):
        assert logged(remembering[f"new-{seed}"]) == [(number, 10.0 * number + seed) for number in range(6)]
        assert remembering[f"new-{seed}"][-1] is True


def test_a_logger_that_is_added_later_is_given_all_rows(tmp_path, remembering):
    rows = [row(number) for number in range(4)]
    record(tmp_path / "run", [(0, rows[:2])], {"tensorboard": {}})
    record(tmp_path / "run", [(2, rows[2:])], {"remembering": {}})
    assert logged(remembering["new-0"]) == [(number, 10.0 * number) for number in range(4)]


def test_x_is_what_the_option_says(tmp_path, remembering):
    record(tmp_path / "run", [(0, [row(0), row(1)])], {"remembering": {"axis": "steps"}})
    assert logged(remembering["new-0"]) == [(100, 0.0), (200, 10.0)]


def test_values_of_agents_are_optional():
    values = {"accepted": True, "agent_returns": [1.0, None], "agent_episode_returns": [[2.0, 4.0], []]}
    assert values_of(row(0, **values, excluded=[1]), agents=False) == {
        "return": 0.0,
        "total_steps": 100.0,
        "accepted": 1.0,
    }
    assert values_of({"seed": 0, "round": 1, **values, "x": None}, agents=True) == {
        "accepted": 1.0,
        "agent_returns/agent_0": 1.0,
        "agent_episode_returns/agent_0": 3.0,
    }


class Service:
    """A remote logger in memory, called ``service``, that fails while ``broken`` names what it was asked to do."""

    def __init__(self):
        self.broken, self.runs, self.opened, self.blocked = "", {}, 0, threading.Event()
        self.blocked.set()
        service = self

        def asked(what):
            if service.broken == what:
                raise ConnectionError("the server\nis gone")

        class Kept(Stream):
            def __init__(self, id):
                self.id = id

            def log(self, points):
                asked("log")
                service.runs[self.id] += [point.x for point in points]

            def close(self, *, finished):
                service.blocked.wait(60)
                service.runs[self.id].append(finished)
                asked("close")

        @loggers.register("service")
        class ServiceLogger(Logger):
            def open(self, run):
                asked("open" if run.seed == 0 else "open second")
                service.opened += run.id is None
                id = run.id or f"run-{service.opened}"
                service.runs.setdefault(id, [])
                return Kept(id)


@pytest.fixture
def service():
    yield Service()
    del loggers._classes["service"]


SERVICE = {"service": {}}


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_logger_that_fails_is_a_warning_and_the_run_goes_on(tmp_path, caplog, service, where):
    service.broken = where
    with caplog.at_level(logging.WARNING):
        record(tmp_path / "run", [(0, [row(number) for number in range(5)])], {"service": {}, "tensorboard": {}})
    first, *others = [one.getMessage() for one in caplog.records]
    told = "did not end" if where == "close" else "is tried again with the next rows of"
    assert first == f"logger service {told} {tmp_path / 'run'}: ConnectionError: the server is gone"
    left = f"logger service has not taken all rows of {tmp_path / 'run'}; a resume gives it the rest"
    assert others == ([] if where == "close" else [left])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 5
    if where == "log":
        assert service.runs == {"run-1": [True]}, "what failed is ended all the same"


@pytest.mark.parametrize("where", ["open", "open second", "log"])
def test_a_logger_that_works_again_is_given_what_it_missed(tmp_path, caplog, service, where):
    """Each row once, in one run of each seed."""
    run, seeds = RunDirectory(tmp_path), (0, 1)
    with (
        LiveLoggers(run, SERVICE, name="demo", seeds=seeds, config={}) as live,
        MetricsWriter(run, further=[live]) as writer,
    ):
        service.broken = where
        writer.write([row(0, seed) for seed in seeds])
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        service.broken = ""
        writer.write([row(1, seed) for seed in seeds])
        live.finished = True
    assert service.runs == {"run-1": [0, 1, True], "run-2": [0, 1, True]}
    assert len(caplog.records) == 1


def test_a_finished_run_sends_the_rest_when_it_is_resumed(tmp_path, service):
    run, common = RunDirectory(tmp_path / "run"), {"name": "demo", "seeds": (0,), "config": {}}
    service.broken = "log"
    record(run.path, [(0, [row(number) for number in range(3)])], SERVICE)
    assert behind(run, SERVICE, (0,)) == SERVICE
    service.broken = ""
    log_rest(LiveLoggers(run, behind(run, SERVICE, (0,)), **common), run)
    assert service.runs == {"run-1": [True, 0, 1, 2, True]}
    assert behind(run, SERVICE, (0,)) == {}
    log_rest(LiveLoggers(run, behind(run, SERVICE, (0,)), **common), run)
    assert service.runs == {"run-1": [True, 0, 1, 2, True]}
    assert behind(run, {"tensorboard": {}}, (0,)) == {}


@pytest.mark.parametrize("where", ["open second", "close"])
def test_what_was_done_is_known_after_a_failure(tmp_path, service, where):
    service.broken = where
    record(tmp_path / "run", [(0, [row(0, 0), row(0, 1)])], SERVICE, seeds=(0, 1))
    service.broken = ""
    record(tmp_path / "run", [(1, [row(1, 0), row(1, 1)])], SERVICE, seeds=(0, 1))
    assert service.opened == 2, "no run was made twice"
    assert [[x for x in run if x is not True] for run in service.runs.values()] == [[0, 1], [0, 1]]


def test_a_logger_that_does_not_end_holds_no_run_up(tmp_path, caplog, service, monkeypatch):
    monkeypatch.setattr(live_module, "CLOSE_SECONDS", 0.2)
    service.blocked.clear()
    before = time.monotonic()
    record(tmp_path / "run", [(0, [row(0)])], SERVICE)
    assert time.monotonic() - before < 30
    service.blocked.set()
    assert "has not taken all rows of" in caplog.text


@pytest.mark.training
def test_the_summary_is_written_before_loggers_end_and_a_resume_sends_the_rest(tmp_path, service, monkeypatch):
    monkeypatch.setattr(live_module, "CLOSE_SECONDS", 0.2)
    service.blocked.clear()
    tables = {"budget": {"rounds": 2}, "records": {"loggers": ["service"]}, "evaluation": {"episodes": 1}}
    run = train(tables, ["federation.agents=2"], out=tmp_path / "run", progress=False)
    assert run.summary()["rounds"] == 2, "although the logger has not ended"
    service.blocked.set()
    for thread in [one for one in threading.enumerate() if one.name == "logger service"]:
        thread.join(60)
    assert service.runs == {"run-1": [0, 1, True]}
    (tmp_path / "run" / "loggers" / "service.json").unlink()
    resume(tmp_path / "run", progress=False)
    assert service.runs["run-2"] == [0, 1, True]
    resume(tmp_path / "run", progress=False)
    assert service.opened == 2


def test_a_local_logger_that_fails_ends_no_run(tmp_path, caplog, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", full)
    with caplog.at_level(logging.WARNING):
        record(tmp_path / "run", [(0, [row(number) for number in range(3)])], {"tensorboard": {}})
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text


def test_of_many_seeds_the_first_hundred_are_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        record(tmp_path / "run", [(0, [row(0, 2), row(0, 150)])], {"tensorboard": {}}, seeds=range(200))
    assert "loggers are given the first 100 of 200 seeds" in caplog.text
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 100


def configured(*overrides, source=None) -> Config:
    return resolve(source or BASE, overrides)


def test_a_run_that_names_none_has_tensorboard():
    assert configured().records.loggers == {"tensorboard": PLAIN}


def test_names_stand_for_their_defaults():
    chosen = configured('records.loggers=["wandb", "tensorboard"]').records.loggers
    assert list(chosen) == ["wandb", "tensorboard"]
    assert chosen["wandb"] == {**PLAIN, "project": "fedrax", "entity": None, "mode": None}


def test_a_table_adds_options_and_names_replace():
    file = {**BASE, "records": {"loggers": {"mlflow": {"experiment": "lander"}}}}
    assert list(configured(source=file).records.loggers) == ["mlflow"]
    added = configured("records.loggers.wandb.project=mine", source=file).records.loggers
    assert (added["mlflow"]["experiment"], added["wandb"]["project"]) == ("lander", "mine")
    assert list(configured("records.loggers.wandb.project=mine").records.loggers) == ["tensorboard", "wandb"]
    assert list(configured("records.loggers=wandb", source=file).records.loggers) == ["wandb"]


@pytest.mark.parametrize("said", ["records.loggers=none", "records.loggers=[]", "records.loggers.mlflow.axis=steps"])
def test_the_resolved_configuration_reads_back(tmp_path, said):
    config = configured(said)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert resolve(path) == config
    assert config.digest() == configured().digest()


def test_what_is_wrong_is_one_line():
    with pytest.raises(FedraxError, match=r"unknown logger 'wandbb' \(did you mean 'wandb'\?\)"):
        configured("records.loggers=wandbb")
    with pytest.raises(
        FedraxError, match=r"unknown key records\.loggers\.wandb\.projekt .*\(did you mean 'project'\?\)"
    ):
        configured("records.loggers.wandb.projekt=mine")
    with pytest.raises(FedraxError, match=r"records\.loggers\.tensorboard\.axis"):
        configured("records.loggers.tensorboard.axis=days")
    with pytest.raises(FedraxError, match=r"records\.loggers = 3 is not allowed"):
        configured("records.loggers=3")


def test_loggers_may_change_when_a_run_goes_on():
    changed = differences(configured(), configured("records.loggers.wandb.project=mine"))
    assert changed
    assert all(may_change(key) for key in changed)
    assert not may_change("records.csv_layout")


def test_loggers_are_described():
    assert "records.loggers.wandb.project" in describe("wandb")
    assert "tensorboard" in describe("logger")


def test_a_package_that_is_missing_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FedraxError, match=r"needs wandb, which is not installed; pip install 'fedrax\[wandb\]'"):
        LiveLoggers(RunDirectory(tmp_path), {"wandb": {}}, name="demo", seeds=[0], config={})


def test_weights_and_biases_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    rows = [row(number, seed) for number in range(4) for seed in (0, 1)]
    record(tmp_path / "run", [(0, rows)], {"wandb": {"project": "lander"}}, seeds=(0, 1))
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "each seed is a run of Weights & Biases"
    for file in files:
        assert b"total_steps" in file.read_bytes()


def test_nobody_is_logged_in_to_weights_and_biases(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "api", type("Api", (), {"api_key": None}))
    with pytest.raises(FedraxError, match="nobody is logged in"):
        LiveLoggers(RunDirectory(tmp_path), {"wandb": {}}, name="demo", seeds=[0], config={})


def test_mlflow_writes_to_a_local_store(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    store = tmp_path / "mlflow.db"
    rows = [row(number) for number in range(4)]
    settings = {"mlflow": {"uri": f"sqlite:///{store}", "axis": "steps"}}
    record(tmp_path / "run", [(0, rows[:3]), (1, rows[1:])], settings)
    with sqlite3.connect(store) as database:
        found = database.execute("select step, value from metrics where key = 'return' order by step").fetchall()
        runs = database.execute("select status from runs").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
    assert found == [(100, 0.0), (200, 10.0), (300, 20.0), (400, 30.0)]
    assert runs == [("FINISHED",)], "the resumed run goes on in the same run of MLflow"
    assert params["federation.agents"] == "2"
