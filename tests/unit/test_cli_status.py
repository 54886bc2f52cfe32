"""The champion's scores in `status`: given these metrics, then those numbers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from definitions import definition_of

from headrace.cli import facts, lag, models, trial
from headrace.cli.status_view import show_pipeline
from headrace.schemas.codec import TYPE_OF, decode
from headrace.schemas.control import (
    ChallengerSuperseded,
    DriftDetected,
    MetricsUpdated,
    PipelineReleased,
    ReleaseAsked,
    RequestRefused,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingFailed,
)
from headrace.schemas.policies import Success
from headrace.schemas.record import Record
from headrace.services import FOLDS

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


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


def test_a_live_run_tells_what_its_newest_snapshot_learned_and_one_that_ended_what_it_was_last_judged_at():
    taken = decode(TYPE_OF[SnapshotTaken], (EXAMPLES / "SnapshotTaken" / "v1" / "full.json").read_bytes())
    name, snapshot = next(iter(taken.runs.items()))
    runs = {name: facts.Run(name, 1, "t", 0, labels=1), "gone": facts.Run("gone", 1, "s", 0, state="ended", labels=200)}
    client = SimpleNamespace(subscribe=lambda *_, **__: [SimpleNamespace(event=taken)])
    told = facts.newest_runs(client, facts.Facts("rain", 1, None, runs))
    assert [run.labels for run in told] == [snapshot.n_learned, 200]
    assert snapshot.n_learned > 1


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


def test_scores_of_a_trial_are_those_of_whole_windows():
    """A minute that passes tells a window that is not full yet."""
    stream = [told("windowed", n) for n in (400, 800, 1_000, 300, 1_000, 120, 240)]
    stream.insert(3, told("windowed", 7, "hour=3"))
    assert [window.n for window in trial._windows(stream)] == [1_000, 1_000, 240]


def test_numbers_of_a_check_are_written_without_a_power_of_ten_where_that_can_be_read():
    check = {"name": "step time", "verdict": "pass", "value": 11_940.0, "limit": 600.0}
    assert trial.told_check(check) == "step time 11,940 (limit 600)"
    assert trial.told_check(check | {"value": 5.2511e44, "limit": None}) == "step time 5.251e+44"


def test_a_version_tells_why_its_aliases_point_to_it_else_why_it_became_one():
    version = {"serves": {}, "reason": "offline and infra gates passed"}
    assert models._why(version) == "offline and infra gates passed"
    assert models._why(version | {"serves": {"champion": {"reason": "canary passed"}}}) == "canary passed"


def control(*events):
    return [Record(event, 0, "control-log", "", 0, offset) for offset, event in enumerate(events)]


def test_a_run_that_left_a_row_out_lives_and_one_that_gave_way_says_to_whom():
    asked = decode(TYPE_OF[ReleaseAsked], (EXAMPLES / "ReleaseAsked" / "v1" / "full.json").read_bytes())
    released = asked.model_copy(update={"topic_id": "topic"})
    name = released.pipeline
    started = RunStarted(pipeline=name, run="a", request="first", release=1, seed=0, start_offset=0)
    left_out = TrainingFailed(pipeline=name, request="first", run="a", reason="no wind", offset=7)
    gave_way = ChallengerSuperseded(pipeline=name, run="a", by_request="train-1", reason="asked by ann")
    ended = RunEnded(pipeline=name, run="a", reason="asked by ann")
    story = control(released, started, left_out, gave_way, ended)
    run = facts.fold(story[:3])[name].runs["a"]
    assert (run.state, run.reason) == ("live", "")
    run = facts.fold(story)[name].runs["a"]
    assert (run.state, run.reason) == ("ended", "gave way to train-1: asked by ann")


def test_a_release_that_was_refused_is_told_until_one_is_taken_up():
    asked = decode(TYPE_OF[ReleaseAsked], (EXAMPLES / "ReleaseAsked" / "v1" / "full.json").read_bytes())
    asked, name = asked.model_copy(update={"topic_id": "topic"}), asked.pipeline
    refused = RequestRefused(pipeline=name, request="r", kind="ReleaseAsked", reason="not compatible", next="")
    released = PipelineReleased(
        pipeline=name, release=1, definition=asked.definition, partitions=1, request="q", by="ann"
    )
    assert facts.fold(control(asked, refused))[name].refused == refused
    assert facts.fold(control(asked, refused, released))[name].refused is None
    rollback = refused.model_copy(update={"kind": "RollbackAsked"})
    assert facts.fold(control(asked, rollback, released))[name].refused == rollback


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
    known = SimpleNamespace(aliases={"champion": SimpleNamespace(run="a")}, released=released)
    found = facts.Facts("rain", 1, known, performance=alert)
    assert facts.degraded(found, facts.scores([told("windowed", 10)])["scores"]) == why


def test_it_is_said_how_often_a_degraded_champion_was_tried_again():
    known = SimpleNamespace(
        aliases={"champion": SimpleNamespace(run="a")},
        released=SimpleNamespace(definition=SimpleNamespace(policies=SimpleNamespace(success=None))),
    )
    tried = SimpleNamespace(degraded=SimpleNamespace(tries=2, retry_ms=0))
    (why,) = facts.degraded(facts.Facts("rain", 1, known, performance=rose(True), training=tried), None)
    assert why.endswith("ADWIN; tried again 2 times, next not before 1970-01-01 00:00:00.000")


def test_the_trainer_is_behind_nothing_where_no_run_learns():
    read = {fold.id: lag.inputs(fold, ["rain", "frozen"], {"rain"}, "t-") for fold in FOLDS}
    assert read["trainer-core"] == ["t-rain.labelled-examples"]
    assert read["evaluator-online"] == ["t-rain.labelled-examples", "t-frozen.labelled-examples"]
    assert read["registry-core"] == ["t-control-log"]
