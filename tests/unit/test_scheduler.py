"""Given a moment and the pipelines in force, then exactly these ticks."""

from datetime import UTC, datetime, timedelta

import pytest
from definitions import definition_of

from headrace.infra import pipeline_files
from headrace.infra.system import System
from headrace.schemas.codec import TYPE_OF, decode, header
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    LabelsCounted,
    ModelUpdated,
    PipelineReleased,
    RunEnded,
    RunStarted,
    TrainingRequested,
)
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.record import Record
from headrace.schemas.signing import is_signed
from headrace.schemas.stream import Tick
from headrace.services.orchestrator import core as orchestrator
from headrace.services.scheduler.schedule import due_at, due_ticks
from headrace.services.sequencer import core as sequencer

KEY = b"test"
THREE = datetime(2026, 3, 1, 3, tzinfo=UTC)
START_MS = int(THREE.timestamp() * 1000)
SOURCE = b'''
from headrace import Contract, Pipeline, Triggers
from river import linear_model

class Row(Contract):
    """One number."""
    x: float

pipeline = Pipeline(
    name="rain", contract=Row, label=bool, recipe=lambda seed: linear_model.LogisticRegression(),
    triggers=Triggers(schedule="*/15 * * * *", window_labels=50),
)
'''


def released(pipeline="rain", partitions=1, schedule=None):
    definition = definition_of(
        contract=ContractSpec(name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool")),
        policies=Policies(triggers=Triggers(schedule=schedule)),
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


def test_the_driver_of_the_in_process_system_ticks_as_schedulers_do_and_the_same_trainings_follow(tmp_path):
    system = System(tmp_path, services=("validator", "sequencer", "orchestrator", "registry"), start_ms=START_MS)
    (tmp_path / "rain.py").write_bytes(SOURCE)
    pipeline = pipeline_files.load_file(tmp_path / "rain.py")
    in_force = system.release(pipeline, pipeline_files.definition(pipeline, SOURCE, "source/x"))
    for minute in range(1, 40):
        system.advance(START_MS + minute * 60_000 + 7_000)

    expected = [
        due for minute in range(1, 40) for due in due_ticks(THREE + timedelta(minutes=minute), [in_force], system.key)
    ]
    own = [due for due in expected if due.topic == "ticks" and due.pipeline]
    assert [due.tick.due.minute for due in own] == [15, 30]
    told = [decode(TYPE_OF[Tick], message.value()) for message in system.bus.read(("ticks", 0), 0, 1_000)]
    in_band = [
        decode(TYPE_OF[Tick], message.value())
        for message in system.bus.read(("rain.data-arrived", 0), 0, 1_000)
        if header(message.headers(), "ce_type", 3) == TYPE_OF[Tick]
    ]
    assert told == [due.tick for due in expected if due.topic == "ticks" and due not in own]
    assert in_band == [due.tick for due in expected if due.topic != "ticks"]
    system.close()

    by_scheduler = [due.tick for due in expected if due.topic == "ticks"]
    late, twice = by_scheduler[20:], [tick for tick in by_scheduler for _ in range(2)]
    trained = [trainings(in_force, ticks) for ticks in (told, by_scheduler, twice)]
    assert trained == [["schedule-2026-03-01T03:15", "schedule-2026-03-01T03:30"]] * 3
    assert trainings(in_force, late) == ["schedule-2026-03-01T03:15", "schedule-2026-03-01T03:30"]  # it was away


def trainings(in_force, ticks):
    """The trainings that follow of ticks, through the sequencer, where a champion serves and each run ends at once."""
    champion = ModelUpdated(
        pipeline="rain", alias="champion", version=1, run="a", release=1, snapshot_offset=9, uri="u", follows=True,
        epoch=1, reason="",
    )  # fmt: skip
    counted = LabelsCounted(pipeline="rain", n=200, offset=200)
    copying, deciding, asked = sequencer.State(), orchestrator.State(), []

    def decide(event):
        known_ms = int(THREE.timestamp() * 1000)
        for emit in orchestrator.step(deciding, Record(event, known_ms, "control-log", "rain", 0, 0), None):
            if isinstance(emit.event, TrainingRequested) and emit.event.trigger == "schedule":
                asked.append(emit.event.request)
                run = emit.event.request
                decide(RunStarted(pipeline="rain", run=run, request=run, release=1, seed=0, start_offset=0))
                decide(RunEnded(pipeline="rain", run=run, reason="a test"))

    first = RunStarted(pipeline="rain", run="a", request="first-model-1", release=1, seed=0, start_offset=0)
    for event in (in_force, first, champion, counted):
        decide(event)
    for offset, tick in enumerate(ticks):
        for emit in sequencer.step(copying, Record(tick, 0, "ticks", "", 0, offset), None):
            decide(emit.event)
    return asked
