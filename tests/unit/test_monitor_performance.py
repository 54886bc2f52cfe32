"""Performance drift: given these labelled predictions, then these alerts; and how often without a cause."""

import pickle
import random
from datetime import UTC, datetime

import pytest
from watched_losses import Watch, record, released

from headrace.schemas.codec import encode
from headrace.schemas.stream import ArmPrediction, Baselines, ExampleLabelled, PredictionMade
from headrace.services.monitor.losses import Loss
from headrace.services.monitor.performance import DECODERS, KEPT, State, step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_MS = 86_400_000


def test_a_loss_that_rises_is_told_once_with_where_it_began_and_by_how_much():
    watch = Watch()
    assert watch.rows(6_000, 0.2) == []
    (alert,) = watch.rows(6_000, 0.4, version=7)
    assert (alert.kind, alert.level, alert.detector) == ("performance", "drift", "ADWIN(delta=0.0001)")
    assert alert.offset < 6_000 + 700
    assert abs(alert.since - 6_000) < 100
    assert alert.evidence["reference_loss"] == pytest.approx(0.2, abs=0.02)
    assert alert.evidence["recent_loss"] - alert.evidence["reference_loss"] >= alert.evidence["limit"] == 0.05
    assert (alert.run, alert.version, alert.epoch, alert.topic) == ("r1", 1, 1, "<p>.labelled-examples")


def test_a_model_that_gets_better_raises_no_alarm():
    watch = Watch()
    assert watch.rows(5_000, lambda n: 0.5 - 0.4 * min(n, 4_000) / 4_000) == []
    assert watch.rows(5_000, 0.02) == []
    assert watch.state.champion.rising.before is None


def test_a_rise_below_the_effect_is_no_alarm():
    watch = Watch(performance_effect=0.2)
    watch.rows(6_000, 0.2)
    assert watch.rows(6_000, 0.3) == []


def test_a_slow_decay_that_adwin_follows_is_found_against_the_mean_after_the_promotion():
    watch = Watch(performance_delta=1e-12)
    told = watch.rows(60_000, lambda n: 0.2 + 0.2 * n / 60_000)
    assert [alert.detector for alert in told] == ["mean after the promotion"]


def test_a_second_rise_on_top_of_the_first_is_told():
    watch = Watch()
    watch.rows(5_000, 0.1)
    assert len(watch.rows(3_000, 0.3)) == 1
    (more,) = watch.rows(3_000, 0.7)
    assert more.evidence["reference_loss"] > 0.2
    assert watch.rows(3_000, 0.3) == []  # still worse than before the first
    assert [over.degraded for over in watch.rows(3_000, 0.1)] == [False]


def test_that_the_loss_came_back_is_told_and_a_new_rise_anew():
    watch = Watch()
    watch.rows(5_000, 0.1)
    (rise,) = watch.rows(2_000, 0.3)
    (over,) = watch.rows(5_000, 0.1)
    assert (rise.degraded, over.degraded, over.level, over.detector) == (
        True,
        False,
        "warning",
        "over: the loss came back",
    )
    assert over.evidence["recent_loss"] < over.evidence["reference_loss"] + 0.025
    assert len(watch.rows(2_000, 0.3)) == 1


def test_while_it_lasts_a_warning_repeats_after_one_day_two_four_and_seven():
    watch = Watch(every_ms=DAY_MS // 5_000)
    watch.rows(5_000, 0.1)
    (first,) = watch.rows(2_000, 0.4)
    warnings = watch.rows(100_000, 0.4)
    days = [round((w.offset - first.offset) / 5_000, 1) for w in warnings]
    assert days == [1.0, 3.0, 7.0, 14.0]
    assert {(w.level, w.since) for w in warnings} == {("warning", first.since)}


def test_a_promotion_begins_a_new_detector_so_a_worse_champion_is_no_drift_of_its_own():
    watch = Watch()
    watch.rows(5_000, 0.1)
    assert watch.rows(5_000, 0.4, run="r2", epoch=2, version=2) == []
    (alert,) = watch.rows(2_000, 0.7, run="r2", epoch=3, version=2)
    assert (alert.run, alert.version) == ("r2", 2)


def test_late_labels_of_the_old_champion_do_not_count():
    watch = Watch()
    watch.rows(3_000, 0.1)
    watch.rows(3_000, 0.1, run="r2", epoch=2)
    assert watch.rows(3_000, 0.9, run="r1", epoch=1) == []
    assert watch.state.counts["old"] == 3_000


def test_a_run_that_comes_back_by_a_rollback_counts_only_its_new_rows():
    watch = Watch()
    watch.rows(2_000, 0.1)
    watch.rows(2_000, 0.1, run="r2", epoch=2)
    watch.rows(2_000, 0.1, run="r1", epoch=3)
    assert (watch.state.champion.run, watch.state.champion.rows) == ("r1", 2_000)
    watch.rows(100, 0.9, run="r1", epoch=1)
    watch.rows(100, 0.9, run="r2", epoch=2)
    assert watch.state.champion.rows == 2_000


def test_the_first_labels_after_a_promotion_are_the_fast_ones_and_do_not_count():
    """Right answers are confirmed after a second, wrong ones after 30 minutes: the mix is as usual only later."""

    def history(watch, run, epoch, n=9_000):
        told, rng, waiting = [], random.Random(3), []
        for number in range(n):
            if rng.random() < 0.2:
                waiting.append(number + 1_800)
            else:
                told += watch.row(1.0, True, run=run, epoch=epoch, delay_ms=1_000)
            while waiting and waiting[0] <= number:
                waiting.pop(0)
                told += watch.row(0.0, True, run=run, epoch=epoch, delay_ms=1_800_000)
        return told

    watch = Watch()
    history(watch, "r1", 1)
    watch.state.counts["early"] = 0
    assert history(watch, "r2", 2) == []
    assert watch.state.counts["early"] > 2_000


def test_history_is_not_watched():
    watch = Watch()
    watch.rows(3_000, 0.1)
    assert watch.rows(3_000, 0.9, history=True) == []
    assert (watch.state.flow.labels, watch.state.flow.delays.n) == (6_000, 3_000)


def test_an_arm_that_fails_to_answer_loses():
    assert Loss("binary", "accuracy").of(None, True) == 1.0
    assert Loss("binary", "logloss").of(float("nan"), True) == 1.0
    assert Loss("multiclass", "f1").of({}, "wet") == 1.0


def test_the_loss_follows_the_metric():
    assert Loss("binary", "accuracy").of(0.6, True) == 0.0
    assert Loss("binary", "auc").of(0.6, True) == pytest.approx(0.16)
    assert Loss("multiclass", "brier").of({"dry": 1.0}, "wet") == 1.0


@pytest.mark.parametrize(("metric", "loss"), [("mae", 0.5), ("rmse", 0.25)])
def test_errors_of_numbers_are_bounded_by_those_of_the_baseline(metric, loss):
    rule = Loss("regression", metric)
    for _ in range(199):
        rule.learn(13.0, 10.0)
        assert rule.of(0.0, 6.0) is None
    rule.learn(13.0, 10.0)
    assert rule.fixed.bound == 12.0
    assert rule.of(0.0, 6.0) == loss
    assert rule.of(1e12, 6.0) == rule.of(None, 6.0) == 1.0


def test_errors_of_numbers_that_rise_are_told():
    watch, told = Watch(label="float", metric="mae"), []
    for number in range(6_000):
        spread = 1.0 if number < 4_000 else 2.0
        told += watch.row(watch.rng.gauss(0, spread), 0.0, mean=watch.rng.gauss(0, 3))
    (alert,) = told
    assert 4_000 < alert.offset < 4_600


def test_another_metric_begins_anew_and_the_same_rules_do_not():
    watch = Watch()
    watch.rows(1_500, 0.1)
    watch.tell(released(release=2))
    assert watch.state.champion.rows == 1_500
    watch.tell(released(metric="brier", release=3))
    assert watch.state.champion is None


def test_rules_that_change_end_what_was_told_by_the_old_ones():
    watch = Watch()
    watch.rows(5_000, 0.1)
    assert len(watch.rows(2_000, 0.4)) == 1
    (over,) = watch.tell(released(metric="brier", release=2))
    assert (over.degraded, over.detector) == (False, "over: release 2 judges by other rules")


def test_the_lean_twin_reads_what_the_joiner_writes():
    arm = ArmPrediction(version=1, run="r1", learned_to=0, value=0.9)
    made = PredictionMade(
        id="1", time=NOON, features={"x": 1.0}, predictions={"champion": arm}, served="champion", release=1, epoch=4,
        origin=(0, 0), baselines=Baselines(mean=2.0),
    )  # fmt: skip
    labelled = ExampleLabelled(
        prediction=made, label=True, predicted_at_ms=5, labelled_at_ms=5, partition=0, number=3, pending_from=0,
        known_to=-1,
    )  # fmt: skip
    lean = DECODERS["ExampleLabelled"](encode(labelled))
    assert (lean.prediction.epoch, lean.prediction.baselines.mean) == (4, 2.0)
    for event in (lean, labelled):
        state = State()
        step(state, record(released()), None)
        step(state, record(event, 1), None)
        assert list(state.champion.losses) == [0.0]


@pytest.mark.long
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_twenty_stationary_streams_of_twenty_thousand_labels_raise_no_alarm(share):
    """Stated: at most 1 alarm in 400,000 labels."""
    assert sum(len(Watch(seed=seed).rows(20_000, share)) for seed in range(20)) <= 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("before", "after", "within"), [(0.2, 0.3, 1_500), (0.2, 0.4, 450), (0.05, 0.15, 600)], ids=str
)
def test_steps_of_a_stated_size_are_found_within_stated_labels(before, after, within):
    delays = []
    for seed in range(20):
        watch = Watch(seed=seed)
        assert watch.rows(5_000, before) == []
        delays.append(watch.rows(5_000, after)[0].offset - 5_000)
    assert max(delays) < within


def test_the_state_of_a_pipeline_stays_below_two_hundred_kilobytes():
    watch, largest = Watch(), 0
    for part in range(15):
        watch.rows(1_000, 0.2 if part < 9 else 0.5)
        largest = max(largest, len(pickle.dumps(watch.state)))
    assert len(watch.state.champion.losses) < 2 * KEPT
    assert largest < 200_000


def test_a_monitor_of_performance_saved_anywhere_tells_the_same():
    def history(save_every):
        watch, told = Watch(every_ms=60_000), []
        for number in range(9_000):
            if save_every and not number % save_every:
                watch.state = pickle.loads(pickle.dumps(watch.state))
            told += watch.rows(1, 0.1 if number < 3_000 else 0.4)
        return [encode(alert) for alert in told]

    assert history(0) == history(37)
    assert len(history(0)) > 1
