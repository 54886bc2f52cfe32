"""On genuine Kafka: a joiner that may not go on exits 3 with nothing written, and the command that it names works."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from headrace.infra import create_topics, local_broker
from headrace.infra.bus import TopicSpec
from headrace.infra.follow import Follower
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.pipeline_files import definition, load_file
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import PipelineReleased
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade
from headrace.schemas.topics import full_name

pytestmark = pytest.mark.kafka

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = '''
from headrace import Contract, Pipeline
from river import linear_model

class Row(Contract):
    """One number."""
    x: float

pipeline = Pipeline(name="{name}", contract=Row, label=bool, recipe=lambda seed: linear_model.LogisticRegression())
'''


class Joiner:
    """The joiner as a process of its own, and who writes its input."""

    def __init__(self, address, namespace, home, until):
        self.bus, self.namespace, self.home, self.until = KafkaBus(address), namespace, home, until
        self.admin = AdminClient({"bootstrap.servers": address})
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": address,
            "HEADRACE_NAMESPACE": namespace,
            "HEADRACE_INSTANCE": "i",
            "HEADRACE_ARTIFACT_KEY": "a test's key",
            "HEADRACE_SESSION_TIMEOUT_S": "6",
            "HEADRACE_COMMIT_S": "0.1",
        }
        self.producer = self.bus.producer("test")
        self.process = None
        create_topics.create(self.bus, namespace)
        for name in ("rain", "wind"):
            (home / f"{name}.py").write_text(SOURCE.format(name=name))
            pipeline = load_file(home / f"{name}.py")
            create_topics.create_pipeline(self.bus, name, 1, pipeline.policies(), namespace)
            made = definition(pipeline, b"", "source/x")
            event = PipelineReleased(pipeline=name, release=1, definition=made, partitions=1, request="q", by="ann")
            headers = headers_of(TYPE_OF[PipelineReleased], "/registry/-/1234/0", 1 if name == "rain" else 2)
            self.producer.produce(self.topic("pipelines"), 0, name.encode(), encode(event), headers, 0)
        self.input, self.output = self.topic("<p>.predictions", "rain"), self.topic("<p>.labelled-examples", "rain")
        self.producer.flush()

    def topic(self, name, pipeline=""):
        return full_name(name, pipeline, self.namespace)

    def folder(self, pipeline="rain"):
        topic = self.topic("<p>.predictions", pipeline)
        return self.home / ".headrace" / "state" / "i" / "joiner" / "joiner-core" / f"{topic}-0"

    def end(self):
        return self.bus.offsets((self.input, 0))[1]

    def predict(self, *ids):
        more = {"time": NOON, "predictions": {}, "served": None, "release": 1, "epoch": 0, "origin": (0, 0)}
        for id in ids:
            self.put(PredictionMade(id=id, features={"x": 1.0}, **more))

    def label(self, *ids):
        for id in ids:
            self.put(LabelArrived(id=id, time=NOON, label=True))

    def put(self, event):
        headers = headers_of(TYPE_OF[type(event)], "/predictor/rain/0/0", self.end() * 65_536)
        self.producer.produce(self.input, 0, event.id.encode(), encode(event), headers, 0)
        self.producer.flush()

    def start(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace.services.joiner", *arguments], cwd=self.home, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def ended(self):
        """Its exit status and the last thing it said."""
        _, said = self.process.communicate(timeout=60)
        assert "Traceback" not in said, said
        return self.process.returncode, json.loads(said.strip().splitlines()[-1])

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        if number == signal.SIGTERM:
            code, last = self.ended()
            assert (code, last["event"]) == (0, "stopped")
        else:
            self.process.communicate(timeout=60)

    def told(self, count):
        """The ids of the joined examples, repeats dropped, once there are so many."""

        def ids():
            with closing(Follower(self.bus, self.namespace, [self.output])) as follower:
                events = [record.event for record in follower.read_to_end()]
            return [event.prediction.id for event in events if isinstance(event, ExampleLabelled)]

        def enough():
            return len(ids()) >= count or self.process.poll() is not None

        self.until(enough, limit_s=30, says=f"{count} joined examples")
        assert len(ids()) >= count, self.ended()
        return ids()

    def committed(self):
        member = self.bus.group_consumer(
            f"{self.namespace}headrace-joiner-core", "t", lambda _: {}, lambda _: None, lambda _: None
        )
        with closing(member):
            return member.committed([(self.input, 0)]).get((self.input, 0))

    def folded(self):
        """Wait until all of its input is committed."""
        self.until(lambda: self.committed() == self.end(), limit_s=30, says="the group's offset at the end")

    def is_refused(self, *says):
        """Started it exits 3, naming all these; neither state, nor output, nor the group's offset changes."""
        before = (self.folder() / "data.mdb").read_bytes(), self.bus.offsets((self.output, 0)), self.committed()
        code, last = self.start().ended()
        assert (code, last["event"]) == (3, "refused"), last
        assert [part for part in says if part not in last["reason"]] == [], last["reason"]
        after = (self.folder() / "data.mdb").read_bytes(), self.bus.offsets((self.output, 0)), self.committed()
        assert after == before

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments], cwd=self.home, env=self.environment, timeout=60,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def reset(self):
        done = self.command("reset", "joiner", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["notes"]

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.producer.close()
        self.bus.close()


@pytest.fixture
def joiner(kafka, namespace, tmp_path, until):
    """A joiner that was stopped cleanly at offset 4: "a" is told, "b" and "c" wait."""
    with closing(Joiner(kafka, namespace, tmp_path, until)) as made:
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
    config = {"message.timestamp.type": "CreateTime"}
    joiner.admin.delete_topics([joiner.input])[joiner.input].result(10)
    joiner.until(lambda: joiner.bus.partitions(joiner.input) is None)
    joiner.bus.create_topics([TopicSpec(joiner.input, 1, config)])
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
    joiner.admin.delete_topics([joiner.input])[joiner.input].result(10)
    joiner.until(lambda: joiner.bus.partitions(joiner.input) is None)
    joiner.bus.create_topics([TopicSpec(joiner.input, 1, {"message.timestamp.type": "CreateTime"})])
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
    joiner.stop(signal.SIGKILL)
    joiner.label("c")
    package = joiner.home / "next"  # the same code, as the next release would say it is
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        "from importlib import metadata\nbefore = metadata.version\n"
        "metadata.version = lambda name: '99.1' if name == 'headrace' else before(name)\n"
    )
    this, path = dict(joiner.environment), os.environ.get("PYTHONPATH", "")
    joiner.environment["PYTHONPATH"] = f"{package}{os.pathsep}{path}"
    joiner.is_refused("offset 5", "ended without a clean stop", "this is headrace 99.1", "headrace up --drain")
    after, joiner.environment = joiner.environment, this
    code, last = joiner.start("--drain").ended()
    assert (code, last["event"]) == (0, "stopped"), last
    assert joiner.told(3) == ["a", "b", "c"]
    joiner.environment = after
    joiner.predict("d")
    joiner.label("d")
    assert joiner.start().told(4) == ["a", "b", "c", "d"]
    joiner.folded()
    joiner.stop()
    joiner.environment = this
    joiner.is_refused("offset 8", "newer than this", "headrace reset joiner")


def test_a_reset_is_refused_while_the_service_runs_and_asks_first(joiner):
    joiner.start()
    joiner.label("b")
    joiner.told(2)
    done = joiner.command("reset", "joiner", "--yes")
    assert done.returncode == 3
    assert f"process {joiner.process.pid}, which is alive" in " ".join(done.stderr.split())
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
def mortal(namespace, tmp_path, until):
    """A joiner like the others, with a broker of its own that can lose its tail."""
    broker = local_broker.start(tmp_path, local_broker.free_port(), settings={"log.flush.interval.messages": "1"})
    made = Joiner(broker.address, namespace, tmp_path, until)
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


def test_a_stop_in_the_middle_of_work_is_clean_and_nothing_is_folded_again(joiner):
    """P19: what each start publishes is exactly what the one before it had not."""
    pairs = [f"n{number}" for number in range(6_000)]
    sequence = 1_000 * 65_536
    for id in pairs:
        for event in (
            PredictionMade(
                id=id, time=NOON, features={"x": 1.0}, predictions={}, served=None, release=1, epoch=0, origin=(0, 0)
            ),
            LabelArrived(id=id, time=NOON, label=True),
        ):
            sequence += 65_536
            headers = headers_of(TYPE_OF[type(event)], "/predictor/rain/0/0", sequence)
            joiner.producer.produce(joiner.input, 0, id.encode(), encode(event), headers, 0)
    joiner.producer.flush()
    for _ in range(3):
        joiner.start()
        before = joiner.bus.offsets((joiner.output, 0))[1]
        joiner.until(lambda before=before: joiner.bus.offsets((joiner.output, 0))[1] > before, limit_s=30)
        joiner.stop()
    joiner.start().told(len(pairs) + 1)
    joiner.folded()
    joiner.stop()
    assert joiner.bus.offsets((joiner.output, 0))[1] == len(pairs) + 1, "something was told twice"
