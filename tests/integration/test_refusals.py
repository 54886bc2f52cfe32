"""On genuine Kafka: a joiner that may not go on exits 3 with nothing written, and the command that it names works."""

import os
import signal
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from joiner_process import Joiner, Nursery

from headrace.infra import local_broker

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def nursery():
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def joiner(kafka, namespace, tmp_path, nursery, until):
    """A joiner that was stopped cleanly at offset 4: "a" is told, "b" and "c" wait."""
    with closing(Joiner(kafka, namespace, tmp_path, nursery, until)) as made:
        yield begun(made)


def begun(made):
    made.predict("a", "b", "c")
    made.label("a")
    made.start().told(1)
    made.stop()
    return made


def test_a_gap_in_history(joiner):
    joiner.predict("d", "e")
    joiner.label("e")
    [gone] = joiner.admin.delete_records([TopicPartition(joiner.input, 0, 5)]).values()
    gone.result(10)
    joiner.is_refused(joiner.input, "partition 0", "offset 4", "begins at 5", "headrace reset joiner")
    assert "before offset 5 are deleted" in joiner.reset()[0]
    assert joiner.start().told(2) == ["a", "e"]


def test_a_topic_that_was_created_anew(joiner):
    joiner.make_input_anew()
    joiner.predict("v", "w", "x", "y", "z")  # as long as before, and longer
    joiner.label("x")
    joiner.is_refused(joiner.input, "partition 0", "offset 4", "created anew", "headrace reset joiner")
    joiner.reset()
    assert joiner.start().told(2) == ["a", "x"]


def test_a_topic_that_is_created_anew_while_its_reader_runs(joiner):
    joiner.start()
    joiner.label("b")
    joiner.told(2)
    joiner.folded()
    joiner.make_input_anew()
    joiner.producer.close()
    joiner.producer = joiner.bus.producer("test")
    joiner.predict("v", "w", "x", "y")
    joiner.label("c", "y")  # longer than the old one was: the client reads on at its offset without an error
    code, last = joiner.ended()
    assert code == 3, last
    assert "created anew" in last["reason"]
    joiner.is_refused("offset 5", "created anew", "headrace reset joiner")


def test_folders_that_were_swapped(joiner):
    here, there = joiner.folder(), joiner.folder("wind")
    elsewhere = here.with_name("elsewhere")
    here.rename(elsewhere)
    there.rename(here)
    elsewhere.rename(there)
    joiner.is_refused("belongs to joiner-core", "partition 0", "headrace reset joiner")
    joiner.reset()
    joiner.label("b")
    assert joiner.start().told(2) == ["a", "b"]


def test_a_topic_with_more_partitions_than_before(joiner):
    joiner.admin.create_partitions([NewPartitions(joiner.input, 2)])[joiner.input].result(10)
    joiner.until(lambda: joiner.bus.partitions(joiner.input) == 2)
    joiner.is_refused(joiner.input, "partition 0", "offset 4 of 1 partitions", "headrace reset joiner")
    joiner.reset()
    joiner.label("b")
    assert joiner.start().told(2) == ["a", "b"]


def test_another_version_after_a_crash_until_the_old_one_drained(joiner):
    joiner.label("b")
    joiner.start().told(2)
    joiner.folded()
    joiner.kill()
    joiner.label("c")
    package = joiner.home / "next"  # the same code, as the next release would say it is
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        "from importlib import metadata\nbefore = metadata.version\n"
        "metadata.version = lambda name: '99.1' if name == 'headrace' else before(name)\n"
    )
    older = joiner.nursery
    joiner.nursery = newer = Nursery(PYTHONPATH=f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    joiner.is_refused("offset 5", "ended without a clean stop", "this is headrace 99.1", "headrace up --drain")
    joiner.nursery = older
    code, last = joiner.start("--drain").ended()
    assert (code, last["event"]) == (0, "stopped"), last
    assert joiner.told(3) == ["a", "b", "c"]
    joiner.nursery = newer
    joiner.predict("d")
    joiner.label("d")
    assert joiner.start().told(4) == ["a", "b", "c", "d"]
    joiner.folded()
    joiner.stop()
    joiner.nursery = older
    joiner.is_refused("offset 8", "newer than this", "headrace reset joiner")
    newer.close()


def test_a_reset_is_refused_while_the_service_runs_and_asks_first(joiner):
    joiner.start()
    joiner.label("b")
    joiner.told(2)
    done = joiner.command("reset", "joiner", "--yes")
    assert done.returncode == 3
    assert f"process {joiner.pid}, which is alive" in " ".join(done.stderr.split())
    joiner.stop()
    assert joiner.command("reset", "joiner").returncode == 1, "nobody said yes"
    assert joiner.folder().exists()


def test_a_state_that_was_lost_comes_back_from_its_checkpoint(joiner):
    [gone] = joiner.admin.delete_records([TopicPartition(joiner.input, 0, 4)]).values()
    gone.result(10)
    for path in joiner.folder().iterdir():
        path.unlink()
    joiner.label("b", "c")
    assert joiner.start().told(3) == ["a", "b", "c"]
    joiner.folded()
    joiner.stop()


@pytest.fixture
def mortal(namespace, tmp_path, nursery, until):
    """A joiner like the others, with a broker of its own that can lose its tail."""
    broker = local_broker.start(tmp_path, local_broker.free_port(), settings={"log.flush.interval.messages": "1"})
    made = Joiner(broker.address, namespace, tmp_path, nursery, until)
    try:
        yield begun(made)
    finally:
        made.close()
        local_broker.stop_local_broker(tmp_path)


def lose_tail(one, keep):
    """End the broker, cut its log after so many records, and start it again: what a disk that lied does to it."""
    port = int(one.bus.bootstrap.rpartition(":")[2])
    os.kill(local_broker.running(one.home).pid, signal.SIGKILL)
    one.until(lambda: local_broker.running(one.home) is None)
    local_broker.stop_local_broker(one.home)
    [folder] = one.home.glob(f"broker/**/{one.input}-0")
    [log] = folder.glob("*.log")
    content, at, records = log.read_bytes(), 0, 0
    while records < keep:  # a batch: its first offset (8 bytes), its length (4), …, the count of its records at 57
        records += int.from_bytes(content[at + 57 : at + 61], "big")
        at += 12 + int.from_bytes(content[at + 8 : at + 12], "big")
    assert records == keep
    os.truncate(log, at)
    local_broker.start(one.home, port)
    one.producer.close()  # an idempotent one would notice, and stop
    one.producer = one.bus.producer("test")
    one.until(lambda: one.end() == keep, limit_s=60, says="the log's new end")


def test_a_log_that_lost_its_tail(mortal):
    lose_tail(mortal, 2)
    mortal.is_refused(mortal.input, "partition 0", "offset 4", "ends at 2", "headrace reset joiner")
    mortal.predict("x", "y", "z")
    mortal.is_refused(mortal.input, "partition 0", "offset 3", "wrote on", "headrace reset joiner")
    assert "written anew from offset 2" in mortal.reset()[0]
    mortal.label("x", "b")
    assert mortal.start().told(3) == ["a", "x", "b"]
    mortal.folded()
    mortal.stop()
