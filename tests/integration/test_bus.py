"""What `infra.bus` promises, held against both sides: genuine Apache Kafka and the in-process log."""

import os
import time
import uuid
from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaProducer as SdkProducer
from kafka.admin import KafkaAdminClient

from headrace.infra import kafka_producer
from headrace.infra.bus import BusError, Fenced, ProducerFailed, TopicMissing, TopicSpec, Unavailable
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.partitioner import partition_of

HEADERS = [("ce_specversion", "1.0"), ("ce_sequence", b"65536"), ("other", "ü")]


@pytest.fixture
def side(bus, namespace):
    """One side of the bus with what only its operator can do; `members` are closed at the end."""
    operator = Memory(bus) if isinstance(bus, MemoryBus) else Kafka(bus)
    made = SimpleNamespace(bus=bus, namespace=namespace, operator=operator, open=[])

    def topic(name="t", partitions=1, **config):
        spec = TopicSpec(
            namespace + name, partitions, {key.replace("_", "."): str(value) for key, value in config.items()}
        )
        bus.create_topics([spec])
        return spec.name

    made.topic = topic
    made.reader = lambda: _opened(made, bus.reader())
    made.producer = lambda: _opened(made, bus.producer("test"))
    made.member = lambda *args, **named: _opened(made, Member(made, *args, **named))
    yield made
    for one in made.open:
        one.close()


def _opened(made, one):
    made.open.append(one)
    return one


class Memory:
    """What a broker's operator, and time, do to the in-process log."""

    def __init__(self, bus):
        self.end_session, self.delete_records = bus.end_session, bus.delete_records
        self.recreate = lambda spec: (bus.delete_topic(spec.name), bus.create_topics([spec]))
        self.has_given = lambda group, topic: True


class Kafka:
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

    def __init__(self, side, instance="i1", group="g", start=None, bus=None):
        self.assigned, self.revoked, self.lost, self.messages = [], [], [], []
        self.start, self.closed = start, False
        self.group, self.instance = side.namespace + group, side.namespace + instance
        self.consumer = (bus or side.bus).group_consumer(
            self.group,
            self.instance,
            self._assign,
            lambda places: self.revoked.append(places),
            lambda places: self.lost.append(places),
        )

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


def write(side, topic, values, partition=0, key=b"k", timestamp_ms=0):
    producer = side.producer()
    for value in values:
        producer.produce(topic, partition, key, value, HEADERS, timestamp_ms)
    producer.flush()


def numbers(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


def polled(until, *members, has):
    """Poll the members in turn until the condition holds."""
    return until(lambda: [member.poll() for member in members] and has())


# producing and reading


def test_records_come_in_order_with_key_value_headers_and_timestamp(side, until):
    topic, then = side.topic(), int(time.time() * 1000) - 3 * 365 * 86_400_000
    write(side, topic, [*numbers(120), None], timestamp_ms=then)
    reader, got = side.reader(), []
    reader.assign({(topic, 0): 0})
    until(lambda: got.extend(reader.poll(50, 0.1)) or len(got) >= 121)
    assert [message.value() for message in got] == [*numbers(120), None]
    assert [message.offset() for message in got] == list(range(121))
    assert {(m.topic(), m.partition(), m.key(), m.timestamp(), m.leader_epoch()) for m in got} == {
        (topic, 0, b"k", (1, then), 0)
    }
    assert got[0].headers() == [("ce_specversion", b"1.0"), ("ce_sequence", b"65536"), ("other", "ü".encode())]
    assert side.bus.offsets((topic, 0)) == (0, 121)


def test_a_record_may_have_neither_key_nor_headers(side, until):
    topic = side.topic()
    side_producer = side.producer()
    side_producer.produce(topic, None, None, b"v", [], 0)
    side_producer.flush()
    reader = side.reader()
    reader.assign({(topic, 0): 0})
    [message] = until(lambda: reader.poll(50, 0.1))
    assert (message.key(), message.headers()) == (None, None)
    assert abs(message.timestamp()[1] - time.time() * 1000) < 60_000


def test_a_topic_may_stamp_the_time_of_its_own_append(side, until):
    topic = side.topic(message_timestamp_type="LogAppendTime")
    write(side, topic, [b"v"], timestamp_ms=1_000)
    reader = side.reader()
    reader.assign({(topic, 0): 0})
    [message] = until(lambda: reader.poll(50, 0.1))
    kind, stamp = message.timestamp()
    assert kind == 2
    assert abs(stamp - time.time() * 1000) < 60_000


def test_a_poll_never_gives_more_than_its_limit_and_never_waits_longer_than_its_timeout(side, until):
    topic = side.topic()
    reader = side.reader()
    reader.assign({(topic, 0): 0})
    began = time.monotonic()
    assert reader.poll(50, 0) == []
    assert reader.poll(50, 0.1) == []
    assert time.monotonic() - began < 1
    write(side, topic, numbers(30))
    sizes = []
    until(lambda: sizes.append(len(reader.poll(7, 0.1))) or sum(sizes) == 30)
    assert max(sizes) == 7
    assert side.reader().poll(50, 0) == []


def test_keys_go_where_the_partitioner_says_on_every_client(side, until):
    topic = side.topic(partitions=7)
    keys = [b"", "Zürich".encode(), *(uuid.uuid4().hex[: 1 + number % 32].encode() for number in range(998))]
    producer = side.producer()
    for key in keys:
        producer.produce(topic, None, key, b"bus", HEADERS, 0)
    producer.flush()
    if not isinstance(side.bus, MemoryBus):
        with SdkProducer(bootstrap_servers=side.bus.bootstrap) as sdk:
            for key in keys:
                sdk.send(topic, key=key, value=b"sdk")
            sdk.flush()
    wanted = len(keys) * (1 if isinstance(side.bus, MemoryBus) else 2)
    reader, got = side.reader(), []
    reader.assign({(topic, partition): 0 for partition in range(7)})
    until(lambda: got.extend(reader.poll(500, 0.1)) or len(got) >= wanted)
    assert len(got) == wanted
    assert {m.partition() for m in got} == set(range(7))
    assert [m for m in got if m.partition() != partition_of(m.key(), 7)] == []


def test_a_reader_reads_exactly_the_places_given_last_each_from_its_offset(side, until):
    first, second = side.topic("a", partitions=2), side.topic("b")
    for topic, partition in ((first, 0), (first, 1), (second, 0)):
        write(side, topic, numbers(10), partition)
    reader, got = side.reader(), []
    reader.assign({(first, 0): 8, (second, 0): 3})
    until(lambda: got.extend(reader.poll(50, 0.1)) or len(got) >= 9)
    assert sorted((m.topic(), m.partition(), m.offset()) for m in got) == sorted(
        [(first, 0, 8), (first, 0, 9)] + [(second, 0, offset) for offset in range(3, 10)]
    )
    reader.assign({(first, 1): 9})
    got.clear()
    until(lambda: got.extend(reader.poll(50, 0.1)) or got)
    assert [(m.topic(), m.partition(), m.offset()) for m in got] == [(first, 1, 9)]
    assert reader.poll(50, 0.1) == []


# a refused record


def refused(side, topic, big):
    """Ten records with one that is too large among them, and more behind; returns what stands in the log."""
    producer = side.producer()
    producer.produce(topic, 0, b"k", b"0", HEADERS, 0)
    producer.flush()

    def produce():
        for number in range(1, 10):
            producer.produce(topic, 0, b"k", big if number == 5 else b"%d" % number, HEADERS, 0)
        soon = time.monotonic() + 0.3
        while time.monotonic() < soon:  # nobody has looked at acknowledgements yet
            producer.produce(topic, 0, b"k", b"after", HEADERS, 0)
            time.sleep(0.001)
        producer.flush()

    with pytest.raises(ProducerFailed, match=topic):
        produce()
    for call in (producer.flush, producer.poll, lambda: producer.produce(topic, 0, b"k", b"late", HEADERS, 0)):
        with pytest.raises(ProducerFailed):
            call()
    with pytest.raises(ProducerFailed):
        producer.flush()
    reader, got = side.reader(), []
    reader.assign({(topic, 0): 0})
    write(side, topic, [b"end"])
    deadline = time.monotonic() + 20
    while not (got and got[-1].value() == b"end") and time.monotonic() < deadline:
        got += reader.poll(50, 0.1)
    return [message.value() for message in got]


def test_nothing_is_written_after_a_record_that_the_topic_refuses(side):
    topic = side.topic(max_message_bytes=2_000)
    written = refused(side, topic, os.urandom(5_000))
    assert written[:-1] == numbers(len(written) - 1)
    assert len(written) - 1 <= 5


def test_nothing_is_written_after_a_record_that_is_too_large_for_the_client(side):
    written = refused(side, side.topic(), bytes(1_000_000))
    assert written[:-1] == numbers(len(written) - 1)
    assert len(written) - 1 <= 5


def test_a_record_for_a_topic_that_does_not_exist_is_refused(side):
    with pytest.raises(ProducerFailed, match="missing"):
        write(side, side.namespace + "missing", [b"v"])


# topics


def test_topics_are_made_once_and_then_left_as_they_are(side):
    topic = side.topic("a", partitions=3, retention_ms=60_000)
    side.topic("a", partitions=5, retention_ms=1)
    assert side.bus.partitions(topic) == 3
    assert topic in side.bus.topics()
    config = side.bus.topic_config(topic)
    assert config["retention.ms"] == "60000"
    assert config["message.timestamp.type"] == "CreateTime"
    assert config["cleanup.policy"] == "delete"


def test_a_topic_that_does_not_exist_is_said_to_be_missing(side, until):
    name = side.namespace + "missing"
    assert side.bus.partitions(name) is None
    assert name not in side.bus.topics()
    for question in (side.bus.topic_id, side.bus.topic_config, lambda topic: side.bus.offsets((topic, 0))):
        with pytest.raises(TopicMissing, match=name):
            question(name)
    member = side.member()
    member.consumer.subscribe([side.topic(), name])
    with pytest.raises(TopicMissing, match=name):
        until(lambda: member.poll() or False)
    assert side.bus.partitions(name) is None, "asking for a topic must not create it"


def test_a_topic_that_is_made_anew_has_another_id_and_starts_at_offset_0(side, until):
    topic = side.topic()
    before = side.bus.topic_id(topic)
    write(side, topic, numbers(3))
    assert len(bytes.fromhex(before)) == 16
    assert side.bus.topic_id(topic) == before
    side.operator.recreate(TopicSpec(topic, 1, {}))
    assert side.bus.topic_id(topic) != before
    assert side.bus.offsets((topic, 0)) == (0, 0)


@pytest.mark.kafka
def test_the_topic_id_is_the_one_that_other_clients_show(kafka_bus, namespace):
    kafka_bus.create_topics([TopicSpec(namespace + "t", 1, {})])
    admin = KafkaAdminClient(bootstrap_servers=kafka_bus.bootstrap)
    [shown] = admin.describe_topics([namespace + "t"])
    admin.close()
    assert uuid.UUID(str(shown["topic_id"])).hex == kafka_bus.topic_id(namespace + "t")


# groups


def test_a_member_starts_where_it_says_and_the_group_remembers_where_it_stood(side, until):
    topic = side.topic(partitions=2)
    write(side, topic, numbers(10), 0)
    write(side, topic, numbers(10), 1)
    member = side.member(start=4)
    member.consumer.subscribe([topic])
    polled(until, member, has=lambda: len(member.messages) >= 12)
    assert member.places() == {(topic, 0), (topic, 1)}
    assert sorted((m.partition(), m.offset()) for m in member.messages) == [
        (p, o) for p in (0, 1) for o in range(4, 10)
    ]
    assert member.consumer.committed([(topic, 0), (topic, 1)]) == {}
    member.consumer.commit({(topic, 0): 7})
    until(lambda: member.poll() or member.consumer.committed([(topic, 0), (topic, 1)]) == {(topic, 0): 7})
    member.close()
    again = side.member()
    again.consumer.subscribe([topic])
    polled(until, again, has=lambda: len(again.messages) >= 13)
    assert sorted((m.partition(), m.offset()) for m in again.messages) == [
        *((0, offset) for offset in range(7, 10)),
        *((1, offset) for offset in range(10)),
    ]


def test_the_group_never_goes_back(side, until):
    topic = side.topic()
    write(side, topic, numbers(10))
    member = side.member()
    member.consumer.subscribe([topic])
    polled(until, member, has=lambda: len(member.messages) >= 10)
    member.consumer.commit({(topic, 0): 8})
    until(lambda: member.poll() or member.consumer.committed([(topic, 0)]) == {(topic, 0): 8})
    member.close()
    behind = side.member(start=2)
    behind.consumer.subscribe([topic])
    polled(until, behind, has=lambda: behind.messages)
    behind.consumer.committed([(topic, 0)])
    behind.consumer.commit({(topic, 0): 3})
    behind.consumer.commit({(topic, 0): 9})
    until(lambda: behind.poll() or behind.consumer.committed([(topic, 0)]) == {(topic, 0): 9})
    behind.consumer.commit({(topic, 0): 3})
    write(side, topic, [b"more"])
    polled(until, behind, has=lambda: b"more" in behind.values())
    assert behind.consumer.committed([(topic, 0)]) == {(topic, 0): 9}


def test_seek_reads_on_from_another_offset(side, until):
    topic = side.topic()
    write(side, topic, numbers(10))
    member = side.member()
    member.consumer.subscribe([topic])
    polled(until, member, has=lambda: len(member.messages) >= 10)
    member.consumer.seek((topic, 0), 8)
    polled(until, member, has=lambda: len(member.messages) >= 12)
    assert member.values() == [*numbers(10), b"8", b"9"]
    with pytest.raises(BusError, match="not assigned"):
        member.consumer.seek((topic, 5), 0)


def test_a_paused_place_is_silent_until_it_is_resumed(side, until):
    topic = side.topic(partitions=2)
    member = side.member()
    member.consumer.subscribe([topic])
    polled(until, member, has=lambda: len(member.places()) == 2)
    member.consumer.pause([(topic, 0)])
    write(side, topic, numbers(5), 0)
    write(side, topic, numbers(5), 1)
    polled(until, member, has=lambda: len(member.messages) >= 5)
    assert member.poll(50, 0.3) == []
    assert {m.partition() for m in member.messages} == {1}
    member.consumer.resume([(topic, 0)])
    polled(until, member, has=lambda: len(member.messages) >= 10)
    assert [m.offset() for m in member.messages if m.partition() == 0] == list(range(5))


def test_a_live_member_takes_up_more_topics_and_keeps_what_it_has(side, until):
    first, second = side.topic("a"), side.topic("b")
    member = side.member()
    member.consumer.subscribe([first])
    polled(until, member, has=lambda: member.assigned)
    member.consumer.subscribe([first, second])
    polled(until, member, has=lambda: len(member.places()) == 2)
    assert [places for places in member.assigned if places] == [[(first, 0)], [(second, 0)]]
    assert member.revoked == []


def test_two_members_share_the_places_and_only_what_moves_is_taken_away(side, until):
    topic = side.topic(partitions=4)
    one, two = side.member("i1"), side.member("i2")
    one.consumer.subscribe([topic])
    polled(until, one, has=lambda: len(one.places()) == 4)
    two.consumer.subscribe([topic])
    polled(until, one, two, has=lambda: len(one.places()) == len(two.places()) == 2)
    assert not one.places() & two.places()
    assert sum(len(places) for places in one.revoked) == 2
    for partition in range(4):
        write(side, topic, numbers(5), partition)
    polled(until, one, two, has=lambda: len(one.messages) + len(two.messages) >= 20)
    assert {(m.topic(), m.partition()) for m in one.messages} == one.places()
    assert {(m.topic(), m.partition()) for m in two.messages} == two.places()


def test_the_places_of_a_member_that_is_gone_go_to_another_when_its_session_ends(side, until):
    memory = isinstance(side.bus, MemoryBus)
    bus = side.bus if memory else KafkaBus(side.bus.bootstrap, session_timeout_s=2)
    topic = side.topic(partitions=2)
    one, two = side.member("i1", bus=bus), side.member("i2", bus=bus)
    one.consumer.subscribe([topic])
    two.consumer.subscribe([topic])
    polled(until, one, two, has=lambda: len(one.places()) == len(two.places()) == 1)
    [place] = two.places()
    write(side, topic, numbers(5), place[1])
    polled(until, one, two, has=lambda: len(two.messages) >= 5)
    two.consumer.commit({place: 3})
    until(lambda: two.poll() or two.consumer.committed([place]) == {place: 3})
    two.close()
    assert one.poll() == [], "a clean stop keeps the place of a static member"
    side.operator.end_session(two.group, two.instance)
    polled(until, one, has=lambda: place in one.places() and len(one.messages) >= 2)
    assert [(m.partition(), m.offset()) for m in one.messages] == [(place[1], 3), (place[1], 4)]


def test_a_killed_member_is_back_at_once_and_nobody_else_notices(side, until):
    topic = side.topic(partitions=4)
    one, two = side.member("i1"), side.member("i2")
    one.consumer.subscribe([topic])
    two.consumer.subscribe([topic])
    polled(until, one, two, has=lambda: len(one.places()) == len(two.places()) == 2)
    until(lambda: one.poll() or two.poll() or True)
    told = (len(one.assigned), len(one.revoked), one.places())
    places = two.places()
    began = time.monotonic()
    back = side.member("i2")
    back.consumer.subscribe([topic])
    polled(until, one, back, has=lambda: back.places() == places)
    assert time.monotonic() - began < 3
    polled(until, one, back, has=lambda: time.monotonic() - began > 0.5)
    assert (len([p for p in one.assigned if p]), len(one.revoked), one.places()) == (
        len([p for p in one.assigned[: told[0]] if p]),
        told[1],
        told[2],
    )


def test_an_instance_that_another_process_took_over_is_fenced(side, until):
    topic = side.topic()
    old = side.member("i1")
    old.consumer.subscribe([topic])
    polled(until, old, has=lambda: old.places())
    new = side.member("i1")
    new.consumer.subscribe([topic])
    polled(until, new, has=lambda: new.places())
    with pytest.raises(Fenced, match="another process"):
        until(lambda: old.poll() or old.consumer.commit({(topic, 0): 1}))
    old.closed = True
    write(side, topic, [b"v"])
    polled(until, new, has=lambda: new.values() == [b"v"])


def test_a_member_that_restarts_with_a_longer_list_of_topics_gets_them_all(side, until):
    topics = [side.topic("a", partitions=2), side.topic("b", partitions=2)]
    leader, member = side.member("i1"), side.member("i2")
    leader.consumer.subscribe(topics[:1])
    polled(until, leader, has=lambda: leader.places())
    member.consumer.subscribe(topics[:1])
    polled(until, leader, member, has=lambda: len(leader.places()) == len(member.places()) == 1)
    member.close()
    again = side.member("i2")
    again.consumer.subscribe(topics)
    polled(until, leader, again, has=lambda: {(topics[1], 0), (topics[1], 1)} <= again.places())
    for topic in topics:
        for partition in (0, 1):
            write(side, topic, numbers(5), partition)
    polled(until, leader, again, has=lambda: len(leader.messages) + len(again.messages) >= 20)
    assert sorted((m.topic(), m.partition(), m.offset()) for m in leader.messages + again.messages) == [
        (topic, partition, offset) for topic in topics for partition in (0, 1) for offset in range(5)
    ]


def test_places_are_taken_back_at_a_clean_stop(side, until):
    topic = side.topic()
    member = side.member()
    member.consumer.subscribe([topic])
    polled(until, member, has=lambda: member.places())
    member.close()
    assert member.revoked == [[(topic, 0)]]
    assert member.lost == []


def test_a_member_may_stop_before_it_took_up_what_it_was_given(side, until):
    first, second = side.topic("a"), side.topic("b")
    member = side.member()
    member.consumer.subscribe([first])
    polled(until, member, has=lambda: member.places())
    member.consumer.subscribe([first, second])
    until(lambda: side.operator.has_given(member.group, second))
    began = time.monotonic()
    member.close()
    assert time.monotonic() - began < 5
    assert member.places() == set()


@pytest.mark.parametrize("offset", [50, -1])
def test_an_offset_out_of_range_is_an_error_never_skipped(side, until, offset):
    topic = side.topic()
    write(side, topic, numbers(10))
    start = 50
    if offset < 0:
        start = 2
        side.operator.delete_records((topic, 0), 5)
        assert side.bus.offsets((topic, 0)) == (5, 10)
    member = side.member(start=start)
    member.consumer.subscribe([topic])
    with pytest.raises(BusError, match=f"partition 0: offset {start} is out of range"):
        until(member.poll)
    reader = side.reader()
    reader.assign({(topic, 0): start})
    with pytest.raises(BusError, match=f"partition 0: offset {start} is out of range"):
        until(lambda: reader.poll(50, 0.1))


def test_what_a_callback_raises_comes_out_of_poll(side, until):
    topic = side.topic()
    write(side, topic, numbers(3))

    def broken(places):
        raise LookupError("no state for this partition")

    consumer = side.bus.group_consumer(side.namespace + "g", side.namespace + "i", broken, broken, broken)
    consumer.subscribe([topic])
    with pytest.raises(LookupError, match="no state"):
        until(lambda: consumer.poll(50, 0.02) and pytest.fail("a record came without an assignment"))
    consumer.close()


# no broker


@pytest.mark.kafka
def test_a_broker_that_does_not_answer_is_said_to_be_unavailable(monkeypatch):
    for module in ("headrace.infra.kafka_bus.ADMIN_S", "headrace.infra.kafka_producer.STALLED_S"):
        monkeypatch.setattr(module, 0.3)
    monkeypatch.setattr(kafka_producer, "FLUSH_S", 0.1)
    bus = KafkaBus("127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        bus.partitions("t")
    producer = bus.producer("test")
    producer.produce("t", 0, b"k", b"v", [], 0)
    with pytest.raises(Unavailable, match="1 records wait"):
        producer.flush()
    producer.close()
    bus.close()
