"""MLflow: each seed is a run of one experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedrax.loggers.base import LoggedRun, Logger, Point, Stream, loggers
from fedrax.registry import option

MOST_METRICS = 1000
"""That MLflow takes in one request."""
MOST_PARAMS = 100
"""The same of a run's settings."""
LONGEST = 500
"""Characters of a setting that every version of its server takes."""


class MlflowRun(Stream):
    """A run of MLflow."""

    def __init__(self, client: Any, id: str) -> None:
        self._client, self.id = client, id

    def log(self, points: Sequence[Point]) -> None:
        """One request for up to a thousand values."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(point.time * 1000), point.x)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[start : start + MOST_METRICS])

    def close(self, *, finished: bool) -> None:
        """Says how the run ended."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


@loggers.register("mlflow")
class Mlflow(Logger):
    """MLflow's tracking (`pip install 'fedrax[mlflow]'`): each seed is a run of the experiment."""

    package = "mlflow"

    experiment: str = option("fedrax", "the experiment, which is made where there is none")
    uri: str | None = option(None, "of the tracking server or store; unset, as MLFLOW_TRACKING_URI or MLflow says")

    def open(self, run: LoggedRun) -> Stream:
        """A new run, or the one with this id."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self.uri)
        if run.id is not None:
            client.update_run(run.id, status="RUNNING")
            return MlflowRun(client, run.id)
        known = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if known is None else known.experiment_id
        tags = {
            "mlflow.runName": f"{run.name}, seed {run.seed}",
            "fedrax.run": run.name,
            "fedrax.folder": str(run.folder),
        }
        id = str(client.create_run(experiment, tags=tags).info.run_id)
        settings = {**dict(_settings(run.config)), "seed": str(run.seed)}
        params = [Param(key, value[:LONGEST]) for key, value in settings.items()]
        for start in range(0, len(params), MOST_PARAMS):
            client.log_batch(id, params=params[start : start + MOST_PARAMS])
        return MlflowRun(client, id)


def _settings(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A configuration's settings as ``federation.agents`` and their values in words."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
