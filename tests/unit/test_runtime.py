"""The loop: what a crash repeats, what it never loses, and what it refuses. Real folds, the in-process log, LMDB."""

from datetime import UTC, datetime

import pytest

from headrace.infra.bus import TopicSpec
from headrace.infra.records import Incoming
from headrace.infra.runtime import fold_runner
from headrace.infra.store import StateForeign, Store
from headrace.infra.worker import StepFailed
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade
from headrace.services import folds_of
from headrace.services.joiner import core

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
INPUT, OUTPUT = "rain.predictions", "rain.labelled-examples"
KEY = b"test"


@pytest.fixture
def bus(memory_bus):
    return memory_bus


class Joiner:
    """A joiner process: its runner, its stores, and what it must not survive."""

    def __init__(self, bus, folder, **timing):
        self.bus, self.folder, self.timing = bus, folder, timing
        self.stores = []
        self.start()

    def start(self):
        def open_store(fold, place):
            self.stores.append(Store.open(self.folder / f"{place[0]}-{place[1]}", KEY))
            return self.stores[-1]

        timing = {"commit_s": 3600.0, "commit_records": 10**9, "follow_s": 0.0, "batch": 1} | self.timing
        self.runner = fold_runner(
            folds_of("joiner"), core, self.bus, namespace="", instance="i", open_store=open_store, **timing
        )
        self.runner.pipelines.released["rain"] = None  # released: the runner subscribes to its topics
        self.runner.tick()

    def drain(self):
        while self.runner.tick():
            pass

    def crash(self):
        """kill -9: nothing is committed, the store's lock goes with the process."""
        for store in self.stores:
            store.close()
        self.stores.clear()
        self.start()


def put(bus, event, offset, source="/predictor/rain/0/0"):
    bus.append(INPUT, 0, event.id.encode(), encode(event), headers_of(TYPE_OF[type(event)], source, offset * 65_536), 1)


def prediction(id):
    return PredictionMade(
        id=id, time=NOON, features={"x": 1.0}, predictions={}, served=None, release=1, epoch=0, origin=(0, 0)
    )


def told(bus, repeats=False):
    incoming = Incoming(OUTPUT, "")
    records = [incoming.record(m) for m in bus.read((OUTPUT, 0), 0, 1_000)]
    kept = [r.event.prediction.id for r in records if r is not None and isinstance(r.event, ExampleLabelled)]
    return (kept, incoming.repeats) if repeats else kept


def pair(bus, number):
    put(bus, prediction(f"p{number}"), 2 * number)
    put(bus, LabelArrived(id=f"p{number}", time=NOON, label=True), 2 * number + 1)


def test_a_crash_before_the_commit_repeats_and_readers_drop_it(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    for number in range(4):
        pair(bus, number)
    joiner.drain()
    joiner.crash()
    pair(bus, 4)
    joiner.drain()
    assert told(bus, repeats=True) == ([f"p{n}" for n in range(5)], 4)


def test_a_crash_after_the_commit_repeats_nothing(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    pair(bus, 0)
    joiner.drain()
    joiner.runner.commit()
    joiner.crash()
    pair(bus, 1)
    joiner.drain()
    assert told(bus, repeats=True) == (["p0", "p1"], 0)


def test_a_prediction_that_waited_over_a_crash_is_joined(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    put(bus, prediction("a"), 0)
    joiner.drain()
    joiner.runner.commit()
    joiner.crash()
    put(bus, LabelArrived(id="a", time=NOON, label=False), 1)
    joiner.drain()
    assert told(bus) == ["a"]


def test_without_local_state_the_fold_is_silent_up_to_the_groups_offset(bus, tmp_path):
    joiner = Joiner(bus, tmp_path / "lost")
    pair(bus, 0)
    put(bus, prediction("waits"), 2)
    joiner.drain()
    joiner.runner.commit()
    joiner.folder = tmp_path / "empty"
    joiner.crash()
    put(bus, LabelArrived(id="waits", time=NOON, label=True), 3)
    joiner.drain()
    assert told(bus, repeats=True) == (["p0", "waits"], 0)


def test_the_groups_offset_follows_the_commit_and_never_leads_it(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    pair(bus, 0)
    joiner.drain()
    committed = joiner.runner._consumer.committed
    assert committed([(INPUT, 0)]) == {}
    joiner.runner.commit()
    assert committed([(INPUT, 0)]) == {(INPUT, 0): 2}
    joiner.crash()
    assert joiner.runner.workers[INPUT, 0].offset == 2


def test_repeats_of_the_predictor_are_dropped_also_over_a_restart(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    pair(bus, 0)
    joiner.drain()
    joiner.runner.commit()
    joiner.crash()
    pair(bus, 0)
    joiner.drain()
    worker = joiner.runner.workers[INPUT, 0]
    assert worker.counts()["repeats"] == 2
    assert told(bus) == ["p0"]


def test_what_cannot_be_read_goes_to_the_dead_letter_topic_with_its_place(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    bus.append(INPUT, 0, b"k", b"not json", headers_of(TYPE_OF[LabelArrived], "/predictor/rain/0/0", 1), 5)
    pair(bus, 1)
    joiner.drain()
    (letter,) = [Incoming(INPUT + "-dlq", "").record(m).event for m in bus.read((INPUT + "-dlq", 0), 0, 10)]
    assert (letter.topic, letter.partition, letter.offset) == (INPUT, 0, 0)
    assert "LabelArrived" in letter.reason
    assert told(bus) == ["p1"]


def test_a_step_that_raises_ends_the_process_and_names_the_record(bus, tmp_path, monkeypatch):
    joiner = Joiner(bus, tmp_path)
    worker = joiner.runner.workers[INPUT, 0]
    worker._step = lambda state, record, world: 1 / 0
    put(bus, prediction("a"), 0)
    with pytest.raises(
        StepFailed, match=r"joiner-core failed at rain.predictions partition 0 offset 0.*ZeroDivisionError"
    ):
        joiner.drain()


def test_a_topic_that_was_created_anew_is_refused_with_the_next_command(bus, tmp_path):
    joiner = Joiner(bus, tmp_path)
    pair(bus, 0)
    joiner.drain()
    joiner.runner.commit()
    bus.delete_topic(INPUT)
    bus.create_topics([TopicSpec(INPUT, 1, {})])
    with pytest.raises(StateForeign, match=r"created anew.*headrace reset joiner"):
        joiner.crash()


def test_an_offset_that_the_group_did_not_take_is_told_again_though_nothing_changed(bus, tmp_path, monkeypatch):
    joiner = Joiner(bus, tmp_path)
    pair(bus, 0)
    joiner.drain()
    consumer = joiner.runner._consumer
    with monkeypatch.context() as rebalance:
        rebalance.setattr(consumer, "commit", lambda offsets: None)
        joiner.runner.commit()
    assert consumer.committed([(INPUT, 0)]).get((INPUT, 0), 0) == 0
    joiner.runner.commit()
    assert consumer.committed([(INPUT, 0)]) == {(INPUT, 0): 2}
