"""Training by Ray Train: N workers, each with its own exact share of the rows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from raymill.errors import Problem, RaymillError, TrainingError
from raymill.events import Event, Notify, ignore, note
from raymill.signals import deferred

from .background import Background
from .checkpoint import CHECKPOINTS, REGROWN
from .devices import usable_gpus
from .failures import last_line, lost, may_pass, raised
from .gpus import idle, workers_on
from .job import TrainJob
from .loop import fit
from .loopback import LoopbackTorch
from .mailbox import Beat, Letters, Mailbox
from .placement import SPLITS, Rows, place_rows, shard_of
from .regrowing import Silent, regrow, regrows
from .result import FitResult, as_dict, from_dict
from .session import Interrupted, pick_device
from .shares import cpu_share
from .watchdog import Watchdog, dump_on_signal, stack_file

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared
    from raymill.stores import Store

INTERRUPTED = {"interrupted": True}
BEAT_S = 1.0
STARTING_S = 90.0  # a step, for what comes before the first: rows, model, compiler, checkpoint
RESIZE_S = 10.0  # how often an elastic run looks for room for more workers
POLL_S = 0.2  # how often events are fetched, and reports polled by Ray Train's controller
DEFAULTS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_S),  # one report passes a poll; Ray waits 2 s
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def train(
    job: TrainJob, prepared: Prepared, out: Path, notify: Notify = ignore,
    store: Store | None = None,
) -> FitResult:
    """Train with `job.training.workers` workers of the Ray cluster that is connected.

    Checkpoints lie in `out/checkpoints`, which every node must see; or they are published in
    `store`, and `out` gets the best. The same place again goes on after the last whole epoch, and
    returns at once when there was nothing left to do. Epochs are told to `notify` while they
    happen.

    Raises:
        TrainingError: the loop's own (see `fit`), workers lost more than
            `training.max_failures` times, or fewer GPUs than `training.gpu: require` needs.
    """
    job, share = _share(job, notify)
    rows = place_rows(prepared, job.training.workers, notify)
    return train_rows(job, rows, share, out, notify, store, last=True)


def train_rows(
    job: TrainJob, rows: Rows, share: Share, out: Path, notify: Notify = ignore,
    store: Store | None = None, *, last: bool = False,
) -> FitResult:
    """`train` on rows that are placed already, each worker with `share`; what is no `last` training
    is to be judged by the validation rows, so it is not regrown."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if len(ray.nodes()) == 1:  # nobody drains the only node
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    out = out.absolute()
    work = out
    if store is not None:
        from . import mirrored

        job, work = mirrored.sent(job, store), mirrored.scratch(store)
    mailbox = ray.remote(num_cpus=0, max_restarts=3)(Mailbox).remote()
    config = {"job": job.to_dict(), "folder": str(out), "threads": share.threads,
              "mailbox": mailbox, "rows": rows.held, "store": store, "last": last}
    watchdog = Watchdog(job.training.watchdog, work, notify)
    trainer = _trainer(job, config, share, rows, out)
    try:
        with _quiet(), _listening(mailbox, watchdog, notify):
            value = _run(trainer, mailbox, notify)
        if fatal := ray.get(mailbox.cause.remote()):
            raise fatal
        result = from_dict(value)
        return result if store is None else mirrored.arrived(result, store, out)
    except ray.train.TrainingFailedError as error:
        if fatal := ray.get(mailbox.cause.remote()):
            raise fatal from None
        raise lost(error, job) from error
    finally:
        ray.kill(mailbox)


def _run(trainer: TorchTrainer, mailbox: Any, notify: Notify) -> Any:
    """Rank 0's result. The first SIGINT or SIGTERM asks the workers for a last checkpoint.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    # Ray Train takes SIGINT for itself in the main thread, and has no word for SIGTERM.
    fitting = Background(lambda: trainer.fit().return_value)
    with deferred() as asked:
        while not fitting.done(POLL_S):
            if asked.is_set():
                note(notify, "stopping: the workers finish their step and keep a checkpoint; "
                             "once more to leave now")
                mailbox.stop.remote()
                break
        value = fitting.result()
    if asked.is_set() or value == INTERRUPTED:
        raise KeyboardInterrupt
    return value


def _trainer(
    job: TrainJob, config: dict[str, Any], share: Share, rows: Rows, out: Path
) -> TorchTrainer:
    workers = job.training.workers
    return TorchTrainer(
        _work,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers if isinstance(workers, int) else (workers.min, workers.max),
            elastic_resize_monitor_interval_s=RESIZE_S, use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus,
                                  **({"GPU": share.gpus} if share.gpus else {})},
        ),
        torch_config=LoopbackTorch(backend=share.backend, timeout_s=600),
        run_config=RunConfig(
            name="ray", storage_path=str(out), logging_config=LoggingConfig(log_level="ERROR"),
            failure_config=FailureConfig(max_failures=job.training.max_failures,
                                         controller_failure_limit=3),
            callbacks=[_Teller(config["mailbox"])],
        ),
        datasets=rows.shares,
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without progress bars, here and in the workers, which get this context."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before


@dataclass(frozen=True)
class Share:
    """What each worker gets: `threads` of torch, and the CPUs and GPUs that Ray counts for it.

    `backend` None: NCCL with GPUs, else Gloo. GPUs that are only counted need it named.
    """

    threads: int
    cpus: float
    gpus: float = 0
    backend: str | None = None


def _share(job: TrainJob, notify: Notify) -> tuple[TrainJob, Share]:
    """The job with the workers that it gets, and an equal share of the cluster for each."""
    resources, training = ray.cluster_resources(), job.training
    gpus = int(resources.get("GPU", 0))
    on = workers_on(gpus, training)
    gpu = on is not None and usable_gpus()
    if training.gpu == "require" and not gpu:
        found = f"{gpus} for {training.fewest_workers} workers"
        raise TrainingError(Problem(
            rule="training.gpu: require needs a GPU a worker",
            got=found + (", none of which torch can use" if on is not None else ""),
            cure="Lower training.workers, or set training.gpu to auto."))
    if gpus and (on is None or gpu) and (words := idle(gpus, training)):
        note(notify, words)
    if gpu:
        job = job.with_training(workers=on)
        training = job.training
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    share, counted = cpu_share(training, nodes)
    return job, Share(threads=max(1, int(share)), cpus=counted, gpus=1 if gpu else 0)


@contextmanager
def _listening(mailbox: Any, watchdog: Watchdog, notify: Notify) -> Iterator[None]:
    """Hand the workers' events to `notify`, and watch their beats, while the block runs."""
    ended = threading.Event()

    def fetch() -> Letters:
        try:
            letters: Letters = ray.get(mailbox.fetch.remote())
        except ray.exceptions.RayActorError:
            return Letters([], {})  # it starts again, without what it held
        for event in letters.events:
            notify(event)
        return letters

    def listen() -> None:
        while not ended.wait(POLL_S):
            if watchdog.look(fetch().beats):
                mailbox.rest.remote()

    thread = threading.Thread(target=listen, name="raymill-epochs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        fetch()


class _Teller(UserCallback):  # type: ignore[misc]
    """Tells of workers that were lost, in Ray Train's controller."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(
        self, run_context: Any, worker_exceptions: dict[int, Exception]
    ) -> None:
        causes = "; ".join(f"rank {rank}: {last_line(cause)}"
                           for rank, cause in worker_exceptions.items())
        ray.get([self._mailbox.rest.remote(), self._mailbox.lost.remote(causes)])


@dataclass
class _RaySession:
    """A worker of Ray Train. Checkpoints are this project's own: Ray's index of them is rewritten
    in place and hashes nothing, so it gets none."""

    folder: Path
    device: torch.device
    rank: int
    world_size: int
    mailbox: Any
    store: Store | None = None
    stopping: bool = False
    _node: str = field(default_factory=lambda: ray.get_runtime_context().get_node_id())
    told: float = 0.0
    _answer: ray.ObjectRef[bool] | None = None

    def report(self, metrics: Mapping[str, float]) -> None:
        ray.train.report(dict(metrics))

    def alive(self, typical_s: Callable[[], float]) -> None:
        now = time.monotonic()
        if now - self.told < BEAT_S:
            return
        self.told = now
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                self.told = 0.0
                return  # the mailbox is busy: it gets one beat at a time
            self.stopping |= ray.get(self._answer)
        beat = Beat(self.rank, os.getpid(), self._node, typical_s())
        self._answer = self.mailbox.beat.remote(beat)


def _work(config: dict[str, Any]) -> dict[str, Any] | None:
    """What each worker runs; rank 0's result goes to the driver."""
    job, mailbox = TrainJob.from_dict(config["job"]), config["mailbox"]
    if ray.get(mailbox.cause.remote()) is not None:
        return None  # the attempt before this one met an error that would only come again
    context = ray.train.get_context()
    torch.set_num_threads(config["threads"])
    rank, out = context.get_world_rank(), Path(config["folder"])
    store: Store | None = config["store"]
    place = out
    if store is not None:
        from . import mirrored

        out = mirrored.scratch(store)
        place = out / f"rank-{rank}"
    session = _RaySession(
        folder=place / CHECKPOINTS, store=store and store / CHECKPOINTS,
        device=pick_device(job.training.gpu, context.get_local_rank()),
        rank=rank, world_size=context.get_world_size(), mailbox=mailbox,
    )
    ray.get(mailbox.send.remote(Event("place", {
        "rank": rank, "gpus": [int(gpu) for gpu in ray.get_gpu_ids()],
        "device": str(session.device)})))
    with dump_on_signal(stack_file(out, rank)):
        session.alive(lambda: STARTING_S)
        session.told = 0.0  # the first step is told at once: it ends the long wait
        try:
            train_shard, validation = (
                shard_of(config["rows"], split, rank, job.training.seed) for split in SPLITS)
            result = fit(job, train_shard, validation, session, mailbox.send.remote)
            if config["last"] and regrows(job):
                silent = Silent(session, place / REGROWN, store and store / REGROWN)
                result = replace(result, regrown=regrow(job, train_shard, validation, silent,
                                                        mailbox.send.remote, result))
        except Interrupted:
            return INTERRUPTED
        except Exception as error:
            if may_pass(error):
                raise
            told = error if isinstance(error, RaymillError) else raised(error, rank)
            ray.get(mailbox.fail.remote(told))
            if session.world_size == 1:
                return None
            raise  # the other ranks may wait in a collective: only an error takes them down
        finally:
            ray.get(mailbox.rest.remote())
    if store is not None:
        mirrored.clear(place)
    return as_dict(result)
