"""What is refused, never skipped: a topic that was made anew, and records that are gone before they were folded."""

import shutil
from functools import partial

import pytest

from headrace.infra.bus import BusError, TopicSpec
from headrace.infra.checkpoints import ROOT as CHECKPOINTS
from headrace.infra.continuity import HistoryGone
from headrace.infra.store import StateForeign
from headrace.schemas.topics import full_name
from headrace.services import FOLDS
from tests.simulation import pipeline_source as rain
from tests.simulation.faults import CRASHES, SERVICES, crash_of
from tests.simulation.oracle import held
from tests.simulation.plant import Plant
from tests.simulation.process import Process

UPLOADS = next(seed for seed in range(2 * len(CRASHES)) if crash_of(seed)[1] == "upload")  # it has checkpoints
SILENT = ("drift-alerts",)  # nothing drifts in so short a stream, so nobody stands anywhere in it
INPUTS = sorted({fold.input for fold in FOLDS if fold.input not in SILENT})
OF_A_PIPELINE = [name for name in INPUTS if name.startswith("<p>.")]


def make_anew(plant, topic):
    config = plant.bus.topic_config(topic)
    count = plant.bus.partitions(topic)
    plant.bus.delete_topic(topic)
    plant.bus.create_topics([TopicSpec(topic, count, config)])


def ends(plant):
    return {(t, p): plant.bus.offsets((t, p)) for t in plant.bus.topics() for p in range(plant.bus.partitions(t))}


def let_go_of_half(plant, place):
    plant.bus.delete_records(place, plant.bus.offsets(place)[1] // 2)


def states(plant):
    return {(one.group, place): held(worker) for one in plant.runners() for place, worker in one.workers.items()}


def tick_often(process):
    for _ in range(3):
        process.tick()


def refuses(kind, work):
    """Whether work ends with this kind of error."""
    try:
        work()
    except kind:
        return True
    return False


@pytest.mark.parametrize("name", INPUTS)
def test_readers_of_a_topic_made_anew_end_and_refuse_to_start_again_and_write_nothing(name, in_memory):
    plant = Plant(in_memory, 1, 1, ()).run()
    topic = full_name(name, rain.NAME)
    readers = {fold.service for fold in FOLDS if fold.input == name}
    processes = dict(zip(SERVICES, plant.live, strict=True))
    make_anew(plant, topic)
    before = ends(plant)
    assert {
        service for service in SERVICES if refuses(BusError, processes[service].tick)
    } >= readers  # tables count too
    for process in plant.live:
        process.die()
        process.end_sessions()

    again = {service: Process(plant, service, "a") for service in SERVICES}
    assert {service for service in SERVICES if refuses(StateForeign, partial(tick_often, again[service]))} == readers
    assert ends(plant) == before


@pytest.mark.parametrize("name", OF_A_PIPELINE)
def test_readers_without_their_state_refuse_a_log_whose_first_records_are_gone_and_write_nothing(name, in_memory):
    plant = Plant(in_memory, UPLOADS, 1, ()).run()
    place = full_name(name, rain.NAME), 0
    let_go_of_half(plant, place)
    shutil.rmtree(in_memory / "artifacts" / CHECKPOINTS)
    before = ends(plant)
    for process in list(plant.live):
        if process.service in {fold.service for fold in FOLDS if fold.input == name}:
            process.die()
            plant.live.remove(process)
            shutil.rmtree(process.home)
            again = Process(plant, process.service, "a")
            with pytest.raises(HistoryGone, match=rf"{place[0]} partition 0.*the log begins at"):
                tick_often(again)
    assert ends(plant) == before


def test_who_lost_its_state_goes_on_from_checkpoints_where_the_first_records_are_gone_too(in_memory):
    plant = Plant(in_memory, UPLOADS, 1, ()).run()
    folded = states(plant)
    assert {group for group, _ in folded} == {fold.id for fold in FOLDS} - {"trainer-core"}
    before = ends(plant)
    for process in plant.live:
        process.stop()
        process.end_sessions()
        if process.service != "trainer":  # its runs' state is their newest snapshot, and their log may not be cut
            shutil.rmtree(process.home)
    plant.live.clear()
    for name in OF_A_PIPELINE:
        if name != "<p>.labelled-examples":
            let_go_of_half(plant, (full_name(name, rain.NAME), 0))

    for service in SERVICES:
        plant.fates.start(service, "a")
        tick_often(plant.live[-1])
    assert plant.violations == []
    assert states(plant) == folded
    assert {place: end for place, (_, end) in ends(plant).items()} == {place: end for place, (_, end) in before.items()}
