"""On genuine Kafka: a request that its broker refuses while the next one is on its way. Nothing is lost, in order."""

import socket
import struct
import threading
from contextlib import closing
from select import select

import pytest

from headrace.infra import local_broker
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus

pytestmark = pytest.mark.kafka
PRODUCE, NOT_LEADER = 0, 6
COMPANY_S = 0.5  # how long the refusal of the first request waits for a second one behind it
TOPIC = "fresh"


class Between:
    """Between clients and a broker: answers the first produce request itself, as a broker that is not yet leader."""

    def __init__(self, broker_port):
        self._broker_port, self._refused = broker_port, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.holds, self.had_company = threading.Event(), False
        threading.Thread(target=self._accept, daemon=True).start()

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
                if key == PRODUCE and self._refused.acquire(blocking=False):
                    assert 9 <= version <= 12, f"the answer below is not of version {version}"
                    self.holds.set()
                    self.had_company = bool(select([client], [], [], COMPANY_S)[0])
                    client.sendall(refusal(correlation))
                else:
                    broker.sendall(size + request)

    @staticmethod
    def _answers(broker, client):
        try:
            while some := broker.recv(65_536):
                client.sendall(some)
        except OSError:
            return


def refusal(correlation):
    """A produce response (version 9 on) that says of partition 0 that another broker leads it."""
    name, none, no_tags = TOPIC.encode(), b"\x00", b"\x00"
    partition = struct.pack(">ihqqq", 0, NOT_LEADER, -1, -1, -1) + b"\x01" + none + no_tags
    body = b"\x02" + bytes([len(name) + 1]) + name + b"\x02" + partition + no_tags + struct.pack(">i", 0) + no_tags
    answer = struct.pack(">i", correlation) + no_tags + body
    return struct.pack(">i", len(answer)) + answer


def test_a_first_record_that_is_refused_is_not_taken_for_written_when_the_next_one_is(tmp_path, until):
    broker_port = local_broker.free_port()
    with closing(Between(broker_port)) as between:
        address = f"127.0.0.1:{between.port}"
        settings = {"advertised.listeners": f"PLAINTEXT://{address}"}
        local_broker.start(tmp_path, broker_port, settings=settings)
        try:
            bus = KafkaBus(address)
            bus.create_topics([TopicSpec(TOPIC, 1, {})])
            producer = bus.producer("test")
            producer.produce(TOPIC, 0, None, b"first", [], 0)
            producer.push()
            assert between.holds.wait(20)
            producer.produce(TOPIC, 0, None, b"second", [], 0)
            producer.flush()
            producer.close()
            reader = bus.reader()
            reader.assign({(TOPIC, 0): 0})
            read = []
            end = bus.offsets((TOPIC, 0))[1]
            until(lambda: read.extend(m.value() for m in reader.poll(10, 0.1)) or len(read) == end)
            reader.close()
            assert read == [b"first", b"second"]
        finally:
            local_broker.stop_local_broker(tmp_path)
