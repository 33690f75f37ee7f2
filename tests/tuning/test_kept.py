"""The best trials' checkpoints stay, the others' go."""

from pathlib import Path

from torch import nn

from raymill.events import Event
from raymill.stores import Folder
from raymill.training import checkpoint
from raymill.training.checkpoint import CHECKPOINTS, Progress, snapshot
from raymill.tuning.kept import Kept
from raymill.tuning.places import FOLDER, Places


def trial(folder: Path, number: int) -> Path:
    own = folder / FOLDER / str(number) / CHECKPOINTS
    weights = {"model": dict(nn.Linear(1, 1).state_dict())}
    for epoch in (1, 2, 3):
        best = min(epoch, 2)
        progress = Progress(epoch=epoch, best=0.9, best_epoch=best, best_checkpoint=best)
        checkpoint.write(own, epoch, snapshot(weights, progress))
    return own


def left(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / FOLDER).iterdir())


def test_only_the_best_complete_trials_and_the_running_ones_are_left(tmp_path: Path) -> None:
    told: list[Event] = []
    kept = Kept(Folder(tmp_path / FOLDER), 2, maximize=True)
    notify = kept.listening(told.append)
    ends = [(0, "complete", 0.5), (1, "complete", 0.9), (2, "pruned", 0.95), (3, "failed", None),
            (4, "complete", 0.7)]
    for number, _, _ in ends:
        trial(tmp_path, number)
    trial(tmp_path, 5)
    for number, state, value in ends:
        notify(Event("trial", {"number": number, "state": state, "value": value}))
    assert left(tmp_path) == [1, 4, 5]
    assert len(told) == len(ends)


def test_a_resumed_search_keeps_what_led_and_what_goes_on(tmp_path: Path) -> None:
    for number in range(5):
        trial(tmp_path, number)
    kept = Kept(Folder(tmp_path / FOLDER), 1, maximize=False)
    kept.begin([(0, 0.5), (1, 0.2), (2, None), (7, 0.1)], {3})  # 7 never had a folder
    assert left(tmp_path) == [1, 3]


def test_nothing_is_left_where_nothing_is_made_of_the_trials(tmp_path: Path) -> None:
    kept = Kept(Folder(tmp_path / FOLDER), 0, maximize=True)
    trial(tmp_path, 0), trial(tmp_path, 1)
    kept.listening(lambda event: None)(
        Event("trial", {"number": 0, "state": "complete", "value": 0.9}))
    assert left(tmp_path) == [1]
    kept.sweep(())
    assert not (tmp_path / FOLDER).exists()


def test_the_best_epochs_checkpoint_is_found(tmp_path: Path) -> None:
    own, places = trial(tmp_path, 0), Places(tmp_path / FOLDER)
    assert places.best_checkpoint(0) == checkpoint.of_epoch(own, 2)
    assert places.best_checkpoint(2) is None
