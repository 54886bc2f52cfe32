"""The sequencer copies what decides, once, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.schemas.codec import encode
from headrace.schemas.control import LabelsCounted, ModelUpdated, TrainingAsked, WindowValidated
from headrace.schemas.record import Record
from headrace.schemas.stream import Tick
from headrace.services.sequencer.core import State, step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(topic, event, offset=0):
    return Record(event, 0, topic, "", 0, offset, event.pipeline.encode(), encode(event), topic, offset)


def window(verdict, pipeline="rain", partition=0):
    return WindowValidated(
        pipeline=pipeline,
        partition=partition,
        start_offset=0,
        end_offset=9,
        start_ms=0,
        end_ms=9,
        release=1,
        validated=9,
        labels=0,
        rejected=0,
        duplicates=0,
        reasons={},
        extra_columns={},
        features={},
        verdict=verdict,
    )


def copied(topic, events):
    """The events of a topic that reach `control-log`."""
    state = State()
    return [emit.event for n, event in enumerate(events) for emit in step(state, record(topic, event, n), None)]


@pytest.mark.parametrize(
    ("topic", "event"),
    [
        ("operator-requests", TrainingAsked(pipeline="rain", request="r1", by="ann")),
        ("model-validations", LabelsCounted(pipeline="rain", n=200, offset=200)),
        (
            "model-updates",
            ModelUpdated(
                pipeline="rain",
                alias="champion",
                version=1,
                run="a",
                release=1,
                snapshot_offset=9,
                uri="u",
                follows=True,
                epoch=1,
                reason="",
            ),
        ),
    ],
)
def test_a_decision_goes_on_with_its_bytes_and_key(topic, event):
    (emit,) = step(State(), record(topic, event), None)
    assert (emit.topic, emit.partition, emit.key, emit.body) == ("control-log", 0, b"rain", encode(event))


def test_of_the_windows_only_those_with_another_verdict_go_on():
    windows = [window("ok"), window("ok"), window("skewed"), window("skewed"), window("ok")]
    assert copied("validation-results", windows) == [windows[2], windows[4]]


def test_each_partition_of_each_pipeline_has_its_own_verdict():
    windows = [window("skewed"), window("skewed", partition=1), window("skewed", "wind"), window("skewed")]
    assert copied("validation-results", windows) == windows[:3]


def test_a_minute_ticks_once_however_many_schedulers_tick():
    minutes = [Tick(schedule="minute", due=NOON + timedelta(minutes=m)) for m in (0, 0, 1, 0, 1, 2)]
    assert copied("ticks", minutes) == [minutes[0], minutes[2], minutes[5]]


def test_a_due_schedule_goes_on_beside_the_minute():
    ticks = [
        Tick(schedule="minute", due=NOON),
        Tick(schedule="0 12 * * *", due=NOON, pipeline="rain"),
        Tick(schedule="0 12 * * *", due=NOON, pipeline="wind"),
        Tick(schedule="0 12 * * *", due=NOON, pipeline="rain"),
    ]
    assert copied("ticks", ticks) == ticks[:3]
