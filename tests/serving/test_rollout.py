"""The controller by its clock and its counts alone."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from raymill.errors import UsageError
from raymill.serving.change import terms
from raymill.serving.rollout import Rollout
from raymill.serving.sequential import Moments
from raymill.serving.tally import Tally
from raymill.serving.terms import Terms, ladder

TERMS = Terms("canary", ladder(0.1), bake_s=60, least=100)


def tally(
    count: int, *, failed: float = 0.0, ms: float = 2.0, score: float = 0.3, seed: int = 0
) -> Tally:
    """Answers whose figures vary about these."""
    made, rng = Tally(), random.Random(seed)
    for _ in range(count):
        fails = rng.random() < failed
        made.answer(500 if fails else 200, rng.lognormvariate(0, 0.2) * ms / 1000)
        if not fails:
            made.scores({"probability_yes": rng.gauss(score, 0.1)})
    return made


def test_the_steps_go_up_from_the_first_share() -> None:
    assert ladder(0.01) == (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
    assert ladder(0.2) == (0.2, 0.25, 0.50, 1.0)


def test_a_step_takes_its_time_and_its_requests() -> None:
    rollout, old = Rollout(TERMS, since=0.0), tally(1000)
    assert "bakes 50 s" in rollout.look(10, old, tally(500)).why
    assert "waits for 60 more" in rollout.look(61, old, tally(40)).why
    assert rollout.look(61, old, tally(100)).what == "step"


def test_equal_models_go_up_to_the_champion() -> None:
    rollout, now, shares = Rollout(TERMS, since=0.0), 0.0, []
    while True:
        now += 61
        shares.append(rollout.share)
        champion = tally(0 if rollout.share == 1 else 1000)
        decision = rollout.look(now, champion, tally(1000, seed=1))
        if decision.what != "step":
            break
        rollout = rollout.next(now, champion)
    assert shares == [0.10, 0.25, 0.50, 1.0] and decision.what == "complete"


@pytest.mark.parametrize(
    ("worse", "name"),
    [({"failed": 0.2}, "errors"), ({"ms": 10.0}, "latency"), ({"score": 0.5}, "drift"),
     ({"score": 0.1}, "drift")],
)
def test_what_is_shown_to_be_worse_goes_back_at_once(worse: dict[str, float], name: str) -> None:
    decision = Rollout(TERMS, since=0.0).look(1, tally(2000), tally(300, seed=1, **worse))  # type: ignore[arg-type]
    assert decision.what == "back" and decision.why.startswith(name)


def test_it_goes_back_also_while_it_is_paused_and_at_its_full_share() -> None:
    paused = Rollout(TERMS, since=0.0).pause()
    assert paused.look(999, tally(2000), tally(300)).why == "paused"
    assert paused.look(999, tally(2000), tally(300, failed=0.5)).what == "back"
    full = Rollout(TERMS, since=0.0, at=3, before=tally(2000))
    assert full.share == 1.0 and full.look(1, Tally(), tally(300, failed=0.5)).what == "back"


def test_a_failure_or_two_show_nothing() -> None:
    one = tally(99)
    one.answer(500, 0.001)
    assert Rollout(TERMS, since=0.0).look(61, tally(5000), one).what == "step"


def test_a_step_begins_anew_when_it_is_resumed() -> None:
    rollout = Rollout(TERMS, since=0.0).pause().resume(100)
    assert "bakes" in rollout.look(130, tally(2000), tally(300)).why


def test_what_answers_were_worth_decides_once_labels_have_come() -> None:
    rollout, old, new = Rollout(TERMS, since=0.0), tally(2000), tally(300)
    worse = (Moments(2000, 0.9, 0.09), Moments(2000, 0.7, 0.21))
    decision = rollout.look(61, old, new, worse)
    assert decision.what == "back" and decision.why.startswith("value")
    assert rollout.look(61, old, new, worse[::-1]).what == "step"


def test_an_ab_test_and_a_shadow_stay_until_somebody_decides() -> None:
    for mode, shares in (("ab", (0.5,)), ("shadow", ())):
        rollout = Rollout(Terms(mode, shares, bake_s=1, least=1), since=0.0)  # type: ignore[arg-type]
        assert rollout.look(999, tally(2000), tally(2000)).what == "stay"
    worse = rollout.look(999, tally(2000), tally(2000, score=0.5))
    assert worse.what == "stay" and [f.name for f in worse.findings if f.worse] == ["drift"]


WORDS = {"canary": None, "shadow": False, "ab": None, "share": None, "bake_s": 1.0, "least": 1,
         "drift": 0.25}


@pytest.mark.parametrize(
    "words",
    [{}, {"canary": 0.1, "shadow": True}, {"shadow": True, "ab": "k"}, {"canary": 0.0},
     {"canary": 1.0}, {"canary": 0.1, "share": 0.5}, {"ab": "k", "share": 1.0},
     {"ab": "k", "share": -0.1}, {"canary": 0.1, "bake_s": -1.0}, {"canary": 0.1, "least": 0}],
)
def test_words_that_make_no_rollout_are_refused(words: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        terms(**WORDS | words)  # type: ignore[arg-type]


def test_a_canary_may_go_by_a_key() -> None:
    found = terms(**WORDS | {"canary": 0.05, "ab": "user"})  # type: ignore[arg-type]
    assert (found.mode, found.shares) == ("canary", (0.05, 0.10, 0.25, 0.50, 1.0))


def test_asking_a_service_needs_no_heavy_import() -> None:
    """`raymill rollback` is there before numpy would be imported."""
    code = ("import sys, raymill.cli.models, raymill.serving.change;"
            "print([m for m in ('numpy', 'pyarrow', 'torch', 'ray', 'mlflow') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
