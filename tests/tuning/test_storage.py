"""Where studies are kept, and that Optuna's own tools read them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from tuning_ledger import FLAT, play

from raymill.errors import UsageError
from raymill.tuning.ledger import Ledger
from raymill.tuning.objectives import Objectives
from raymill.tuning.spec import TuningSpec
from raymill.tuning.storage import held, place_of, storage_in
from raymill.tuning.study import Study


def search(out: Path, kind: str, trials: int) -> Ledger:
    tuning = TuningSpec(trials=8, storage=kind)
    with held(out, kind) as storage:
        ledger = Ledger(storage, "search", Objectives.of("roc_auc", tuning), tuning, FLAT)
        play(ledger, trials)
        return ledger


def check_goes_on(out: Path, kind: str) -> None:
    search(out, kind, 3)
    with held(out, kind) as storage:
        Ledger(storage, "search", Objectives.of("roc_auc", TuningSpec()), TuningSpec(), FLAT).ask()
    assert search(out, kind, 2).resumed == 3
    states = [trial.state.name for trial in optuna.load_study(
        study_name="search", storage=storage_in(out, kind)).trials]
    assert sorted(states) == ["COMPLETE"] * 5 + ["FAIL"]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_study_goes_on_in_its_file_and_the_dashboard_lists_it(tmp_path: Path, kind: str) -> None:
    check_goes_on(tmp_path, kind)
    from optuna_dashboard import wsgi
    from optuna_dashboard._storage_url import get_storage  # what its command line calls

    app = wsgi(get_storage(place_of(tmp_path, kind)))
    status: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "wsgi.input": io.BytesIO(),
               "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http"}
    body = b"".join(app(environ, lambda code, headers, *_: status.append(code)))
    assert status == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["search"]


def test_a_study_goes_on_in_postgres(tmp_path: Path, postgres: str) -> None:
    check_goes_on(tmp_path, postgres)
    assert place_of(tmp_path, postgres).startswith("postgresql+psycopg://me@/")


def test_a_database_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not answer"):
        storage_in(tmp_path, f"postgresql://me@/x?host={tmp_path}")


def test_the_study_of_a_search_is_an_optuna_study(tmp_path: Path) -> None:
    ledger = search(tmp_path, "journal", 8)
    study: Any = ledger.study
    assert isinstance(study, optuna.Study) and isinstance(study, Study)
    assert study.best_trial.value == ledger.winner().value  # type: ignore[union-attr]
    assert len(study.trials_dataframe()) == 8
    assert set(optuna.importance.get_param_importances(study)) == set(FLAT)
    with pytest.raises(UsageError, match="runs the trials"):
        study.optimize(lambda trial: 0.0)
