"""The champion's scores in `status`: given these metrics, then those numbers."""

from types import SimpleNamespace

import pytest
from definitions import definition_of

from headrace.cli import facts
from headrace.cli.status_view import show_pipeline
from headrace.schemas.control import DriftDetected, MetricsUpdated, ReleaseAsked, RunStarted, TrainingFailed
from headrace.schemas.policies import Success
from headrace.schemas.record import Record


def told(scope, n, slice=None, run="a", alias="champion"):
    return MetricsUpdated(
        pipeline="rain", alias=alias, version=1, run=run, scope=scope, n=n, coverage=None,
        metrics={"accuracy": 0.5, "auc": None}, slice=slice,
    )  # fmt: skip


def test_the_newest_window_of_all_rows_and_the_newest_sums_of_each_slice():
    found = facts.scores([
        told("windowed", 10), told("windowed", 20), told("cumulative", 99), told("windowed", 7, "hour=3"),
        told("cumulative", 5, "hour=3"), told("cumulative", 8, "hour=3"), told("cumulative", 2, "hour=1"),
        told("windowed", 1, alias="challenger"),
    ])  # fmt: skip
    assert found["scores"]["n"] == 20
    assert {name: one["n"] for name, one in found["slices"].items()} == {"hour=1": 2, "hour=3": 8}


def test_slices_of_a_run_that_no_longer_serves_are_left_out():
    found = facts.scores([told("cumulative", 5, "hour=3"), told("windowed", 10, run="b")])
    assert (found["scores"]["n"], found["slices"]) == (10, {})


@pytest.mark.parametrize(("offset", "state"), [(None, "failed"), (7, "live")])
def test_a_run_that_left_an_example_out_lives(offset, state):
    events = (
        ReleaseAsked(pipeline="rain", request="q", by="ann", definition=definition_of(), topic_id="1"),
        RunStarted(pipeline="rain", run="r", request="t", release=1, seed=0, start_offset=0),
        TrainingFailed(pipeline="rain", request="t", run="r", reason="no wind", offset=offset),
    )
    found = facts.fold(Record(event, 0, "control-log", "", 0, at) for at, event in enumerate(events))
    assert found["rain"].runs["r"].state == state


SERVES = {
    "pipeline": "rain", "release": 1, "retired": False, "partitions": 1, "file": "no file here", "verdict": None,
    "refused": None, "labels": 3, "scores": None, "slices": {}, "challenger": None, "previous": None, "training": None,
    "paused": False, "alert": None, "degraded": [], "skewed": [],
    "champion": {"version": 1, "revision": "1@3", "reason": "first"},
}  # fmt: skip


def test_a_challenger_its_training_and_a_pause_are_shown(capsys):
    training = {
        "run": "r7",
        "start": 12_122,
        "cause": "ADWIN: loss 0.41 against 0.22",
        "waiting": "schedule (0 3 * * *)",
    }
    challenger = {"version": 2, "run": "r7", "reason": "offline and infra gates passed"}
    show_pipeline(SERVES | {"challenger": challenger, "training": training, "paused": True})
    shown = " ".join(capsys.readouterr().out.split())
    assert "challenger version 2: offline and infra gates passed" in shown
    assert "training run r7 from offset 12,122, ADWIN: loss 0.41 against 0.22; then schedule (0 3 * * *)" in shown
    assert "PAUSED no challenger is promoted by itself: headrace resume rain" in shown


def test_a_skewed_schema_is_shown_and_how_often_a_degraded_pipeline_was_tried(capsys):
    says = "400 of 1,000 records of partition 0 were rejected (type_mismatch 400)"
    show_pipeline(SERVES | {"skewed": [says], "degraded": ["loss 0.220 -> 0.410, ADWIN"]})
    shown = " ".join(capsys.readouterr().out.split())
    assert f"SKEWED {says}; nothing is trained by itself" in shown
    assert "degraded loss 0.220 -> 0.410, ADWIN" in shown


def test_slices_are_shown_as_a_table(capsys):
    metrics = facts.scores([told("windowed", 20), told("cumulative", 1_234, "station=Cairns")])
    show_pipeline(SERVES | metrics)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "station=Cairns" in line]
    assert row.split() == ["station=Cairns", "1,234", "0.5000", "-"]


def rose(degraded, run="a"):
    numbers = {"reference_loss": 0.2, "recent_loss": 0.4}
    return DriftDetected(
        pipeline="rain", kind="performance", level="drift", since=None, detector="ADWIN", evidence=numbers, run=run,
        degraded=degraded,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("alert", "success", "why"),
    [
        (None, None, []),
        (rose(True), None, ["loss 0.200 -> 0.400, ADWIN"]),
        (rose(False), None, []),
        (rose(True, run="b"), None, []),
        (None, Success("accuracy", at_least=0.5), []),
        (None, Success("accuracy", at_least=0.6), ["accuracy 0.5000 over the last 10 rows, asked for at least 0.6"]),
        (None, Success("auc", at_least=0.6), []),
    ],
)
def test_a_champion_is_degraded_while_its_loss_stays_up_or_its_success_is_missed(alert, success, why):
    policies = SimpleNamespace(success=success)
    released = SimpleNamespace(definition=SimpleNamespace(policies=policies))
    models = SimpleNamespace(aliases={"champion": SimpleNamespace(run="a")}, released=released)
    found = facts.Facts("rain", 1, models, performance=alert)
    assert facts.degraded(found, facts.scores([told("windowed", 10)])["scores"]) == why


def test_it_is_said_how_often_a_degraded_champion_was_tried_again():
    models = SimpleNamespace(
        aliases={"champion": SimpleNamespace(run="a")},
        released=SimpleNamespace(definition=SimpleNamespace(policies=SimpleNamespace(success=None))),
    )
    tried = SimpleNamespace(degraded=SimpleNamespace(tries=2, retry_ms=0))
    (why,) = facts.degraded(facts.Facts("rain", 1, models, performance=rose(True), training=tried), None)
    assert why.endswith("ADWIN; tried again 2 times, next not before 1970-01-01 00:00:00.000")
