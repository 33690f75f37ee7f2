"""A run's journal as MLflow shows it: one run, its trials below it.

Sending the same entries twice changes nothing: runs are found by their tags, and MLflow keeps one
of equal metrics, params, tags and inputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from .journal import Entry
from .redact import redact, redact_value
from .store import is_remote

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .runs import Run

RUN_TAG, TRIAL_TAG, STATE_TAG = "raymill.run", "raymill.trial", "raymill.state"
BEST_TAG = "raymill.best"
STATUS = {
    "running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED",
    "complete": "FINISHED", "pruned": "KILLED", "dead": "KILLED",
}
MAX_DIGEST, MAX_METRICS, MAX_OTHERS = 36, 500, 100
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


@dataclass
class _Batch:
    """What one MLflow run is to be told in as few calls as MLflow allows."""

    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def calls(self) -> Iterator[dict[str, list[Any]]]:
        """Arguments of `log_batch`: params apart, as one that MLflow refuses spoils its call."""
        tags = [RunTag(key, value) for key, value in self.tags.items()]
        params = [Param(key, value) for key, value in self.params.items()]
        for name, items, size in (("metrics", self.metrics, MAX_METRICS),
                                  ("tags", tags, MAX_OTHERS), ("params", params, MAX_OTHERS)):
            for start in range(0, len(items), size):
                yield {name: items[start : start + size]}


class Mirror:
    """Writes entries of one run's journal to MLflow.

    `refused` tells what MLflow won't take however often it is sent; an outage is raised, and the
    same entries can be sent again. Not safe for use from several threads.
    """

    def __init__(self, client: MlflowClient, uri: str, experiment: str, run: Run) -> None:
        self.client = client
        self.run = run
        self.refused: list[str] = []
        self.experiment = _experiment(client, uri, experiment, run)
        self.run_id = self._find_or_create_parent()
        self._open_trials: set[int] = set()
        self._best: int | None = None
        self.trials = self._find_trials()
        self._batches: dict[str, _Batch] = {}

    def send(self, entries: Sequence[Entry]) -> None:
        """Write `entries`; raises what MLflow raises when it can't be reached."""
        self._batches = {}
        for entry in entries:
            write = getattr(self, f"_on_{entry.kind}", None)
            if write is not None:
                self._attempt(write, entry)
        for run_id, batch in self._batches.items():
            for arguments in batch.calls():
                self._attempt(self.client.log_batch, run_id, **arguments)

    def terminate(self, status: str, time: float) -> None:
        """Set the status of the run, and of trials that never ended."""
        if status == "running":
            self.client.update_run(self.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            return
        for number in sorted(self._open_trials):
            self._end(self.trials[number], "interrupted", time)
        self._open_trials.clear()
        self._end(self.run_id, status, time)

    def _attempt(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Outages are raised; what MLflow can never take is told in `refused` and left out."""
        try:
            call(*arguments, **named)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.refused.append(redact(str(error).splitlines()[0])[:300])

    def _end(self, run_id: str, status: str, time: float) -> None:
        self.client.set_terminated(run_id, STATUS[status], end_time=_ms(time))

    def _find_or_create_parent(self) -> str:
        found = self._search(f"tags.`{RUN_TAG}` = '{self.run.id}'")
        parents = [run for run in found if TRIAL_TAG not in run.data.tags]
        if parents:
            return str(parents[0].info.run_id)
        record = self.run.record
        tags = {RUN_TAG: self.run.id, "raymill.name": record["name"]}
        created = self.client.create_run(self.experiment, start_time=_ms(record["began"]),
                                         tags=tags, run_name=self.run.id)
        return str(created.info.run_id)

    def _find_trials(self) -> dict[int, str]:
        found = {}
        for run in self._search(f"tags.`mlflow.parentRunId` = '{self.run_id}'"):
            if TRIAL_TAG in run.data.tags:
                number = int(run.data.tags[TRIAL_TAG])
                found[number] = str(run.info.run_id)
                if run.info.status == "RUNNING":
                    self._open_trials.add(number)
                if run.data.tags.get(BEST_TAG) == "true":
                    self._best = number
        return found

    def _search(self, where: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], where, max_results=1000,
                                           page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _trial(self, number: int, time: float) -> str:
        """The MLflow run of a trial."""
        if number not in self.trials:
            tags = {"mlflow.parentRunId": self.run_id, RUN_TAG: self.run.id,
                    TRIAL_TAG: str(number)}
            created = self.client.create_run(self.experiment, start_time=_ms(time), tags=tags,
                                             run_name=f"trial {number:03d}")
            self.trials[number] = str(created.info.run_id)
        return self.trials[number]

    def _batch(self, run_id: str) -> _Batch:
        return self._batches.setdefault(run_id, _Batch())

    def _tag(self, run_id: str, tags: Mapping[str, Any]) -> None:
        self._batch(run_id).tags |= _texts({k: v for k, v in tags.items() if v is not None})

    def _measure(
        self, run_id: str, metrics: Mapping[str, Any], time: float, step: int = 0
    ) -> None:
        self._batch(run_id).metrics += [
            Metric(_name(key), float(value), _ms(time), step) for key, value in metrics.items()
            if isinstance(value, int | float)
        ]

    def _on_run(self, entry: Entry) -> None:
        self.terminate(entry.data["status"], entry.time)
        self._tag(self.run_id, {STATE_TAG: entry.data["status"],
                                "raymill.cause": entry.data.get("cause")})

    def _on_params(self, entry: Entry) -> None:
        self._batch(self.run_id).params |= _texts(entry.data)

    def _on_tags(self, entry: Entry) -> None:
        self._tag(self.run_id, entry.data)

    def _on_metrics(self, entry: Entry) -> None:
        self._measure(self.run_id, entry.data, entry.time)

    def _on_stage(self, entry: Entry) -> None:
        name, seconds = entry.data["name"], entry.data.get("seconds")
        self._tag(self.run_id, {f"raymill.stage.{name}": entry.data["status"]})
        self._measure(self.run_id, {f"seconds/{name}": seconds}, entry.time)

    def _on_epoch(self, entry: Entry) -> None:
        number = entry.data.get("trial")
        run_id = self.run_id if number is None else self._trial(number, entry.time)
        metrics = {**entry.data["metrics"], "rows_per_s": entry.data.get("rows_per_s")}
        self._measure(run_id, metrics, entry.time, step=int(entry.data["epoch"]))

    def _on_trial(self, entry: Entry) -> None:
        data = entry.data
        number, state = int(data["number"]), str(data["state"])
        run_id = self._trial(number, entry.time)
        self._tag(run_id, {STATE_TAG: state, "raymill.cause": data.get("cause")})
        self._batch(run_id).params |= _texts(data.get("params") or {})
        self._measure(run_id, {"objective": data.get("value")}, entry.time)
        self._measure(self.run_id, {"trial_objective": data.get("value")}, entry.time, number)
        if state == "running":
            self._open_trials.add(number)
        else:
            self._open_trials.discard(number)
            self._end(run_id, state, entry.time)

    def _on_place(self, entry: Entry) -> None:
        number = entry.data.get("trial")
        if number is not None:
            gpus = ",".join(str(gpu) for gpu in entry.data["gpus"])
            self._tag(self._trial(number, entry.time),
                      {"raymill.device": entry.data["device"], "raymill.gpus": gpus or None})

    def _on_best(self, entry: Entry) -> None:
        """Mark the winner. Trials of an earlier run are below that run, not below this one."""
        number = int(entry.data["trial"])
        if self._best in self.trials:
            self._tag(self.trials[self._best], {BEST_TAG: "false"})
        self._best = number
        self._tag(self.run_id, {"raymill.best_trial": number})
        self._measure(self.run_id, {"best_objective": entry.data["value"]}, entry.time)
        if number in self.trials:
            self._tag(self.trials[number], {BEST_TAG: "true"})

    def _on_dataset(self, entry: Entry) -> None:
        data = entry.data
        sources = data["source"] if isinstance(data["source"], list) else [data["source"]]
        source = {"uri": [redact(str(uri)) for uri in sources]}
        profile = {"num_rows": data["rows"], "fingerprint": data["digest"]}
        kind = "s3" if str(sources[0]).startswith("s3://") else "local"
        dataset = Dataset(data["name"], data["digest"][:MAX_DIGEST], kind, json.dumps(source),
                          profile=json.dumps(profile))
        tag = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [tag])])
        self._tag(self.run_id, {"raymill.data": data["digest"]})

    def _on_environment(self, entry: Entry) -> None:
        data = dict(entry.data)
        packages = data.pop("packages", [])
        self._tag(self.run_id, {
            "mlflow.source.git.commit": data.get("git_commit"),
            "mlflow.source.name": data.get("command"), "mlflow.source.type": "LOCAL",
            "mlflow.user": data.get("user"), "raymill.version": data.get("raymill"),
            "raymill.git_dirty": data.get("git_dirty"),
        })
        self.client.log_text(self.run_id, json.dumps(data, indent=1), "environment/machine.json")
        self.client.log_text(self.run_id, "\n".join([*packages, ""]),
                             "environment/requirements.txt")

    def _on_artifact(self, entry: Entry) -> None:
        path, folder = Path(entry.data["path"]), entry.data.get("folder")
        if not path.exists():
            self.refused.append(f"the artifact {path} is gone")
        elif path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def _on_model(self, entry: Entry) -> None:
        data = entry.data
        self._tag(self.run_id, {"raymill.model": data["name"],
                                "raymill.model.version": data["version"],
                                "raymill.digest": data["digest"]})


def _experiment(client: MlflowClient, uri: str, name: str, run: Run) -> str:
    """The id of the experiment `name`, made when it isn't there."""
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if is_remote(uri) else str(run.home.artifacts)
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {_name(key): redact_value(key, value) for key, value in values.items()}


def _name(key: str) -> str:
    return _NOT_IN_NAMES.sub("_", key)[:250]


def _ms(time: float) -> int:
    return int(time * 1000)
