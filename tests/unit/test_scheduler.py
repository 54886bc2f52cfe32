"""Given a moment and the pipelines in force, then exactly these ticks."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, ReleaseDefinition
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.signing import is_signed
from headrace.services.scheduler.schedule import due_at, due_ticks

KEY = b"test"
THREE = datetime(2026, 3, 1, 3, tzinfo=UTC)


def released(pipeline="rain", partitions=1, schedule=None):
    definition = ReleaseDefinition(
        contract=ContractSpec(name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool")),
        policies=Policies(triggers=Triggers(schedule=schedule)),
        contract_digest="c",
        policies_digest="p",
        recipe_digest="r",
        source_digest="s",
        source_uri="u",
    )
    return PipelineReleased(
        pipeline=pipeline, release=1, definition=definition, partitions=partitions, request="q", by="ann"
    )


def places(ticks):
    return [(due.topic, due.pipeline, due.partition) for due in ticks]


def test_without_pipelines_only_the_systems_own_minute_ticks():
    (due,) = due_ticks(THREE, [], KEY)
    assert (due.topic, due.tick.schedule, due.tick.due, due.tick.pipeline) == ("ticks", "minute", THREE, "")


def test_every_partition_of_every_pipeline_gets_a_signed_tick():
    ticks = due_ticks(THREE, [released(partitions=2), released("wind")], KEY)
    assert places(ticks) == [
        ("ticks", "", 0),
        ("<p>.data-arrived", "rain", 0),
        ("<p>.data-arrived", "rain", 1),
        ("<p>.data-arrived", "wind", 0),
    ]
    assert all(is_signed(KEY, due.tick) for due in ticks[1:])
    assert {due.tick.pipeline for due in ticks[1:3]} == {"rain"}


@pytest.mark.parametrize(
    ("schedule", "minutes", "due"),
    [
        ("0 3 * * *", 0, True),
        ("0 3 * * *", 1, False),
        ("*/15 * * * *", 45, True),
        ("*/15 * * * *", 46, False),
        ("0 3 * * 1", 0, False),
        ("0 3 * * 0", 0, True),
        (None, 0, False),
    ],
)
def test_a_schedule_ticks_in_its_minute_of_utc(schedule, minutes, due):
    ticks = due_ticks(THREE + timedelta(minutes=minutes), [released(schedule=schedule)], KEY)
    found = [d.tick.schedule for d in ticks if d.topic == "ticks" and d.pipeline == "rain"]
    assert found == ([schedule] if due else [])


def test_a_schedule_ticks_once_a_minute_also_when_ticks_come_each_second():
    seconds = [THREE + timedelta(seconds=s) for s in range(90)]
    due = [
        d for at in seconds for d in due_ticks(at, [released(schedule="* * * * *")], KEY) if d.tick.schedule != "minute"
    ]
    assert [d.tick.due.second for d in due] == [0, 0]


def test_all_schedulers_agree_on_the_due_time():
    now = THREE.timestamp()
    assert due_at(now + 59.9, 60) == due_at(now + 0.1, 60) == THREE
    assert due_at(now + 60, 60) == THREE + timedelta(minutes=1)
    assert due_at(now + 5.5, 5) == THREE + timedelta(seconds=5)
