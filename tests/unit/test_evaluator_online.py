"""Scores behind the labels: given these labelled examples, then those numbers."""

import pickle
import random
from datetime import UTC, datetime

import pytest
from definitions import definition_of
from river import linear_model, metrics, preprocessing

from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import LabelsCounted, MetricsUpdated, PipelineReleased, PipelineRetired
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.record import Record
from headrace.schemas.stream import (
    ArmPrediction,
    Baselines,
    ExampleLabelled,
    PredictionMade,
    Tick,
)
from headrace.services.evaluator.coverage import Coverage
from headrace.services.evaluator.online import DECODERS, RUNS_KEPT, State, step
from headrace.services.evaluator.tally import WINDOW_ROWS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(event, offset=0, known_ms=0, partition=0):
    return Record(event, known_ms, "<p>.labelled-examples", "rain", 0, offset, source=f"/joiner/rain/t/{partition}")


def released(label="bool", every_labels=None):
    values = ("dry", "wet", "snow") if label == "classes" else None
    contract = ContractSpec(
        name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type=label, values=values)
    )
    definition = definition_of(
        contract=contract,
        policies=Policies(triggers=Triggers(every_labels=every_labels)),
    )
    return PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=1, request="q", by="ann")


def labelled(label, value=None, number=0, pending_from=None, run="a", version=1, error=None, alias="champion", **more):
    """One joined row; no value and no error: nothing served yet."""
    arms = (
        {}
        if value is None and error is None
        else {alias: ArmPrediction(version=version, run=run, learned_to=0, value=value, error=error)}
    )
    baselines = more.pop("baselines", Baselines(majority=True, mean=1.0, last=False))
    prediction = PredictionMade(
        id=str(number),
        time=NOON,
        features={"x": 1.0},
        predictions=arms,
        served=None,
        release=1,
        epoch=1,
        origin=(0, number),
        baselines=baselines,
        history=more.pop("history", False),
    )
    return ExampleLabelled(
        prediction=prediction,
        label=label,
        predicted_at_ms=0,
        labelled_at_ms=0,
        partition=more.pop("partition", 0),
        number=number,
        pending_from=number + 1 if pending_from is None else pending_from,
        known_to=-1,
        **more,
    )


def fold(rows, label="bool", at_ms=0, state=None, **release):
    """The state after these rows (all at one known time) and what was emitted."""
    state = State() if state is None else state
    emits = step(state, record(released(label, **release), known_ms=at_ms), None)
    for offset, row in enumerate(rows):
        emits += step(state, record(row, offset, at_ms), None)
    return state, [emit.event for emit in emits]


def minute(state, n=1):
    """What a tick of the n-th minute brings, by scope."""
    tick = Tick(schedule="minute", due=NOON)
    events = [emit.event for emit in step(state, record(tick, 10_000, n * 60_000), None)]
    return {event.scope: event for event in events}


def test_every_scope_is_reported_when_a_minute_passed_and_something_is_new():
    state, events = fold([labelled(True, 0.9), labelled(False, 0.8, 1), labelled(True, 0.7, 2)])
    assert events == []
    reported = minute(state)
    assert set(reported) == {"windowed", "fading", "cumulative"}
    total = reported["cumulative"]
    assert (total.alias, total.version, total.run, total.n) == ("champion", 1, "a", 3)
    assert total.metrics["accuracy"] == pytest.approx(2 / 3)
    assert total.metrics["majority_accuracy"] == pytest.approx(2 / 3)
    assert total.metrics["last_accuracy"] == pytest.approx(1 / 3)
    assert total.metrics["brier"] == pytest.approx((0.01 + 0.64 + 0.09) / 3)
    assert reported["windowed"].window == (0, 3)
    assert minute(state, 2) == {}  # nothing new


def test_within_one_minute_nothing_is_reported_twice():
    state, _ = fold([labelled(True, 0.9)])
    assert minute(state, 1)
    step(state, record(labelled(True, 0.9, 1), 1, 60_500), None)
    assert minute(state, 1) == {}
    assert minute(state, 2)["cumulative"].n == 2


def test_minutes_pass_before_1970_too():
    in_1950 = -631_152_000_000
    state, events = fold([labelled(True, 0.9)], at_ms=in_1950)
    assert events == []
    assert minute(state, in_1950 // 60_000 + 1)["cumulative"].n == 1


def test_a_window_is_reported_when_it_is_full_and_the_next_one_begins_empty():
    state, events = fold([labelled(True, 0.9, i) for i in range(WINDOW_ROWS)])
    windows = [event for event in events if isinstance(event, MetricsUpdated)]
    assert [(event.scope, event.n) for event in windows] == [
        ("windowed", WINDOW_ROWS),
        ("fading", WINDOW_ROWS),
        ("cumulative", WINDOW_ROWS),
    ]
    step(state, record(labelled(False, 0.9, WINDOW_ROWS), WINDOW_ROWS), None)
    reported = minute(state)
    assert (reported["windowed"].n, reported["windowed"].metrics["accuracy"]) == (1, 0.0)
    assert reported["windowed"].window == (WINDOW_ROWS, WINDOW_ROWS + 1)
    assert reported["cumulative"].n == WINDOW_ROWS + 1


def test_fading_scores_forget():
    state, _ = fold([labelled(True, 0.1, i) for i in range(900)] + [labelled(True, 0.9, i) for i in range(900, 1_800)])
    reported = minute(state)
    assert reported["cumulative"].metrics["accuracy"] == 0.5
    assert 0.6 < reported["fading"].metrics["accuracy"] < 0.8


def test_cumulative_scores_are_those_of_river_to_the_last_bit():
    rng = random.Random(4)
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    loss, accuracy, rows = metrics.LogLoss(), metrics.Accuracy(), []
    for i in range(700):
        x = {"x": rng.gauss(0, 1)}
        y = x["x"] + rng.gauss(0, 1) > 0
        proba = model.predict_proba_one(x)
        loss.update(y, proba)
        accuracy.update(y, model.predict_one(x))
        model.learn_one(x, y)
        rows.append(labelled(y, proba[True], i))
    state, _ = fold(rows)
    found = minute(state)["cumulative"].metrics
    assert (found["logloss"], found["accuracy"]) == (loss.get(), accuracy.get())


def test_cumulative_errors_of_numbers_are_those_of_river_to_the_last_bit():
    rng = random.Random(4)
    mae, rmse, rows = metrics.MAE(), metrics.RMSE(), []
    for i in range(300):
        y, guess = rng.gauss(0, 9), rng.gauss(0, 9)
        mae.update(y, guess)
        rmse.update(y, guess)
        rows.append(labelled(y, guess, i, baselines=Baselines(mean=0.5, last=y)))
    state, _ = fold(rows, label="float")
    found = minute(state)["cumulative"].metrics
    assert (found["mae"], found["rmse"]) == (mae.get(), rmse.get())
    assert found["last_mae"] == 0.0


def test_classes_are_scored_by_the_likeliest_one():
    rows = [labelled("wet", {"dry": 0.2, "wet": 0.5, "snow": 0.3}), labelled("dry", {"dry": 0.1, "wet": 0.9}, 1)]
    state, _ = fold(rows, label="classes")
    assert minute(state)["cumulative"].metrics["accuracy"] == 0.5


def test_a_recipe_without_probabilities_has_no_log_loss():
    state, _ = fold([labelled(True, True), labelled(True, False, 1)])
    found = minute(state)["cumulative"].metrics
    assert found["accuracy"] == 0.5
    assert "logloss" not in found


def test_rows_without_a_served_model_are_not_scored():
    state, _ = fold([labelled(True, number=i) for i in range(50)])
    assert minute(state) == {}
    assert state.counting.labels == 50


def test_an_arm_that_raised_is_counted_as_failed_and_not_scored():
    state, _ = fold([labelled(True, 0.9), labelled(True, error="KeyError: x", number=1), labelled(True, {}, number=2)])
    found = minute(state)["cumulative"]
    assert (found.n, found.metrics["failed"]) == (1, 1.0)


def test_an_answer_beyond_all_bounds_costs_a_whole_loss_and_does_not_stop_the_scores():
    state, _ = fold([labelled(True, 1e200), labelled(True, 0.9, 1)])
    assert minute(state)["cumulative"].metrics["brier"] == pytest.approx((1 + 0.01) / 2)
    state, _ = fold([labelled("wet", {"dry": 1e200, "wet": 0.5})], label="classes")
    assert minute(state)["cumulative"].metrics["brier"] == 1.0


def test_late_labels_of_an_old_run_stay_with_that_run():
    rows = [labelled(True, 0.9, 0), labelled(True, 0.9, 1, run="b", version=2), labelled(True, 0.1, 2)]
    state, _ = fold(rows)
    tick = Tick(schedule="minute", due=NOON)
    found = {
        (e.event.run, e.event.version): e.event.n
        for e in step(state, record(tick, 9, 60_000), None)
        if e.event.scope == "cumulative"
    }
    assert found == {("a", 1): 2, ("b", 2): 1}


def test_the_run_that_was_silent_longest_makes_room_after_a_last_report():
    rows = [labelled(True, 0.9, i, run=f"run-{i}") for i in range(RUNS_KEPT + 1)]
    state, events = fold(rows)
    assert {event.run for event in events} == {"run-0"}
    assert len(state.arms) == RUNS_KEPT


# --- labels -----------------------------------------------------------------------------------------------


def test_coverage_is_the_share_of_labels_among_predictions_that_wait_no_longer():
    """Of 128 predictions every fourth never gets its label; the newest 64 still wait."""
    rows = [labelled(True, 0.9, number=i, pending_from=64 if i >= 63 else i) for i in range(128) if i % 4]
    state, _ = fold(rows)
    assert minute(state)["cumulative"].coverage == 0.75


def test_coverage_moves_on_with_a_tick_when_the_rest_has_expired():
    state, _ = fold([labelled(True, 0.9, number=i, pending_from=0) for i in range(32)])
    assert state.coverage.share() is None
    step(state, record(Tick(schedule="minute", due=NOON, pending_from=64), 99), None)
    assert state.coverage.share() == 0.5


def test_how_long_labels_take_is_not_learned_from_history():
    state, _ = fold([labelled(True, number=n, history=n < 100) for n in range(150)])
    live, _ = fold([labelled(True, number=n) for n in range(150)])
    assert 0 < state.evidence.delays.n < live.evidence.delays.n


def test_stand_ins_for_labels_that_never_came_are_no_coverage():
    state, _ = fold([labelled(True, 0.9, number=i, inferred=i % 2 == 0) for i in range(64)])
    assert state.coverage.share() == 0.5


def test_joiner_partitions_are_covered_apart():
    state, _ = fold([labelled(True, 0.9, number=i, partition=1) for i in range(64)])
    step(state, record(Tick(schedule="minute", due=NOON, pending_from=64), 99, partition=0), None)
    assert (state.coverage.came, state.coverage.matured) == (64, 128)
    step(state, record(Tick(schedule="minute", due=NOON, pending_from=128), 99, partition=1), None)
    assert (state.coverage.matured, state.coverage.next_bucket) == (192, {1: 2, 0: 1})


def test_labels_are_counted_at_200_and_its_doublings():
    _, events = fold([labelled(True, number=i) for i in range(900)])
    assert events == [LabelsCounted(pipeline="rain", n=n, offset=n, newest=(0, n)) for n in (200, 400, 800)]


def test_labels_are_counted_at_multiples_of_the_new_data_trigger_too():
    _, events = fold([labelled(True, number=i) for i in range(400)], every_labels=150)
    assert [event.n for event in events] == [150, 200, 300, 400]


def quiet_stream(labels, **triggers):
    """What is counted where a label comes once in ten minutes, each of them a tick."""
    event = released()
    policies = event.definition.policies.model_copy(update={"triggers": Triggers(**triggers)})
    event = event.model_copy(update={"definition": event.definition.model_copy(update={"policies": policies})})
    state = State()
    step(state, record(event), None)
    counted = []
    for offset in range(labels * 10):
        made = Tick(schedule="minute", due=NOON) if offset % 10 else labelled(True, number=offset // 10)
        told = step(state, record(made, offset, known_ms=offset * 60_000), None)
        counted += [one.event for one in told if isinstance(one.event, LabelsCounted)]
    return counted


def test_the_newest_window_is_so_many_labels_however_many_ticks_stand_between_them():
    for counted in quiet_stream(600, every_labels=100, window_labels=200):
        start, n = counted.newest
        assert n == sum(1 for offset in range(start, counted.offset) if not offset % 10)
        assert min(counted.n, 200) <= n <= 200 + 200 // 20
        assert start or n == counted.n  # a window of all labels is the whole log, with whatever stands before them


@pytest.mark.parametrize("triggers", [{"schedule": "0 3 * * *"}, {"on_input_drift": True}])
def test_where_the_newest_window_may_be_asked_for_at_any_time_labels_are_counted_every_minute(triggers):
    assert [one.n for one in quiet_stream(250, window_labels=100, **triggers)] == [*range(1, 251)]
    assert [one.n for one in quiet_stream(250)] == [200]


def test_the_last_numbers_are_told_when_a_pipeline_ends():
    state, _ = fold([labelled(True, 0.9)])
    ended = PipelineRetired(pipeline="rain", request="q", by="ann")
    assert len(step(state, record(ended, 9), None)) == 3


# --- the state --------------------------------------------------------------------------------------------


def test_a_state_saved_and_read_again_goes_on_alike():
    rng = random.Random(7)
    rows = [labelled(rng.random() < 0.5, rng.random(), i, pending_from=max(i - 9, 0)) for i in range(1_500)]
    whole, events = fold(rows)
    state, first = fold(rows[:700])
    state = pickle.loads(pickle.dumps(state))
    rest = [e.event for i, row in enumerate(rows[700:], 700) for e in step(state, record(row, i), None)]
    assert first + rest == events
    assert minute(state) == minute(whole)


def test_the_lean_twin_of_a_row_scores_as_the_row_itself():
    rows = [labelled(True, 0.9, i, pending_from=0) for i in range(3)] + [labelled(False, error="boom", number=3)]
    lean = [DECODERS["ExampleLabelled"](encode(row)) for row in rows]
    assert type(lean[0]) is not ExampleLabelled
    assert minute(fold(lean)[0]) == minute(fold(rows)[0])


def test_a_running_number_that_no_joiner_reached_costs_no_time_and_the_labels_count_once():
    slow, fast = Coverage(), Coverage()
    for number in range(1_000):
        for coverage in (slow, fast):
            coverage.came_in(0, number, is_label=number % 10 > 0)
        slow.wait_from(0, number + 1)
    fast.wait_from(0, 960)
    assert (fast.came, fast.matured) == (slow.came, slow.matured)
    fast.wait_from(0, 10**40)
    assert fast.came == 900
