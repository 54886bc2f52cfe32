"""What `infra.bus` promises of producers, readers and topics, on both sides: Apache Kafka and the in-process log."""

import os
import time
import uuid

import pytest
from kafka import KafkaProducer as SdkProducer
from kafka.admin import KafkaAdminClient

from headrace.infra import kafka_producer
from headrace.infra.bus import ProducerFailed, TopicMissing, TopicSpec, Unavailable
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.partitioner import partition_of

HEADERS = [("ce_specversion", "1.0"), ("ce_sequence", b"65536"), ("other", "ü")]


def numbers(count):
    return [b"%d" % number for number in range(count)]


def test_records_come_in_order_with_key_value_headers_and_timestamp(side, until):
    topic, then = side.topic(), int(time.time() * 1000) - 3 * 365 * 86_400_000
    side.write(topic, [*numbers(120), None], timestamp_ms=then)
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
    side.write(topic, [b"v"], timestamp_ms=1_000)
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
    side.write(topic, numbers(30))
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
    if not side.is_memory:
        with SdkProducer(bootstrap_servers=side.bus.bootstrap) as sdk:
            for key in keys:
                sdk.send(topic, key=key, value=b"sdk")
            sdk.flush()
    wanted = len(keys) * (1 if side.is_memory else 2)
    reader, got = side.reader(), []
    reader.assign({(topic, partition): 0 for partition in range(7)})
    until(lambda: got.extend(reader.poll(500, 0.1)) or len(got) >= wanted)
    assert len(got) == wanted
    assert {m.partition() for m in got} == set(range(7))
    assert [m for m in got if m.partition() != partition_of(m.key(), 7)] == []


def test_a_reader_reads_exactly_the_places_given_last_each_from_its_offset(side, until):
    first, second = side.topic("a", partitions=2), side.topic("b")
    for topic, partition in ((first, 0), (first, 1), (second, 0)):
        side.write(topic, numbers(10), partition)
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
    side.write(topic, [b"end"])
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
        side.write(side.namespace + "missing", [b"v"])


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
    side.write(topic, numbers(3))
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
