"""A spec's model checked on its own rows, before a search or a long training is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raymill.data.prepare import prepare
from raymill.errors import SpecError
from raymill.events import Notify, ignore
from raymill.spec import Spec
from raymill.tracking.home import Home
from raymill.training.checks import Verdict
from raymill.training.job import make_job
from raymill.training.rehearsal import SAMPLE
from raymill.training.rehearsal import rehearse as rehearse_job

from .project import check_task, own_code
from .workspace import prepared_in


def rehearse(spec: Spec, base: Path, notify: Notify = ignore) -> Iterator[Verdict]:
    """Each check's verdict, on a sample of the prepared data. Needs a running Ray.

    Raises:
        DataError, SpecError: data or spec are wrong before any model is built.
    """
    data = prepare(spec.data, base, Home.find().cache / "data", notify, spec.objective.positive,
                   prepared_in(spec))
    if problems := check_task(spec, data.contract):
        raise SpecError(problems)
    project = str(base) if own_code(spec) else None
    job = make_job(spec.model, spec.training, spec.objective.metric, data.transform.schema, project)
    yield from rehearse_job(job, data.sample("train", SAMPLE), data.sample("validation", SAMPLE))
