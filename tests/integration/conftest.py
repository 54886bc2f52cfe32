"""Both sides of the bus with what their operators can do, and what a recorder reads there."""

import time
from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.infra.bus import TopicSpec
from headrace.infra.memory_bus import MemoryBus

HEADERS = [("ce_specversion", "1.0"), ("ce_sequence", b"65536"), ("other", "ü")]


@pytest.fixture
def side(bus, namespace, until):
    """One side of the bus: makes topics, readers, producers and group members, and closes them at the end."""
    open_ones = []

    def opened(one):
        open_ones.append(one)
        return one

    def topic(name="t", partitions=1, **config):
        named = {key.replace("_", "."): str(value) for key, value in config.items()}
        bus.create_topics([TopicSpec(namespace + name, partitions, named)])
        return namespace + name

    def write(topic, values, partition=0, timestamp_ms=0):
        producer = opened(bus.producer("test"))
        for value in values:
            producer.produce(topic, partition, b"k", value, HEADERS, timestamp_ms)
        producer.flush()

    def polled(*members, has):
        """Poll the members in turn until the condition holds."""
        return until(lambda: [member.poll() for member in members] and has())

    yield SimpleNamespace(
        bus=bus, namespace=namespace, is_memory=isinstance(bus, MemoryBus), topic=topic, write=write, polled=polled,
        operator=MemoryOperator(bus) if isinstance(bus, MemoryBus) else KafkaOperator(bus),
        reader=lambda: opened(bus.reader()),
        producer=lambda: opened(bus.producer("test")),
        member=lambda instance="i1", start=None, on=bus: opened(
            Member(on, namespace + "g", namespace + instance, start)
        ),
    )  # fmt: skip
    for one in open_ones:
        one.close()


@pytest.fixture
def world(bus, namespace):
    """What services wrote, for the recorder to read."""
    from recorded import World

    return World(bus, namespace if not isinstance(bus, MemoryBus) else "")


@pytest.fixture
def drain(until):
    """Tick until the recorder has read everything that stands in its topics, then commit."""

    def run(recorder):
        def at_the_end():
            recorder.tick(0.05)
            places = recorder._sources.items()
            return all(source.next_offset >= recorder._bus.offsets(place)[1] for place, source in places)

        until(at_the_end, says="the recorder's reading everything")
        recorder.commit()
        return recorder

    return run


class MemoryOperator:
    """What a broker's operator, and time, do to the in-process log."""

    def __init__(self, bus):
        self.end_session, self.delete_records = bus.end_session, bus.delete_records
        self.recreate = lambda spec: (bus.delete_topic(spec.name), bus.create_topics([spec]))
        self.has_given = lambda group, topic: True


class KafkaOperator:
    """The same for Apache Kafka, where a session ends by itself."""

    def __init__(self, bus):
        self.bus, self.admin = bus, AdminClient({"bootstrap.servers": bus.bootstrap})

    def end_session(self, group, instance):
        pass

    def delete_records(self, place, before):
        [future] = self.admin.delete_records([TopicPartition(*place, before)]).values()
        future.result(10)

    def has_given(self, group, topic):
        """Whether the broker has given a partition of the topic to a member, who need not know yet."""
        members = self.admin.describe_consumer_groups([group])[group].result(10).members
        return any(part.topic == topic for member in members for part in member.assignment.topic_partitions)

    def recreate(self, spec):
        self.admin.delete_topics([spec.name])[spec.name].result(10)
        deadline = time.monotonic() + 10
        while self.bus.partitions(spec.name) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        self.bus.create_topics([spec])


class Member:
    """A group consumer that notes what it is told; starts where the group stands, else at 0."""

    def __init__(self, bus, group, instance, start):
        self.assigned, self.revoked, self.lost, self.messages = [], [], [], []
        self.group, self.instance, self.start, self.closed = group, instance, start, False
        self.consumer = bus.group_consumer(group, instance, self._assign, self.revoked.append, self.lost.append)

    def _assign(self, places):
        self.assigned.append(places)
        committed = self.consumer.committed(places) if self.start is None else dict.fromkeys(places, self.start)
        return {place: committed.get(place, 0) for place in places}

    def poll(self, limit=50, timeout_s=0.02):
        taken = self.consumer.poll(limit, timeout_s)
        self.messages += taken
        return taken

    def places(self):
        """What it was given and still has."""
        gone = [place for places in self.revoked + self.lost for place in places]
        held = [place for places in self.assigned for place in places]
        for place in gone:
            held.remove(place)
        return set(held)

    def values(self):
        return [message.value() for message in self.messages]

    def close(self):
        if not self.closed:
            self.closed = True
            self.consumer.close()
