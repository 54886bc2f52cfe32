"""Events as lines."""

from datetime import UTC, datetime

import pytest

from headrace.cli.streams import told_answer
from headrace.cli.watching import data, line
from headrace.schemas.control import Check, MetricsUpdated, ModelValidated, ReleaseAsked, RollbackAsked
from headrace.schemas.record import Record
from headrace.schemas.stream import ArmPrediction, ExampleLabelled, PredictionMade, Problem, RecordRejected

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(event, topic="<p>.predictions"):
    return Record(event, 43_200_123, topic, "rain", 0, 7, b"a", b"{}")


def made(value, error=None, history=False):
    arm = ArmPrediction(version=3, run="r", learned_to=1_234, value=value, error=error)
    return PredictionMade(
        id="a", time=NOON, features={}, predictions={} if history else {"champion": arm},
        served=None if value is None else "champion", release=1, epoch=1, origin=(0, 7), history=history,
    )  # fmt: skip


def cold():
    return PredictionMade(
        id="a", time=NOON, features={}, predictions={}, served=None, release=1, epoch=0, origin=(0, 7)
    )


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (made(0.75), "12:00:00.123  PredictionMade    a  0.75  (version 3, learned to 1,234)"),
        (made({"x": 0.2, "y": 0.8}), "a  y (0.800)"),
        (made(None, error="no wind"), "a  version 3 could not answer: no wind"),
        (made(None), "a  version 3 has no answer yet"),
        (made(None, history=True), "a  published as history, which is never served"),
        (cold(), "a  no model serves yet"),
        (
            ExampleLabelled(
                prediction=made(0.75), label=True, predicted_at_ms=1_000, labelled_at_ms=3_500, partition=0, number=1,
                pending_from=1, known_to=1,
            ),
            "a  is True, predicted 0.75, after 2.5 s",
        ),
        (
            RecordRejected(
                id="a", topic="rain.data-arrived", partition=0, offset=9, value=b"{}",
                problems=[Problem(code="float_type_big_float", message="wind is 99")],
            ),
            "a  float_type_big_float: wind is 99  (rain.data-arrived 0/9)",
        ),
        (
            MetricsUpdated(
                pipeline="rain", alias="champion", version=1, run="r", scope="windowed", n=1_000, coverage=1.0,
                metrics={"accuracy": 0.9, "auc": None},
            ),
            "champion windowed over 1,000 rows: accuracy 0.9000",
        ),
        (
            MetricsUpdated(
                pipeline="rain", alias="champion", version=1, run="r", scope="cumulative", n=9, coverage=None,
                metrics={"accuracy": 0.9}, slice="station=Cairns",
            ),
            "champion cumulative over 9 rows of station=Cairns: accuracy 0.9000",
        ),
        (
            ModelValidated(
                pipeline="rain", run="r", request="q", stage="offline", verdict="fail", n_labels=200, offset=201,
                checks=(Check(name="accuracy", verdict="fail", value=0.5, limit=0.6),),
            ),
            "offline gate of r at 200 labels: FAIL  accuracy 0.5 (limit 0.6) FAIL",
        ),
        (RollbackAsked(pipeline="rain", request="q", by="ann", version=2), "request q, by ann, version 2"),
        (None, "not canonical"),
    ],
)  # fmt: skip
def test_each_event_is_one_line_that_says_what_happened(event, told):
    shown = line(record(event))
    assert told in shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (made(0.75), "a: 0.75  (version 3, learned to 1,234)"),
        (made(None, error="no wind"), "a: version 3 could not answer: no wind. headrace status says more."),
        (cold(), "a: no model serves yet. headrace status says more."),
    ],
)
def test_predict_says_what_was_served_or_why_nothing_was(answer, told):
    assert told_answer(answer) == told


def test_a_long_definition_does_not_fill_the_screen():
    asked = ReleaseAsked.model_construct(
        pipeline="rain", request="q", by="ann", definition={"x": "y" * 500}, partitions=1
    )
    assert line(record(asked, "control-log")).endswith("request q, by ann, partitions 1")


def test_a_program_gets_the_place_and_the_event_whole():
    event = made(0.75)
    assert data(record(event)) == {
        "topic": "predictions", "partition": 0, "offset": 7, "known_ms": 43_200_123, "type": "PredictionMade",
        "event": event,
    }  # fmt: skip
