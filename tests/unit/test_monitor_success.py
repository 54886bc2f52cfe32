"""`Success`, the absolute limit: given these answers of a champion, then it is degraded by it, or no longer."""

import pickle

import pytest
from watched_losses import Watch, released

from headrace.schemas.policies import Success
from headrace.services.monitor.success import Bar

ASKED = Success("accuracy", at_least=0.6)


def test_two_windows_that_miss_it_are_told_with_the_score_and_one_that_meets_it_ends_that():
    """A champion that was never better: nothing rose, and only the limit tells."""
    watch = Watch(success=ASKED)
    (missed,) = watch.rows(5_000, 0.5)
    assert (missed.kind, missed.level, missed.detector) == ("performance", "drift", "Success missed twice in a row")
    assert (missed.offset, missed.since, missed.degraded) == (2_000, 1, True)
    assert missed.evidence == {
        "metric": "accuracy", "value": pytest.approx(0.5, abs=0.05), "asked": "at least 0.6", "rows": 1_000,
        "rows_since": 2_000, "n": 2_000,
    }  # fmt: skip
    (met,) = watch.rows(3_000, 0.2)
    assert (met.level, met.detector, met.degraded) == ("warning", "over: Success is met again", False)
    assert met.offset == 6_000


def test_one_window_that_misses_it_may_be_chance():
    watch = Watch(success=ASKED, performance_effect=0.9)
    assert watch.rows(6_000, lambda n: 0.2 if n // 1_000 % 2 else 0.5) == []


def test_windows_are_those_since_the_promotion():
    watch = Watch(success=ASKED)
    watch.rows(1_500, 0.5)
    assert watch.rows(1_900, 0.5, run="r2", epoch=2) == []
    (missed,) = watch.rows(100, 0.5, run="r2", epoch=2)
    assert (missed.run, missed.since) == ("r2", 1_501)


def test_a_loss_that_rose_and_a_limit_that_is_missed_train_once_and_end_one_after_the_other():
    watch = Watch(success=ASKED)
    watch.rows(4_000, 0.1)
    rise, missed = watch.rows(4_000, 0.5)
    assert (rise.level, missed.level, missed.detector) == ("drift", "warning", "Success missed twice in a row")
    ends = watch.rows(6_000, 0.1)
    assert [(one.detector.partition(":")[0], one.degraded) for one in ends] == [("over", False), ("over", False)]


def test_where_the_loss_came_back_and_the_limit_is_missed_still_it_is_degraded_by_that():
    watch = Watch(success=Success("accuracy", at_least=0.95))
    watch.rows(2_000, 0.1)
    watch.rows(2_000, 0.4)
    (still,) = watch.rows(5_000, 0.1)
    assert (still.level, still.detector, still.degraded) == ("warning", "Success missed twice in a row", True)


def test_a_metric_that_is_no_mean_of_losses_is_held_to_its_limit_too():
    watch = Watch(success=Success("f1", at_least=0.9))
    (missed,) = watch.rows(3_000, 0.5)  # all labels are true: recall .5, precision 1
    assert missed.evidence["metric"] == "f1"
    assert missed.evidence["value"] == pytest.approx(2 / 3, abs=0.05)


def test_errors_of_numbers_are_held_to_at_most():
    watch, told = Watch(label="float", success=Success("mae", at_most=1.0)), []
    for _ in range(2_000):
        told += watch.row(1.5, 0.0, mean=0.0)
    (missed,) = told
    assert (missed.evidence["value"], missed.evidence["asked"]) == (1.5, "at most 1")


def test_a_release_that_asks_for_something_else_ends_it():
    watch = Watch(success=ASKED)
    watch.rows(2_000, 0.5)
    (over,) = watch.tell(released(success=Success("accuracy", at_least=0.4), release=2))
    assert (over.degraded, over.detector) == (False, "over: release 2 judges by other rules")
    assert watch.rows(3_000, 0.5) == []


def test_without_a_limit_there_is_nothing_to_miss():
    watch = Watch()
    watch.rows(10, 0.5)
    assert watch.state.champion.bar is None


def test_answers_that_cannot_be_used_belong_to_no_score():
    bar = Bar("binary", ASKED)
    assert not any(bar.turns(None, True, (n, n)) for n in range(3_000))


def test_a_monitor_saved_anywhere_tells_the_same_of_success():
    def told(save_every):
        watch, alerts = Watch(success=ASKED), []
        for number in range(4_500):
            if save_every and not number % save_every:
                watch.state = pickle.loads(pickle.dumps(watch.state))
            alerts += watch.rows(1, 0.5 if number < 3_000 else 0.1)
        return alerts

    assert told(0) == told(37)
    assert len(told(0)) == 2
