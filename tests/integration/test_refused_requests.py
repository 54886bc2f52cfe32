"""On genuine Kafka: requests that their broker refuses, leaves unanswered, or answers with what was so before."""

import threading
from contextlib import closing
from select import select

import pytest
from network import LIST_OFFSETS, LOST, PRODUCE, REFUSED, Network, end_of_an_empty_log

from headrace import Client
from headrace.infra import local_broker
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus

pytestmark = pytest.mark.kafka
COMPANY_S = 0.5  # how long a refusal waits for a second request behind the first


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("refused"), local_broker.free_port()
    with closing(Network(port)) as made:
        local_broker.start(folder, port, settings=made.settings())
        yield made
        local_broker.stop_local_broker(folder)


def is_told_in_order(network, topic, until, send, flush):
    """A first record that is refused while a second one would be at hand: both stand in the topic."""
    holds, bus = threading.Event(), KafkaBus(network.address)

    def refuse_first(request):
        if request.api != PRODUCE or holds.is_set():
            return None
        holds.set()
        select([request.socket], [], [], COMPANY_S)
        return REFUSED

    bus.create_topics([TopicSpec(topic, 1, {})])
    network.fault = refuse_first
    send(b"first")
    assert holds.wait(20)
    send(b"second")
    flush()
    reader, read, end = bus.reader(), [], bus.offsets((topic, 0))[1]
    reader.assign({(topic, 0): 0})
    until(lambda: read.extend(m.value() for m in reader.poll(10, 0.1)) or len(read) == end)
    reader.close()
    bus.close()
    assert read == [b"first", b"second"]


def test_what_a_service_wrote_first_is_not_taken_for_written_as_the_next_is(network, until):
    producer = KafkaBus(network.address).producer("test")

    def send(value):
        producer.produce("service", 0, None, value, [], 0)
        producer.push()

    is_told_in_order(network, "service", until, send, producer.flush)
    producer.close()


def test_what_a_user_published_first_is_not_taken_for_written_as_the_next_is(network, until):
    with Client(network.address) as client:
        producer = client._producer
        is_told_in_order(network, "user", until, lambda value: producer.send("user", value), producer.flush)


def test_an_end_of_the_log_that_nobody_told_is_asked_for_again(network):
    bus, lost = KafkaBus(network.address), []

    def lose_one(request):
        if request.api == LIST_OFFSETS and not lost:
            lost.append(request)
            return LOST
        return None

    bus.create_topics([TopicSpec("asked", 1, {})])
    assert bus.offsets(("asked", 0)) == (0, 0)
    network.fault = lose_one
    assert bus.offsets(("asked", 0)) == (0, 0)
    assert lost
    bus.close()


def test_an_end_of_the_log_before_what_was_read_of_it_is_asked_for_again(network):
    bus, stale = KafkaBus(network.address), []

    def as_it_was(request):
        return end_of_an_empty_log(request, b"stale") if request.api == LIST_OFFSETS and stale and stale.pop() else None

    bus.create_topics([TopicSpec("stale", 1, {})])
    producer = bus.producer("test")
    producer.produce("stale", 0, None, b"one", [], 0)
    producer.flush()
    network.fault = as_it_was
    stale += [True, True]
    assert bus.offsets(("stale", 0)) == (0, 0)
    stale += [True, True]
    assert bus.offsets(("stale", 0), at_least=1) == (0, 1)
    assert not stale
    producer.close()
    bus.close()
