"""On genuine Kafka: requests that their broker refuses, leaves unanswered, or answers with what was so before."""

import socket
import struct
import threading
from contextlib import closing
from select import select

import pytest

from headrace import Client
from headrace.infra import local_broker
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus

pytestmark = pytest.mark.kafka
PRODUCE, LIST_OFFSETS, NOT_LEADER = 0, 2, 6
COMPANY_S = 0.5  # how long a refusal waits for a second request behind the first


class Between:
    """Between clients and a broker: answers one produce request itself, as a broker that is not yet leader would, or a
    request for offsets as one that is killed (it breaks the connection) or as one that stood still: the log is empty.
    """

    def __init__(self, broker_port):
        self._broker_port, self._listener = broker_port, socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._topic, self.holds = "", threading.Event()
        self.breaks, self.stale = False, 0
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse_next(self, topic):
        self._topic = topic
        self.holds.clear()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            threading.Thread(target=self._requests, args=(client, broker), daemon=True).start()
            threading.Thread(target=self._answers, args=(broker, client), daemon=True).start()

    def _requests(self, client, broker):
        with client, broker, client.makefile("rb") as incoming:
            while size := incoming.read(4):
                request = incoming.read(struct.unpack(">i", size)[0])
                key, version, correlation = struct.unpack(">hhi", request[:8])
                if key == LIST_OFFSETS and self.breaks:
                    self.breaks, self.stale = False, 0
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if key == LIST_OFFSETS and self.stale:
                    assert version == 7, f"the answer is not of version {version}"
                    self.stale -= 1
                    client.sendall(end_of_an_empty_log(correlation, b"stale"))
                elif key == PRODUCE and self._topic:
                    assert 9 <= version <= 12, f"the answer below is not of version {version}"
                    topic, self._topic = self._topic, ""
                    self.holds.set()
                    select([client], [], [], COMPANY_S)
                    client.sendall(refusal(correlation, topic.encode()))
                else:
                    broker.sendall(size + request)

    @staticmethod
    def _answers(broker, client):
        try:
            while some := broker.recv(65_536):
                client.sendall(some)
        except OSError:
            return


def refusal(correlation, topic):
    """A produce response (version 9 on) that says of partition 0 that another broker leads it."""
    none = no_tags = b"\x00"
    partition = struct.pack(">ihqqq", 0, NOT_LEADER, -1, -1, -1) + b"\x01" + none + no_tags
    body = b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02" + partition + no_tags + struct.pack(">i", 0) + no_tags
    answer = struct.pack(">i", correlation) + no_tags + body
    return struct.pack(">i", len(answer)) + answer


def end_of_an_empty_log(correlation, topic):
    """A response to a request for offsets (version 7): partition 0 of this topic holds nothing."""
    no_tags = b"\x00"
    partition = struct.pack(">ihqqi", 0, 0, -1, 0, 0) + no_tags
    body = struct.pack(">i", 0) + b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02" + partition + no_tags + no_tags
    answer = struct.pack(">i", correlation) + no_tags + body
    return struct.pack(">i", len(answer)) + answer


@pytest.fixture(scope="module")
def between(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("between"), local_broker.free_port()
    with closing(Between(port)) as made:
        local_broker.start(folder, port, settings={"advertised.listeners": f"PLAINTEXT://{made.address}"})
        yield made
        local_broker.stop_local_broker(folder)


def is_told_in_order(between, topic, until, send, flush):
    """A first record that is refused while a second one would be at hand: both stand in the topic."""
    bus = KafkaBus(between.address)
    bus.create_topics([TopicSpec(topic, 1, {})])
    between.refuse_next(topic)
    send(b"first")
    assert between.holds.wait(20)
    send(b"second")
    flush()
    reader, read, end = bus.reader(), [], bus.offsets((topic, 0))[1]
    reader.assign({(topic, 0): 0})
    until(lambda: read.extend(m.value() for m in reader.poll(10, 0.1)) or len(read) == end)
    reader.close()
    bus.close()
    assert read == [b"first", b"second"]


def test_what_a_service_wrote_first_is_not_taken_for_written_as_the_next_is(between, until):
    producer = KafkaBus(between.address).producer("test")

    def send(value):
        producer.produce("service", 0, None, value, [], 0)
        producer.push()

    is_told_in_order(between, "service", until, send, producer.flush)
    producer.close()


def test_what_a_user_published_first_is_not_taken_for_written_as_the_next_is(between, until):
    with Client(between.address) as client:
        producer = client._producer
        is_told_in_order(between, "user", until, lambda value: producer.send("user", value), producer.flush)


def test_an_end_of_the_log_that_nobody_told_is_asked_for_again(between):
    bus = KafkaBus(between.address)
    bus.create_topics([TopicSpec("asked", 1, {})])
    assert bus.offsets(("asked", 0)) == (0, 0)
    between.breaks = True
    assert bus.offsets(("asked", 0)) == (0, 0)
    assert not between.breaks
    bus.close()


def test_an_end_of_the_log_before_what_was_read_of_it_is_asked_for_again(between):
    bus = KafkaBus(between.address)
    bus.create_topics([TopicSpec("stale", 1, {})])
    producer = bus.producer("test")
    producer.produce("stale", 0, None, b"one", [], 0)
    producer.flush()
    between.stale = 2
    assert bus.offsets(("stale", 0)) == (0, 0)
    between.stale = 2
    assert bus.offsets(("stale", 0), at_least=1) == (0, 1)
    assert between.stale == 0
    producer.close()
    bus.close()
